//! What waits to be stored in spill queues, and when: one batch at a time, and unless it is full not at once after the last.
//!
//! Each batch makes the server write several files, whatever its size, and everybody's updates wait behind that.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

const BATCH_MAX: usize = 128;
/// Bytes in one batch, unless one update is larger.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Shortest time from one batch to the next that is not full.
const GATHERED_FOR: Duration = Duration::from_millis(50);

/// What waits to be stored, in order.
#[derive(Debug)]
pub struct Unwritten<T> {
    items: VecDeque<(T, usize)>,
    storing: bool,
    /// Not before this is a batch stored that is not full.
    due: Instant,
}

impl<T> Unwritten<T> {
    pub fn new(now: Instant) -> Self {
        Self {
            items: VecDeque::new(),
            storing: false,
            due: now,
        }
    }

    /// Puts an item behind the others.
    pub fn push(&mut self, item: T, bytes: usize) {
        self.items.push_back((item, bytes));
    }

    /// Drops what need not be stored any more.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.items.retain(|(item, _)| keep(item));
    }

    /// When what waits may be stored; none while there is nothing, or a batch is on its way.
    pub fn due(&self) -> Option<Instant> {
        (!self.storing && !self.items.is_empty()).then_some(self.due)
    }

    /// The next batch, when it may be stored; it is on its way then.
    pub fn next(&mut self, now: Instant) -> Option<Vec<T>> {
        let due = self.due()?;
        if due > now && self.items.len() < BATCH_MAX {
            return None;
        }
        self.storing = true;
        Some(self.batch())
    }

    pub fn stored(&mut self, now: Instant) {
        self.storing = false;
        self.due = now + GATHERED_FOR;
    }

    fn batch(&mut self) -> Vec<T> {
        let mut batch = Vec::new();
        let mut total = 0;
        while let Some((_, bytes)) = self.items.front()
            && batch.len() < BATCH_MAX
            && (total == 0 || total + bytes <= BATCH_BYTES_MAX)
        {
            total += bytes;
            batch.extend(self.items.pop_front().map(|(item, _)| item));
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(unwritten: &mut Unwritten<usize>, count: usize) {
        (0..count).for_each(|item| unwritten.push(item, 1));
    }

    fn next(unwritten: &mut Unwritten<usize>, now: Instant) -> Option<usize> {
        unwritten.next(now).map(|batch| batch.len())
    }

    #[test]
    fn batches_follow_each_other_at_once_only_when_full() {
        let start = Instant::now();
        let mut unwritten = Unwritten::new(start);
        assert_eq!(
            (unwritten.due(), next(&mut unwritten, start)),
            (None, None),
            "there is nothing"
        );
        push(&mut unwritten, 2);
        assert_eq!(next(&mut unwritten, start), Some(2));
        push(&mut unwritten, 2 * BATCH_MAX + 1);
        assert_eq!(
            (unwritten.due(), next(&mut unwritten, start)),
            (None, None),
            "one at a time"
        );
        for _ in 0..2 {
            unwritten.stored(start);
            assert_eq!(
                next(&mut unwritten, start),
                Some(BATCH_MAX),
                "a full batch does not wait"
            );
        }
        unwritten.stored(start);
        assert_eq!(next(&mut unwritten, start), None);
        let due = unwritten.due().unwrap();
        assert_eq!(
            (due, next(&mut unwritten, due)),
            (start + GATHERED_FOR, Some(1))
        );
    }
}
