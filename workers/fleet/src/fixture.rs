//! Processes and pools that tests put together.

use ackline_runtime::status::{PoolStatus, Snapshot};
use ackline_shared::subjects::Pool;

/// A working pool that owns these of four partitions.
pub fn status(pool: Pool, owned: impl IntoIterator<Item = u16>) -> PoolStatus {
    PoolStatus {
        pool: pool.as_str().to_owned(),
        state: "working".to_owned(),
        partitions: 4,
        owned: owned.into_iter().collect(),
        concurrency: 8,
        ..PoolStatus::default()
    }
}

/// What a process of that name says.
pub fn snapshot(instance: &str, at_ms: u64, pools: Vec<PoolStatus>) -> Snapshot {
    Snapshot {
        instance: instance.to_owned(),
        version: "0.1.0".to_owned(),
        started_ms: 0,
        at_ms,
        pools,
        unowned: Vec::new(),
        dead: None,
    }
}
