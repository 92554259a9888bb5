//! The configuration as a part of the process: JetStream is prepared, then the routing table is kept in step.

use super::ProcessError;
use super::thread::Shared;
use crate::configuration;
use crate::routing::Routing;
use crate::settings::IngressSettings;
use crate::store::durability::DurabilityCheck;
use crate::store::spool::settings::SpoolSettings;
use crate::store::stream_restore;
use crate::store::wire::client::Client;
use ackline_shared::nats::NatsError;
use ackline_shared::nats::preparation::{Health, establish};
use ackline_shared::registry::Registry;
use ackline_shared::surroundings::{self, Surroundings};
use ackline_shared::vault::VaultKey;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Pause before JetStream is prepared again.
const PREPARE_PAUSE: Duration = Duration::from_millis(500);
/// Time one preparation may take.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(30);

/// The task that follows the configuration.
pub struct ConfigurationFollower(JoinHandle<Result<Infallible, ProcessError>>);

impl ConfigurationFollower {
    /// Starts it; `surroundings` and `streams` learn what it sees of NATS.
    pub fn start(
        shared: &Shared,
        surroundings: Arc<Surroundings>,
        streams: Arc<Health>,
        master: VaultKey,
    ) -> Self {
        let follow = follow(
            shared.settings.clone(),
            shared.routing.clone(),
            shared.durability_check.clone(),
            (surroundings, streams),
            master,
        );
        Self(tokio::spawn(follow))
    }

    /// Resolves when it cannot go on.
    pub async fn failed(&mut self) -> ProcessError {
        match (&mut self.0).await {
            Ok(Err(error)) => error,
            Ok(Ok(never)) => match never {},
            Err(_) => ProcessError::Configuration,
        }
    }

    pub fn stop(self) {
        self.0.abort();
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
    let (registry, writer) = Registry::writable();
    tokio::select! {
        () = routing.follow(registry, master) => Err(ProcessError::Configuration),
        never = configuration::follow(client, writer) => match never {},
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
