//! The worker pools: flows, replies, relay, events, and the list from which all are started.

pub mod events;
pub mod flows;
pub mod relay;
pub mod replies;

use ackline_connectors::CrmSync;
use ackline_egress::Egress;
use ackline_runtime::job::Job;
use ackline_runtime::pool::{self, Host};
use ackline_runtime::settings::PoolSettings;
use ackline_shared::subjects::Pool;
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

/// A pool and how it is started.
#[derive(Debug, Clone, Copy)]
pub struct PoolSpec {
    pub pool: Pool,
    pub start: fn(&PoolParts<'_>) -> Result<Running, ClientError>,
}

/// Every pool that works on one update at a time.
pub const SPECS: [PoolSpec; 5] = [
    PoolSpec {
        pool: Pool::Flows,
        start: |parts| {
            let job = FlowsJob::new(parts.host.platform.clone(), parts.egress.clone());
            Ok(run(job.with_metrics(parts.host.metrics.clone()), parts))
        },
    },
    PoolSpec {
        pool: Pool::Replies,
        start: |parts| {
            let job = Replies::new(parts.host.platform.clone(), parts.graph)?;
            Ok(run(job, parts))
        },
    },
    PoolSpec {
        pool: Pool::Crm,
        start: |parts| {
            let (platform, egress) = (parts.host.platform.clone(), parts.egress.clone());
            let job = CrmSync::new(platform, egress, parts.settings.attempt_timeout);
            Ok(run(job, parts))
        },
    },
    PoolSpec {
        pool: Pool::Relay,
        start: |parts| {
            let (platform, egress) = (parts.host.platform.clone(), parts.egress.clone());
            let job = RelayJob::new(platform, egress, parts.settings.attempt_timeout);
            Ok(run(job, parts))
        },
    },
    PoolSpec {
        pool: Pool::Events,
        start: |parts| {
            let (platform, egress) = (parts.host.platform.clone(), parts.egress.clone());
            let job = EventsJob::new(platform, egress, parts.settings.attempt_timeout);
            Ok(run(job, parts))
        },
    },
];

/// Runs a job. It bounds its own requests by the configured time; the pool's bound is the backstop behind it.
fn run<J: Job>(job: J, parts: &PoolParts<'_>) -> Running {
    let backstop = parts.settings.attempt_timeout * 2 + Duration::from_secs(5);
    let settings = PoolSettings {
        attempt_timeout: backstop,
        ..parts.settings.clone()
    };
    Box::pin(pool::run(job, settings, parts.host.clone()))
}
