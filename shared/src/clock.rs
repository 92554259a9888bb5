//! The time of day.

use std::time::{SystemTime, UNIX_EPOCH};

/// The time now in unix milliseconds.
pub fn now_ms() -> u64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
