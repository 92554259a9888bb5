//! How many requests a key may make: a token bucket a key, decided with the time passed in.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
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
    per_second: u32,
    burst: u32,
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Limiter {
    /// Makes the buckets.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second: per_second.max(1),
            burst: burst.max(1),
            buckets: Mutex::default(),
        }
    }

    /// Gives one request back that turned out to be another's.
    pub fn give_back(&self, key: &str) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(key) {
            bucket.tokens = (bucket.tokens + 1.0).min(f64::from(self.burst));
        }
    }

    /// Takes one request of a key.
    pub fn take(&self, key: &str, now: Instant) -> Grant {
        let (rate, burst) = (f64::from(self.per_second), f64::from(self.burst));
        let level = |bucket: &Bucket| {
            let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
            (bucket.tokens + passed * rate).min(burst)
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX {
            buckets.retain(|_, bucket| level(bucket) < burst);
        }
        let bucket = buckets.entry(key.to_owned()).or_insert(Bucket {
            tokens: burst,
            at: now,
        });
        let before = level(bucket);
        let after = if before >= 1.0 { before - 1.0 } else { before };
        *bucket = Bucket {
            tokens: after,
            at: bucket.at.max(now),
        };
        let time = |tokens: f64| Duration::from_secs_f64((tokens / rate).max(0.0));
        Grant {
            wait: (before < 1.0).then(|| time(1.0 - before)),
            limit: self.burst,
            remaining: whole(after),
            reset: time(burst - after),
        }
    }
}

/// Tokens are between nothing and the burst, so the cut is the wanted floor.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "0 <= tokens <= burst, a u32"
)]
fn whole(tokens: f64) -> u32 {
    tokens as u32
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
        assert_eq!(limiter.take("other", start).remaining, 2);
        limiter.give_back("other");
        limiter.give_back("other");
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
}
