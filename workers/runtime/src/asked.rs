//! Whose updates a pool asks for: what no tenant of a partition wants is not delivered at all.
//!
//! Most tenants use some of the pools. Without this, every pool would be given every update, only to find that nobody
//! there wants it. Where many tenants ask, all are read: a filter costs nats-server more than what it spares.

use ackline_shared::ids::TenantId;
use ackline_shared::partition;
use ackline_shared::registry::{Registry, Snapshot};
use ackline_shared::subjects::{self, Partition};
use std::collections::{BTreeMap, BTreeSet};

/// Tells which tenants may have work for a pool; `None` where any may.
pub type Askers = fn(&Snapshot) -> Option<BTreeSet<TenantId>>;

/// Tenants of a partition that are filtered by; with more of them all are read.
const TENANTS_MAX: usize = 4;

/// Whose updates of one partition are read; of everybody where there is no list.
pub type Audience = Option<BTreeSet<TenantId>>;

/// Who asks, in every partition, by one version of the configuration.
#[derive(Debug)]
pub struct Asked {
    askers: Askers,
    registry: Registry,
    partitions: u16,
    /// The version that it was told by, and the list of each partition that has one.
    told: Option<(u64, Option<Lists>)>,
}

type Lists = BTreeMap<Partition, BTreeSet<TenantId>>;

impl Asked {
    pub fn new(askers: Askers, registry: Registry, partitions: u16) -> Self {
        Self {
            askers,
            registry,
            partitions,
            told: None,
        }
    }

    /// The version of the configuration that answers are given by; `None` before there is any.
    pub fn version(&mut self) -> Option<u64> {
        if !self.registry.is_loaded() {
            return None;
        }
        let snapshot = self.registry.snapshot();
        if self.told.as_ref().map(|(version, _)| *version) != Some(snapshot.version) {
            let lists =
                (self.askers)(&snapshot).map(|tenants| by_partition(tenants, self.partitions));
            self.told = Some((snapshot.version, lists));
        }
        Some(snapshot.version)
    }

    /// Whose updates of a partition are to be read.
    pub fn audience(&mut self, partition: Partition) -> Audience {
        self.version()?;
        let (_, lists) = self.told.as_ref()?;
        let list = lists.as_ref()?.get(&partition).cloned().unwrap_or_default();
        (list.len() <= TENANTS_MAX).then_some(list)
    }
}

fn by_partition(tenants: BTreeSet<TenantId>, partitions: u16) -> Lists {
    let mut lists = Lists::new();
    for tenant in tenants {
        for partition in partition::possible(&tenant, partitions) {
            lists.entry(partition).or_default().insert(tenant.clone());
        }
    }
    lists
}

/// The filters for an audience. One that nobody is in still has filters, for a consumer without any reads everything.
pub fn narrow(filters: Vec<String>, audience: &Audience) -> Vec<String> {
    let Some(tenants) = audience else {
        return filters;
    };
    if tenants.is_empty() {
        let nobody = filters
            .first()
            .and_then(|filter| subjects::to_nobody(filter));
        return nobody.map_or(filters, |nobody| vec![nobody]);
    }
    let narrowed = |filter: &String| -> Option<Vec<String>> {
        let of_each = tenants
            .iter()
            .map(|tenant| subjects::narrowed(filter, tenant));
        of_each.collect()
    };
    let all: Option<Vec<Vec<String>>> = filters.iter().map(narrowed).collect();
    all.map_or(filters, |all| all.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::subjects::{Class, Lane, outbound_filter, record_filter, update_filter};

    const P: Partition = Partition(3);

    fn tenants(names: &[&str]) -> Audience {
        Some(
            names
                .iter()
                .map(|name| TenantId::new(*name).unwrap())
                .collect(),
        )
    }

    #[test]
    fn filters_are_narrowed_to_who_asks_and_never_to_all() {
        let filters = || {
            vec![
                update_filter(P, Class::Message),
                record_filter(P, "reply_sent"),
            ]
        };
        assert_eq!(narrow(filters(), &None), filters());
        let [message, record] = [
            update_filter(P, Class::Message),
            record_filter(P, "reply_sent"),
        ];
        let of = |filter: &str, name: &str| {
            subjects::narrowed(filter, &TenantId::new(name).unwrap()).unwrap()
        };
        assert_eq!(
            narrow(filters(), &tenants(&["acme", "globex"])),
            [
                of(&message, "acme"),
                of(&message, "globex"),
                of(&record, "acme"),
                of(&record, "globex"),
            ]
        );
        let nobody = subjects::to_nobody(&message).unwrap();
        assert_eq!(narrow(filters(), &tenants(&[])), [nobody]);
    }

    #[test]
    fn what_cannot_be_narrowed_is_read_whole() {
        let filters = || vec![outbound_filter(P, Lane::Live)];
        assert_eq!(narrow(filters(), &tenants(&["acme"])), filters());
        assert_eq!(narrow(filters(), &tenants(&[])), filters());
    }

    #[test]
    fn a_partition_asks_for_the_tenants_that_may_be_in_it() {
        let askers: Askers = |_| Some(BTreeSet::from([TenantId::new("acme").unwrap()]));
        let mut asked = Asked::new(askers, Registry::fixed(Snapshot::default()), 32);
        let audiences = (0..32).map(|p| asked.audience(Partition(p)).unwrap());
        assert_eq!(audiences.filter(|audience| audience.len() == 1).count(), 8);
        let mut everybody = Asked::new(|_| None, Registry::fixed(Snapshot::default()), 32);
        assert_eq!(everybody.audience(P), None);
        let many: Askers = |_| {
            Some(
                (0..200)
                    .map(|n| TenantId::new(format!("t{n}")).unwrap())
                    .collect(),
            )
        };
        let mut many = Asked::new(many, Registry::fixed(Snapshot::default()), 32);
        assert_eq!(many.audience(P), None);
    }
}
