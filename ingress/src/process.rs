//! The edge as a running whole: [`App`] has its parts by name, builds them, runs them, and shuts them down in order.
//!
//! Signals, configuration and the private port live on the runtime that calls [`run`]; deliveries are
//! served by threads of their own, one for each public socket.

mod configuration;
mod private_port;
mod spool;
pub mod thread;

use crate::budget::Budget;
use crate::http::acceptor::Acceptor;
use crate::http::listeners::Listeners;
use crate::metrics::Metrics;
use crate::private::Private;
use crate::routing::Routing;
use crate::settings::IngressSettings;
use crate::store::acknowledged::Acknowledged;
use crate::store::durability::DurabilityError;
use crate::store::publisher::Publishing;
use crate::store::spool::directory::SpoolError;
use crate::store::wire::Wire;
use ackline_shared::nats::preparation::Health;
use ackline_shared::nats::{Durability, NatsError};
use ackline_shared::surroundings::{Room, Surroundings};
use ackline_shared::vault::VaultError;
use configuration::ConfigurationFollower;
use futures_util::future::BoxFuture;
use private_port::PrivatePort;
use spool::{SpoolDrain, SpoolWriter};
use std::sync::Arc;
use thread::{EdgeThreads, Shared};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Descriptors that are no client's connection: NATS, the private port, events of each thread, files of the spool.
const DESCRIPTORS_BESIDE: u64 = 256;

/// Why the edge cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// NATS is set up for another installation, or its settings are unusable.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// NATS does not keep what is promised.
    #[error(transparent)]
    Durability(#[from] DurabilityError),
    /// There is no usable master key.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The local log cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The system gives no thread or no events for a socket.
    #[error(
        "cannot serve on a thread of its own: {0}; are the limits of threads or open files too low?"
    )]
    Thread(std::io::Error),
    /// A thread ended although nobody told it to.
    #[error("a thread of the edge ended; a restart begins anew")]
    ThreadEnded,
    /// The configuration is not followed any more; a restart reads it anew.
    #[error("the configuration is not followed any more")]
    Configuration,
}

/// Runs until `stop` says so and what is in flight is finished, or the drain deadline passes.
///
/// Boxed, so that the code of the edge is generated in this crate and not a second time in whatever polls it.
pub fn run(
    settings: IngressSettings,
    listeners: Listeners,
    stop: watch::Receiver<bool>,
) -> BoxFuture<'static, Result<(), ProcessError>> {
    Box::pin(async move {
        let app = App::build(settings, listeners, stop.clone()).await?;
        app.run(stop).await
    })
}

/// The parts of a running edge.
struct App {
    settings: Arc<IngressSettings>,
    threads: EdgeThreads,
    /// Writes the local log, if there is one.
    spool_writer: Option<SpoolWriter>,
    /// Publishes what is in it.
    spool_drain: Option<SpoolDrain>,
    /// Reads the certificate again when it changes, with TLS.
    certificates: Option<JoinHandle<()>>,
    /// Prepares JetStream and keeps the routing table in step.
    configuration: ConfigurationFollower,
    private_port: PrivatePort,
    /// The connection that all threads publish on, when updates are committed in groups.
    wire: Option<Arc<Wire>>,
}

impl App {
    /// Builds and starts every part; `stop` is shown on the private port.
    async fn build(
        settings: IngressSettings,
        listeners: Listeners,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, ProcessError> {
        let master = settings.master_key.clone().ok_or(VaultError::NoMasterKey)?;
        let metrics = Metrics::new();
        let surroundings = Arc::new(surroundings(&settings));
        let spool_writer = SpoolWriter::open(&settings, &metrics)?;
        let settings = Arc::new(settings);
        let wire = shared_wire(&settings, &metrics).await?;
        let shared = Shared {
            settings: settings.clone(),
            routing: Routing::new(),
            acceptor: Acceptor::new(settings.acceptor.clone(), &metrics),
            metrics,
            body_bytes: Arc::new(Budget::new(settings.bounds.body_bytes_total_max)),
            durability_check: Arc::default(),
            acknowledged: Arc::new(Acknowledged::new(settings.acknowledged_max)),
            spool: spool_writer.as_ref().map(|writer| writer.spool().clone()),
            wire,
        };
        let (threads, mut wires) = EdgeThreads::start(&shared, listeners.public).await?;
        if shared.wire.is_some() {
            wires.truncate(1);
        }
        let spool_drain = SpoolDrain::start(&shared).await?;
        let streams: Arc<Health> = Arc::default();
        let tls = shared.acceptor.tls().cloned();
        let private = Private {
            streams: streams.clone(),
            wires,
            spool: shared.spool.clone(),
            body_bytes: shared.body_bytes.clone(),
            routing: shared.routing.clone(),
            metrics: shared.metrics.clone(),
            tls: tls.clone(),
            durability: settings.nats.durability,
            durability_check: shared.durability_check.clone(),
            surroundings: surroundings.clone(),
            draining: stop,
        };
        Ok(Self {
            threads,
            spool_writer,
            spool_drain,
            private_port: PrivatePort::serve(private, listeners.private, settings.bounds),
            certificates: tls.map(|tls| tokio::spawn(tls.follow())),
            configuration: ConfigurationFollower::start(&shared, surroundings, streams, master),
            wire: shared.wire,
            settings,
        })
    }

    /// Runs until `stop` says so, or a part ends that must not; then shuts down.
    async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), ProcessError> {
        let result = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => Ok(()),
            error = self.configuration.failed() => Err(error),
            () = self.threads.one_ended() => Err(ProcessError::ThreadEnded),
            () = spool::ended(&mut self.spool_writer) => Err(ProcessError::ThreadEnded),
        };
        self.shutdown(result.is_ok()).await;
        result
    }

    /// Ends the parts, those that others need last. Only an end `in_order` waits for what is in flight, at most until
    /// `ingress.drain_timeout` is over.
    async fn shutdown(self, in_order: bool) {
        // Nothing new is accepted from here on; what was accepted is answered while everything behind it still works.
        self.threads.halt();
        let deadline = Instant::now() + self.settings.drain_timeout;
        if in_order {
            self.threads.finish(deadline).await;
        }
        // Nobody hands updates over any more, so that the spool can run empty; the drain is still there to empty it.
        if let Some(writer) = self.spool_writer {
            writer.close(in_order, deadline).await;
        }
        if let Some(drain) = self.spool_drain {
            drain.stop();
        }
        // New connections were what needed a current certificate, and deliveries the routing table.
        self.certificates.inspect(JoinHandle::abort);
        self.configuration.stop();
        // Health stays answered for as long as anything is being finished.
        self.private_port.stop();
        // Last, for all that was in flight came over it.
        self.wire.inspect(|wire| wire.close());
    }
}

/// The one connection to publish on, where updates are committed in groups: there is one disk for all threads.
async fn shared_wire(
    settings: &IngressSettings,
    metrics: &Arc<Metrics>,
) -> Result<Option<Arc<Wire>>, NatsError> {
    if settings.nats.durability != Durability::Synced {
        return Ok(None);
    }
    let Publishing {
        in_flight_max,
        attempt_timeout,
        ..
    } = settings.publishing;
    let wire = Wire::start(
        &settings.nats,
        in_flight_max,
        attempt_timeout,
        Some(metrics),
    );
    wire.await.map(Some)
}

/// What the edge needs: a descriptor for each connection, and room for the spool.
fn surroundings(settings: &IngressSettings) -> Surroundings {
    let room = settings.spool.as_ref().map(|spool| Room {
        setting: "spool.directory",
        directory: spool.directory.clone(),
        needed: spool.bytes_max,
    });
    let descriptors = u64::try_from(settings.bounds.connections_max).unwrap_or(u64::MAX);
    let descriptors = descriptors.saturating_add(DESCRIPTORS_BESIDE);
    Surroundings::new(
        settings.bounds.body_bytes_max,
        room.into_iter().collect(),
        (descriptors, "ingress.connections_max"),
    )
}
