//! A pool as it is shown to programs: the same shape from the API and from the command line.

use super::diagnosis::Diagnosis;
use super::fleet::PoolSum;
use crate::scaling::Targets;
use ackline_runtime::status::Stuck;
use ackline_runtime::status::dead::OpenDead;
use ackline_runtime::status::held::{Drain, OpenBreaker};
use ackline_runtime::status::{LaneLag, TenantStatus};
use serde::Serialize;
use std::collections::BTreeMap;
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
    /// Updates that wait for a target or for their own time, in memory and in spill queues; no worker could do more about them.
    pub waiting: u64,
    /// Age of the oldest of them, where it is known.
    pub waiting_seconds: Option<f64>,
    /// Updates that can be worked on and are not finished, in the streams and in spill queues.
    pub lag_messages: u64,
    /// Age of the oldest of them.
    pub lag_seconds: f64,
    /// Those of them that are in spill queues.
    pub ready_in_lines: u64,
    /// Updates past their due time by more than 30 seconds, the latest first; nothing while all is well.
    pub stuck: Vec<StuckView>,
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
    /// Updates of tenants larger than their share that wait in spill queues outside the streams' windows.
    pub spilled: u64,
    /// Updates of conversations that wait long for a target, in spill queues of their own.
    pub parked: u64,
    /// Downstreams that do not work: their circuit breaker is open.
    pub breakers_open: u64,
    /// Those that have not worked for longest.
    pub breakers: Vec<BreakerView>,
    /// Downstreams that work, but of whose last requests half timed out.
    pub slow: Vec<String>,
    /// Tenants that are paused, drained or discarded.
    pub tenants_held: u64,
    /// The pool's dead letters that are neither replayed nor discarded, as counted within the last seconds; absent until
    /// some process has counted them.
    pub dead_letters: Option<OpenDeadView>,
    /// Updates given up in the last hour by the processes that run now, whatever was done about them since.
    pub dead_last_hour: u64,
}

/// Dead letters that are neither replayed nor discarded.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct OpenDeadView {
    /// How many.
    pub open: u64,
    /// Those of them that were given up in the last hour.
    pub last_hour: u64,
    /// Age of the oldest.
    pub oldest_seconds: Option<f64>,
    /// How many by the class of their reason: `refused`, `overdue`, `gave_up`, `panicked`, `taken_over`, `unreadable`,
    /// `discarded`, `ambiguous` or `other`.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Whether there may be older ones that are not counted.
    pub more: bool,
}

/// Where something is stuck.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct StuckView {
    /// The partition.
    pub partition: u16,
    /// The lane.
    pub lane: String,
    /// Whose it is.
    pub tenant: String,
    /// For how long it has been past its due time.
    pub seconds: f64,
    /// What it is, in words.
    pub what: String,
}

/// A downstream whose circuit breaker is open.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct BreakerView {
    /// Its name: `relay.<tenant>.<id>`, `endpoint.<tenant>.<id>`, `crm.<tenant>.<id>`, `number.<phone_number_id>` or
    /// `graph`.
    pub downstream: String,
    /// For how long it has not worked.
    pub open_seconds: f64,
    /// Until one request finds out whether it works again.
    pub next_request_seconds: f64,
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
    /// Updates that wait for a target or for their own time, in memory and in spill queues.
    pub waiting: u64,
    /// Age of the oldest of them, where it is known.
    pub waiting_seconds: Option<f64>,
    /// Updates in spill queues because the tenant held more than its share.
    pub spilled: u64,
    /// Updates of conversations that wait long for a target.
    pub parked: u64,
    /// Updates given up in the last hour by the processes that run now.
    pub dead_last_hour: u64,
    /// Nothing of it starts.
    pub paused: bool,
    /// What was received before the change is worked on, what comes later is kept.
    pub draining: bool,
    /// Everything goes to the dead letters.
    pub discarding: bool,
    /// Its share of turns, where it is not everybody's.
    pub weight: Option<u32>,
    /// Its jobs at once in each process, where it is not everybody's.
    pub in_flight_max: Option<u32>,
    /// Who turned it last, when something is turned.
    pub turned_by: Option<String>,
    /// How far the drain is, while it is drained.
    pub drain: Option<DrainView>,
}

/// How far a tenant's drain is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DrainView {
    /// Whether nothing is left that was received before it began.
    pub done: bool,
    /// Whether all of that has been read.
    pub is_read: bool,
    /// Updates of it that were read and are not finished.
    pub left: u64,
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
            waiting: pool.waiting(),
            waiting_seconds: pool.oldest_waiting().map(|age| rounded(age.as_secs_f64())),
            lag_messages: pool.lag_messages(),
            lag_seconds: rounded(pool.lag().as_secs_f64()),
            ready_in_lines: pool.backlog.ready,
            stuck: pool.stuck.iter().map(StuckView::from).collect(),
            read_per_second: rounded(pool.rates.read),
            finished_per_second: rounded(pool.rates.finished),
            retried_per_second: rounded(pool.rates.retried),
            dead_per_second: rounded(pool.rates.dead),
            service: Percentiles::of(&pool.service),
            wait: Percentiles::of(&pool.wait),
            owner_changes: pool.owner_changes,
            lanes: pool.lanes.iter().map(LaneView::from).collect(),
            history: pool.history.clone(),
            spilled: pool.lines.moved,
            parked: pool.lines.parked,
            breakers_open: pool.breakers_open,
            breakers: pool.breakers.iter().map(BreakerView::from).collect(),
            slow: pool.slow.clone(),
            tenants_held: pool.tenants_held,
            dead_letters: pool.dead.as_ref().map(OpenDeadView::from),
            dead_last_hour: pool.dead_hour,
        }
    }
}

impl Percentiles {
    fn of(latencies: &ackline_engine::latency::Latencies) -> Self {
        let at = |q| latencies.quantile_ms(q).map(rounded);
        Self {
            p50_ms: at(0.5),
            p99_ms: at(0.99),
        }
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
        let turned = status.turned.clone().unwrap_or_default();
        let drain = |drain: Drain| DrainView {
            done: drain.is_done(),
            is_read: drain.is_read,
            left: drain.left,
        };
        Self {
            tenant: status.tenant.to_string(),
            read_per_second: rounded(status.rate),
            queued: status.load.queued,
            running: status.load.running,
            waiting: status.backlog().waiting,
            waiting_seconds: status.backlog().oldest_waiting_ms.map(seconds),
            spilled: status.lines.moved,
            parked: status.lines.parked,
            dead_last_hour: status.dead_hour,
            paused: turned.paused,
            draining: turned.draining,
            discarding: turned.discarding,
            weight: turned.weight,
            in_flight_max: turned.in_flight_max,
            turned_by: status.turned.as_ref().map(|turned| turned.by.clone()),
            drain: status.drain.map(drain),
        }
    }
}

impl From<&OpenBreaker> for BreakerView {
    fn from(breaker: &OpenBreaker) -> Self {
        Self {
            downstream: breaker.downstream.clone(),
            open_seconds: seconds(breaker.open_ms),
            next_request_seconds: seconds(breaker.next_ms),
        }
    }
}

impl From<&OpenDead> for OpenDeadView {
    fn from(dead: &OpenDead) -> Self {
        Self {
            open: dead.open,
            last_hour: dead.last_hour,
            oldest_seconds: dead.oldest_ms.map(seconds),
            reasons: dead
                .reasons
                .iter()
                .map(|(class, count)| (class.as_str(), *count))
                .collect(),
            more: dead.more,
        }
    }
}

impl From<&Stuck> for StuckView {
    fn from(stuck: &Stuck) -> Self {
        Self {
            partition: stuck.partition,
            lane: stuck.lane.clone(),
            tenant: stuck.tenant.to_string(),
            seconds: seconds(stuck.since_ms),
            what: stuck.what.clone(),
        }
    }
}

fn seconds(ms: u64) -> f64 {
    rounded(std::time::Duration::from_millis(ms).as_secs_f64())
}

/// Three digits behind the point are enough for anybody.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
