//! The `[pools]` section: what bounds every pool, and what bounds each.

use super::backoff::Backoff;
use ackline_shared::config::Reader;
use ackline_shared::subjects::Pool;
use std::time::Duration;

/// The bounds of one pool.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// Messages read ahead per partition and lane.
    pub window: usize,
    /// Bytes read ahead in the pool.
    pub window_bytes_max: usize,
    /// Jobs of one tenant at once.
    pub tenant_in_flight_max: usize,
    /// Time after which NATS offers an unacknowledged message again.
    pub ack_wait: Duration,
    /// Time to finish running jobs at the end.
    pub drain_timeout: Duration,
    /// Jobs at once.
    pub concurrency: usize,
    /// Attempts before a dead letter.
    pub attempts_max: u32,
    /// Pace of retries.
    pub backoff: Backoff,
    /// Longest time of one attempt.
    pub attempt_timeout: Duration,
    /// Percent of a window, or of the pool's bytes, that one tenant may hold before it moves out of the way.
    pub spill_share: usize,
    /// Waits from this length on are spent outside the process.
    pub park_after: Duration,
    /// Longest time from the first failure to a dead letter.
    pub give_up_after: Duration,
}

impl PoolSettings {
    /// Reads the shared keys and those of a pool that runs jobs one by one.
    pub fn read(reader: &mut Reader, pool: Pool) -> Self {
        let key = |leaf: &str| format!("pools.{pool}.{leaf}");
        Self {
            concurrency: count(reader, &key("concurrency"), 4096),
            attempts_max: u32::try_from(count(reader, &key("attempts_max"), 1000)).unwrap_or(1),
            backoff: Backoff {
                initial: reader.duration(&key("backoff_initial")),
                max: reader.duration(&key("backoff_max")),
            },
            attempt_timeout: reader.duration(&key("attempt_timeout")),
            give_up_after: reader.duration(&key("give_up_after")),
            ..Self::shared(reader)
        }
    }

    /// Reads the shared keys alone, for a pool that works in batches.
    pub fn shared(reader: &mut Reader) -> Self {
        Self {
            window: count(reader, "pools.window", 65_536),
            window_bytes_max: usize::try_from(reader.bytes("pools.window_bytes_max", 8 << 20..=1 << 36))
                .unwrap_or(usize::MAX),
            tenant_in_flight_max: count(reader, "pools.tenant_in_flight_max", 4096),
            ack_wait: reader.duration("pools.ack_wait"),
            drain_timeout: reader.duration("pools.drain_timeout"),
            concurrency: 1,
            attempts_max: 5,
            backoff: Backoff { initial: Duration::from_millis(200), max: Duration::from_secs(5) },
            attempt_timeout: Duration::from_secs(30),
            give_up_after: Duration::from_secs(3600),
            spill_share: count(reader, "pools.spill_share", 100),
            park_after: reader.duration("pools.park_after"),
        }
    }
}

fn count(reader: &mut Reader, key: &str, max: u64) -> usize {
    usize::try_from(reader.count(key, 1..=max)).unwrap_or(1)
}
