//! Of which targets the circuit breakers are open in this process, for whoever looks: what the pools decide each for itself, told
//! in one place.

use ackline_engine::state::{BreakerReport, Policy};
use ackline_shared::config::Reader;
use ackline_shared::subjects::Pool;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Reads the keys that all pools share.
pub fn read_policy(reader: &mut Reader) -> Policy {
    let failures = reader.count("pools.breaker_failures", 1..=1000);
    Policy {
        failures_max: u32::try_from(failures).unwrap_or(1),
        pause_max: reader.duration("pools.breaker_pause_max"),
        ..Policy::default()
    }
}

/// The targets whose circuit breaker is open; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct OpenBreakers(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: Mutex<BTreeMap<Pool, Vec<BreakerReport>>>,
    opened: Family<KindLabels, Counter>,
    open_now: Family<KindLabels, Gauge>,
    slow: Family<KindLabels, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
struct KindLabels {
    kind: String,
}

impl OpenBreakers {
    /// Registers what they count, by the kind that a target's name begins with.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("ackline_breaker");
        registry.register(
            "open",
            "Targets whose circuit breaker is open",
            self.0.open_now.clone(),
        );
        registry.register(
            "slow",
            "Targets of whose last requests half timed out",
            self.0.slow.clone(),
        );
        registry.register(
            "opened",
            "Targets whose circuit breaker opened",
            self.0.opened.clone(),
        );
    }

    /// Notes that a target's circuit breaker opened, at first for a pause, or closed again.
    pub fn changed(&self, target: &str, pause: Option<Duration>) {
        match pause {
            Some(pause) => {
                self.0.opened.get_or_create(&kind_of(target)).inc();
                let pause_ms = pause.as_millis();
                tracing::warn!(
                    target_name = target,
                    pause_ms,
                    "a target does not work; its circuit breaker opened"
                );
            }
            None => {
                tracing::info!(target_name = target, "a target works again");
            }
        }
    }

    /// Takes in what a pool leaves alone now.
    pub fn publish(&self, pool: Pool, open: Vec<BreakerReport>) {
        let mut all = self.lock();
        let mut kinds: BTreeMap<KindLabels, (i64, i64)> = BTreeMap::new();
        for breaker in all.values().flatten() {
            kinds.entry(kind_of(&breaker.name)).or_default();
        }
        let before = all.insert(pool, open).unwrap_or_default();
        for breaker in all.values().flatten() {
            let (open, slow) = kinds.entry(kind_of(&breaker.name)).or_default();
            *open += i64::from(breaker.since.is_some());
            *slow += i64::from(breaker.is_slow);
        }
        let was_slow = |breaker: &BreakerReport| {
            before
                .iter()
                .any(|known| known.name == breaker.name && known.is_slow)
        };
        for breaker in all
            .get(&pool)
            .into_iter()
            .flatten()
            .filter(|breaker| breaker.is_slow && !was_slow(breaker))
        {
            tracing::warn!(
                target_name = breaker.name,
                "half of a target's last requests timed out: it is slow rather than down; give it a longer `timeout`"
            );
        }
        for (kind, (open, slow)) in kinds {
            self.0.open_now.get_or_create(&kind).set(open);
            self.0.slow.get_or_create(&kind).set(slow);
        }
    }

    /// What a pool said last of the targets that it leaves alone or finds slow.
    pub fn of(&self, pool: Pool) -> Vec<BreakerReport> {
        self.lock().get(&pool).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Pool, Vec<BreakerReport>>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kind_of(target: &str) -> KindLabels {
    KindLabels {
        kind: target.split('.').next().unwrap_or_default().to_owned(),
    }
}
