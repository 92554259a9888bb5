//! A bounded record of what a simulator saw, which a test can wait on instead of sleeping.
//!
//! Entries are numbered from 1 without gaps; the oldest leave first when the count or the byte bound is
//! reached. Clearing forgets entries but never reuses a number.

use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// Longest a reader may wait.
pub const WAIT_MAX: Duration = Duration::from_secs(120);

/// Tells how much memory an entry holds, for the byte bound.
pub trait Weigh {
    fn bytes(&self) -> usize;
}

/// An entry with its number and time.
#[derive(Debug, Serialize)]
pub struct Numbered<T> {
    /// Its place in the journal, from 1.
    pub seq: u64,
    /// When it was recorded, in unix microseconds.
    pub at_us: u64,
    #[serde(flatten)]
    pub entry: Arc<T>,
}

impl<T> Clone for Numbered<T> {
    fn clone(&self) -> Self {
        Self {
            seq: self.seq,
            at_us: self.at_us,
            entry: self.entry.clone(),
        }
    }
}

/// What a reader asks for.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Only entries with a higher number.
    pub since: u64,
    /// Return as soon as this many match; 0 returns at once.
    pub at_least: usize,
    /// Give up waiting after this long, with what there is; capped at [`WAIT_MAX`].
    pub wait: Duration,
    /// Return no more than this many.
    pub limit: usize,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            since: 0,
            at_least: 0,
            wait: Duration::ZERO,
            limit: 10_000,
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Page<T> {
    /// The matching entries, oldest first.
    pub entries: Vec<Numbered<T>>,
    /// Where to continue: the number of the last entry looked at.
    pub next: u64,
    /// The oldest number still kept; a reader behind it has missed entries.
    pub oldest: u64,
}

/// A bounded, numbered, waitable list of entries.
#[derive(Debug)]
pub struct Journal<T> {
    ring: Mutex<RingBuffer<T>>,
    latest: watch::Sender<u64>,
    entries_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct RingBuffer<T> {
    entries: VecDeque<(Numbered<T>, usize)>,
    bytes: usize,
    last: u64,
}

impl<T: Weigh> Journal<T> {
    /// Makes an empty journal that keeps at most so many entries and bytes.
    pub fn new(entries_max: usize, bytes_max: usize) -> Self {
        let ring = RingBuffer {
            entries: VecDeque::new(),
            bytes: 0,
            last: 0,
        };
        Self {
            ring: Mutex::new(ring),
            latest: watch::Sender::new(0),
            entries_max: entries_max.max(1),
            bytes_max,
        }
    }

    /// Adds an entry and returns its number.
    pub fn record(&self, entry: T) -> u64 {
        let bytes = entry.bytes();
        let mut ring = self.lock();
        ring.last += 1;
        let seq = ring.last;
        ring.bytes += bytes;
        ring.entries.push_back((
            Numbered {
                seq,
                at_us: unix_micros(),
                entry: Arc::new(entry),
            },
            bytes,
        ));
        while ring.entries.len() > 1
            && (ring.entries.len() > self.entries_max || ring.bytes > self.bytes_max)
        {
            if let Some((_, bytes)) = ring.entries.pop_front() {
                ring.bytes -= bytes;
            }
        }
        drop(ring);
        self.latest
            .send_modify(|latest| *latest = (*latest).max(seq));
        seq
    }

    /// The number of the newest entry, 0 when there was none.
    pub fn last(&self) -> u64 {
        self.lock().last
    }

    /// Forgets every entry; numbers go on.
    pub fn clear(&self) {
        let mut ring = self.lock();
        ring.entries.clear();
        ring.bytes = 0;
    }

    /// Everything that it holds now.
    pub async fn all(&self) -> Page<T> {
        let ask = Ask {
            limit: usize::MAX,
            ..Ask::default()
        };
        self.read(ask, |_| true).await
    }

    /// Returns matching entries, waiting for them as asked.
    pub async fn read(&self, ask: Ask, matches: impl Fn(&T) -> bool) -> Page<T> {
        let deadline = Instant::now() + ask.wait.min(WAIT_MAX);
        let mut latest = self.latest.subscribe();
        let mut page = Page {
            entries: Vec::new(),
            next: ask.since,
            oldest: 0,
        };
        loop {
            latest.borrow_and_update();
            self.extend(&mut page, ask.limit, &matches);
            let enough = page.entries.len() >= ask.at_least || page.entries.len() >= ask.limit;
            if enough || !matches!(timeout_at(deadline, latest.changed()).await, Ok(Ok(()))) {
                return page;
            }
        }
    }

    fn extend(&self, page: &mut Page<T>, limit: usize, matches: &impl Fn(&T) -> bool) {
        let ring = self.lock();
        let oldest = ring
            .entries
            .front()
            .map_or(ring.last + 1, |(first, _)| first.seq);
        page.oldest = oldest;
        let skip = usize::try_from((page.next + 1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        for (numbered, _) in ring.entries.iter().skip(skip) {
            if page.entries.len() >= limit {
                return;
            }
            page.next = numbered.seq;
            if matches(&numbered.entry) {
                page.entries.push(numbered.clone());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, RingBuffer<T>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time now in unix microseconds.
pub fn unix_micros() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh for u32 {
        fn bytes(&self) -> usize {
            10
        }
    }

    fn ask(since: u64, at_least: usize, wait_s: u64) -> Ask {
        Ask {
            since,
            at_least,
            wait: Duration::from_secs(wait_s),
            ..Ask::default()
        }
    }

    async fn values(journal: &Journal<u32>, ask: Ask) -> Vec<u32> {
        journal
            .read(ask, |_| true)
            .await
            .entries
            .iter()
            .map(|n| *n.entry)
            .collect()
    }

    #[tokio::test]
    async fn the_oldest_leave_at_either_bound_and_the_reader_is_told() {
        let by_count = Journal::new(2, 1000);
        let by_bytes = Journal::new(100, 25);
        for n in 1..=4u32 {
            by_count.record(n);
            by_bytes.record(n);
        }
        assert_eq!(values(&by_count, Ask::default()).await, [3, 4]);
        assert_eq!(values(&by_bytes, Ask::default()).await, [3, 4]);
        assert_eq!(by_count.read(Ask::default(), |_| true).await.oldest, 3);
    }

    #[tokio::test]
    async fn a_limited_page_continues_where_it_ended() {
        let journal = Journal::new(100, 10_000);
        for n in 1..=10u32 {
            journal.record(n);
        }
        let first = journal
            .read(
                Ask {
                    limit: 2,
                    ..Ask::default()
                },
                |n| n % 2 == 0,
            )
            .await;
        assert_eq!(
            first.entries.iter().map(|n| *n.entry).collect::<Vec<_>>(),
            [2, 4]
        );
        assert_eq!(
            values(&journal, ask(first.next, 0, 0)).await,
            [5, 6, 7, 8, 9, 10]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_waits_until_enough_match_or_the_deadline() {
        let journal = Arc::new(Journal::new(100, 10_000));
        let reader = tokio::spawn({
            let journal = journal.clone();
            async move { values(&journal, ask(0, 2, 60)).await }
        });
        journal.record(1);
        tokio::task::yield_now().await;
        journal.record(2);
        assert_eq!(reader.await.unwrap(), [1, 2]);
        assert_eq!(
            values(&journal, ask(0, 3, 1)).await,
            [1, 2],
            "the deadline returns what there is"
        );
    }

    #[tokio::test]
    async fn clearing_keeps_the_numbering() {
        let journal = Journal::new(100, 10_000);
        journal.record(1);
        journal.clear();
        assert_eq!(journal.record(2), 2);
        assert_eq!(values(&journal, ask(1, 1, 0)).await, [2]);
    }
}
