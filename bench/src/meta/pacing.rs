//! Meta's sending limits: messages a second per number (130429) and the pair rate to one person (131056).
//!
//! Both are token buckets kept as the time the bucket would be full again; time is passed in. Only sends
//! count, although Meta counts incoming messages against the same throughput.

use lru::LruCache;
use std::num::NonZeroUsize;
use std::time::Duration;

const NUMBERS_KEPT: usize = 10_000;
const PAIRS_KEPT: usize = 200_000;

/// The limits, in Meta's own time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Messages a second per sending number, also its burst; 0 switches the limit off.
    pub mps: u32,
    /// Messages to one person at once, borrowed from the future; 0 switches the limit off.
    pub pair_burst: u32,
    /// The steady pace to one person: one message per interval.
    pub pair_interval: Duration,
    /// Every duration is multiplied by this (1.0 is Meta's own pace, 0.01 a hundred times faster).
    pub scale: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            mps: 80,
            pair_burst: 45,
            pair_interval: Duration::from_secs(6),
            scale: 1.0,
        }
    }
}

/// Which limit a send ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exceeded {
    /// Too many messages a second from this number.
    Throughput,
    /// Too many messages to this person.
    Pair,
}

/// Keeps the allowance of every number and pair.
#[derive(Debug)]
pub struct Pacing {
    limits: Limits,
    numbers: LruCache<String, Duration>,
    pairs: LruCache<(String, String), Duration>,
}

impl Pacing {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            numbers: cache(NUMBERS_KEPT),
            pairs: cache(PAIRS_KEPT),
        }
    }

    /// Takes one send from both allowances, or from neither.
    pub fn admit(&mut self, number: &str, person: &str, now: Duration) -> Result<(), Exceeded> {
        let Limits {
            mps,
            pair_burst,
            pair_interval,
            scale,
        } = self.limits;
        let pair = (number.to_owned(), person.to_owned());
        let pair_full_at = self.pairs.get(&pair).copied().unwrap_or_default();
        let number_full_at = self.numbers.get(number).copied().unwrap_or_default();
        let pair_next = take(pair_full_at, now, pair_interval.mul_f64(scale), pair_burst)
            .ok_or(Exceeded::Pair)?;
        let second = Duration::from_secs(1).mul_f64(scale) / mps.max(1);
        let number_next = take(number_full_at, now, second, mps).ok_or(Exceeded::Throughput)?;
        self.pairs.put(pair, pair_next);
        self.numbers.put(number.to_owned(), number_next);
        Ok(())
    }
}

/// Takes one token from a bucket of `burst` that refills one per `interval`; `burst` 0 means no limit.
fn take(full_at: Duration, now: Duration, interval: Duration, burst: u32) -> Option<Duration> {
    if burst == 0 {
        return Some(now);
    }
    let full_at = full_at.max(now);
    (full_at - now <= interval * (burst - 1)).then(|| full_at + interval)
}

fn cache<K: std::hash::Hash + Eq, V>(kept: usize) -> LruCache<K, V> {
    LruCache::new(NonZeroUsize::new(kept).unwrap_or(NonZeroUsize::MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn admitted(
        pacing: &mut Pacing,
        count: usize,
        person: impl Fn(usize) -> String,
        now: Duration,
    ) -> usize {
        (0..count)
            .filter(|n| pacing.admit("1", &person(*n), now).is_ok())
            .count()
    }

    #[test]
    fn one_person_gets_a_burst_of_45_and_then_one_in_six_seconds() {
        let mut pacing = Pacing::new(Limits::default());
        assert_eq!(admitted(&mut pacing, 60, |_| "ada".into(), NOW), 45);
        assert_eq!(
            pacing.admit("1", "ada", NOW + Duration::from_secs(5)),
            Err(Exceeded::Pair)
        );
        assert_eq!(
            pacing.admit("1", "bob", NOW + Duration::from_secs(5)),
            Ok(()),
            "others are unaffected"
        );
        assert_eq!(
            admitted(
                &mut pacing,
                9,
                |_| "ada".into(),
                NOW + Duration::from_secs(13)
            ),
            2
        );
    }

    #[test]
    fn a_number_sends_eighty_a_second() {
        let mut pacing = Pacing::new(Limits::default());
        assert_eq!(admitted(&mut pacing, 200, |n| n.to_string(), NOW), 80);
        assert_eq!(pacing.admit("1", "late", NOW), Err(Exceeded::Throughput));
        assert_eq!(pacing.admit("2", "late", NOW), Ok(()));
        assert_eq!(
            admitted(
                &mut pacing,
                200,
                |n| n.to_string(),
                NOW + Duration::from_millis(501)
            ),
            40
        );
    }

    #[test]
    fn a_compressed_clock_refills_faster() {
        let mut pacing = Pacing::new(Limits {
            scale: 0.01,
            ..Limits::default()
        });
        assert_eq!(admitted(&mut pacing, 60, |_| "ada".into(), NOW), 45);
        assert_eq!(
            pacing.admit("1", "ada", NOW + Duration::from_millis(60)),
            Ok(())
        );
    }

    #[test]
    fn zero_switches_a_limit_off() {
        let mut pacing = Pacing::new(Limits {
            mps: 0,
            pair_burst: 0,
            ..Limits::default()
        });
        assert_eq!(admitted(&mut pacing, 500, |_| "ada".into(), NOW), 500);
    }
}
