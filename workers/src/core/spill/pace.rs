//! What waits to be stored in lines, and when: one batch at a time, and unless it is full not at once after the last.
//!
//! Each batch makes the server write several files, whatever its size, and everybody's updates wait behind that.

use super::event::Item;
use ackline_shared::subjects::SpillLine;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Updates in one batch.
const BATCH_MAX: usize = 128;
/// Bytes in one batch, unless one update is larger.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Shortest time from one batch to the next that is not full.
const GATHERED_FOR: Duration = Duration::from_millis(50);

/// What waits to be stored, in order.
#[derive(Debug)]
pub struct Unwritten {
    items: VecDeque<(Arc<SpillLine>, Item)>,
    storing: bool,
    /// Not before this is a batch stored that is not full.
    due: Instant,
}

impl Unwritten {
    /// Begins with nothing.
    pub fn new(now: Instant) -> Self {
        Self { items: VecDeque::new(), storing: false, due: now }
    }

    /// Puts an item behind the others.
    pub fn push(&mut self, line: Arc<SpillLine>, item: Item) {
        self.items.push_back((line, item));
    }

    /// Drops what need not be stored any more.
    pub fn retain(&mut self, keep: impl FnMut(&(Arc<SpillLine>, Item)) -> bool) {
        self.items.retain(keep);
    }

    /// When what waits may be stored; none while there is nothing, or a batch is on its way.
    pub fn due(&self) -> Option<Instant> {
        (!self.storing && !self.items.is_empty()).then_some(self.due)
    }

    /// The next batch, when it may be stored; it is on its way then.
    pub fn next(&mut self, now: Instant) -> Option<Vec<(Arc<SpillLine>, Item)>> {
        let due = self.due()?;
        if due > now && self.items.len() < BATCH_MAX {
            return None;
        }
        self.storing = true;
        Some(self.batch())
    }

    /// A batch is stored.
    pub fn stored(&mut self, now: Instant) {
        self.storing = false;
        self.due = now + GATHERED_FOR;
    }

    fn batch(&mut self) -> Vec<(Arc<SpillLine>, Item)> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some((_, item)) = self.items.front()
            && batch.len() < BATCH_MAX
            && (bytes == 0 || bytes + item.bytes() <= BATCH_BYTES_MAX)
        {
            bytes += item.bytes();
            batch.extend(self.items.pop_front());
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::ids::TenantId;
    use ackline_shared::subjects::{Partition, UPDATES};

    fn push(unwritten: &mut Unwritten, count: usize) {
        let tenant = TenantId::new("acme").unwrap();
        let line = Arc::new(SpillLine {
            partition: Partition(1),
            lane: "msg".to_owned(),
            tenant,
            conversation: None,
        });
        for sequence in 0..count as u64 {
            unwritten.push(line.clone(), Item::Twin { stream: UPDATES, sequence, session: 1 });
        }
    }

    fn next(unwritten: &mut Unwritten, now: Instant) -> Option<usize> {
        unwritten.next(now).map(|batch| batch.len())
    }

    #[test]
    fn batches_follow_each_other_at_once_only_when_full() {
        let start = Instant::now();
        let mut unwritten = Unwritten::new(start);
        assert_eq!((unwritten.due(), next(&mut unwritten, start)), (None, None), "there is nothing");
        push(&mut unwritten, 2);
        assert_eq!(next(&mut unwritten, start), Some(2));
        push(&mut unwritten, 2 * BATCH_MAX + 1);
        assert_eq!((unwritten.due(), next(&mut unwritten, start)), (None, None), "one at a time");
        for _ in 0..2 {
            unwritten.stored(start);
            assert_eq!(next(&mut unwritten, start), Some(BATCH_MAX), "a full batch does not wait");
        }
        unwritten.stored(start);
        assert_eq!(next(&mut unwritten, start), None);
        let due = unwritten.due().unwrap();
        assert_eq!((due, next(&mut unwritten, due)), (start + GATHERED_FOR, Some(1)));
    }
}
