//! The edge as a running whole: connects, follows the configuration, serves, and drains when told to.
//!
//! Signals, configuration and the private port live on the runtime that calls [`run`]; deliveries are
//! served by threads of their own, one for each public socket.

use crate::acknowledged::Acknowledged;
use crate::budget::Budget;
use crate::core::{Core, Shared};
use crate::durability::{DurabilityError, Promise};
use crate::entrance::Entrance;
use crate::listeners::Listeners;
use crate::metrics::Metrics;
use crate::private::Private;
use crate::routing::Routing;
use crate::server::Server;
use crate::settings::IngressSettings;
use ackline_shared::nats::{self, NatsError, NatsSettings};
use ackline_shared::registry::{Extent, Registry};
use ackline_shared::vault::{VaultError, VaultKey};
use futures_util::future::{join_all, select_all};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Pause before JetStream is prepared again.
const PREPARE_PAUSE: Duration = Duration::from_millis(500);
/// Time one preparation may take.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(30);

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
    /// The system gives no thread or no events for a socket.
    #[error("cannot serve on a thread of its own: {0}; are the limits of threads or open files too low?")]
    Thread(std::io::Error),
    /// A thread ended although nobody told it to.
    #[error("a thread of the edge ended; a restart begins anew")]
    ThreadEnded,
    /// The configuration is not followed any more; a restart reads it anew.
    #[error("the configuration is not followed any more")]
    Configuration,
}

/// Runs until `stop` says so and what is in flight is finished, or the drain deadline passes.
pub async fn run(
    settings: IngressSettings,
    listeners: Listeners,
    stop: watch::Receiver<bool>,
) -> Result<(), ProcessError> {
    let master = settings.master_key.clone().ok_or(VaultError::NoMasterKey)?;
    let metrics = Metrics::new();
    let shared = Shared {
        routing: Routing::new(),
        entrance: Entrance::new(settings.entrance.clone(), &metrics),
        metrics,
        body_bytes: Arc::new(Budget::new(settings.bounds.body_bytes_total_max)),
        promise: Arc::default(),
        acknowledged: Arc::new(Acknowledged::new(settings.acknowledged_max)),
        settings: Arc::new(settings),
    };
    let settings = shared.settings.clone();
    // Dropping it ends the threads too.
    let (halt, halted) = watch::channel(false);
    let threads = listeners.public.len();
    let (mut publishers, mut ends) = (Vec::new(), Vec::new());
    for listener in listeners.public {
        let core = Core::start(shared.clone(), listener, threads, halted.clone()).await?;
        publishers.push(core.publisher);
        ends.push(core.ended);
    }
    let private = Private {
        publishers,
        body_bytes: shared.body_bytes.clone(),
        routing: shared.routing.clone(),
        metrics: shared.metrics.clone(),
        tls: shared.entrance.tls().cloned(),
        durability: settings.nats.durability,
        promise: shared.promise.clone(),
        draining: stop.clone(),
    };
    // Health stays answered to the very end, so it is not told to stop.
    let (_health_goes_on, health_stop) = watch::channel(false);
    let health = Server::new(
        move |request| std::future::ready(private.answer(request.method(), request.uri().path())),
        settings.bounds,
        Metrics::new(),
    );
    let health = tokio::spawn(health.run(listeners.private, health_stop));
    let reloading = shared.entrance.tls().cloned().map(|tls| tokio::spawn(tls.follow()));
    let mut configuration =
        tokio::spawn(follow(settings.nats.clone(), shared.routing, shared.promise, master));

    let mut stopped = stop;
    let result = tokio::select! {
        _ = stopped.wait_for(|stop| *stop) => Ok(()),
        Err(error) = async { (&mut configuration).await.unwrap_or(Err(ProcessError::Configuration)) } => Err(error),
        _ = select_all(&mut ends) => Err(ProcessError::ThreadEnded),
    };
    halt.send_replace(true);
    if result.is_ok() && timeout(settings.drain_timeout, join_all(ends)).await.is_err() {
        tracing::warn!("not everything in flight was finished within ingress.drain_timeout");
    }
    reloading.inspect(|reloading| reloading.abort());
    configuration.abort();
    health.abort();
    result
}

/// Prepares JetStream as soon as it can be reached, makes sure of what is promised, then keeps the routing table in step.
async fn follow(
    settings: NatsSettings,
    routing: Arc<Routing>,
    promise: Arc<Promise>,
    master: VaultKey,
) -> Result<Infallible, ProcessError> {
    // A connection of its own: reading configuration must not queue behind updates.
    let client = nats::connect(&settings, "ackline-ingress-config", true).await?;
    let context = nats::jetstream(client.clone());
    let buckets = loop {
        match timeout(PREPARE_TIMEOUT, Box::pin(nats::prepare(&context, &settings))).await {
            Ok(Ok(buckets)) => break buckets,
            Ok(Err(error @ NatsError::Partitions { .. })) => return Err(error.into()),
            Ok(Err(error)) => tracing::warn!(%error, "JetStream is not ready; trying again"),
            Err(_) => tracing::warn!("JetStream does not answer; trying again"),
        }
        sleep(PREPARE_PAUSE).await;
    };
    promise.verify(&context, &settings, &client.server_info().server_id).await?;
    routing.follow(Registry::watch(buckets.config, Extent::Edge), &master).await;
    Err(ProcessError::Configuration)
}
