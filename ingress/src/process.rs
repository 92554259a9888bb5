//! The edge as a running whole: connects, follows the configuration, serves, and drains when told to.
//!
//! Signals, configuration and the private port live on the runtime that calls [`run`]; deliveries are
//! served by threads of their own, one for each public socket.

pub mod thread;

use crate::budget::Budget;
use crate::configuration;
use crate::http::acceptor::Acceptor;
use crate::http::listeners::Listeners;
use crate::http::server::Server;
use crate::metrics::Metrics;
use crate::private::Private;
use crate::process::thread::{EdgeThread, Shared};
use crate::routing::Routing;
use crate::settings::IngressSettings;
use crate::store::acknowledged::Acknowledged;
use crate::store::durability::{DurabilityCheck, DurabilityError};
use crate::store::publisher::Publisher;
use crate::store::publisher::Publishing;
use crate::store::spool::Spool;
use crate::store::spool::directory::SpoolError;
use crate::store::spool::disk::FileSystem;
use crate::store::spool::settings::SpoolSettings;
use crate::store::stream_restore;
use crate::store::wire::Wire;
use crate::store::wire::client::Client;
use ackline_shared::nats::preparation::{Health, establish};
use ackline_shared::nats::{Durability, NatsError};
use ackline_shared::registry::Registry;
use ackline_shared::surroundings::{self, Room, Surroundings};
use ackline_shared::vault::{VaultError, VaultKey};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all, select_all};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Pause before JetStream is prepared again.
const PREPARE_PAUSE: Duration = Duration::from_millis(500);
/// Time for the spool to close after everything else.
const SPOOL_CLOSE_GRACE: Duration = Duration::from_secs(2);
/// Descriptors that are no client's connection: NATS, the private port, events of each thread, files of the spool.
const DESCRIPTORS_BESIDE: u64 = 256;
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
    Box::pin(serve(settings, listeners, stop))
}

async fn serve(
    settings: IngressSettings,
    listeners: Listeners,
    stop: watch::Receiver<bool>,
) -> Result<(), ProcessError> {
    let master = settings.master_key.clone().ok_or(VaultError::NoMasterKey)?;
    let metrics = Metrics::new();
    let surroundings = Arc::new(surroundings(&settings));
    let (spool, mut spool_ended) = open_spool(&settings, &metrics)?;
    let mut shared = Shared {
        routing: Routing::new(),
        acceptor: Acceptor::new(settings.acceptor.clone(), &metrics),
        metrics,
        body_bytes: Arc::new(Budget::new(settings.bounds.body_bytes_total_max)),
        durability_check: Arc::default(),
        acknowledged: Arc::new(Acknowledged::new(settings.acknowledged_max)),
        spool,
        wire: None,
        settings: Arc::new(settings),
    };
    let settings = shared.settings.clone();
    if settings.nats.durability == Durability::Synced {
        let Publishing {
            in_flight_max,
            attempt_timeout,
            ..
        } = settings.publishing;
        let metrics = Some(&shared.metrics);
        shared.wire =
            Some(Wire::start(&settings.nats, in_flight_max, attempt_timeout, metrics).await?);
    }
    // Dropping it ends the threads too.
    let (halt, halted) = watch::channel(false);
    let threads = listeners.public.len();
    let (mut wires, mut ends) = (Vec::new(), Vec::new());
    for listener in listeners.public {
        let thread = EdgeThread::start(shared.clone(), listener, threads, halted.clone()).await?;
        wires.push(thread.wire);
        ends.push(thread.ended);
    }
    if shared.wire.is_some() {
        wires.truncate(1);
    }
    let draining = start_drain(&shared).await?;
    let streams: Arc<Health> = Arc::default();
    let private = Private {
        streams: streams.clone(),
        wires,
        spool: shared.spool.clone(),
        body_bytes: shared.body_bytes.clone(),
        routing: shared.routing.clone(),
        metrics: shared.metrics.clone(),
        tls: shared.acceptor.tls().cloned(),
        durability: settings.nats.durability,
        durability_check: shared.durability_check.clone(),
        surroundings: surroundings.clone(),
        draining: stop.clone(),
    };
    // Health stays answered to the very end, so it is not told to stop.
    let (_health_goes_on, health_stop) = watch::channel(false);
    let health = Server::new(
        move |request, _anyone| {
            std::future::ready(private.answer(request.method(), request.uri().path()))
        },
        settings.bounds,
        Metrics::new(),
    );
    let health = tokio::spawn(health.run_open(listeners.private, health_stop));
    let reloading = shared
        .acceptor
        .tls()
        .cloned()
        .map(|tls| tokio::spawn(tls.follow()));
    let mut configuration = tokio::spawn(follow(
        settings.clone(),
        shared.routing.clone(),
        shared.durability_check.clone(),
        (surroundings, streams),
        master,
    ));

    let mut stopped = stop;
    let result = tokio::select! {
        _ = stopped.wait_for(|stop| *stop) => Ok(()),
        Err(error) = async { (&mut configuration).await.unwrap_or(Err(ProcessError::Configuration)) } => Err(error),
        _ = select_all(&mut ends) => Err(ProcessError::ThreadEnded),
        () = &mut spool_ended => Err(ProcessError::ThreadEnded),
    };
    halt.send_replace(true);
    let deadline = Instant::now() + settings.drain_timeout;
    if result.is_ok() && timeout_at(deadline, join_all(ends)).await.is_err() {
        tracing::warn!("not everything in flight was finished within ingress.drain_timeout");
    }
    if let Some(spool) = shared.spool {
        end_spool(&spool, spool_ended, result.is_ok(), deadline).await;
    }
    draining.inspect(|(draining, wire)| {
        draining.abort();
        wire.close();
    });
    reloading.inspect(|reloading| reloading.abort());
    configuration.abort();
    health.abort();
    shared.wire.inspect(|wire| wire.close());
    result
}

/// Opens the spool, if there is to be one; what ends with its thread never ends without it.
fn open_spool(
    settings: &IngressSettings,
    metrics: &Arc<Metrics>,
) -> Result<(Option<Spool>, BoxFuture<'static, ()>), ProcessError> {
    let Some(spool) = &settings.spool else {
        return Ok((None, Box::pin(std::future::pending())));
    };
    let patience = settings.publishing.budget;
    let (spool, ended) = Spool::open(spool, FileSystem, patience, metrics.clone())?;
    Ok((Some(spool), Box::pin(ended.map(drop))))
}

/// Starts to publish what is spooled, over a connection of its own.
async fn start_drain(
    shared: &Shared,
) -> Result<Option<(JoinHandle<Infallible>, Arc<Wire>)>, ProcessError> {
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
    let (limits, durability_check) = (settings.publishing, durability_check.clone());
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
        durability_check,
    ));
    let draining = tokio::spawn(spool.drain(publisher, wire.returns()).run());
    Ok(Some((draining, wire)))
}

/// Publishes what is left, as far as there is time, and lets the writer finish.
async fn end_spool(
    spool: &Spool,
    ended: BoxFuture<'static, ()>,
    in_order: bool,
    deadline: Instant,
) {
    if in_order && timeout_at(deadline, spool.emptied()).await.is_err() {
        let depth = spool.depth();
        tracing::warn!(
            updates = depth.records,
            "the spool is not empty; start an edge on its directory again to publish the rest"
        );
    }
    spool.stop();
    if timeout(SPOOL_CLOSE_GRACE, ended).await.is_err() {
        tracing::warn!("the spool's disk does not answer");
    }
}

/// Prepares JetStream as soon as it can be reached, makes sure of what is promised, then keeps the routing table in step.
async fn follow(
    settings: Arc<IngressSettings>,
    routing: Arc<Routing>,
    durability_check: Arc<DurabilityCheck>,
    (surroundings, streams): (Arc<Surroundings>, Arc<Health>),
    master: VaultKey,
) -> Result<Infallible, ProcessError> {
    // A connection of its own: reading configuration must not queue behind updates.
    let (client, connection) = Client::new(&settings.nats, "ackline-ingress-config").await?;
    tokio::select! {
        () = connection => Err(ProcessError::Configuration),
        result = follow_on(&client, &settings, (&routing, &streams), (&durability_check, &surroundings), &master) => result,
    }
}

async fn follow_on(
    client: &Client,
    settings: &IngressSettings,
    (routing, streams): (&Routing, &Health),
    (durability_check, surroundings): (&DurabilityCheck, &Surroundings),
    master: &VaultKey,
) -> Result<Infallible, ProcessError> {
    let kept = settings
        .spool
        .as_ref()
        .map(SpoolSettings::kept)
        .unwrap_or_default();
    let settings = &settings.nats;
    loop {
        match timeout(PREPARE_TIMEOUT, establish(client, settings)).await {
            Ok(Ok(())) => break,
            Ok(Err(error @ NatsError::Partitions { .. })) => return Err(error.into()),
            Ok(Err(error)) => tracing::warn!(%error, "JetStream is not ready; trying again"),
            Err(_) => tracing::warn!("JetStream does not answer; trying again"),
        }
        sleep(PREPARE_PAUSE).await;
    }
    durability_check
        .verify(client, settings, &client.server_id(), kept)
        .await?;
    let (registry, keeper) = Registry::kept();
    tokio::select! {
        () = routing.follow(registry, master) => Err(ProcessError::Configuration),
        never = configuration::follow(client, keeper) => match never {},
        never = check_surroundings(client, surroundings) => match never {},
        never = stream_restore::run(streams, client, settings) => match never {},
    }
}

/// Looks at the machine and at NATS now and then.
async fn check_surroundings(client: &Client, surroundings: &Surroundings) -> Infallible {
    loop {
        surroundings.look(client, client.message_bytes_max()).await;
        sleep(surroundings::INTERVAL).await;
    }
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
