//! What edge threads, the writer and the drain share: updates handed over, synced, and not yet drained.
//!
//! One lock, held for moments and never while waiting. Everything in it is bounded: by `bytes_max` on disk,
//! by `memory_bytes_max` for the newest synced updates, which the drain takes from here while it keeps up.

use super::directory::{Recovered, Segment};
use super::handle::Notifier;
use super::mode::{Mode, ModeSwitch, WritePath};
use crate::store::StoreError;
use bytes::Bytes;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Most bytes written and synced at once; one delivery may be larger.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// One part in so many of the bytes on disk may be files to be written over.
const SPARE_SHARE: u64 = 4;
/// How often the writer looks whether something is to be marked or removed.
const HOUSEKEEPING: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// On disk, what is drained and not yet removed included.
    pub bytes_max: u64,
    /// In memory, beside the disk.
    pub memory_bytes_max: usize,
    /// How long what is drained stays.
    pub keep: Duration,
}

/// The updates of one delivery on their way to the disk.
#[derive(Debug)]
pub struct Handover {
    /// In the order they were handed over.
    pub ticket: u64,
    pub handle: usize,
    pub records: Vec<Bytes>,
    bytes: u64,
}

/// What the writer does next.
#[derive(Debug)]
pub enum Work {
    /// Write and sync these together.
    Group {
        handovers: Vec<Handover>,
        /// The sequence their first update gets.
        first: u64,
        /// How far the spool is drained.
        drained: u64,
    },
    /// Mark what is drained, and remove what is not needed.
    Housekeeping,
    Stop,
}

/// What the writer has synced.
#[derive(Debug)]
pub struct Written {
    pub path: PathBuf,
    /// The sequence its first frame has.
    pub segment_first: u64,
    /// How much is in it.
    pub segment_bytes: u64,
    /// How far it says that the spool is drained.
    pub drained: u64,
}

/// What is there to be drained.
#[derive(Debug)]
pub enum Fetched {
    /// Synced records with their sequences, out of memory; an empty one is a mark.
    Records(Vec<(u64, Bytes)>),
    /// They lie in this file, which begins at `first`; those before `until` may be read.
    File {
        path: PathBuf,
        /// The sequence of its first frame.
        first: u64,
        /// The first sequence not to be read from it.
        until: u64,
    },
    Empty,
}

/// How full the spool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depth {
    pub state: Mode,
    /// Updates that JetStream does not have.
    pub records: u64,
    pub bytes: u64,
    pub held_bytes: u64,
    /// When the oldest of them came, in unix milliseconds.
    pub oldest_ms: Option<u64>,
    /// Why the disk takes nothing.
    pub fault: Option<String>,
    pub blocked: Option<String>,
}

#[derive(Debug)]
pub struct SpoolState {
    limits: Limits,
    inner: Mutex<Inner>,
    work: Condvar,
    /// Notified when there is something new to drain.
    pub filled: Notify,
    /// Notified when everything is drained.
    pub emptied: Notify,
}

#[derive(Debug)]
struct Inner {
    mode: ModeSwitch,
    notifiers: Vec<Arc<Notifier>>,
    waiting: VecDeque<Handover>,
    tickets: u64,
    pending_records: u64,
    pending_bytes: u64,
    next: u64,
    drained: u64,
    /// Where the drain reads; it may have gone back behind what is drained.
    reading: u64,
    marked: u64,
    marked_at: Instant,
    housekept_at: Instant,
    segments: VecDeque<Kept>,
    run: VecDeque<(u64, Bytes)>,
    run_bytes: usize,
    records: u64,
    bytes: u64,
    oldest_ms: Option<u64>,
    fault: Option<String>,
    blocked: Option<String>,
    stop: bool,
}

#[derive(Debug)]
struct Kept {
    segment: Segment,
    drained: Option<Instant>,
}

impl SpoolState {
    /// Begins with what an earlier run left.
    pub fn new(limits: Limits, always: bool, recovered: Recovered) -> Arc<Self> {
        let kept = |segment| Kept {
            segment,
            drained: None,
        };
        let inner = Inner {
            mode: ModeSwitch::new(always, recovered.records > 0),
            notifiers: Vec::new(),
            waiting: VecDeque::new(),
            tickets: 0,
            pending_records: 0,
            pending_bytes: 0,
            next: recovered.next,
            drained: recovered.drained,
            reading: recovered.drained,
            marked: recovered.drained,
            marked_at: Instant::now(),
            housekept_at: Instant::now(),
            segments: recovered.segments.into_iter().map(kept).collect(),
            run: VecDeque::new(),
            run_bytes: 0,
            records: recovered.records,
            bytes: recovered.bytes,
            oldest_ms: None,
            fault: None,
            blocked: None,
            stop: false,
        };
        let (filled, emptied) = (Notify::new(), Notify::new());
        Arc::new(Self {
            limits,
            inner: Mutex::new(inner),
            work: Condvar::new(),
            filled,
            emptied,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes somebody in who hands updates over; gives the number to do it under.
    pub fn register(&self, notifier: Arc<Notifier>) -> usize {
        let mut inner = self.lock();
        inner.notifiers.push(notifier);
        inner.notifiers.len() - 1
    }

    /// Chooses the path of a delivery that has come; [`Self::leave`] must follow a direct one.
    pub fn enter(&self) -> WritePath {
        self.lock().mode.enter()
    }

    /// A direct delivery is over; what of it was to be spooled is handed over before.
    pub fn leave(&self) {
        let mut inner = self.lock();
        inner.mode.leave();
        if inner.mode.may_drain() && inner.records > 0 {
            self.filled.notify_one();
        }
    }

    /// Hands a delivery's records to the writer; the notifier tells its ticket when it is synced.
    pub fn hand_over(&self, handle: usize, records: Vec<Bytes>) -> Result<u64, StoreError> {
        let bytes: u64 = records.iter().map(|record| record.len() as u64).sum();
        let mut inner = self.lock();
        if inner.stop {
            return Err(StoreError::SpoolFailed);
        }
        if inner.held_bytes().saturating_add(bytes) > self.limits.bytes_max {
            return Err(StoreError::SpoolFull);
        }
        inner.mode.spooled();
        inner.tickets += 1;
        inner.pending_records += records.len() as u64;
        inner.pending_bytes += bytes;
        let ticket = inner.tickets;
        inner.waiting.push_back(Handover {
            ticket,
            handle,
            records,
            bytes,
        });
        if inner.waiting.len() == 1 {
            self.work.notify_one();
        }
        Ok(ticket)
    }

    /// Blocks until the writer has something to do: everything that waits, up to a bound.
    pub fn next_work(&self) -> Work {
        let mut inner = self.lock();
        loop {
            if !inner.segments.is_empty() && inner.housekept_at.elapsed() >= HOUSEKEEPING {
                inner.housekept_at = Instant::now();
                return Work::Housekeeping;
            }
            if !inner.waiting.is_empty() {
                return inner.group();
            }
            if inner.stop {
                return Work::Stop;
            }
            inner = if inner.segments.is_empty() {
                self.work
                    .wait(inner)
                    .unwrap_or_else(PoisonError::into_inner)
            } else {
                self.work
                    .wait_timeout(inner, HOUSEKEEPING)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            };
        }
    }

    /// Takes note of a group that is synced, or is not, and tells who waits.
    pub fn settle(&self, handovers: Vec<Handover>, written: Result<Written, String>) {
        let stored = written.is_ok();
        let mut tell: Vec<(Arc<Notifier>, u64)> = Vec::new();
        {
            let mut inner = self.lock();
            for handover in &handovers {
                inner.pending_records -= handover.records.len() as u64;
                inner.pending_bytes -= handover.bytes;
                match tell
                    .iter_mut()
                    .find(|(notifier, _)| notifier.handle() == handover.handle)
                {
                    Some((_, ticket)) => *ticket = handover.ticket,
                    None => {
                        let notifier = inner.notifiers.get(handover.handle).cloned();
                        tell.extend(notifier.map(|notifier| (notifier, handover.ticket)));
                    }
                }
            }
            match written {
                Ok(written) => {
                    inner.fault = None;
                    for record in handovers.into_iter().flat_map(|handover| handover.records) {
                        inner.records += 1;
                        inner.bytes += record.len() as u64;
                        inner.keep_in_memory(record, self.limits.memory_bytes_max);
                    }
                    inner.grow(written);
                }
                Err(fault) => inner.fault = Some(fault),
            }
            inner.note_if_empty();
        }
        for (notifier, ticket) in tell {
            notifier.notify(ticket, stored);
        }
        self.filled.notify_one();
    }

    /// Takes note of a mark that is synced.
    pub fn marked(&self, written: Written) {
        let mut inner = self.lock();
        inner.keep_in_memory(Bytes::new(), self.limits.memory_bytes_max);
        inner.grow(written);
        if inner.records == 0 {
            // Nothing but the mark is left, and nobody drains marks.
            inner.drained = inner.next;
            inner.note_drained(Instant::now());
        }
    }

    /// The sequence of the next frame and how far the spool is drained, when that is to be marked.
    pub fn to_mark(&self) -> Option<(u64, u64)> {
        let inner = self.lock();
        let due = self.limits.keep.is_zero()
            && inner.records > 0
            && inner.drained > inner.marked
            && inner.marked_at.elapsed() >= HOUSEKEEPING;
        due.then_some((inner.next, inner.drained))
    }

    /// Takes out the files that nobody needs any more, and that are not being read again; the last one, still written to, only when all is quiet.
    pub fn take_droppable(&self, now: Instant) -> Vec<Segment> {
        let mut inner = self.lock();
        let quiet = inner.pending_records == 0;
        let mut dropped = Vec::new();
        while let Some(front) = inner.segments.front() {
            let due = front
                .drained
                .is_some_and(|at| now.saturating_duration_since(at) >= self.limits.keep);
            let is_read = front.segment.next <= inner.reading;
            if !due || !is_read || (inner.segments.len() == 1 && !quiet) {
                break;
            }
            dropped.extend(inner.segments.pop_front().map(|kept| kept.segment));
        }
        dropped
    }

    /// Whether so many bytes of files may lie aside: they are part of the bound, beside what the file that is
    /// written to may still take, and never more than a quarter.
    pub fn spares(&self, bytes: u64, segment_bytes: u64) -> bool {
        let bytes_max = self.limits.bytes_max;
        let all = self
            .lock()
            .held_bytes()
            .saturating_add(bytes)
            .saturating_add(segment_bytes);
        bytes <= bytes_max / SPARE_SHARE && all <= bytes_max
    }

    /// Gives what comes at the cursor, up to a number of records and about so many bytes.
    pub fn fetch(&self, cursor: u64, records_max: usize, bytes_max: usize) -> Fetched {
        let mut inner = self.lock();
        inner.reading = cursor;
        if cursor >= inner.next || !inner.mode.may_drain() {
            return Fetched::Empty;
        }
        while inner
            .run
            .front()
            .is_some_and(|(sequence, _)| *sequence < cursor)
        {
            inner.pop_from_memory();
        }
        let in_memory = inner
            .run
            .front()
            .map_or(inner.next, |(sequence, _)| *sequence);
        if in_memory > cursor {
            let at = inner
                .segments
                .iter()
                .find(|kept| kept.segment.next > cursor);
            return at.map_or(Fetched::Empty, |Kept { segment, .. }| Fetched::File {
                path: segment.path.clone(),
                first: segment.first,
                until: segment.next.min(in_memory),
            });
        }
        let (mut records, mut bytes) = (Vec::new(), 0);
        while records.len() < records_max && bytes < bytes_max {
            let Some((sequence, record)) = inner.pop_from_memory() else {
                break;
            };
            bytes += record.len();
            records.push((sequence, record));
        }
        Fetched::Records(records)
    }

    /// The first sequence to be drained: with `keep`, everything that is still there is published again.
    /// It stays until it is read.
    pub fn oldest(&self) -> u64 {
        let mut inner = self.lock();
        let kept = inner
            .segments
            .front()
            .filter(|_| !self.limits.keep.is_zero());
        inner.reading = kept.map_or(inner.drained, |kept| kept.segment.first);
        inner.reading
    }

    /// Everything before this is known to be stored in JetStream.
    pub fn drained_to(&self) -> u64 {
        self.lock().drained
    }

    /// Takes note that JetStream has everything before `upto`: so many records and bytes more than before.
    pub fn drained(&self, upto: u64, records: u64, bytes: u64, now: Instant) {
        let mut inner = self.lock();
        inner.drained = inner.drained.max(upto);
        inner.records = inner.records.saturating_sub(records);
        inner.bytes = inner.bytes.saturating_sub(bytes);
        inner.blocked = None;
        inner.mode.drained();
        inner.note_drained(now);
        inner.note_if_empty();
        if inner.records == 0 {
            self.emptied.notify_waiters();
        }
    }

    /// Takes note that JetStream has none of it, and why.
    pub fn blocked(&self, reason: String) {
        let mut inner = self.lock();
        inner.mode.failed();
        inner.blocked = Some(reason);
    }

    /// Takes note of when the oldest update that JetStream does not have came.
    pub fn oldest_came(&self, oldest_ms: Option<u64>) {
        self.lock().oldest_ms = oldest_ms;
    }

    pub fn depth(&self) -> Depth {
        let inner = self.lock();
        Depth {
            state: inner.mode.mode(),
            records: inner.records + inner.pending_records,
            bytes: inner.bytes + inner.pending_bytes,
            held_bytes: inner.held_bytes(),
            oldest_ms: inner.oldest_ms.filter(|_| inner.records > 0),
            fault: inner.fault.clone(),
            blocked: inner.blocked.clone(),
        }
    }

    /// Lets the writer end once nothing waits, and takes nothing more.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.work.notify_one();
    }
}

impl Inner {
    fn held_bytes(&self) -> u64 {
        self.segments
            .iter()
            .map(|kept| kept.segment.bytes)
            .sum::<u64>()
            + self.pending_bytes
    }

    fn group(&mut self) -> Work {
        let (mut handovers, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.waiting.front() {
            let size = usize::try_from(next.bytes).unwrap_or(usize::MAX);
            if bytes > 0 && bytes + size > GROUP_BYTES_MAX {
                break;
            }
            bytes += size;
            handovers.extend(self.waiting.pop_front());
        }
        Work::Group {
            handovers,
            first: self.next,
            drained: self.drained,
        }
    }

    /// Keeps a synced record for the drain, as long as it follows what is there.
    fn keep_in_memory(&mut self, record: Bytes, bytes_max: usize) {
        let follows = self
            .run
            .back()
            .is_none_or(|(sequence, _)| sequence + 1 == self.next);
        if follows && self.run_bytes + record.len() <= bytes_max {
            self.run_bytes += record.len();
            self.run.push_back((self.next, record));
        }
        self.next += 1;
    }

    fn pop_from_memory(&mut self) -> Option<(u64, Bytes)> {
        let (sequence, record) = self.run.pop_front()?;
        self.run_bytes -= record.len();
        Some((sequence, record))
    }

    fn note_drained(&mut self, now: Instant) {
        let drained = self.drained;
        for kept in self
            .segments
            .iter_mut()
            .take_while(|kept| kept.segment.next <= drained)
        {
            kept.drained.get_or_insert(now);
        }
    }

    fn grow(&mut self, written: Written) {
        let Written {
            path,
            segment_first: first,
            segment_bytes: bytes,
            drained,
        } = written;
        (self.marked, self.marked_at) = (self.marked.max(drained), Instant::now());
        let next = self.next;
        match self
            .segments
            .back_mut()
            .filter(|kept| kept.segment.first == first)
        {
            Some(kept) => {
                (kept.segment.next, kept.segment.bytes, kept.drained) = (next, bytes, None);
            }
            None => {
                let segment = Segment {
                    first,
                    next,
                    path,
                    bytes,
                };
                self.segments.push_back(Kept {
                    segment,
                    drained: None,
                });
            }
        }
    }

    fn note_if_empty(&mut self) {
        if self.records == 0 && self.pending_records == 0 {
            self.mode.emptied();
        }
    }
}
