//! How many requests a key may make: governor's buckets, one a key, decided with the time passed in.

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::{HashMapStateStore, ShrinkableKeyedStateStore};
use governor::{Quota, RateLimiter};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Buckets kept before full ones, which say nothing, are dropped.
const BUCKETS_MAX: usize = 10_000;

/// What a key may still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Whether this request may go on; otherwise how long to wait.
    pub wait: Option<Duration>,
    /// Requests at once when the bucket is full.
    pub limit: u32,
    /// Requests that may follow at once.
    pub remaining: u32,
    /// Time until the bucket is full again.
    pub reset: Duration,
}

/// The buckets of all keys.
#[derive(Debug)]
pub struct Limiter {
    quota: Quota,
    begun: Instant,
    clock: SetClock,
    buckets: Buckets,
    limiter: RateLimiter<String, Buckets, SetClock, StateInformationMiddleware>,
}

impl Limiter {
    pub fn new(per_second: u32, burst: u32) -> Self {
        let at_least_one = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(per_second)).allow_burst(at_least_one(burst));
        let (clock, buckets) = (SetClock::default(), Buckets::default());
        Self {
            quota,
            begun: Instant::now(),
            limiter: RateLimiter::new(quota, buckets.clone(), clock.clone()),
            clock,
            buckets,
        }
    }

    /// Gives one request back that turned out to be another's.
    pub fn give_back(&self, key: &str) {
        let one = self.quota.replenish_interval().into();
        let key = key.to_owned();
        // A key without a bucket has all it may have: the error changes nothing.
        let _given: Result<(), ()> = self
            .buckets
            .measure_and_replace(&key, |full| Ok(((), full.ok_or(())?.saturating_sub(one))));
    }

    /// Takes one request of a key.
    pub fn take(&self, key: &str, now: Instant) -> Grant {
        let now = self.clock.tell(now.saturating_duration_since(self.begun));
        if self.limiter.len() >= BUCKETS_MAX {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        let key = key.to_owned();
        let (wait, remaining) = match self.limiter.check_key(&key) {
            Ok(bucket) => (None, bucket.remaining_burst_capacity()),
            Err(refused) => (Some(refused.wait_time_from(now)), 0),
        };
        Grant {
            wait,
            limit: self.quota.burst_size().get(),
            remaining,
            reset: self.buckets.full(&key).saturating_sub(now).into(),
        }
    }
}

/// The time that was told last, since the limiter began; it never goes back.
#[derive(Debug, Clone, Default)]
struct SetClock(Arc<AtomicU64>);

impl SetClock {
    fn tell(&self, now: Duration) -> Nanos {
        let now = u64::from(Nanos::from(now));
        self.0.fetch_max(now, Ordering::Relaxed).max(now).into()
    }
}

impl Clock for SetClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Ordering::Relaxed).into()
    }
}

/// Until when each key's bucket is filled up. The limiter keeps its own to itself, and does not tell this time.
#[derive(Debug, Clone, Default)]
struct Buckets(Arc<HashMapStateStore<String>>);

impl Buckets {
    fn full(&self, key: &String) -> Nanos {
        let read: Result<(), Nanos> =
            self.measure_and_replace(key, |full| Err(full.unwrap_or_default()));
        read.err().unwrap_or_default()
    }
}

impl StateStore for Buckets {
    type Key = String;

    fn measure_and_replace<T, F, E>(&self, key: &String, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(key, f)
    }
}

impl ShrinkableKeyedStateStore<String> for Buckets {
    fn retain_recent(&self, drop_below: Nanos) {
        self.0.retain_recent(drop_below);
    }

    fn shrink_to_fit(&self) {
        self.0.shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_granted_and_then_the_rate_holds() {
        let (limiter, start) = (Limiter::new(2, 3), Instant::now());
        let remaining: Vec<_> = (0..3).map(|_| limiter.take("k", start).remaining).collect();
        assert_eq!(remaining, [2, 1, 0]);
        let refused = limiter.take("k", start);
        assert_eq!(refused.wait, Some(Duration::from_millis(500)));
        assert_eq!(refused.reset, Duration::from_millis(1500));
        assert_eq!(limiter.take("other", start).remaining, 2);
        limiter.give_back("other");
        limiter.give_back("other");
        limiter.give_back("nobody");
        assert_eq!(
            limiter.take("other", start).remaining,
            2,
            "never more than the burst"
        );
        assert_eq!(
            limiter.take("k", start + Duration::from_millis(500)).wait,
            None
        );
        assert_eq!(
            limiter.take("k", start + Duration::from_secs(60)).remaining,
            2
        );
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_grants_nothing() {
        let (limiter, start) = (Limiter::new(1, 1), Instant::now() + Duration::from_secs(9));
        assert_eq!(limiter.take("k", start).wait, None);
        assert!(
            limiter
                .take("k", start - Duration::from_secs(9))
                .wait
                .is_some()
        );
    }

    #[test]
    fn full_buckets_are_dropped_when_there_are_many() {
        let (limiter, start) = (Limiter::new(1, 1), Instant::now());
        for n in 0..BUCKETS_MAX {
            limiter.take(&n.to_string(), start);
        }
        limiter.take("k", start);
        assert_eq!(limiter.buckets.len(), BUCKETS_MAX + 1, "none is full");
        limiter.take("k", start + Duration::from_secs(9));
        assert_eq!(limiter.buckets.len(), 1);
    }
}
