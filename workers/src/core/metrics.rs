//! What the pools count, with bounded labels: pool and verdict, never a tenant or a conversation.

use ackline_shared::subjects::Pool;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::time::Duration;

/// The pools' metrics; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    verdicts: Family<VerdictLabels, Counter>,
    queued: Family<PoolLabels, Gauge>,
    running: Family<PoolLabels, Gauge>,
    waiting: Family<PoolLabels, Gauge>,
    spilled: Family<PoolLabels, Gauge>,
    owned: Family<PoolLabels, Gauge>,
    owner_changes: Family<ChangeLabels, Counter>,
    handover: Family<ChangeLabels, Histogram, fn() -> Histogram>,
    service: Family<PoolLabels, Histogram, fn() -> Histogram>,
    lag: Family<PoolLabels, Histogram, fn() -> Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    pool: &'static str,
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChangeLabels {
    pool: &'static str,
    change: &'static str,
}

/// How a partition changed hands, seen from this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was taken over.
    Taken,
    /// It was given up.
    Given,
    /// It was taken away.
    Lost,
}

impl Change {
    fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Given => "given",
            Self::Lost => "lost",
        }
    }
}

impl Metrics {
    /// Registers the metrics under `ackline_pool_…`.
    pub fn register(registry: &mut Registry) -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(exponential_buckets(0.000_5, 2.0, 18));
        let metrics = Self {
            verdicts: Family::default(),
            queued: Family::default(),
            running: Family::default(),
            waiting: Family::default(),
            spilled: Family::default(),
            owned: Family::default(),
            owner_changes: Family::default(),
            handover: Family::new_with_constructor(seconds),
            service: Family::new_with_constructor(seconds),
            lag: Family::new_with_constructor(seconds),
        };
        let registry = registry.sub_registry_with_prefix("ackline_pool");
        registry.register("verdicts", "Attempts by what came of them", metrics.verdicts.clone());
        registry.register("queued", "Updates read ahead and not started", metrics.queued.clone());
        registry.register("running", "Jobs running", metrics.running.clone());
        registry.register("waiting", "Updates waiting for a retry", metrics.waiting.clone());
        registry.register("spilled", "Updates waiting in lines of the spill", metrics.spilled.clone());
        registry.register("owned", "Partitions of the pool that this process owns", metrics.owned.clone());
        registry.register(
            "owner_changes",
            "Partitions taken, given up or lost by this process",
            metrics.owner_changes.clone(),
        );
        registry.register(
            "handover_seconds",
            "Time from the decision to take or give up a partition until that was done",
            metrics.handover.clone(),
        );
        registry.register("service_seconds", "Time of one attempt", metrics.service.clone());
        registry.register(
            "lag_seconds",
            "Age of an update when its first attempt starts",
            metrics.lag.clone(),
        );
        metrics
    }

    /// Counts an attempt's end.
    pub fn attempted(&self, pool: Pool, verdict: &'static str, took: Duration) {
        self.verdicts.get_or_create(&VerdictLabels { pool: pool.as_str(), verdict }).inc();
        self.service.get_or_create(&PoolLabels { pool: pool.as_str() }).observe(took.as_secs_f64());
    }

    /// Notes how old an update is when its first attempt starts.
    pub fn started(&self, pool: Pool, age: Duration) {
        self.lag.get_or_create(&PoolLabels { pool: pool.as_str() }).observe(age.as_secs_f64());
    }

    /// Shows the pool's load.
    pub fn load(&self, pool: Pool, queued: usize, running: usize, waiting: usize) {
        let labels = PoolLabels { pool: pool.as_str() };
        let as_gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.queued.get_or_create(&labels).set(as_gauge(queued));
        self.running.get_or_create(&labels).set(as_gauge(running));
        self.waiting.get_or_create(&labels).set(as_gauge(waiting));
    }

    /// Shows how many updates wait in lines.
    pub fn spilled(&self, pool: Pool, count: u64) {
        let labels = PoolLabels { pool: pool.as_str() };
        self.spilled.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Shows how many partitions of the pool this process owns.
    pub fn owned(&self, pool: Pool, partitions: usize) {
        let count = i64::try_from(partitions).unwrap_or(i64::MAX);
        self.owned.get_or_create(&PoolLabels { pool: pool.as_str() }).set(count);
    }

    /// Counts a partition that changed hands, and how long its handover took.
    pub fn changed_hands(&self, pool: Pool, change: Change, took: Duration) {
        let labels = ChangeLabels { pool: pool.as_str(), change: change.as_str() };
        self.owner_changes.get_or_create(&labels).inc();
        self.handover.get_or_create(&labels).observe(took.as_secs_f64());
    }
}
