//! How long a batch waits to fill: shortly while little comes, longer while much does.
//!
//! What a batch costs beside its updates is the same for one and for a thousand, so waiting is what makes an update cheap.
//! Nobody waits for it to be worked on while nothing else comes.

use std::time::Duration;

/// Longest wait, unless a longer one is configured.
const LINGER_MAX: Duration = Duration::from_millis(500);
/// From so many updates a second on, the next batch waits twice as long.
const MANY: u128 = 300;
/// Below so many, half as long.
const FEW: u128 = 150;

/// The waits of one reader.
#[derive(Debug, Clone)]
pub struct Linger {
    least: Duration,
    most: Duration,
    now: Duration,
    /// Whether more lies ready than a batch takes.
    is_behind: bool,
}

impl Linger {
    pub fn new(least: Duration) -> Self {
        Self {
            least,
            most: least.max(LINGER_MAX),
            now: least,
            is_behind: false,
        }
    }

    /// How long the next batch waits after its first update came.
    pub fn next(&self) -> Duration {
        if self.is_behind {
            Duration::ZERO
        } else {
            self.now
        }
    }

    /// Hears how many updates a batch had, of so many that it may have.
    pub fn had(&mut self, updates: usize, max: usize) {
        self.is_behind = updates >= max;
        // The first one came before the wait.
        let came = u128::try_from(updates.saturating_sub(1)).unwrap_or(u128::MAX);
        let rate = came.saturating_mul(1000) / self.now.as_millis().max(1);
        if rate >= MANY {
            self.now = (self.now * 2).min(self.most);
        } else if rate < FEW {
            self.now = (self.now / 2).max(self.least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_millis(20);

    /// The wait after batches of updates that come at a steady rate a second.
    fn settled(rate: u32) -> Duration {
        let mut linger = Linger::new(LEAST);
        for _ in 0..30 {
            let updates = 1 + (linger.next() * rate).as_secs();
            linger.had(usize::try_from(updates).unwrap(), 1000);
        }
        linger.next()
    }

    #[test]
    fn little_is_written_soon_and_much_together() {
        for rate in [0, 1, 10, 100] {
            assert_eq!(settled(rate), LEAST, "{rate} a second");
        }
        for rate in [400, 1_000, 1_900] {
            assert_eq!(settled(rate), LINGER_MAX, "{rate} a second");
        }
    }

    #[test]
    fn a_wait_that_grew_shrinks_when_little_comes() {
        let mut linger = Linger::new(LEAST);
        (0..10).for_each(|_| linger.had(500, 1000));
        assert_eq!(linger.next(), LINGER_MAX);
        linger.had(100, 1000);
        assert_eq!(linger.next(), LINGER_MAX);
        (0..10).for_each(|_| linger.had(1, 1000));
        assert_eq!(linger.next(), LEAST);
    }

    #[test]
    fn nothing_waits_while_more_lies_ready_than_a_batch_takes() {
        let mut linger = Linger::new(LEAST);
        linger.had(1000, 1000);
        assert_eq!(linger.next(), Duration::ZERO);
        linger.had(999, 1000);
        assert!(linger.next() > LEAST);
    }

    #[test]
    fn a_reader_that_is_told_not_to_wait_never_does() {
        let mut linger = Linger::new(Duration::ZERO);
        linger.had(50, 1000);
        assert_eq!(linger.next(), Duration::ZERO);
        let long = Duration::from_secs(2);
        let mut linger = Linger::new(long);
        linger.had(50, 1000);
        assert_eq!(linger.next(), long);
    }
}
