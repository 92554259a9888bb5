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

/// What may happen with what waits.
#[derive(Debug)]
pub enum Next {
    /// This much of it is stored now.
    Store(Vec<(Arc<SpillLine>, Item)>),
    /// It is looked at again after this time.
    Gather(Duration),
    /// There is nothing, or something goes on already after which it is looked at again.
    Wait,
}

/// What waits to be stored, in order.
#[derive(Debug)]
pub struct Unwritten {
    items: VecDeque<(Arc<SpillLine>, Item)>,
    storing: bool,
    gathering: bool,
    next: Instant,
}

impl Unwritten {
    /// Begins with nothing.
    pub fn new(now: Instant) -> Self {
        Self { items: VecDeque::new(), storing: false, gathering: false, next: now }
    }

    /// Puts an item behind the others.
    pub fn push(&mut self, line: Arc<SpillLine>, item: Item) {
        self.items.push_back((line, item));
    }

    /// Drops what need not be stored any more.
    pub fn retain(&mut self, keep: impl FnMut(&(Arc<SpillLine>, Item)) -> bool) {
        self.items.retain(keep);
    }

    /// What to do with what waits; the caller does it.
    pub fn next(&mut self, now: Instant) -> Next {
        if self.storing || self.items.is_empty() {
            return Next::Wait;
        }
        let rest = self.next.saturating_duration_since(now);
        if rest.is_zero() || self.items.len() >= BATCH_MAX {
            self.storing = true;
            return Next::Store(self.batch());
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

    fn stored(next: Next) -> usize {
        let Next::Store(batch) = next else { return 0 };
        batch.len()
    }

    #[test]
    fn batches_follow_each_other_at_once_only_when_full() {
        let start = Instant::now();
        let mut unwritten = Unwritten::new(start);
        assert!(matches!(unwritten.next(start), Next::Wait), "there is nothing");
        push(&mut unwritten, 2);
        assert_eq!(stored(unwritten.next(start)), 2);
        push(&mut unwritten, 2 * BATCH_MAX + 1);
        assert!(matches!(unwritten.next(start), Next::Wait), "one at a time");
        unwritten.stored(start);
        assert_eq!(stored(unwritten.next(start)), BATCH_MAX, "a full batch does not wait");
        unwritten.stored(start);
        assert_eq!(stored(unwritten.next(start)), BATCH_MAX);
        unwritten.stored(start);
        assert!(matches!(unwritten.next(start), Next::Gather(GATHERED_FOR)));
        assert!(matches!(unwritten.next(start), Next::Wait), "it is gathered once");
        unwritten.gathered();
        assert_eq!(stored(unwritten.next(start + GATHERED_FOR)), 1);
    }
}
