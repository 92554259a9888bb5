//! Puts what several sources tell into the order of its time, in unix nanoseconds: each item is held back for a moment, and while a source
//! has more that is stored already, for what it brings.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// How long an item waits for older ones from elsewhere.
const HOLD: Duration = Duration::from_millis(300);
/// Longest wait for a source that has more.
const CATCH_UP_MAX: Duration = Duration::from_secs(5);
/// Items held back at most; beyond that the oldest goes at once.
const HELD_MAX: usize = 4096;

/// Items on their way, ordered by time.
#[derive(Debug)]
pub(super) struct Merge<T> {
    held: BTreeMap<(u64, u64), (Instant, T)>,
    count: u64,
    /// How far each source is that has more.
    behind: HashMap<usize, u64>,
}

impl<T> Merge<T> {
    pub(super) fn new() -> Self {
        Self {
            held: BTreeMap::new(),
            count: 0,
            behind: HashMap::new(),
        }
    }

    /// Holds an item of this time.
    pub(super) fn put(&mut self, at_ns: u64, item: T, now: Instant) {
        self.count += 1;
        self.held.insert((at_ns, self.count), (now, item));
    }

    /// A source has told everything up to a time, and has more behind it or not.
    pub(super) fn reached(&mut self, source: usize, at_ns: u64, has_more: bool) {
        if has_more {
            self.behind.insert(source, at_ns);
        } else {
            self.behind.remove(&source);
        }
    }

    /// The next item in order, once it is due.
    pub(super) fn next(&mut self, now: Instant) -> Option<T> {
        if self.held.len() <= HELD_MAX && self.due().is_none_or(|due| due > now) {
            return None;
        }
        self.held.pop_first().map(|(_, (_, item))| item)
    }

    /// When the next item is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let ((at_ns, _), (came, _)) = self.held.first_key_value()?;
        let waits = self.behind.values().any(|reached| reached < at_ns);
        Some(*came + if waits { CATCH_UP_MAX } else { HOLD })
    }

    /// Everything that is held, in order.
    pub(super) fn rest(self) -> impl Iterator<Item = T> {
        self.held.into_values().map(|(_, item)| item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(merge: &mut Merge<&'static str>, now: Instant) -> Vec<&'static str> {
        std::iter::from_fn(|| merge.next(now)).collect()
    }

    #[test]
    fn what_comes_a_moment_late_goes_before_what_is_younger() {
        let (mut merge, now) = (Merge::new(), Instant::now());
        merge.put(20, "told", now);
        merge.put(10, "earlier", now + HOLD / 2);
        merge.put(15, "stored", now + HOLD / 2);
        assert!(
            drain(&mut merge, now + HOLD).is_empty(),
            "the first of them came last"
        );
        assert_eq!(
            drain(&mut merge, now + HOLD * 2),
            ["earlier", "stored", "told"]
        );
        assert_eq!(merge.due(), None);
    }

    #[test]
    fn what_is_stored_already_is_waited_for_but_not_for_ever() {
        let (mut merge, now) = (Merge::new(), Instant::now());
        merge.put(50, "young", now);
        merge.put(10, "old", now);
        merge.reached(1, 10, true);
        assert_eq!(
            drain(&mut merge, now + HOLD),
            ["old"],
            "the other source may bring what is older than 50"
        );
        merge.put(30, "older", now + HOLD);
        merge.reached(1, 30, false);
        assert_eq!(drain(&mut merge, now + HOLD * 2), ["older", "young"]);
        merge.put(90, "last", now);
        merge.reached(1, 80, true);
        assert!(drain(&mut merge, now + HOLD).is_empty());
        assert_eq!(drain(&mut merge, now + CATCH_UP_MAX), ["last"]);
    }

    #[test]
    fn no_more_than_so_many_are_held() {
        let (mut merge, now) = (Merge::new(), Instant::now());
        for n in 0..10_000_u64 {
            merge.put(10_000 - n, n, now);
            while merge.next(now).is_some() {}
        }
        let rest: Vec<u64> = merge.rest().collect();
        assert_eq!((rest.len(), rest[0]), (HELD_MAX, 4_095));
    }
}
