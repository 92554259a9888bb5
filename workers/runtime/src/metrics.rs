//! What the pools count, with bounded labels: pool and verdict, never a conversation.
//!
//! The one handle through which pools say what happens: it feeds the counters of `/metrics` and the present
//! that [`super::status`] tells.

use super::activity::{Activity, Presence};
use super::dead_class::DeadClass;
use super::following::Following;
use ackline_engine::verdict::VerdictKind;
use ackline_shared::envelope::{self, Head};
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::{Partition, Pool};
use ackline_traces::Traces;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The pools' metrics; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    verdicts: Family<VerdictLabels, Counter>,
    dead: Family<DeadLabels, Counter>,
    calls: Family<CallLabels, Counter>,
    owner_changes: Family<ChangeLabels, Counter>,
    handover: Family<ChangeLabels, Histogram, fn() -> Histogram>,
    service: Family<PoolLabels, Histogram, fn() -> Histogram>,
    activities: Arc<[Activity; Pool::ALL.len()]>,
    following: Following,
    traces: Traces,
    wait: Family<PoolLabels, Histogram, fn() -> Histogram>,
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
struct DeadLabels {
    pool: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    call: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChangeLabels {
    pool: &'static str,
    change: &'static str,
}

/// How a partition changed hands, seen from this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Taken,
    Given,
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
    /// Registers the metrics under `ackline_pool_…` and shows the ten busiest tenants of each pool.
    pub fn register(registry: &mut Registry) -> Self {
        Self::register_showing(registry, 10)
    }

    /// Registers the metrics and shows so many tenants of each pool.
    pub fn register_showing(registry: &mut Registry, tenants: usize) -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(exponential_buckets(0.000_5, 2.0, 18));
        let metrics = Self {
            verdicts: Family::default(),
            dead: Family::default(),
            calls: Family::default(),
            owner_changes: Family::default(),
            handover: Family::new_with_constructor(seconds),
            activities: Arc::new(Pool::ALL.map(|pool| Activity::new(pool, tenants))),
            service: Family::new_with_constructor(seconds),
            following: Following::default(),
            traces: Traces::default(),
            wait: Family::new_with_constructor(seconds),
        };
        let help = "Updates that went to the dead letters, by the class of their reason";
        registry.register("ackline_dead_letters", help, metrics.dead.clone());
        let help =
            "Calls that flows made, by what came of them: `done`, or the kind of the failure";
        registry.register("ackline_flow_calls", help, metrics.calls.clone());
        let registry = registry.sub_registry_with_prefix("ackline_pool");
        registry.register(
            "verdicts",
            "Attempts by what came of them",
            metrics.verdicts.clone(),
        );
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
        registry.register(
            "service_seconds",
            "Time of one attempt",
            metrics.service.clone(),
        );
        registry.register(
            "wait_seconds",
            "Age of an update when its first attempt starts",
            metrics.wait.clone(),
        );
        metrics
    }

    /// What a pool holds and does now.
    pub fn activity(&self, pool: Pool) -> &Activity {
        let [first, others @ ..] = self.activities.as_ref();
        let mut others = others.iter();
        others
            .find(|activity| activity.pool() == pool)
            .unwrap_or(first)
    }

    /// Notes that an update was read; it is held until the presence is dropped.
    pub fn entered(&self, pool: Pool, tenant: &TenantId) -> Presence {
        self.activity(pool).enter(tenant)
    }

    /// Counts what was read by whose it is: Meta's, or a record of ours.
    pub fn read(&self, pool: Pool, head: &Head) {
        if matches!(head.family, envelope::Family::Update(_)) {
            self.activity(pool).webhook();
        }
    }

    /// Counts a call that a flow made, of a `model` or over `http`, by what came of it.
    pub fn called(&self, call: &'static str, outcome: &'static str) {
        self.calls
            .get_or_create(&CallLabels { call, outcome })
            .inc();
    }

    /// Counts an update that went to the dead letters.
    pub fn buried(&self, pool: Pool, tenant: &TenantId, class: DeadClass) {
        self.dead
            .get_or_create(&DeadLabels {
                pool: pool.as_str(),
                reason: class.as_str(),
            })
            .inc();
        self.activity(pool).buried(tenant);
    }

    /// Counts an attempt's end by the verdict that stands in the end: `done`, `idle`, `retry`, `wait`, `gave_up` for
    /// one that would have been tried again and is not, `dead` or `discarded`.
    pub fn attempted(&self, pool: Pool, verdict: VerdictKind, took: Duration) {
        self.verdicts
            .get_or_create(&VerdictLabels {
                pool: pool.as_str(),
                verdict: verdict.as_str(),
            })
            .inc();
        self.service
            .get_or_create(&PoolLabels {
                pool: pool.as_str(),
            })
            .observe(took.as_secs_f64());
        self.activity(pool).attempted(verdict, took);
    }

    /// Notes how old an update is when its first attempt starts.
    pub fn started(&self, pool: Pool, age: Duration) {
        self.wait
            .get_or_create(&PoolLabels {
                pool: pool.as_str(),
            })
            .observe(age.as_secs_f64());
        self.activity(pool).started(age);
    }

    pub fn with_traces(self, traces: Traces) -> Self {
        Self { traces, ..self }
    }

    /// Where traced attempts are told.
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// Those who follow what comes of attempts.
    pub fn following(&self) -> &Following {
        &self.following
    }

    /// Counts a partition that changed hands, and how long its handover took.
    pub fn changed_hands(&self, pool: Pool, change: Change, took: Duration) {
        let labels = ChangeLabels {
            pool: pool.as_str(),
            change: change.as_str(),
        };
        self.owner_changes.get_or_create(&labels).inc();
        self.handover
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// Counts an update that asked nothing of the pool and passed without an attempt.
    pub fn passed(&self, pool: Pool, tenant: &TenantId) {
        self.verdicts
            .get_or_create(&VerdictLabels {
                pool: pool.as_str(),
                verdict: "idle",
            })
            .inc();
        self.activity(pool).passed(tenant);
    }

    /// Counts updates that left the pool for good.
    pub fn finished(&self, pool: Pool, count: usize) {
        self.activity(pool).finished(count);
    }

    /// Notes which partitions this process owns from now on.
    pub fn owns(&self, pool: Pool, owned: BTreeSet<Partition>) {
        self.activity(pool).owns(owned);
    }

    /// Notes how many jobs at once are allowed from now on, while that is found by trying.
    pub fn adapted(&self, pool: Pool, limit: Option<usize>) {
        self.activity(pool).adapted(limit);
    }

    /// Notes the limits in force from now on.
    pub fn limited(&self, pool: Pool, concurrency: usize, paused: bool) {
        self.activity(pool).limited(concurrency, paused);
    }
}
