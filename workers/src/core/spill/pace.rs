//! When the next batch of a pool is stored: one at a time, and unless it is full not at once after the last.
//!
//! Each batch makes the server write several files, whatever its size, and everybody's updates wait behind that.

use std::time::Duration;
use tokio::time::Instant;

/// Shortest time from one batch to the next that is not full.
const GATHERED_FOR: Duration = Duration::from_millis(50);

/// What may happen with what waits to be stored.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// It is stored now.
    Store,
    /// It is looked at again after this time.
    Gather(Duration),
    /// Something goes on already, after which it is looked at again.
    Wait,
}

/// The pace of a pool's batches.
#[derive(Debug)]
pub struct Pace {
    storing: bool,
    gathering: bool,
    next: Instant,
}

impl Pace {
    /// Begins with nothing stored.
    pub fn new(now: Instant) -> Self {
        Self { storing: false, gathering: false, next: now }
    }

    /// What to do with what waits; the caller does it.
    pub fn next(&mut self, is_full: bool, now: Instant) -> Next {
        let rest = self.next.saturating_duration_since(now);
        if self.storing {
            return Next::Wait;
        }
        if rest.is_zero() || is_full {
            self.storing = true;
            return Next::Store;
        }
        if std::mem::replace(&mut self.gathering, true) { Next::Wait } else { Next::Gather(rest) }
    }

    /// A batch is stored.
    pub fn stored(&mut self, now: Instant) {
        self.storing = false;
        self.next = now + GATHERED_FOR;
    }

    /// The time to gather is over.
    pub fn gathered(&mut self) {
        self.gathering = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_follow_each_other_at_once_only_when_full() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.next(false, start), Next::Store);
        assert_eq!(pace.next(true, start), Next::Wait, "one at a time");
        pace.stored(start);
        assert_eq!(pace.next(false, start), Next::Gather(GATHERED_FOR));
        assert_eq!(pace.next(false, start), Next::Wait, "it is gathered once");
        assert_eq!(pace.next(true, start), Next::Store, "a full batch does not wait");
        pace.stored(start);
        pace.gathered();
        assert_eq!(pace.next(false, start + GATHERED_FOR), Next::Store);
    }
}
