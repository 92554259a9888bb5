//! Publishes what is spooled, oldest first, with the ids it came with; then what comes behind it.
//!
//! A record counts as drained after its PubAck and never before, so a crash repeats some and loses none.
//! JetStream stores a repeat once within its duplicate window; later ones are met by the pools' memory.
//! With `keep`, a new connection makes it publish again whatever is still there, in the same order: a server
//! that syncs now and then may have lost the newest of what it acknowledged.

use super::disk::OWNER_ONLY;
use super::lookahead::Lookahead;
use super::reader::Reader;
use super::state::{Fetched, SpoolState};
use super::throttle::Throttle;
use crate::metrics::Metrics;
use crate::store::{StoreError, UpdateLog};
use bytes::Bytes;
use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

const WINDOW: usize = 256;
/// Updates read ahead, so that a window finds enough conversations.
const AHEAD_MAX: usize = 1024;
const AHEAD_BYTES_MAX: usize = 2 << 20;
/// Pause before what was not stored is published again.
const PAUSE: Duration = Duration::from_millis(250);
/// Pause before it is asked again whether the drain is throttled.
const THROTTLE_PAUSE: Duration = Duration::from_millis(5);
/// Longest wait for something to happen.
const IDLE_WAIT_MAX: Duration = Duration::from_secs(1);

/// The drain of a spool.
#[derive(Debug)]
pub struct Drain<L> {
    log: Arc<L>,
    state: Arc<SpoolState>,
    directory: PathBuf,
    metrics: Arc<Metrics>,
    connections: watch::Receiver<u64>,
    lookahead: Lookahead,
    reader: Reader,
    throttle: Throttle,
    cursor: u64,
    /// Everything before is counted as drained.
    counted: u64,
    /// So many updates are published one by one, to find the one that is refused.
    single: usize,
}

impl<L: UpdateLog> Drain<L> {
    /// A drain into `log`, which must not keep a memory of acknowledged updates: here they all are.
    /// `connections` counts how often NATS was found again.
    pub fn new(
        log: Arc<L>,
        state: Arc<SpoolState>,
        directory: PathBuf,
        metrics: Arc<Metrics>,
        connections: watch::Receiver<u64>,
        throttle: Throttle,
    ) -> Self {
        let (lookahead, reader) = (Lookahead::default(), Reader::default());
        let (cursor, counted) = (state.oldest(), state.drained_to());
        Self {
            log,
            state,
            directory,
            metrics,
            connections,
            lookahead,
            reader,
            throttle,
            cursor,
            counted,
            single: 0,
        }
    }

    /// Drains for as long as it is polled.
    pub async fn run(mut self) -> Infallible {
        loop {
            if self.connections.has_changed().unwrap_or(false) {
                self.begin_again();
            }
            if let Err(reason) = self.fill() {
                tracing::error!(%reason, "the spool cannot be read; trying again");
                self.state.blocked(reason);
                sleep(IDLE_WAIT_MAX).await;
            }
            if !self.lookahead.is_empty() {
                let oldest_ms = self.lookahead.oldest_ms();
                self.state.oldest_came(oldest_ms);
                if self.throttle.holds_back(Instant::now(), since(oldest_ms)) {
                    sleep(THROTTLE_PAUSE).await;
                } else {
                    self.publish().await;
                }
                continue;
            }
            if self.cursor > self.counted {
                // Marks are behind us, and nothing else.
                self.advance(0, 0);
            }
            let filled = timeout(IDLE_WAIT_MAX, self.state.filled.notified());
            tokio::select! {
                _woken_or_late = filled => {}
                Ok(()) = self.connections.changed() => self.begin_again(),
            }
        }
    }

    /// Goes back to the oldest record that is kept.
    fn begin_again(&mut self) {
        self.connections.mark_unchanged();
        let oldest = self.state.oldest();
        if oldest < self.cursor {
            self.lookahead.clear();
            self.reader.close();
            self.cursor = oldest;
        }
    }

    fn fill(&mut self) -> Result<(), String> {
        while self.lookahead.has_room(AHEAD_MAX, AHEAD_BYTES_MAX) {
            let records = match self.state.fetch(self.cursor, AHEAD_MAX, AHEAD_BYTES_MAX) {
                Fetched::Empty => return Ok(()),
                Fetched::Records(records) => records,
                Fetched::File { path, first, until } => {
                    let range = (
                        self.cursor,
                        until.min(self.cursor.saturating_add(AHEAD_MAX as u64)),
                    );
                    let read = self.reader.read(&path, first, range, AHEAD_BYTES_MAX);
                    read.map_err(|error| format!("{}: {error}", path.display()))?
                }
            };
            for (sequence, record) in records {
                self.cursor = sequence + 1;
                if !record.is_empty() {
                    self.lookahead
                        .push(sequence, record)
                        .map_err(|unknown| unknown.to_string())?;
                }
            }
        }
        Ok(())
    }

    async fn publish(&mut self) {
        let window = self
            .lookahead
            .pick(if self.single > 0 { 1 } else { WINDOW });
        let count = window.len();
        self.single = self.single.saturating_sub(1);
        match self.log.store(window.into_iter()).await {
            Ok(()) => self.stored(),
            Err(StoreError::TooLarge(reason)) if count == 1 => {
                self.lookahead.not_stored();
                self.quarantine(&reason).await;
            }
            Err(StoreError::TooLarge(_)) => {
                self.lookahead.not_stored();
                self.single = count;
            }
            Err(error) => {
                self.lookahead.not_stored();
                self.state.blocked(error.to_string());
                sleep(PAUSE).await;
            }
        }
    }

    fn stored(&mut self) {
        let progress = self.lookahead.stored(self.counted);
        self.advance(progress.records, progress.bytes);
    }

    fn advance(&mut self, records: u64, bytes: u64) {
        let upto = self.lookahead.front().unwrap_or(self.cursor);
        self.counted = self.counted.max(upto);
        self.metrics.spool_drained.inc_by(records);
        self.state.drained(upto, records, bytes, Instant::now());
    }

    /// Keeps an update that JetStream will never take beside the spool, so that it holds up nobody.
    async fn quarantine(&mut self, reason: &str) {
        // One update is picked at a time from the front, so it is the oldest that waits.
        let Some((sequence, record)) = self.lookahead.oldest_waiting() else {
            return;
        };
        let path = self.directory.join(format!("{sequence:020}.refused"));
        match write_synced(&path, &record) {
            Ok(()) => {
                tracing::error!(path = %path.display(), %reason, "an acknowledged update is too large for NATS and set aside; raise its max_payload");
                self.metrics.spool_set_aside.inc();
                let _the_same = self.lookahead.pick(1);
                self.stored();
            }
            Err(error) => {
                self.state.blocked(format!("{}: {error}", path.display()));
                sleep(IDLE_WAIT_MAX).await;
            }
        }
    }
}

/// How long ago an update came. One from the future has waited long enough: the clock was set back meanwhile.
fn since(unix_ms: Option<u64>) -> Duration {
    let Some(unix_ms) = unix_ms else {
        return Duration::ZERO;
    };
    let came = UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms));
    came.and_then(|came| came.elapsed().ok())
        .unwrap_or(Duration::MAX)
}

fn write_synced(path: &std::path::Path, record: &Bytes) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(OWNER_ONLY)
        .open(path)?;
    file.write_all(record)?;
    file.sync_all()?;
    path.parent()
        .map_or(Ok(()), |parent| std::fs::File::open(parent)?.sync_all())
}
