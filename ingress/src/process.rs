//! The edge as a running whole: connects, follows the configuration, serves, and drains when told to.

use crate::entrance::Entrance;
use crate::metrics::Metrics;
use crate::private::Private;
use crate::publisher::Publisher;
use crate::routing::Routing;
use crate::server::Server;
use crate::settings::IngressSettings;
use crate::webhook::Edge;
use ackline_shared::nats::{self, NatsError, NatsSettings};
use ackline_shared::registry::{Extent, Registry};
use ackline_shared::vault::{VaultError, VaultKey};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
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
    /// There is no usable master key.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The configuration is not followed any more; a restart reads it anew.
    #[error("the configuration is not followed any more")]
    Configuration,
}

/// The sockets the edge serves on, bound before anything else starts.
#[derive(Debug)]
pub struct Listeners {
    /// For Meta.
    pub public: TcpListener,
    /// For the operator.
    pub private: TcpListener,
}

/// Runs until `stop` says so and what is in flight is finished, or the drain deadline passes.
pub async fn run(
    settings: IngressSettings,
    listeners: Listeners,
    stop: watch::Receiver<bool>,
) -> Result<(), ProcessError> {
    let master = settings.master_key.clone().ok_or(VaultError::NoMasterKey)?;
    let (metrics, routing) = (Metrics::new(), Routing::new());
    let publisher = Publisher::connect(&settings.nats, settings.publishing, metrics.clone()).await?;
    let edge = Arc::new(Edge::new(
        routing.clone(),
        publisher.clone(),
        settings.bounds,
        settings.nats.partitions,
        settings.retry_after,
        metrics.clone(),
    ));
    let entrance = Entrance::new(settings.entrance, &metrics);
    let private = Private {
        edge: edge.clone(),
        publisher,
        routing: routing.clone(),
        metrics: metrics.clone(),
        tls: entrance.tls().cloned(),
        durability: settings.nats.durability,
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
    let handler = move |request| {
        let edge = edge.clone();
        async move { edge.answer(request).await }
    };
    let reloading = entrance.tls().cloned().map(|tls| tokio::spawn(tls.follow()));
    let webhooks = Server::behind(entrance, handler, settings.bounds, metrics);
    let mut serving = tokio::spawn(webhooks.run(listeners.public, stop.clone()));
    let mut configuration = tokio::spawn(follow(settings.nats, routing, master));

    let mut stopped = stop;
    let result = tokio::select! {
        _ = stopped.wait_for(|stop| *stop) => Ok(()),
        Err(error) = async { (&mut configuration).await.unwrap_or(Err(ProcessError::Configuration)) } => Err(error),
    };
    if result.is_ok() && timeout(settings.drain_timeout, &mut serving).await.is_err() {
        tracing::warn!("not everything in flight was finished within ingress.drain_timeout");
    }
    reloading.inspect(|reloading| reloading.abort());
    serving.abort();
    configuration.abort();
    health.abort();
    result
}

/// Prepares JetStream as soon as it can be reached, then keeps the routing table in step.
async fn follow(
    settings: NatsSettings,
    routing: Arc<Routing>,
    master: VaultKey,
) -> Result<Infallible, ProcessError> {
    // A connection of its own: reading configuration must not queue behind updates.
    let client = nats::connect(&settings, "ackline-ingress-config", true).await?;
    let context = nats::jetstream(client);
    let buckets = loop {
        match timeout(PREPARE_TIMEOUT, Box::pin(nats::prepare(&context, &settings))).await {
            Ok(Ok(buckets)) => break buckets,
            Ok(Err(error @ NatsError::Partitions { .. })) => return Err(error.into()),
            Ok(Err(error)) => tracing::warn!(%error, "JetStream is not ready; trying again"),
            Err(_) => tracing::warn!("JetStream does not answer; trying again"),
        }
        sleep(PREPARE_PAUSE).await;
    };
    routing.follow(Registry::watch(buckets.config, Extent::Edge), &master).await;
    Err(ProcessError::Configuration)
}
