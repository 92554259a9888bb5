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
    owned: Family<PoolLabels, Gauge>,
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

impl Metrics {
    /// Registers the metrics under `ackline_pool_…`.
    pub fn register(registry: &mut Registry) -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(exponential_buckets(0.000_5, 2.0, 18));
        let metrics = Self {
            verdicts: Family::default(),
            queued: Family::default(),
            running: Family::default(),
            waiting: Family::default(),
            owned: Family::default(),
            service: Family::new_with_constructor(seconds),
            lag: Family::new_with_constructor(seconds),
        };
        let registry = registry.sub_registry_with_prefix("ackline_pool");
        registry.register("verdicts", "Attempts by what came of them", metrics.verdicts.clone());
        registry.register("queued", "Updates read ahead and not started", metrics.queued.clone());
        registry.register("running", "Jobs running", metrics.running.clone());
        registry.register("waiting", "Updates waiting for a retry", metrics.waiting.clone());
        registry.register("owned", "1 while this process owns the pool", metrics.owned.clone());
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

    /// Shows whether this process owns the pool.
    pub fn owned(&self, pool: Pool, owned: bool) {
        self.owned.get_or_create(&PoolLabels { pool: pool.as_str() }).set(i64::from(owned));
    }
}
