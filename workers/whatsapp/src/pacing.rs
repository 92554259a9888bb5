//! How fast each business number may send: a token bucket per number, and pauses Meta asked for.
//!
//! All sends of a number are in one partition and so in one process, which makes a bucket in memory enough.
//! A bucket is kept as the moment it would be full again.

use ackline_shared::ids::PhoneNumberId;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Meta's default throughput of a number, messages a second.
pub const PER_SECOND_DEFAULT: u32 = 80;
/// Longest wait for a turn inside an attempt; beyond it the attempt is put off.
pub const TURN_WAIT_MAX: Duration = Duration::from_secs(4);

const NUMBERS_KEPT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);

/// The turn is too far away to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong(pub Duration);

/// The buckets of all numbers.
#[derive(Debug)]
pub struct Pacing {
    interval: Duration,
    burst: u32,
    numbers: Mutex<LruCache<PhoneNumberId, Instant>>,
}

impl Pacing {
    /// Lets every number send this much a second, and an eighth of it at once.
    pub fn new(per_second: u32) -> Self {
        let per_second = per_second.max(1);
        Self {
            interval: Duration::from_secs(1) / per_second,
            burst: (per_second / 8).max(1),
            numbers: Mutex::new(LruCache::new(NUMBERS_KEPT)),
        }
    }

    /// Takes the number's next turn and tells how long it is until then.
    pub fn turn(&self, number: &PhoneNumberId, now: Instant) -> Result<Duration, TooLong> {
        let mut numbers = self.lock();
        let full_at = numbers.get(number).copied().unwrap_or(now).max(now);
        let wait = (full_at - now).saturating_sub(self.interval * (self.burst - 1));
        if wait > TURN_WAIT_MAX {
            return Err(TooLong(wait));
        }
        numbers.put(number.clone(), full_at + self.interval);
        Ok(wait)
    }

    /// Lets nothing of the number out for a while.
    pub fn pause(&self, number: &PhoneNumberId, now: Instant, pause: Duration) {
        let mut numbers = self.lock();
        let full_at = numbers.get(number).copied().unwrap_or(now);
        numbers.put(
            number.clone(),
            full_at.max(now + pause + self.interval * (self.burst - 1)),
        );
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<PhoneNumberId, Instant>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(id: &str) -> PhoneNumberId {
        PhoneNumberId::new(id).unwrap()
    }

    #[test]
    fn a_number_gets_its_burst_at_once_and_then_one_turn_per_interval() {
        let (pacing, now) = (Pacing::new(80), Instant::now());
        let waits: Vec<_> = (0..12)
            .map(|_| pacing.turn(&number("1"), now).unwrap().as_micros())
            .collect();
        assert_eq!(waits[..10], [0; 10]);
        assert_eq!(waits[10..], [12_500, 25_000]);
        assert_eq!(
            pacing.turn(&number("2"), now),
            Ok(Duration::ZERO),
            "another number has its own"
        );
    }

    #[test]
    fn no_second_sees_more_than_the_rate_and_the_burst() {
        let (pacing, now) = (Pacing::new(80), Instant::now());
        let taken = (0..1000).filter_map(|_| pacing.turn(&number("1"), now).ok());
        let within = taken.filter(|wait| *wait < Duration::from_secs(1)).count();
        assert_eq!(within, 80 + 10 - 1);
    }

    #[test]
    fn a_turn_too_far_away_is_not_taken() {
        let (pacing, now) = (Pacing::new(8), Instant::now());
        pacing.pause(&number("1"), now, Duration::from_secs(10));
        assert_eq!(
            pacing.turn(&number("1"), now),
            Err(TooLong(Duration::from_secs(10)))
        );
        assert_eq!(
            pacing.turn(&number("1"), now + Duration::from_secs(10)),
            Ok(Duration::ZERO)
        );
    }
}
