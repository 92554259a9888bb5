//! How long to wait before the next attempt: exponential, capped, with full jitter.

use std::time::Duration;

/// How many of a pool's longest waits another side may ask for.
const HINT_FACTOR: u32 = 10;
/// Least room to spread waits over.
const SPREAD_MIN: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Upper bound of the first wait.
    pub initial: Duration,
    /// Upper bound of every wait.
    pub max: Duration,
}

impl Backoff {
    /// The wait after failed attempt number `attempt` (from 1); `random` is uniform in 0..1.
    ///
    /// `at_least` is what the other side asked for; it is honoured up to ten times the pool's own longest wait.
    pub fn wait(&self, attempt: u32, at_least: Option<Duration>, random: f64) -> Duration {
        let doubled = self.initial.saturating_mul(
            1_u32
                .checked_shl(attempt.saturating_sub(1))
                .unwrap_or(u32::MAX),
        );
        let jittered = doubled.min(self.max).mul_f64(random.clamp(0.0, 1.0));
        match at_least {
            Some(hint) => hint.min(self.max.saturating_mul(HINT_FACTOR)) + jittered / 4,
            None => jittered,
        }
    }

    /// The longest wait there can be, whatever the other side asks for.
    pub fn longest(&self) -> Duration {
        self.max.saturating_mul(HINT_FACTOR + 1)
    }

    /// A wait of at least `least`, spread so that all who wait for the same do not come at once.
    pub fn spread(&self, least: Duration, random: f64) -> Duration {
        let room = (least / 4)
            .max(self.initial.min(SPREAD_MIN))
            .mul_f64(random.clamp(0.0, 1.0));
        least.min(self.longest()) + room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Backoff = Backoff {
        initial: Duration::from_secs(1),
        max: Duration::from_secs(60),
    };

    #[test]
    fn the_bound_doubles_until_the_cap() {
        let bounds: Vec<_> = (1..=8)
            .map(|attempt| PACE.wait(attempt, None, 1.0).as_secs())
            .collect();
        assert_eq!(bounds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(PACE.wait(u32::MAX, None, 1.0), PACE.max);
        assert_eq!(PACE.wait(3, None, 0.0), Duration::ZERO);
    }

    #[test]
    fn a_held_update_waits_at_least_as_long_as_told_and_little_longer() {
        let least = Duration::from_secs(20);
        assert_eq!(PACE.spread(least, 0.0), least);
        assert_eq!(PACE.spread(least, 1.0), Duration::from_secs(25));
        assert!(PACE.spread(Duration::MAX, 0.0) <= PACE.longest());
    }

    #[test]
    fn a_hint_is_a_minimum_within_reason() {
        assert!(PACE.wait(1, Some(Duration::from_secs(30)), 0.0) >= Duration::from_secs(30));
        assert!(PACE.wait(1, Some(Duration::from_secs(86_400)), 1.0) <= Duration::from_secs(601));
    }
}
