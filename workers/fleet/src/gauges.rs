//! What `/metrics` shows of the present: read from the board at each scrape, so nothing outlives its cause.
//!
//! Labels are bounded: pools, lanes, and of tenants only the busiest of each pool. The figures are of this
//! process, but for the number of wanted workers and the open dead letters, which every process tells alike.

use super::board::Board;
use crate::scaling::Targets;
use ackline_runtime::status::dead::OpenDead;
use ackline_runtime::status::{LaneLag, PoolStatus, TenantStatus};
use ackline_shared::subjects::Pool;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use std::fmt;

#[derive(Debug)]
pub struct Gauges {
    board: Board,
    targets: Targets,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPool {
    pool: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLane {
    pool: String,
    lane: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTenant {
    pool: String,
    tenant: String,
}

/// A gauge of something, in floating point.
type Gauge<T> = (&'static str, &'static str, fn(&T) -> f64);

const POOL_GAUGES: [Gauge<PoolStatus>; 16] = [
    (
        "ackline_pool_queued",
        "Updates read ahead and not started",
        |pool| float(pool.load.queued),
    ),
    ("ackline_pool_running", "Jobs running", |pool| {
        float(pool.load.running)
    }),
    (
        "ackline_pool_waiting",
        "Updates waiting for a target or their time, in memory and in spill queues",
        |pool| float(pool.backlog().waiting),
    ),
    (
        "ackline_pool_waiting_seconds",
        "Age of the oldest of them, where it is known",
        |pool| float(pool.backlog().oldest_waiting_ms.unwrap_or_default()) / 1000.0,
    ),
    (
        "ackline_pool_ready",
        "Updates in spill queues that can be worked on",
        |pool| float(pool.backlog().ready),
    ),
    (
        "ackline_pool_stuck",
        "Updates past their due time by more than 30 s, at most 8 of them",
        |pool| length(&pool.stuck),
    ),
    (
        "ackline_pool_spilled",
        "Updates waiting in spill queues",
        |pool| float(pool.lines.total()),
    ),
    (
        "ackline_pool_parked",
        "Those of them in a conversation whose first update waits for a retry",
        |pool| float(pool.lines.parked),
    ),
    (
        "ackline_pool_breakers_open",
        "Downstreams of the pool whose circuit breaker is open",
        |pool| float(pool.breakers_open),
    ),
    (
        "ackline_pool_tenants_held",
        "Tenants paused, drained or discarded",
        |pool| float(pool.tenants_held),
    ),
    (
        "ackline_pool_owned_partitions",
        "Partitions this process owns",
        |pool| length(&pool.owned),
    ),
    (
        "ackline_pool_concurrency",
        "Jobs at once that are allowed now",
        |pool| float(pool.adaptive.unwrap_or(pool.concurrency)),
    ),
    (
        "ackline_pool_concurrency_max",
        "The most that adaptive concurrency may allow",
        |pool| float(pool.concurrency),
    ),
    (
        "ackline_pool_paused",
        "1 while the pool is paused",
        |pool| f64::from(u8::from(pool.paused)),
    ),
    (
        "ackline_pool_read_per_second",
        "Updates read, over the last seconds",
        |pool| pool.rates.read,
    ),
    (
        "ackline_pool_finished_per_second",
        "Updates finished, over the last seconds",
        |pool| pool.rates.finished,
    ),
];

const TENANT_GAUGES: [Gauge<TenantStatus>; 6] = [
    (
        "ackline_tenant_read_per_second",
        "Updates read of the busiest tenants",
        |tenant| tenant.rate,
    ),
    (
        "ackline_tenant_queued",
        "Updates held of the busiest tenants and not running",
        |tenant| float(tenant.load.queued + tenant.load.waiting),
    ),
    (
        "ackline_tenant_waiting",
        "Updates of the busiest tenants waiting for a target or their time",
        |tenant| float(tenant.backlog().waiting),
    ),
    (
        "ackline_tenant_spilled",
        "Updates of the busiest tenants in spill queues",
        |tenant| float(tenant.lines.total()),
    ),
    (
        "ackline_tenant_running",
        "Jobs running of the busiest tenants",
        |tenant| float(tenant.load.running),
    ),
    (
        "ackline_tenant_dead_letters_last_hour",
        "Updates of the busiest tenants that were given up in the last hour",
        |tenant| float(tenant.dead_hour),
    ),
];

const DEAD_GAUGES: [Gauge<OpenDead>; 3] = [
    (
        "ackline_dead_letters_open",
        "Dead letters neither replayed nor discarded, over all processes",
        |dead| float(dead.open),
    ),
    (
        "ackline_dead_letters_open_last_hour",
        "Those of them given up in the last hour",
        |dead| float(dead.last_hour),
    ),
    (
        "ackline_dead_letters_oldest_seconds",
        "Age of the oldest of them",
        |dead| float(dead.oldest_ms.unwrap_or_default()) / 1000.0,
    ),
];

impl Gauges {
    pub fn new(board: Board, targets: Targets) -> Self {
        Self { board, targets }
    }
}

const LAG_GAUGES: [Gauge<LaneLag>; 2] = [
    (
        "ackline_pool_lag_messages",
        "Messages not finished in the partitions owned",
        |lag| float(lag.messages()),
    ),
    (
        "ackline_pool_lag_seconds",
        "Age of the oldest message not finished",
        |lag| float(lag.oldest_ms) / 1000.0,
    ),
];

const UNOWNED_GAUGES: [Gauge<LaneLag>; 2] = [
    (
        "ackline_unowned_lag_messages",
        "Messages in partitions that nobody owns, as last seen",
        |lag| float(lag.messages()),
    ),
    (
        "ackline_unowned_lag_seconds",
        "Age of the oldest of them",
        |lag| float(lag.oldest_ms) / 1000.0,
    ),
];

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let own = self.board.own_pools();
        let of_pool = |pool: &str| OfPool {
            pool: pool.to_owned(),
        };
        let of_lane = |pool: &str, lag: &LaneLag| OfLane {
            pool: pool.to_owned(),
            lane: lag.lane.clone(),
        };
        let pools = own.iter().map(|pool| (of_pool(&pool.pool), pool));
        show(&mut encoder, &POOL_GAUGES, pools)?;
        let lanes = own.iter().flat_map(|pool| {
            let lanes = pool.lanes.iter();
            lanes.map(move |lag| (of_lane(&pool.pool, lag), lag))
        });
        show(&mut encoder, &LAG_GAUGES, lanes)?;
        let unowned = self.board.own_unowned();
        let unowned = unowned
            .iter()
            .map(|one| (of_lane(&one.pool, &one.lag), &one.lag));
        show(&mut encoder, &UNOWNED_GAUGES, unowned)?;
        let tenants = own.iter().flat_map(|pool| {
            let of_tenant = |tenant: &TenantStatus| OfTenant {
                pool: pool.pool.clone(),
                tenant: tenant.tenant.to_string(),
            };
            pool.tenants
                .iter()
                .map(move |tenant| (of_tenant(tenant), tenant))
        });
        show(&mut encoder, &TENANT_GAUGES, tenants)?;
        let all: Vec<_> = Pool::ALL
            .into_iter()
            .filter_map(|pool| self.board.pool(pool))
            .collect();
        let dead = all
            .iter()
            .filter_map(|pool| Some((of_pool(pool.pool.as_str()), pool.dead.as_ref()?)));
        show(&mut encoder, &DEAD_GAUGES, dead)?;
        let help = "Processes that the pool needs, over all processes";
        let mut family =
            encoder.encode_descriptor("ackline_workers_wanted", help, None, MetricType::Gauge)?;
        for pool in &all {
            let labels = of_pool(pool.pool.as_str());
            let wanted = f64::from(pool.wanted(&self.targets));
            family.encode_family(&labels)?.encode_gauge(&wanted)?;
        }
        Ok(())
    }
}

/// Shows each gauge of each thing under its labels.
fn show<'t, T: 't, L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    gauges: &[Gauge<T>],
    things: impl Iterator<Item = (L, &'t T)>,
) -> Result<(), fmt::Error> {
    let things: Vec<_> = things.collect();
    for (name, help, value) in gauges {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, thing) in &things {
            family.encode_family(labels)?.encode_gauge(&value(thing))?;
        }
    }
    Ok(())
}

fn float(count: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "figures for people")]
    let float = count as f64;
    float
}

fn length<T>(list: &[T]) -> f64 {
    u32::try_from(list.len()).map_or(f64::MAX, f64::from)
}
