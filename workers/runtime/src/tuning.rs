//! Live settings of the pools: what operators turn while everything runs, over what is configured.
//!
//! One entry per pool and one per pool and tenant in the `tuning` bucket, each stamped with who changed it and
//! when, so that the bucket's history is the audit. Every process follows the bucket and holds a [`Table`];
//! what an entry does not say is as configured, and an entry that does not parse is reported and left out.

pub mod authority;
mod check;
mod store;
mod watch;

pub use check::{TuningMistake, check_pool, check_tenant};
pub use store::{Change, HISTORY_MAX, TuningError, TuningStore};
pub use watch::Tuning;

use super::adaptive::{Choice, Range};
use super::job::LaneSource;
use super::settings::PoolSettings;
use ackline_engine::scheduler::{Rules, Share, WEIGHT_DEFAULT};
use ackline_shared::ids::TenantId;
use ackline_shared::stored::{self, Stored};
use ackline_shared::subjects::{Pool, tuning_key};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What may be turned of a pool; what is absent is as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolTuning {
    /// Jobs at once in each process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Whether they are found by trying, and between which bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<Choice>,
    /// Jobs of one tenant at once in each process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_in_flight_max: Option<u32>,
    /// Weights of lanes by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lanes: BTreeMap<String, u32>,
    /// Nothing starts; what arrives is kept.
    #[serde(default, skip_serializing_if = "is_false")]
    pub paused: bool,
}

/// What may be turned of one tenant in one pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantTuning {
    /// Its share of turns; 10 is everybody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Its jobs at once in each process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight_max: Option<u32>,
    /// Nothing of it starts; what arrives is kept.
    #[serde(default, skip_serializing_if = "is_false")]
    pub paused: bool,
    /// What else happens to its updates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

/// What happens to a tenant's updates instead of the usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// What was received before the entry's time is worked on, what came later is kept.
    Drain,
    /// Nothing is worked on; everything goes to the dead letters with the name of who said so.
    Discard,
}

/// A value with who put it there, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped<T> {
    pub value: T,
    pub by: String,
    pub at_ms: u64,
    /// Whether the author operates the whole installation; one who operates tenants alone does not undo what it set.
    #[serde(default = "of_platform", skip_serializing_if = "is_of_platform")]
    pub platform: bool,
}

fn of_platform() -> bool {
    true
}

fn is_of_platform(platform: &bool) -> bool {
    *platform
}

impl<T: Serialize + DeserializeOwned> Stored for Stamped<T> {
    fn inner() -> Vec<(&'static str, Vec<&'static str>)> {
        vec![("value", stored::fields_of::<T>().to_vec())]
    }
}

/// What is done with a piece of work of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handling {
    Work,
    /// It is kept until the tuning changes.
    Keep,
    /// It goes to the dead letters; the text is who said so.
    Discard(String),
}

/// A pool's settings with the tuning laid over them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// Jobs at once in this process, or the most of them.
    pub concurrency: usize,
    /// Between which bounds they are found by trying, when they are.
    pub adaptive: Option<Range>,
    /// Jobs of one tenant at once in this process.
    pub tenant_in_flight_max: usize,
    /// Weights of the lanes, in their order.
    pub lanes: Vec<(&'static str, u32)>,
    pub paused: bool,
}

type TenantTable = HashMap<TenantId, Arc<Stamped<TenantTuning>>>;

/// All live settings at one moment.
#[derive(Debug, Clone, Default)]
pub struct Table {
    pools: BTreeMap<Pool, Arc<Stamped<PoolTuning>>>,
    tenants: BTreeMap<Pool, Arc<TenantTable>>,
}

impl Table {
    /// What is turned of a pool.
    pub fn pool(&self, pool: Pool) -> Option<&Stamped<PoolTuning>> {
        self.pools.get(&pool).map(Arc::as_ref)
    }

    /// What is turned of a tenant in a pool.
    pub fn tenant(&self, pool: Pool, tenant: &TenantId) -> Option<&Stamped<TenantTuning>> {
        self.tenants.get(&pool)?.get(tenant).map(Arc::as_ref)
    }

    /// Every tenant of which something is turned in a pool, in no order.
    pub fn tenants(&self, pool: Pool) -> impl Iterator<Item = (&TenantId, &Stamped<TenantTuning>)> {
        let table = self.tenants.get(&pool).into_iter();
        table
            .flat_map(|table| table.iter())
            .map(|(tenant, entry)| (tenant, entry.as_ref()))
    }

    /// The settings of a pool as they are in effect.
    pub fn effective(
        &self,
        pool: Pool,
        settings: &PoolSettings,
        lanes: &[LaneSource],
    ) -> Effective {
        let none = PoolTuning::default();
        let tuning = self.pool(pool).map_or(&none, |entry| &entry.value);
        let weight =
            |lane: &LaneSource| tuning.lanes.get(lane.name).copied().unwrap_or(lane.weight);
        let concurrency = tuning.concurrency.map_or(settings.concurrency, as_count);
        let adaptive = tuning.adaptive.map_or(settings.adaptive, Choice::range);
        // Whoever lowers the concurrency means it, whatever range was set before.
        let adaptive =
            adaptive.map(|range| range.capped(u32::try_from(concurrency).unwrap_or(u32::MAX)));
        Effective {
            concurrency: adaptive.map_or(concurrency, |range| as_count(range.max())),
            adaptive,
            tenant_in_flight_max: tuning
                .tenant_in_flight_max
                .map_or(settings.tenant_in_flight_max, as_count),
            lanes: lanes.iter().map(|lane| (lane.name, weight(lane))).collect(),
            paused: tuning.paused,
        }
    }

    /// The same as the scheduler takes it, tenants included.
    pub fn rules(&self, pool: Pool, settings: &PoolSettings, lanes: &[LaneSource]) -> Rules {
        let effective = self.effective(pool, settings, lanes);
        let tenants = self
            .tenants(pool)
            .map(|(tenant, entry)| (tenant.clone(), share(&entry.value)));
        Rules {
            permits: effective.concurrency,
            lane_weights: effective.lanes.iter().map(|(_, weight)| *weight).collect(),
            paused: effective.paused,
            tenant_cap: effective.tenant_in_flight_max,
            tenants: Arc::new(tenants.collect()),
        }
    }

    /// Whether a pool, or the tenant in it, is told not to start anything.
    pub fn is_paused(&self, pool: Pool, tenant: &TenantId) -> bool {
        self.pool(pool).is_some_and(|entry| entry.value.paused)
            || self
                .tenant(pool, tenant)
                .is_some_and(|entry| entry.value.paused)
    }

    /// What is done with an update of a tenant that was received at a time.
    pub fn handling(&self, pool: Pool, tenant: &TenantId, received_ms: u64) -> Handling {
        match self.tenant(pool, tenant) {
            Some(Stamped {
                value:
                    TenantTuning {
                        mode: Some(Mode::Discard),
                        ..
                    },
                by,
                ..
            }) => Handling::Discard(by.clone()),
            Some(Stamped {
                value:
                    TenantTuning {
                        mode: Some(Mode::Drain),
                        ..
                    },
                at_ms,
                ..
            }) if received_ms > *at_ms => Handling::Keep,
            _ => Handling::Work,
        }
    }

    /// Folds one change in; `None` as value means the key was removed.
    pub fn fold(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), serde_json::Error> {
        match tuning_key::parse(key) {
            Some((pool, None)) => {
                self.pools.remove(&pool);
                if let Some(value) = value {
                    self.pools.insert(pool, Arc::new(stored::decode(value)?));
                }
            }
            Some((pool, Some(tenant))) => {
                let tenants = Arc::make_mut(self.tenants.entry(pool).or_default());
                tenants.remove(&tenant);
                if let Some(value) = value {
                    tenants.insert(tenant, Arc::new(stored::decode(value)?));
                }
            }
            None => {}
        }
        Ok(())
    }
}

fn share(tuning: &TenantTuning) -> Share {
    Share {
        weight: tuning.weight.unwrap_or(WEIGHT_DEFAULT),
        cap: tuning.in_flight_max.map(as_count),
        paused: tuning.paused,
    }
}

fn as_count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX).max(1)
}

fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::config::Reader;
    use serde_json::json;

    const POOL: Pool = Pool::Relay;

    fn fold(table: &mut Table, key: &str, value: serde_json::Value) {
        let stamped = json!({"value": value, "by": "somebody", "at_ms": 1000});
        table
            .fold(key, Some(stamped.to_string().as_bytes()))
            .unwrap();
    }

    #[test]
    fn what_is_turned_lies_over_what_is_configured_and_comes_off_again() {
        let settings = PoolSettings::read(&mut Reader::load(None, []), POOL);
        let lanes = [
            LaneSource {
                name: "msg",
                stream: "S",
                filters: |_| Vec::new(),
                weight: 2,
            },
            LaneSource {
                name: "sts",
                stream: "S",
                filters: |_| Vec::new(),
                weight: 1,
            },
        ];
        let mut table = Table::default();
        let configured = table.rules(POOL, &settings, &lanes);
        fold(
            &mut table,
            "pool.relay",
            json!({"concurrency": 3, "lanes": {"sts": 7}, "paused": true}),
        );
        fold(
            &mut table,
            "tenant.relay.acme",
            json!({"weight": 20, "in_flight_max": 2}),
        );
        let rules = table.rules(POOL, &settings, &lanes);
        assert_eq!(
            (rules.permits, rules.paused, &rules.lane_weights[..]),
            (3, true, &[2, 7][..])
        );
        let acme = TenantId::new("acme").unwrap();
        assert_eq!(
            rules.share(&acme),
            Share {
                weight: 20,
                cap: Some(2),
                paused: false
            }
        );
        assert!(table.is_paused(POOL, &acme) && !table.is_paused(Pool::Crm, &acme));
        table.fold("pool.relay", None).unwrap();
        table.fold("tenant.relay.acme", None).unwrap();
        assert_eq!(table.rules(POOL, &settings, &lanes), configured);
    }

    #[test]
    fn a_range_is_turned_on_and_off_over_the_configured_one_and_never_exceeds_the_concurrency() {
        let mut settings = PoolSettings::read(&mut Reader::load(None, []), POOL);
        let mut table = Table::default();
        let effective = |table: &Table, settings: &PoolSettings| {
            let effective = table.effective(POOL, settings, &[]);
            (
                effective.concurrency,
                effective.adaptive.map(|range| (range.min(), range.max())),
            )
        };
        assert_eq!(effective(&table, &settings), (64, None));
        fold(&mut table, "pool.relay", json!({"adaptive": "8..32"}));
        assert_eq!(effective(&table, &settings), (32, Some((8, 32))));
        fold(
            &mut table,
            "pool.relay",
            json!({"adaptive": "8..32", "concurrency": 4}),
        );
        assert_eq!(effective(&table, &settings), (4, Some((4, 4))));
        settings.adaptive = Range::new(2, 16).ok();
        fold(&mut table, "pool.relay", json!({}));
        assert_eq!(effective(&table, &settings), (16, Some((2, 16))));
        fold(&mut table, "pool.relay", json!({"adaptive": "off"}));
        assert_eq!(effective(&table, &settings), (64, None));
    }

    #[test]
    fn an_entry_that_does_not_parse_leaves_the_configured_value() {
        let mut table = Table::default();
        fold(&mut table, "pool.relay", json!({"paused": true}));
        let newer =
            json!({"value": {"paused": true, "until": "later"}, "by": "x", "at_ms": 1, "why": "y"});
        table
            .fold("pool.relay", Some(newer.to_string().as_bytes()))
            .unwrap();
        assert!(
            table.pool(POOL).unwrap().value.paused,
            "what is not known is passed over"
        );
        let wrong = json!({"value": {"paused": 7}, "by": "x", "at_ms": 1});
        assert!(
            table
                .fold("pool.relay", Some(wrong.to_string().as_bytes()))
                .is_err()
        );
        assert!(table.pool(POOL).is_none());
    }

    #[test]
    fn draining_works_on_what_was_there_and_discarding_on_nothing() {
        let (mut table, acme) = (Table::default(), TenantId::new("acme").unwrap());
        fold(&mut table, "tenant.relay.acme", json!({"mode": "drain"}));
        assert_eq!(table.handling(POOL, &acme, 1000), Handling::Work);
        assert_eq!(table.handling(POOL, &acme, 1001), Handling::Keep);
        fold(&mut table, "tenant.relay.acme", json!({"mode": "discard"}));
        assert_eq!(
            table.handling(POOL, &acme, 1),
            Handling::Discard("somebody".to_owned())
        );
    }
}
