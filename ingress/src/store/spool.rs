//! A local log, synced and bounded, for what JetStream does not take now, or for everything it is to take.
//!
//! A delivery is acknowledged once its updates are synced here; they are published in the background, in
//! order and under their ids, and dropped after their PubAck. It survives the end of the process at any
//! moment and power loss, as far as the disk keeps what it says it synced; it does not survive the disk.

pub mod directory;
pub mod disk;
pub mod drain;
pub mod handle;
pub mod log;
pub mod lookahead;
pub mod mode;
pub mod reader;
pub mod record;
pub mod segment;
pub mod settings;
pub mod state;
pub mod throttle;
pub mod writer;

use crate::metrics::Metrics;
use crate::store::UpdateLog;
use directory::{Directory, SpoolError};
use disk::Disk;
use drain::Drain;
use handle::SpoolHandle;
use settings::SpoolSettings;
use state::{Depth, Limits, SpoolState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use throttle::{Intake, Throttle};
use tokio::sync::{oneshot, watch};
use writer::Writer;

#[derive(Debug, Clone)]
pub struct Spool {
    state: Arc<SpoolState>,
    directory: PathBuf,
    always: bool,
    lag_max: Duration,
    sync_timeout: Duration,
    intake: Arc<Intake>,
    metrics: Arc<Metrics>,
}

impl Spool {
    /// Finds what an earlier run left and starts the writer; the receiver resolves when its thread has ended.
    pub fn open<D: Disk>(
        settings: &SpoolSettings,
        disk: D,
        sync_timeout: Duration,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, oneshot::Receiver<()>), SpoolError> {
        let directory = Directory::open(&settings.directory)?;
        let recovered = directory.recover()?;
        if recovered.records > 0 || recovered.cut_bytes > 0 {
            tracing::warn!(
                updates = recovered.records,
                bytes = recovered.bytes,
                cut_bytes = recovered.cut_bytes,
                "an earlier run left acknowledged updates in the spool; publishing them first"
            );
        }
        let limits = Limits {
            bytes_max: settings.bytes_max,
            memory_bytes_max: settings.memory_bytes_max,
            keep: settings.kept(),
        };
        let state = SpoolState::new(limits, settings.always, recovered);
        let writer = Writer::new(
            disk,
            directory,
            state.clone(),
            settings.segment_bytes,
            metrics.clone(),
        );
        let (ends, ended) = oneshot::channel();
        let work = move || {
            writer.run();
            drop(ends);
        };
        std::thread::Builder::new()
            .name("spool".to_owned())
            .spawn(work)
            .map_err(SpoolError::Thread)?;
        let SpoolSettings {
            directory, always, ..
        } = settings.clone();
        let (lag_max, intake) = (settings.lag_max(), Arc::default());
        Ok((
            Self {
                state,
                directory,
                always,
                lag_max,
                sync_timeout,
                intake,
                metrics,
            },
            ended,
        ))
    }

    /// Whether every update goes through it.
    pub fn is_always(&self) -> bool {
        self.always
    }

    /// A handle for the thread on whose runtime this is called, which takes deliveries in.
    pub fn handle(&self) -> Arc<SpoolHandle> {
        self.intake.join();
        SpoolHandle::open(self.state.clone(), self.sync_timeout)
    }

    /// The drain into a log; there must be one, and somebody must run it.
    pub fn drain<L: UpdateLog>(&self, log: Arc<L>, connections: watch::Receiver<u64>) -> Drain<L> {
        let throttle = Throttle::new(self.intake.clone(), self.lag_max, Instant::now());
        let (state, directory, metrics) = (
            self.state.clone(),
            self.directory.clone(),
            self.metrics.clone(),
        );
        Drain::new(log, state, directory, metrics, connections, throttle)
    }

    pub fn depth(&self) -> Depth {
        self.state.depth()
    }

    /// Waits until JetStream has everything.
    pub async fn emptied(&self) {
        loop {
            let emptied = self.state.emptied.notified();
            if self.depth().records == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Lets the writer end once nothing waits.
    pub fn stop(&self) {
        self.state.stop();
    }
}
