//! One spill queue: what was moved out of the way, in order, and where its reading stands. Pure.
//!
//! Entries are appended at the end, read from the front, and taken out once everything before them is finished,
//! too. A tenant's spill queue is read ahead; a conversation's is read one by one, because its work is serial and its
//! head may have to wait for long.

use super::Target;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::time::Instant;

/// How far one spill queue may be read ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Entries read and not finished.
    pub entries: usize,
    /// Entries that are read together, unless fewer are left.
    pub together: usize,
    /// Finished entries after which they are taken out together.
    pub removals: usize,
}

/// The state of one spill queue.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    /// Entries handed to the writer and not stored yet.
    appending: usize,
    /// Entries stored and not read, as far as is known.
    unread: u64,
    /// Where reading goes on.
    cursor: u64,
    /// Whether a read is on its way, and how many entries were stored since it began.
    loading: bool,
    /// Whether something before it was put back since.
    rewound: bool,
    stored_meanwhile: u64,
    /// Entries put back and not read again.
    back: BTreeSet<u64>,
    /// Entries read and not taken out; true once they are finished.
    entries: BTreeMap<u64, bool>,
    /// Whether a removal is on its way.
    removing: bool,
    /// Not before this is the head read.
    due: Option<Instant>,
    /// When the last entry read was received, in unix milliseconds.
    read_until_ms: u64,
    /// When something of it was last read or told.
    touched: Option<Instant>,
    /// The target that everything in it waits for, as far as is known.
    pub(super) target: Option<Arc<Target>>,
    /// When its head has waited as long as it may, as far as is known.
    pub(super) overdue_at: Option<Instant>,
}

impl Queue {
    /// The stream holds this many entries of it.
    pub fn count(&mut self, count: u64) {
        self.unread = self.unread.max(count);
    }

    /// Whether something of it is not read yet: who comes later goes behind it.
    pub fn has_unread(&self) -> bool {
        self.appending > 0 || self.unread > 0 || self.loading
    }

    /// Whether something of it is not finished yet.
    pub fn has_unfinished(&self) -> bool {
        self.has_unread() || self.entries.values().any(|finished| !finished)
    }

    /// Whether nothing of it is left to do.
    pub fn is_over(&self) -> bool {
        !self.has_unread() && self.entries.is_empty() && !self.removing
    }

    /// When the head may be read, if it waits.
    pub fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.unread > 0 && !self.loading)
    }

    /// An entry is not with the writer any more.
    pub fn not_appended(&mut self) {
        self.appending = self.appending.saturating_sub(1);
    }

    /// An entry was handed to the writer.
    pub fn append(&mut self) {
        self.appending += 1;
    }

    /// An entry is stored. One that was stored before counts again: reading finds out.
    pub fn stored(&mut self) {
        self.unread += 1;
        self.stored_meanwhile += 1;
    }

    /// Begins a read, when there is something to read and room for enough of it; gives where and how many.
    pub fn load(&mut self, reach: Reach, now: Instant) -> Option<(u64, usize)> {
        let unfinished = self.entries.values().filter(|finished| !**finished).count();
        let room = reach.entries.saturating_sub(unfinished);
        let is_due = self.due.is_none_or(|due| due <= now);
        if self.loading || self.unread == 0 || room < reach.together || !is_due {
            return None;
        }
        (self.loading, self.due, self.stored_meanwhile, self.touched) = (true, None, 0, Some(now));
        Some((self.cursor, room))
    }

    /// Whether what a read brings is of no use, for something before it was put back since: it is read again.
    pub fn passes_over(&mut self) -> bool {
        self.loading &= !self.rewound;
        std::mem::take(&mut self.rewound)
    }

    /// A read ended with these entries, ascending, and this many come after them: what others stored there counts, too.
    pub fn loaded(&mut self, sequences: impl IntoIterator<Item = u64>, left: u64) {
        self.loading = false;
        for sequence in sequences {
            self.cursor = self.cursor.max(sequence + 1);
            // Whatever was put back before this one is gone, or was read before it.
            self.back = self.back.split_off(&self.cursor);
            // What was put back is read again with what stands between and is not.
            if let Entry::Vacant(entry) = self.entries.entry(sequence) {
                entry.insert(false);
                self.unread = self.unread.saturating_sub(1);
            }
        }
        let known = u64::try_from(self.entries.range(self.cursor..).count()).unwrap_or(u64::MAX);
        self.unread = self.unread.max(left.saturating_sub(known));
    }

    /// Whether an entry was read and is still known.
    pub fn knows(&self, sequence: u64) -> bool {
        self.entries.contains_key(&sequence)
    }

    /// The stream holds this many entries of it: any that are not known of are read.
    pub fn check(&mut self, count: u64) {
        let known = self.unread + u64::try_from(self.entries.len()).unwrap_or(u64::MAX);
        if !self.loading && !self.removing && self.appending == 0 {
            self.unread += count.saturating_sub(known);
        }
    }

    /// Since when there is something to read and nothing that leads to its being read, as far as a spill queue can tell:
    /// neither a read nor a write on its way nor entries in hand nor a time to come.
    pub fn idle_since(&self, now: Instant) -> Option<Instant> {
        let is_idle = self.unread > 0 && !self.loading && self.appending == 0 && self.is_resting();
        if !is_idle || self.due.is_some_and(|due| due > now) {
            return None;
        }
        self.due.or(self.touched)
    }

    /// Whether there is something to read, and nothing is being read.
    pub fn is_readable(&self) -> bool {
        self.unread > 0 && !self.loading
    }

    /// Whether nothing of it is in hand.
    pub fn is_resting(&self) -> bool {
        self.entries.values().all(|finished| *finished)
    }

    /// Begins a read of the head alone, whatever is read already.
    pub fn load_head(&mut self) -> Option<u64> {
        if self.loading || self.unread == 0 {
            return None;
        }
        (self.loading, self.due, self.stored_meanwhile) = (true, None, 0);
        Some(self.cursor)
    }

    /// A read failed; it is made again not before `due`.
    pub fn not_loaded(&mut self, due: Instant) {
        (self.loading, self.rewound, self.due) = (false, false, Some(due));
    }

    /// A read found nothing, and the stream says how many entries it has; what is left is read not before `due`.
    /// The count may be older than what was stored since, and newer than what is known of a removal: rather one too
    /// many, which the next read finds out, than one that nobody reads.
    pub fn recounted(&mut self, count: u64, due: Instant) {
        let is_there = |finished: bool| !(self.removing && finished);
        let read = self
            .entries
            .values()
            .filter(|finished| is_there(**finished))
            .count();
        let left = count.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
        self.unread = left.max(self.stored_meanwhile);
        if !self.rewound {
            self.back.clear();
        }
        (self.loading, self.rewound, self.due) = (false, false, (self.unread > 0).then_some(due));
    }

    /// How many entries are not read yet, as far as is known.
    pub fn unread(&self) -> u64 {
        self.unread
            .saturating_add(u64::try_from(self.appending).unwrap_or(u64::MAX))
    }

    /// The last entry read was received at this time.
    pub fn read_until(&mut self, received_ms: u64) {
        self.read_until_ms = received_ms;
    }

    /// How many entries are not read yet that may have been received until a time: none once reading is past it,
    /// because a spill queue is in order.
    pub fn unread_until(&self, ms: u64) -> u64 {
        if self.read_until_ms > ms {
            0
        } else {
            self.unread()
        }
    }

    /// The head is read not before `due`.
    pub fn wait_until(&mut self, due: Instant) {
        self.due = Some(due);
    }

    /// An entry is finished.
    pub fn finished(&mut self, sequence: u64) {
        if let Some(finished) = self.entries.get_mut(&sequence) {
            *finished = true;
        }
    }

    /// An entry goes back to where it is stored and is read again, not before `due` where that is given.
    pub fn put_back(&mut self, sequence: u64, due: Option<Instant>) {
        if self.entries.remove(&sequence).is_some() {
            self.rewound = self.loading;
            self.cursor = self.cursor.min(sequence);
            self.back.insert(sequence);
            self.unread += 1;
            self.read_until_ms = 0;
            self.due = due.or(self.due);
        }
    }

    /// Begins a removal of everything up to the sequence given, when enough is finished or nothing else is left.
    pub fn remove(&mut self, reach: Reach) -> Option<u64> {
        if self.removing {
            return None;
        }
        // What was put back stands before what was read after it, and is not in hand.
        let first_back = self.back.first().copied().unwrap_or(u64::MAX);
        let finished = self
            .entries
            .iter()
            .take_while(|(sequence, is)| **is && **sequence < first_back);
        let (count, last) = finished.fold((0, None), |(count, _), (sequence, _)| {
            (count + 1, Some(*sequence))
        });
        let is_idle = count == self.entries.len();
        let last = last.filter(|_| count >= reach.removals || is_idle)?;
        self.removing = true;
        Some(last)
    }

    /// A removal ended; one that failed is made again.
    pub fn removed(&mut self, up_to: u64, done: bool) {
        self.removing = false;
        if done {
            self.entries = self.entries.split_off(&(up_to + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::time::Duration;

    const REACH: Reach = Reach {
        entries: 4,
        together: 2,
        removals: 2,
    };

    #[test]
    fn a_head_that_waits_is_read_again_when_it_is_due() {
        let (reach, now) = (
            Reach {
                entries: 1,
                together: 1,
                removals: 1,
            },
            Instant::now(),
        );
        let mut queue = Queue::default();
        queue.count(2);
        assert_eq!(queue.load(reach, now), Some((0, 1)));
        queue.loaded([7], 0);
        assert_eq!(queue.load(reach, now), None, "one at a time");
        let due = now + Duration::from_secs(60);
        queue.put_back(7, Some(due));
        assert_eq!((queue.load(reach, now), queue.due()), (None, Some(due)));
        assert_eq!(queue.load(reach, due), Some((7, 1)));
        queue.loaded([7], 0);
        queue.finished(7);
        assert_eq!(queue.remove(reach), Some(7));
        queue.removed(7, true);
        assert_eq!(queue.load(reach, due), Some((8, 1)));
    }

    #[test]
    fn what_was_put_back_is_not_taken_out_with_what_was_read_after_it() {
        let mut queue = Queue::default();
        queue.count(3);
        queue.load(REACH, Instant::now()).unwrap();
        queue.loaded([1, 2, 3], 0);
        queue.finished(2);
        queue.finished(3);
        queue.put_back(1, None);
        assert_eq!(
            queue.remove(REACH),
            None,
            "the first of them is not read again yet"
        );
        assert_eq!(queue.load(REACH, Instant::now()), Some((1, 4)));
        queue.loaded([1, 2, 3], 0);
        assert_eq!(queue.remove(REACH), None);
        queue.finished(1);
        assert_eq!(queue.remove(REACH), Some(3));
        queue.removed(3, true);
        assert!(queue.is_over());
    }

    #[test]
    fn what_was_received_later_is_told_from_what_a_drain_waits_for() {
        let mut queue = Queue::default();
        queue.count(3);
        assert_eq!(
            queue.unread_until(100),
            3,
            "before anything was read nobody knows"
        );
        queue.loaded([1], 0);
        queue.read_until(90);
        assert_eq!(queue.unread_until(100), 2);
        queue.loaded([2], 0);
        queue.read_until(110);
        assert_eq!((queue.unread_until(100), queue.unread()), (0, 1));
        queue.put_back(2, Some(Instant::now()));
        assert_eq!(queue.unread_until(100), 2, "what was put back counts again");
    }

    #[test]
    fn a_count_that_was_too_high_is_corrected_and_the_queue_ends() {
        let mut queue = Queue::default();
        queue.append();
        queue.not_appended();
        queue.stored();
        queue.append();
        queue.not_appended();
        queue.stored();
        assert_eq!(queue.load(REACH, Instant::now()), Some((0, 4)));
        queue.loaded([3], 0);
        queue.finished(3);
        assert!(queue.has_unread());
        assert!(queue.load(REACH, Instant::now()).is_some());
        queue.recounted(1, Instant::now());
        let up_to = queue.remove(REACH).unwrap();
        queue.removed(up_to, true);
        assert!(queue.is_over());
    }

    #[test]
    fn a_count_that_is_older_than_what_was_stored_or_newer_than_a_removal_hides_nothing() {
        let mut queue = Queue::default();
        queue.append();
        queue.not_appended();
        queue.stored();
        queue.load(REACH, Instant::now()).unwrap();
        queue.loaded([1], 0);
        // Stored before, so counted in vain; while that is looked at, two more are stored.
        queue.not_appended();
        queue.stored();
        assert!(queue.load(REACH, Instant::now()).is_some());
        queue.not_appended();
        queue.stored();
        queue.not_appended();
        queue.stored();
        queue.recounted(1, Instant::now());
        assert_eq!(queue.unread(), 2);
        queue.load(REACH, Instant::now()).unwrap();
        queue.loaded([4, 7], 0);
        [1, 4, 7]
            .into_iter()
            .for_each(|sequence| queue.finished(sequence));
        assert_eq!(queue.remove(REACH), Some(7));
        queue.not_appended();
        queue.stored();
        queue.load(REACH, Instant::now()).unwrap();
        // The three are taken out already, and one that was not found yet is there.
        queue.recounted(1, Instant::now());
        assert_eq!(queue.unread(), 1);
    }

    proptest! {
        /// Against a model of the stream: everything appended is read once and in order, nothing unfinished is
        /// removed, and in the end nothing is left.
        #[test]
        fn everything_is_read_once_in_order_and_removed_only_when_finished(
            steps in proptest::collection::vec((0..6_u8, 0..4_usize), 1..300),
        ) {
            let now = Instant::now();
            let mut queue = Queue::default();
            let mut stream: BTreeMap<u64, ()> = BTreeMap::new();
            let (mut next, mut writing) = (1_u64, 0);
            let (mut read, mut open, mut done): (Vec<u64>, VecDeque<u64>, Vec<u64>) = Default::default();
            let mut reading: Option<(u64, usize)> = None;
            let mut removal: Option<u64> = None;
            let tail = [0, 1, 2, 3, 4, 5].into_iter().cycle().take(3000).map(|what| (what, 0));
            for (index, (what, which)) in steps.iter().copied().chain(tail).enumerate() {
                match what {
                    0 if index < steps.len() => {
                        queue.append();
                        writing += 1;
                    }
                    1 if writing > 0 => {
                        writing -= 1;
                        stream.insert(next, ());
                        next += 3;
                        queue.not_appended();
                        queue.stored();
                    }
                    2 if reading.is_none() => reading = queue.load(REACH, now),
                    3 => if let Some((from, max)) = reading.take() {
                        let found: Vec<u64> = stream.range(from..).map(|(s, ())| *s).take(max).collect();
                        prop_assert!(!found.is_empty(), "it reads only what is there");
                        read.extend(&found);
                        open.extend(&found);
                        let left = stream.range(from..).count() - found.len();
                        queue.loaded(found, u64::try_from(left).unwrap_or_default());
                    },
                    4 if !open.is_empty() => {
                        let sequence = open.remove(which % open.len()).unwrap_or_default();
                        queue.finished(sequence);
                        done.push(sequence);
                    }
                    5 => match removal.take() {
                        None => removal = queue.remove(REACH),
                        Some(up_to) => {
                            let gone: Vec<u64> = stream.range(..=up_to).map(|(s, ())| *s).collect();
                            prop_assert!(gone.iter().all(|s| done.contains(s)), "only finished ones go");
                            stream.retain(|s, ()| *s > up_to);
                            queue.removed(up_to, true);
                        }
                    },
                    _ => {}
                }
            }
            prop_assert!(read.is_sorted() && read.len() == done.len());
            prop_assert_eq!(read, (0..(next - 1) / 3).map(|n| 1 + 3 * n).collect::<Vec<_>>());
            prop_assert!(stream.is_empty() && queue.is_over(), "{:?}", queue);
        }
    }
}
