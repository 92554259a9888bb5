//! When Meta posts a webhook again: at once, then ever less often, for seven days.
//!
//! Meta publishes the outline but no intervals; the first gap and the cap here are ours. Every duration is
//! multiplied by the scale, so that seven days can pass in a test.

use std::time::Duration;

const FIRST_GAP: Duration = Duration::from_secs(30);
const GAP_MAX: Duration = Duration::from_secs(24 * 3600);
const WINDOW: Duration = Duration::from_secs(7 * 24 * 3600);

/// The retry schedule on a scaled clock.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    scale: f64,
}

impl Schedule {
    /// Makes a schedule whose every duration is multiplied by `scale` (1.0 is Meta's own pace).
    pub fn new(scale: f64) -> Self {
        Self {
            scale: if scale.is_finite() && scale > 0.0 {
                scale
            } else {
                1.0
            },
        }
    }

    /// How long to wait after so many failures, `age` after the first attempt; `None` gives up.
    pub fn after(&self, failures: u32, age: Duration) -> Option<Duration> {
        let gap = match failures {
            0 | 1 => Duration::ZERO,
            more => FIRST_GAP
                .saturating_mul(2u32.saturating_pow(more - 2))
                .min(GAP_MAX),
        };
        let gap = gap.mul_f64(self.scale);
        (age + gap <= WINDOW.mul_f64(self.scale)).then_some(gap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_retry_is_immediate_and_the_gaps_grow_to_a_cap() {
        let schedule = Schedule::new(1.0);
        let gaps: Vec<u64> = (1..=5)
            .map(|n| schedule.after(n, Duration::ZERO).unwrap().as_secs())
            .collect();
        assert_eq!(gaps, [0, 30, 60, 120, 240]);
        assert_eq!(schedule.after(60, Duration::ZERO), Some(GAP_MAX));
    }

    #[test]
    fn it_gives_up_after_seven_days_of_the_scaled_clock() {
        let schedule = Schedule::new(0.001);
        assert_eq!(
            schedule.after(2, Duration::ZERO),
            Some(Duration::from_millis(30))
        );
        assert!(schedule.after(2, Duration::from_secs(604)).is_some());
        assert_eq!(schedule.after(2, Duration::from_secs(605)), None);
    }
}
