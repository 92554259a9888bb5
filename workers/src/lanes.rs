//! The lanes of every pool, for whoever names them without running the pool.

use crate::core::job::{Job, LaneSource};
use crate::crm::CrmSync;
use crate::events::EventsJob;
use crate::flows::pool::FlowsJob;
use crate::relay::RelayJob;
use crate::replies::Replies;
use ackline_shared::subjects::Pool;

/// The names of a pool's lanes; none for the journal, which works in batches.
pub fn names(pool: Pool) -> Vec<&'static str> {
    let lanes: Vec<LaneSource> = match pool {
        Pool::Flows => FlowsJob::lanes(),
        Pool::Replies => Replies::lanes(),
        Pool::Relay => RelayJob::lanes(),
        Pool::Crm => CrmSync::lanes(),
        Pool::Events => EventsJob::lanes(),
        Pool::Journal => Vec::new(),
    };
    lanes.iter().map(|lane| lane.name).collect()
}
