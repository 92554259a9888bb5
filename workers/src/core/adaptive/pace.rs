//! How long attempts usually take, and how long they take at their quickest.
//!
//! The quickest is the least that the smoothed time came to, not the time of one lucky attempt, over the last one to
//! two periods: what became slower for good is usual after a while.

/// Attempts over which the usual time is taken.
const SMOOTHED: f64 = 32.0;
/// Attempts before a usual time is known.
const KNOWN_AFTER: f64 = 16.0;
/// Below this much, clocks and schedulers are most of the difference.
const SECONDS_MIN: f64 = 0.005;

/// The usual time of some attempts.
#[derive(Debug)]
pub struct Pace {
    attempts: f64,
    usual: f64,
    /// The least of this period, and of the one before.
    least: f64,
    before: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { attempts: 0.0, usual: 0.0, least: f64::INFINITY, before: f64::INFINITY }
    }
}

impl Pace {
    /// Takes in the seconds of an attempt.
    pub fn learn(&mut self, seconds: f64) {
        self.attempts = (self.attempts + 1.0).min(SMOOTHED);
        self.usual += (seconds - self.usual) / self.attempts;
        if self.attempts >= KNOWN_AFTER {
            self.least = self.least.min(self.usual);
        }
    }

    /// Seconds at their quickest, once known.
    pub fn quickest(&self) -> Option<f64> {
        let least = self.least.min(self.before);
        least.is_finite().then_some(least.max(SECONDS_MIN))
    }

    /// Ends a period, and measures anew.
    pub fn turn(&mut self) {
        self.attempts = 0.0;
        self.before = std::mem::replace(&mut self.least, f64::INFINITY);
    }
}
