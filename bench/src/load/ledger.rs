//! What was sent and acknowledged, held against what is in the stream.
//!
//! Order is judged without guessing: when B was acknowledged before A was first sent, B has to be stored
//! before A. Updates that were under way at the same time have no order.

use super::deck::Deck;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Never: no event has this time, because times start at one.
const NEVER: u64 = 0;

#[derive(Debug, Default)]
struct Mark {
    sent: AtomicU64,
    tried: AtomicU64,
    acked: AtomicU64,
}

/// Times of every update of a deck.
#[derive(Debug)]
pub struct Ledger {
    deck: Arc<Deck>,
    epoch: Instant,
    marks: Vec<Mark>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Updates in deliveries that were answered 200.
    pub acked: u64,
    /// Acknowledged and not in the stream.
    pub lost: u64,
    /// In the stream more than once.
    pub doubled: u64,
    /// Stored after an update of the same conversation that was sent only after this one's 200.
    pub out_of_order: u64,
    /// In the stream without a 200, which is allowed: Meta sends them again.
    pub unacknowledged: u64,
}

impl Verdict {
    /// Adds the verdict of another run.
    pub fn add(&mut self, other: &Self) {
        self.acked += other.acked;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.out_of_order += other.out_of_order;
        self.unacknowledged += other.unacknowledged;
    }

    pub fn is_clean(&self) -> bool {
        (self.lost, self.doubled, self.out_of_order) == (0, 0, 0)
    }
}

impl Ledger {
    /// Opens a ledger; times count from now.
    pub fn open(deck: Arc<Deck>) -> Arc<Self> {
        let marks = (0..deck.updates()).map(|_| Mark::default()).collect();
        Arc::new(Self {
            deck,
            epoch: Instant::now(),
            marks,
        })
    }

    /// The deck it is about.
    pub fn deck(&self) -> &Arc<Deck> {
        &self.deck
    }

    /// Nanoseconds since the ledger was opened.
    pub fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// Notes that a request is about to be written.
    pub fn sending(&self, place: usize) {
        let now = self.now();
        for mark in self.of(place) {
            mark.tried.store(now, Ordering::Relaxed);
            let _ = mark
                .sent
                .compare_exchange(NEVER, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Notes that a request was answered 200.
    pub fn acknowledged(&self, place: usize) {
        let now = self.now();
        for mark in self.of(place) {
            let _ = mark
                .acked
                .compare_exchange(NEVER, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn of(&self, place: usize) -> &[Mark] {
        let serials = self.deck.serials(place);
        let index = |serial: u32| usize::try_from(serial).unwrap_or(usize::MAX);
        self.marks
            .get(index(serials.start)..index(serials.end))
            .unwrap_or_default()
    }

    /// How long after `fault` the first 200 came to a request that was written after it.
    pub fn first_ack_after(&self, fault: u64) -> Option<Duration> {
        let tried_after = |mark: &&Mark| mark.tried.load(Ordering::Relaxed) >= fault;
        let acked = self
            .marks
            .iter()
            .filter(tried_after)
            .map(|mark| mark.acked.load(Ordering::Relaxed));
        let first = acked.filter(|&acked| acked >= fault).min()?;
        Some(Duration::from_nanos(first - fault))
    }

    /// When an update was first sent, if it was.
    pub fn sent_at(&self, serial: u32) -> Option<Instant> {
        self.moment(serial, |mark| &mark.sent)
    }

    /// When an update was first acknowledged, if it was.
    pub fn acked_at(&self, serial: u32) -> Option<Instant> {
        self.moment(serial, |mark| &mark.acked)
    }

    fn moment(&self, serial: u32, of: fn(&Mark) -> &AtomicU64) -> Option<Instant> {
        let mark = self.marks.get(usize::try_from(serial).ok()?)?;
        let at = of(mark).load(Ordering::Relaxed);
        (at != NEVER).then(|| self.epoch + Duration::from_nanos(at))
    }

    pub fn acked(&self) -> u64 {
        self.marks
            .iter()
            .filter(|mark| mark.acked.load(Ordering::Relaxed) != NEVER)
            .count() as u64
    }

    /// Acknowledgements in each interval since the ledger was opened, for a plot.
    pub fn timeline(&self, interval: Duration) -> Vec<u64> {
        let interval = u64::try_from(interval.as_nanos())
            .unwrap_or(u64::MAX)
            .max(1);
        let mut counts = Vec::new();
        for mark in &self.marks {
            let acked = mark.acked.load(Ordering::Relaxed);
            if acked != NEVER {
                let slot = usize::try_from(acked / interval).unwrap_or(0);
                if counts.len() <= slot {
                    counts.resize(slot + 1, 0);
                }
                if let Some(count) = counts.get_mut(slot) {
                    *count += 1;
                }
            }
        }
        counts
    }

    /// Compares with the serial numbers found in the stream, oldest first.
    pub fn check(&self, found: &[u32]) -> Verdict {
        let mut verdict = Verdict::default();
        let mut copies = vec![0u32; self.marks.len()];
        // The latest first sending among what a conversation has in the stream so far.
        let mut latest_sent: HashMap<u32, u64> = HashMap::new();
        for &serial in found {
            let index = usize::try_from(serial).unwrap_or(usize::MAX);
            let (Some(copy), Some(mark)) = (copies.get_mut(index), self.marks.get(index)) else {
                continue;
            };
            *copy += 1;
            if *copy > 1 {
                verdict.doubled += 1;
                continue;
            }
            let latest = latest_sent
                .entry(self.deck.conversation(serial))
                .or_default();
            let acked = mark.acked.load(Ordering::Relaxed);
            if acked != NEVER && acked < *latest {
                verdict.out_of_order += 1;
            }
            *latest = (*latest).max(mark.sent.load(Ordering::Relaxed));
        }
        for (mark, copies) in self.marks.iter().zip(copies) {
            match (mark.acked.load(Ordering::Relaxed) != NEVER, copies > 0) {
                (true, is_found) => {
                    verdict.acked += 1;
                    verdict.lost += u64::from(!is_found);
                }
                (false, true) => verdict.unacknowledged += 1,
                (false, false) => {}
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::deck::{Mix, Target};
    use ackline_shared::signature::SigningKey;

    fn ledger(deliveries: usize) -> Arc<Ledger> {
        let target = Target {
            phone_number_id: "1".into(),
            waba_id: "2".into(),
        };
        let mix = Mix {
            conversations: 1,
            ..Mix::texts(deliveries)
        };
        Ledger::open(Arc::new(Deck::make(
            1,
            "/",
            &[target],
            &SigningKey::from_bytes(b"k"),
            &mix,
        )))
    }

    /// Writes a history: `(place, sent, acked)`.
    fn write(ledger: &Ledger, history: &[(usize, u64, u64)]) {
        for &(place, sent, acked) in history {
            let mark = &ledger.marks[place];
            mark.sent.store(sent, Ordering::Relaxed);
            mark.tried.store(sent, Ordering::Relaxed);
            mark.acked.store(acked, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_is_acknowledged_and_missing_is_lost_and_what_is_twice_is_doubled() {
        let ledger = ledger(4);
        write(&ledger, &[(0, 1, 2), (1, 3, 4), (2, 5, NEVER)]);
        let verdict = ledger.check(&[0, 0, 2]);
        let expected = Verdict {
            acked: 2,
            lost: 1,
            doubled: 1,
            out_of_order: 0,
            unacknowledged: 1,
        };
        assert_eq!(verdict, expected);
        assert!(!verdict.is_clean());
    }

    #[test]
    fn an_update_acknowledged_before_another_was_sent_comes_first() {
        let ledger = ledger(2);
        write(&ledger, &[(0, 1, 2), (1, 3, 4)]);
        assert_eq!(ledger.check(&[0, 1]).out_of_order, 0);
        assert_eq!(ledger.check(&[1, 0]).out_of_order, 1);
    }

    #[test]
    fn updates_under_way_together_have_no_order() {
        let ledger = ledger(2);
        write(&ledger, &[(0, 1, 4), (1, 3, 5)]);
        assert!(ledger.check(&[1, 0]).is_clean());
    }

    #[test]
    fn the_first_200_after_a_fault_is_to_a_request_written_after_it() {
        let ledger = ledger(3);
        write(&ledger, &[(0, 5, 12), (1, 11, 40), (2, 12, 31)]);
        assert_eq!(ledger.first_ack_after(10), Some(Duration::from_nanos(21)));
        assert_eq!(ledger.first_ack_after(50), None);
    }

    #[test]
    fn a_retry_keeps_the_first_sending_and_the_first_200() {
        let ledger = ledger(1);
        ledger.sending(0);
        let first = ledger.marks[0].sent.load(Ordering::Relaxed);
        ledger.sending(0);
        ledger.acknowledged(0);
        let acked = ledger.marks[0].acked.load(Ordering::Relaxed);
        ledger.acknowledged(0);
        assert_eq!(ledger.marks[0].sent.load(Ordering::Relaxed), first);
        assert_eq!(ledger.marks[0].acked.load(Ordering::Relaxed), acked);
        assert_eq!(ledger.timeline(Duration::from_secs(1)), [1]);
    }
}
