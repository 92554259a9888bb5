//! The spool as two parts of the process: the thread that writes it, and the task that publishes what is in it.

use super::ProcessError;
use super::thread::Shared;
use crate::metrics::Metrics;
use crate::settings::IngressSettings;
use crate::store::acknowledged::Acknowledged;
use crate::store::publisher::Publisher;
use crate::store::spool::Spool;
use crate::store::spool::disk::FileSystem;
use crate::store::wire::Wire;
use ackline_shared::nats::Durability;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

/// Time for the spool to close after everything else.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// The spool, and the thread that writes it.
pub struct SpoolWriter {
    spool: Spool,
    ended: oneshot::Receiver<()>,
}

/// The task that publishes what is spooled, on a connection of its own.
pub struct SpoolDrain {
    task: JoinHandle<Infallible>,
    wire: Arc<Wire>,
}

impl SpoolWriter {
    /// Opens the spool, if there is to be one.
    pub fn open(
        settings: &IngressSettings,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Self>, ProcessError> {
        let Some(spool) = &settings.spool else {
            return Ok(None);
        };
        let sync_timeout = settings.publishing.budget;
        let (spool, ended) = Spool::open(spool, FileSystem, sync_timeout, metrics.clone())?;
        Ok(Some(Self { spool, ended }))
    }

    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Waits until what is left is published, as far as there is time, and lets the thread finish.
    pub async fn close(self, in_order: bool, deadline: Instant) {
        let spool = self.spool;
        if in_order && timeout_at(deadline, spool.emptied()).await.is_err() {
            let depth = spool.depth();
            tracing::warn!(
                updates = depth.records,
                "the spool is not empty; start an edge on its directory again to publish the rest"
            );
        }
        spool.stop();
        // It may have ended before its time, which is why we are here.
        if !self.ended.is_terminated() && timeout(CLOSE_GRACE, self.ended).await.is_err() {
            tracing::warn!("the spool's disk does not answer");
        }
    }
}

/// Resolves when the thread has ended; without one never.
pub async fn ended(writer: &mut Option<SpoolWriter>) {
    match writer {
        Some(writer) => drop((&mut writer.ended).await),
        None => std::future::pending().await,
    }
}

impl SpoolDrain {
    /// Starts to publish what is spooled, if there is a spool.
    pub async fn start(shared: &Shared) -> Result<Option<Self>, ProcessError> {
        let Some(spool) = &shared.spool else {
            return Ok(None);
        };
        let Shared {
            settings,
            metrics,
            durability_check,
            ..
        } = shared;
        // Everything spooled is acknowledged; a memory of that would keep it from being published at all.
        let nothing = Arc::new(Acknowledged::new(0));
        let limits = settings.publishing;
        let grouped = (settings.nats.durability == Durability::Synced).then_some(metrics);
        let wire = Wire::start(
            &settings.nats,
            limits.in_flight_max,
            limits.attempt_timeout,
            grouped,
        )
        .await?;
        let publisher = Arc::new(Publisher::new(
            wire.clone(),
            limits,
            metrics.clone(),
            nothing,
            durability_check.clone(),
        ));
        let task = tokio::spawn(spool.drain(publisher, wire.returns()).run());
        Ok(Some(Self { task, wire }))
    }

    /// Ends it and its connection.
    pub fn stop(self) {
        self.task.abort();
        self.wire.close();
    }
}
