//! What one process at a time does for all of them, whichever holds the lock.

use super::floors::FloorKeeper;
use super::stream_share::StreamShares;
use ackline_ownership::lock::Lock;
use ackline_shared::shutdown::Shutdown;

/// The lock's key, by the work that there was first.
pub const LOCK: &str = "stream-share";

/// What is done.
#[derive(Debug)]
pub struct SharedWork {
    pub shares: StreamShares,
    pub floors: FloorKeeper,
}

impl SharedWork {
    /// Runs until the signal.
    pub async fn run(self, lock: Lock, shutdown: Shutdown) {
        let Self { shares, floors } = &self;
        let all = move || async move {
            tokio::join!(shares.count_for_good(), floors.note_for_good());
        };
        lock.work_for_good(all, shutdown).await;
    }
}
