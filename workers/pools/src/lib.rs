//! The worker pools: flows, replies, relay, events, and the list from which all are started.

pub mod events;
pub mod flows;
pub mod relay;
pub mod replies;

use ackline_connectors::CrmSync;
use ackline_egress::Egress;
use ackline_runtime::asked::Askers;
use ackline_runtime::job::Job;
use ackline_runtime::pool::{self, Host};
use ackline_runtime::settings::PoolSettings;
use ackline_shared::envelope::Head;
use ackline_shared::ids::{EntityId, TenantId};
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{Pool, config_key};
use events::EventsJob;
use flows::FlowsJob;
use relay::RelayJob;
use replies::{ClientError, GraphSettings, Replies};
use std::pin::Pin;
use std::time::Duration;

/// What a pool is started with.
#[derive(Debug)]
pub struct PoolParts<'p> {
    /// The process it runs in.
    pub host: &'p Host,
    pub settings: &'p PoolSettings,
    /// The client for tenants' addresses.
    pub egress: &'p Egress,
    /// How the Graph API is reached.
    pub graph: &'p GraphSettings,
}

/// A pool at work, until the process is shut down.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A pool: how it is started, and what it says of updates that are to be put before it again.
#[derive(Debug, Clone, Copy)]
pub struct PoolSpec {
    pub pool: Pool,
    pub start: fn(&PoolParts<'_>) -> Result<Running, ClientError>,
    /// Which tenants may have work for it.
    pub askers: Askers,
    /// What its targets are, when a replay may be narrowed to one.
    pub target: Option<TargetKind>,
    /// Why none of those that an update is for would ever get it.
    pub refusal: fn(&Snapshot, &Head, &[u8]) -> Option<String>,
}

/// What a pool's work is for.
#[derive(Debug, Clone, Copy)]
pub struct TargetKind {
    /// What people call it.
    pub noun: &'static str,
    /// The family of the keys under which it is declared.
    pub family: &'static str,
    /// Whether it is declared under a key.
    pub has: fn(&Snapshot, &str) -> bool,
}

/// Every pool that works on one update at a time.
pub const SPECS: [PoolSpec; 5] = [
    PoolSpec {
        pool: Pool::Flows,
        askers: FlowsJob::askers,
        start: |parts| {
            let job = FlowsJob::new(parts.host.platform.clone(), parts.egress.clone());
            Ok(run(job.with_metrics(parts.host.metrics.clone()), parts))
        },
        target: Some(TargetKind {
            noun: "bot",
            family: "bot",
            has: |snapshot, key| snapshot.bots.contains_key(key),
        }),
        refusal: |_, _, _| None,
    },
    PoolSpec {
        pool: Pool::Replies,
        askers: Replies::askers,
        start: |parts| {
            let job = Replies::new(parts.host.platform.clone(), parts.graph)?;
            let job = job.with_files(parts.egress.clone());
            Ok(run(job, parts))
        },
        target: None,
        refusal: |_, _, _| None,
    },
    PoolSpec {
        pool: Pool::Crm,
        askers: CrmSync::askers,
        start: |parts| {
            let (platform, egress) = (parts.host.platform.clone(), parts.egress.clone());
            let graph = ackline_whatsapp::graph::Graph::new(parts.graph)?;
            let job = CrmSync::new(platform, egress, parts.settings.attempt_timeout);
            let job = job.with_files(graph);
            Ok(run(job, parts))
        },
        target: Some(TargetKind {
            noun: "CRM link",
            family: "crm",
            has: |snapshot, key| snapshot.crm_links.contains_key(key),
        }),
        refusal: |_, _, _| None,
    },
    PoolSpec {
        pool: Pool::Relay,
        askers: RelayJob::askers,
        start: |parts| {
            let (platform, egress) = (parts.host.platform.clone(), parts.egress.clone());
            let job = RelayJob::new(platform, egress, parts.settings.attempt_timeout);
            Ok(run(job, parts))
        },
        target: Some(TargetKind {
            noun: "relay",
            family: "relay",
            has: |snapshot, key| snapshot.relays.contains_key(key),
        }),
        refusal: relay::unsignable,
    },
    PoolSpec {
        pool: Pool::Events,
        askers: EventsJob::askers,
        start: |parts| {
            let (platform, egress) = (parts.host.platform.clone(), parts.egress.clone());
            let job = EventsJob::new(platform, egress, parts.settings.attempt_timeout);
            Ok(run(job, parts))
        },
        target: Some(TargetKind {
            noun: "endpoint",
            family: "endpoint",
            has: |snapshot, key| snapshot.endpoints.contains_key(key),
        }),
        refusal: |_, _, _| None,
    },
];

fn spec(pool: Pool) -> Option<PoolSpec> {
    SPECS.into_iter().find(|spec| spec.pool == pool)
}

/// What a pool's targets are called and whether a tenant has such a one; none of a pool without targets.
pub fn target(
    snapshot: &Snapshot,
    pool: Pool,
    tenant: &TenantId,
    id: &EntityId,
) -> Option<(&'static str, bool)> {
    let kind = spec(pool)?.target?;
    let key = config_key::owned(kind.family, tenant, id);
    Some((kind.noun, (kind.has)(snapshot, &key)))
}

/// Why none of those that an update is for would ever get it from a pool.
pub fn refusal(snapshot: &Snapshot, pool: Pool, head: &Head, payload: &[u8]) -> Option<String> {
    (spec(pool)?.refusal)(snapshot, head, payload)
}

/// Runs a job. It bounds its own requests by the configured time; the pool's bound is the backstop behind it.
fn run<J: Job>(job: J, parts: &PoolParts<'_>) -> Running {
    let backstop = parts.settings.attempt_timeout * 2 + Duration::from_secs(5);
    let settings = PoolSettings {
        attempt_timeout: backstop,
        ..parts.settings.clone()
    };
    Box::pin(pool::run(job, settings, parts.host.clone()))
}
