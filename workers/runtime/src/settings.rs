//! The `[pools]` section: what bounds every pool, and what bounds each.

use super::adaptive::{CONCURRENCY_MAX, Choice, Range};
use ackline_engine::backoff::Backoff;
use ackline_engine::state::Policy;
use ackline_shared::config::Reader;
use ackline_shared::subjects::Pool;
use std::collections::BTreeMap;
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
    pub concurrency: usize,
    /// Between which bounds they are found by trying, when they are.
    pub adaptive: Option<Range>,
    /// Attempts before a dead letter.
    pub attempts_max: u32,
    pub backoff: Backoff,
    /// Longest time of one attempt.
    pub attempt_timeout: Duration,
    /// Percent of a window, or of the pool's bytes, that one tenant may hold before it moves out of the way.
    pub spill_share: usize,
    /// Waits from this length on are spent outside the process.
    pub park_after: Duration,
    /// Longest time from the first failure to a dead letter.
    pub give_up_after: Duration,
    /// When a target's circuit breaker opens, and for how long.
    pub breaker: Policy,
}

impl PoolSettings {
    /// Reads the shared keys and those of a pool that runs jobs one by one.
    pub fn read(reader: &mut Reader, pool: Pool) -> Self {
        let key = |leaf: &str| format!("pools.{pool}.{leaf}");
        let give_up_after = reader.duration(&key("give_up_after"));
        let max_age = reader.duration("nats.max_age");
        if give_up_after > longest_wait(max_age) {
            let mistake = "longer than nats.max_age less a day: an update would be gone before it is given up";
            reader.mistake(&key("give_up_after"), mistake);
        }
        let concurrency = concurrency(reader, pool);
        Self {
            concurrency: usize::try_from(concurrency).unwrap_or(1),
            adaptive: adaptive(reader, &key("adaptive"), concurrency),
            attempts_max: u32::try_from(count(reader, &key("attempts_max"), 1000)).unwrap_or(1),
            backoff: Backoff {
                initial: reader.duration(&key("backoff_initial")),
                max: reader.duration(&key("backoff_max")),
            },
            attempt_timeout: reader.duration(&key("attempt_timeout")),
            give_up_after,
            ..Self::shared(reader)
        }
    }

    /// Reads the shared keys alone, for a pool that works in batches.
    pub fn shared(reader: &mut Reader) -> Self {
        Self {
            window: count(reader, "pools.window", 65_536),
            window_bytes_max: usize::try_from(
                reader.bytes("pools.window_bytes_max", 8 << 20..=1 << 36),
            )
            .unwrap_or(usize::MAX),
            tenant_in_flight_max: count(reader, "pools.tenant_in_flight_max", 4096),
            ack_wait: reader.duration("pools.ack_wait"),
            drain_timeout: reader.duration("pools.drain_timeout"),
            concurrency: 1,
            adaptive: None,
            attempts_max: 5,
            backoff: Backoff {
                initial: Duration::from_millis(200),
                max: Duration::from_secs(5),
            },
            attempt_timeout: Duration::from_secs(30),
            give_up_after: Duration::from_secs(3600),
            spill_share: count(reader, "pools.spill_share", 100),
            park_after: reader.duration("pools.park_after"),
            breaker: super::open_breakers::read_policy(reader),
        }
    }
}

/// The jobs at once that are configured for each pool, for whoever checks a change without running the pools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Concurrency(BTreeMap<Pool, u32>);

impl Concurrency {
    pub fn read(reader: &mut Reader) -> Self {
        let pools = Pool::ALL.into_iter().filter(|pool| !pool.is_whole());
        Self(
            pools
                .map(|pool| (pool, concurrency(reader, pool)))
                .collect(),
        )
    }

    /// Those of a pool; 1 of one that works in batches.
    pub fn of(&self, pool: Pool) -> u32 {
        self.0.get(&pool).copied().unwrap_or(1)
    }
}

/// How long an update may wait in streams that keep it for so long: a day less, or three quarters of less than four.
fn longest_wait(max_age: Duration) -> Duration {
    max_age
        .saturating_sub(Duration::from_secs(24 * 3600))
        .max(max_age.mul_f64(0.75))
}

fn concurrency(reader: &mut Reader, pool: Pool) -> u32 {
    let count = reader.count(
        &format!("pools.{pool}.concurrency"),
        1..=u64::from(CONCURRENCY_MAX),
    );
    u32::try_from(count).unwrap_or(1)
}

fn adaptive(reader: &mut Reader, key: &str, concurrency: u32) -> Option<Range> {
    let text = reader.text(key);
    match text.parse::<Choice>() {
        Ok(choice) => {
            if let Some(mistake) = choice.beyond(concurrency) {
                reader.mistake(key, mistake);
            }
            choice.range()
        }
        Err(error) => {
            reader.mistake(key, error);
            None
        }
    }
}

fn count(reader: &mut Reader, key: &str, max: u64) -> usize {
    usize::try_from(reader.count(key, 1..=max)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_waits_longer_than_the_streams_keep_it() {
        let week = Duration::from_secs(7 * 24 * 3600);
        assert_eq!(longest_wait(week), Duration::from_secs(6 * 24 * 3600));
        assert_eq!(
            longest_wait(Duration::from_secs(4 * 3600)),
            Duration::from_secs(3 * 3600)
        );
        let variable = (
            "ACKLINE_POOLS_RELAY_GIVE_UP_AFTER".to_owned(),
            "7d".to_owned(),
        );
        let mut reader = Reader::load(None, [variable]);
        PoolSettings::read(&mut reader, Pool::Relay);
        let report = reader.finish().unwrap_err().to_string();
        assert!(
            report.contains("pools.relay.give_up_after: longer than nats.max_age less a day"),
            "{report}"
        );
    }

    fn mistakes(adaptive: &str) -> String {
        let variable =
            |name: &str, value: &str| (format!("ACKLINE_POOLS_CRM_{name}"), value.to_owned());
        let mut reader = Reader::load(
            None,
            [
                variable("ADAPTIVE", adaptive),
                variable("CONCURRENCY", "16"),
            ],
        );
        PoolSettings::read(&mut reader, Pool::Crm);
        reader
            .finish()
            .map_or_else(|report| report.to_string(), |()| String::new())
    }

    #[test]
    fn adaptive_concurrency_is_off_unless_it_is_configured_and_stays_below_the_concurrency() {
        let mut reader = Reader::load(None, []);
        for pool in Pool::ALL.into_iter().filter(|pool| !pool.is_whole()) {
            assert_eq!(
                PoolSettings::read(&mut reader, pool).adaptive,
                None,
                "{pool}"
            );
        }
        reader.finish().unwrap();
        assert_eq!(
            (mistakes("2..16"), mistakes("off")),
            (String::new(), String::new())
        );
        for (text, part) in [
            (
                "2..17",
                "pools.crm.adaptive: 17 is more than the pool's concurrency of 16",
            ),
            ("some", "pools.crm.adaptive: `some` is not understood"),
        ] {
            assert!(mistakes(text).contains(part), "{}", mistakes(text));
        }
    }
}
