//! A pool as it is shown to programs: the same shape from the API and from the command line.

use super::diagnosis::Diagnosis;
use super::fleet::PoolSum;
use super::{LaneLag, TenantStatus};
use crate::core::scaling::Targets;
use serde::Serialize;
use utoipa::ToSchema;

/// A pool over all processes.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct PoolView {
    /// Its name.
    pub pool: &'static str,
    /// What its figures amount to.
    pub verdict: Diagnosis,
    /// Whether it is paused.
    pub paused: bool,
    /// The processes that run it.
    pub instances: Vec<InstanceView>,
    /// How many processes it needs.
    pub workers_wanted: u32,
    /// How many partitions its work is spread over.
    pub partitions: u16,
    /// Partitions that nobody owns.
    pub partitions_unowned: u16,
    /// Jobs it may run at once, over all processes.
    pub concurrency: u64,
    /// Jobs at once that are allowed now; fewer while adaptive concurrency spares what the pool talks to.
    pub concurrency_now: u64,
    /// Updates read and not started.
    pub queued: u64,
    /// Jobs running.
    pub running: u64,
    /// Updates waiting for a retry.
    pub waiting: u64,
    /// Messages in the streams that are not finished.
    pub lag_messages: u64,
    /// Age of the oldest of them.
    pub lag_seconds: f64,
    /// Updates read per second.
    pub read_per_second: f64,
    /// Updates finished per second.
    pub finished_per_second: f64,
    /// Attempts put off per second.
    pub retried_per_second: f64,
    /// Updates given up per second.
    pub dead_per_second: f64,
    /// Time of one attempt.
    pub service: Percentiles,
    /// Age of updates when their first attempt starts.
    pub wait: Percentiles,
    /// Changes of ownership since the processes started.
    pub owner_changes: u64,
    /// The same by lane.
    pub lanes: Vec<LaneView>,
    /// Updates finished in each of the last seconds, the latest last.
    pub history: Vec<u32>,
}

/// A process that runs a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct InstanceView {
    /// Its name.
    pub instance: String,
    /// Where the pool stands in it.
    pub state: String,
    /// Partitions that it owns.
    pub partitions: usize,
}

/// How long something takes, over the last half minute, in milliseconds; absent when nothing happened.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Percentiles {
    /// Half take less.
    pub p50_ms: Option<f64>,
    /// One in a hundred takes more.
    pub p99_ms: Option<f64>,
}

/// What of a lane is not finished.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LaneView {
    /// Its name.
    pub lane: String,
    /// Messages not finished.
    pub lag_messages: u64,
    /// Age of the oldest of them.
    pub lag_seconds: f64,
    /// The partition where the oldest is.
    pub partition: Option<u16>,
}

/// A tenant in a pool.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TenantView {
    /// Who.
    pub tenant: String,
    /// Updates read per second.
    pub read_per_second: f64,
    /// Updates read and not started.
    pub queued: u64,
    /// Jobs running.
    pub running: u64,
    /// Updates waiting for a retry.
    pub waiting: u64,
}

impl PoolView {
    /// Shows a pool.
    pub fn new(pool: &PoolSum, targets: &Targets) -> Self {
        let instance = |(instance, state, partitions): &(String, String, usize)| InstanceView {
            instance: instance.clone(),
            state: state.clone(),
            partitions: *partitions,
        };
        Self {
            pool: pool.pool.as_str(),
            verdict: pool.diagnosis(),
            paused: pool.paused,
            instances: pool.instances.iter().map(instance).collect(),
            workers_wanted: pool.wanted(targets),
            partitions: pool.partitions,
            partitions_unowned: pool.unowned,
            concurrency: pool.concurrency,
            concurrency_now: pool.allowed(),
            queued: pool.load.queued,
            running: pool.load.running,
            waiting: pool.load.waiting,
            lag_messages: pool.lag_messages(),
            lag_seconds: rounded(pool.lag().as_secs_f64()),
            read_per_second: rounded(pool.rates.read),
            finished_per_second: rounded(pool.rates.finished),
            retried_per_second: rounded(pool.rates.retried),
            dead_per_second: rounded(pool.rates.dead),
            service: Percentiles::of(&pool.service),
            wait: Percentiles::of(&pool.wait),
            owner_changes: pool.owner_changes,
            lanes: pool.lanes.iter().map(LaneView::from).collect(),
            history: pool.history.clone(),
        }
    }
}

impl Percentiles {
    fn of(latencies: &crate::core::latency::Latencies) -> Self {
        let at = |q| latencies.quantile_ms(q).map(rounded);
        Self { p50_ms: at(0.5), p99_ms: at(0.99) }
    }
}

impl From<&LaneLag> for LaneView {
    fn from(lag: &LaneLag) -> Self {
        Self {
            lane: lag.lane.clone(),
            lag_messages: lag.messages(),
            lag_seconds: std::time::Duration::from_millis(lag.oldest_ms).as_secs_f64(),
            partition: lag.partition,
        }
    }
}

impl From<&TenantStatus> for TenantView {
    fn from(status: &TenantStatus) -> Self {
        Self {
            tenant: status.tenant.to_string(),
            read_per_second: rounded(status.rate),
            queued: status.load.queued,
            running: status.load.running,
            waiting: status.load.waiting,
        }
    }
}

/// Three digits behind the point are enough for anybody.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
