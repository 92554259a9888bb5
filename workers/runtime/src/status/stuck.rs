//! An update that should have been worked on long ago and is not: a mistake of ours, told with its place.

use ackline_shared::ids::TenantId;
use ackline_shared::subjects::Partition;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

pub use ackline_engine::state::{STUCK_AFTER, STUCK_MAX};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stuck {
    pub partition: u16,
    pub lane: String,
    pub tenant: TenantId,
    /// For how long it has been past its due time, in milliseconds.
    pub since_ms: u64,
    /// What it is, in words, without personal data.
    pub what: String,
}

impl Stuck {
    /// A pool that owns partitions and says nothing of itself any more.
    pub fn silent(partition: Partition, silence: Duration) -> Self {
        Self {
            partition: partition.0,
            lane: "all".to_owned(),
            tenant: TenantId::unrouted(),
            since_ms: u64::try_from(silence.as_millis()).unwrap_or(u64::MAX),
            what: "the pool itself does nothing".to_owned(),
        }
    }

    /// For how long it has been past its due time.
    pub fn since(&self) -> Duration {
        Duration::from_millis(self.since_ms)
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            partition,
            lane,
            tenant,
            what,
            ..
        } = self;
        write!(
            f,
            "partition {partition}, lane {lane}, tenant {tenant}: {what}"
        )
    }
}
