//! How long attempts usually take, and how long they take at their quickest.
//!
//! The quickest is the least that the smoothed time came to, not the time of one lucky attempt, over the last one to
//! two periods: what became slower for good is usual after a while.

/// Attempts over which the usual time is taken.
const SMOOTHED: u32 = 32;
/// Attempts before a usual time is known.
pub const KNOWN_AFTER: usize = 16;
/// Below this much, clocks and schedulers are most of the difference.
const SECONDS_MIN: f64 = 0.005;

/// The usual time of some attempts.
#[derive(Debug)]
pub struct Pace {
    attempts: u32,
    usual: f64,
    /// The least of this period, and of the one before.
    least: f64,
    before: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            attempts: 0,
            usual: 0.0,
            least: f64::INFINITY,
            before: f64::INFINITY,
        }
    }
}

impl Pace {
    /// Takes in the seconds of an attempt.
    pub fn learn(&mut self, seconds: f64) {
        self.attempts = (self.attempts + 1).min(SMOOTHED);
        self.usual += (seconds - self.usual) / f64::from(self.attempts);
        if usize::try_from(self.attempts).is_ok_and(|attempts| attempts >= KNOWN_AFTER) {
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
        self.attempts = 0;
        self.before = std::mem::replace(&mut self.least, f64::INFINITY);
    }
}
