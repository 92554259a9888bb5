//! The one thread that writes: takes what waits, appends it, syncs once, tells who waits, and begins again.
//!
//! While a sync is in flight the next group collects; no timer. A file that failed to be written or synced
//! is never touched again: what was synced in it stays, its last group is not acknowledged, and the next
//! group goes to a new file. Files that nobody needs any more are written over: their frames have lower
//! sequences than any that follows.

use super::directory::{Directory, Segment};
use super::disk::{Appending, Disk};
use super::segment::{self, FrameHeader};
use super::state::{Handover, SpoolState, Work, Written};
use crate::metrics::Metrics;
use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long nothing is tried after the disk failed.
const FAULT_PAUSE: Duration = Duration::from_secs(1);
/// A buffer larger than this is given back after use.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

#[derive(Debug)]
pub struct Writer<D: Disk> {
    disk: D,
    directory: Directory,
    state: Arc<SpoolState>,
    segment_bytes: u64,
    metrics: Arc<Metrics>,
    open: Option<Open<D::File>>,
    /// First sequences of files that never failed and are not written to any more.
    sound: HashSet<u64>,
    /// Files to be written over.
    spares: Vec<Spare>,
    buffer: Vec<u8>,
    failed: Option<Instant>,
}

#[derive(Debug)]
struct Spare {
    path: PathBuf,
    bytes: u64,
}

#[derive(Debug)]
struct Open<F> {
    file: F,
    path: PathBuf,
    first: u64,
    bytes: u64,
    /// On disk, what is left of an earlier use included.
    length: u64,
}

impl<D: Disk> Writer<D> {
    /// Puts a writer together; `segment_bytes` is when a file is full.
    pub fn new(
        disk: D,
        directory: Directory,
        state: Arc<SpoolState>,
        segment_bytes: u64,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (open, sound, spares) = (None, HashSet::new(), Vec::new());
        let (buffer, failed) = (Vec::new(), None);
        Self {
            disk,
            directory,
            state,
            segment_bytes,
            metrics,
            open,
            sound,
            spares,
            buffer,
            failed,
        }
    }

    /// Writes until told to stop and nothing waits.
    pub fn run(mut self) {
        loop {
            match self.state.next_work() {
                Work::Group {
                    handovers,
                    first,
                    drained,
                } => self.commit(handovers, first, drained),
                Work::Housekeeping => self.housekeep(),
                Work::Stop => break,
            }
        }
        self.housekeep();
    }

    fn commit(&mut self, handovers: Vec<Handover>, first: u64, drained: u64) {
        self.buffer.clear();
        let records = handovers.iter().flat_map(|handover| &handover.records);
        for (record, sequence) in records.zip(first..) {
            segment::write(
                &mut self.buffer,
                FrameHeader {
                    sequence,
                    group: first,
                    drained,
                },
                record,
            );
        }
        let written = self.write(first, drained);
        match &written {
            Ok(_) => drop(self.metrics.spool_groups.inc()),
            Err(error) => {
                self.metrics.spool_failures.inc();
                tracing::error!(%error, "the spool cannot be written; deliveries that need it get 503");
            }
        }
        self.state
            .settle(handovers, written.map_err(|error| error.to_string()));
    }

    /// Appends the buffer and syncs it; on any error the file is given up.
    fn write(&mut self, first: u64, drained: u64) -> io::Result<Written> {
        if self
            .failed
            .is_some_and(|failed| failed.elapsed() < FAULT_PAUSE)
        {
            return Err(io::Error::other("it failed a moment ago"));
        }
        let written = self.try_write(first, drained);
        self.failed = written.is_err().then(Instant::now);
        if self.buffer.capacity() > BUFFER_BYTES_KEPT {
            self.buffer = Vec::new();
        }
        written
    }

    fn try_write(&mut self, first: u64, drained: u64) -> io::Result<Written> {
        let started = Instant::now();
        let length = u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        // Taken out: whatever fails below never sees this file again.
        let mut open = match self.open.take() {
            Some(open) if open.bytes + length <= self.segment_bytes => open,
            full => {
                self.sound.extend(full.map(|full| full.first));
                self.begin(first)?
            }
        };
        open.file.append(&self.buffer)?;
        open.file.sync()?;
        open.bytes += length;
        let (path, segment_first) = (open.path.clone(), open.first);
        let segment_bytes = open.bytes.max(open.length);
        self.open = Some(open);
        self.metrics
            .spool_sync_seconds
            .observe(started.elapsed().as_secs_f64());
        Ok(Written {
            path,
            segment_first,
            segment_bytes,
            drained,
        })
    }

    fn begin(&mut self, first: u64) -> io::Result<Open<D::File>> {
        let path = self.directory.file(first);
        let (mut file, length) = match self.spares.pop() {
            Some(spare) => (self.disk.reuse(&spare.path, &path)?, spare.bytes),
            None => (self.disk.create(&path)?, 0),
        };
        file.append(&segment::header(first))?;
        file.sync()?;
        self.disk.sync_directory(self.directory.path())?;
        Ok(Open {
            file,
            path,
            first,
            bytes: segment::HEADER_BYTES as u64,
            length,
        })
    }

    /// Recycles or removes what is drained; while something is left, marks how far.
    fn housekeep(&mut self) {
        let dropped = self.state.take_droppable(Instant::now());
        for segment in &dropped {
            if let Some(open) = self.open.take_if(|open| open.first == segment.first) {
                self.sound.insert(open.first);
            }
            if let Err(error) = self.recycle_or_remove(segment) {
                tracing::warn!(path = %segment.path.display(), %error, "cannot remove a drained file of the spool; its updates will be published again after a restart");
            }
        }
        if !dropped.is_empty()
            && let Err(error) = self.disk.sync_directory(self.directory.path())
        {
            tracing::warn!(%error, "cannot sync the spool's directory");
        }
        let Some((sequence, drained)) = self.state.to_mark() else {
            return;
        };
        self.buffer.clear();
        segment::write(
            &mut self.buffer,
            FrameHeader {
                sequence,
                group: sequence,
                drained,
            },
            &[],
        );
        match self.write(sequence, drained) {
            Ok(written) => self.state.marked(written),
            Err(error) => {
                tracing::warn!(%error, "cannot mark how far the spool is drained; after a restart some updates are published again");
            }
        }
    }

    /// Keeps a drained file to be written over, or removes it.
    fn recycle_or_remove(&mut self, segment: &Segment) -> io::Result<()> {
        let spare = Spare {
            path: self.directory.spare(segment.first),
            bytes: segment.bytes,
        };
        // A short one grows to a whole one when it is used.
        let files = u64::try_from(self.spares.len())
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        let recycled_bytes = files.saturating_mul(self.segment_bytes);
        if self.sound.remove(&segment.first)
            && self.state.spares(recycled_bytes, self.segment_bytes)
        {
            std::fs::rename(&segment.path, &spare.path)?;
            self.spares.push(spare);
            return Ok(());
        }
        std::fs::remove_file(&segment.path)
    }
}
