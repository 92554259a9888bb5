//! What a pool gave up in the last hour, and whose it was, in bounded memory.

use ackline_shared::ids::TenantId;
use std::collections::{HashMap, VecDeque};

const MINUTE: u64 = 60;
const MINUTES: usize = 60;
/// Tenants told apart in one minute; what is of others counts for the pool alone.
const TENANTS_MAX: usize = 100;

#[derive(Debug, Default)]
pub(super) struct GivenUp {
    /// The last whole minutes and the present one, the latest last.
    minutes: VecDeque<Minute>,
    seconds: u64,
}

#[derive(Debug, Default)]
struct Minute {
    count: u64,
    tenants: HashMap<TenantId, u64>,
}

impl GivenUp {
    pub(super) fn note(&mut self, tenant: &TenantId) {
        if self.minutes.is_empty() {
            self.minutes.push_back(Minute::default());
        }
        let Some(minute) = self.minutes.back_mut() else {
            return;
        };
        minute.count += 1;
        if let Some(count) = minute.tenants.get_mut(tenant) {
            *count += 1;
        } else if minute.tenants.len() < TENANTS_MAX {
            minute.tenants.insert(tenant.clone(), 1);
        }
    }

    pub(super) fn tick(&mut self) {
        self.seconds += 1;
        if self.seconds.is_multiple_of(MINUTE) {
            self.minutes.push_back(Minute::default());
            if self.minutes.len() > MINUTES {
                self.minutes.pop_front();
            }
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.minutes.iter().map(|minute| minute.count).sum()
    }

    pub(super) fn of(&self, tenant: &TenantId) -> u64 {
        self.minutes
            .iter()
            .filter_map(|minute| minute.tenants.get(tenant))
            .sum()
    }

    pub(super) fn tenants(&self) -> HashMap<&TenantId, u64> {
        let mut tenants = HashMap::new();
        for (tenant, count) in self.minutes.iter().flat_map(|minute| &minute.tenants) {
            *tenants.entry(tenant).or_default() += count;
        }
        tenants
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(n: usize) -> TenantId {
        TenantId::new(format!("t{n}")).unwrap()
    }

    #[test]
    fn an_hour_is_remembered_and_not_more() {
        let mut given_up = GivenUp::default();
        for second in 0..7_200 {
            if second % 10 == 0 {
                given_up.note(&tenant(0));
            }
            given_up.tick();
        }
        let count = given_up.count();
        assert!((354..=360).contains(&count), "{count}");
        assert_eq!(
            (given_up.of(&tenant(0)), given_up.of(&tenant(1))),
            (count, 0)
        );
        (0..3_600).for_each(|_| given_up.tick());
        assert_eq!((given_up.count(), given_up.tenants().len()), (0, 0));
    }

    #[test]
    fn tenants_without_number_count_for_the_pool() {
        let mut given_up = GivenUp::default();
        (0..10_000).for_each(|n| given_up.note(&tenant(n)));
        assert_eq!(
            (given_up.count(), given_up.tenants().len()),
            (10_000, TENANTS_MAX)
        );
    }
}
