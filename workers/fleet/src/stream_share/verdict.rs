//! Who holds more of a stream than its share. Pure.
//!
//! A share binds nobody while there is room for all: only from a certain fill on. Who is over it stays so until well
//! below it, so that nothing flaps.

use ackline_shared::ids::TenantId;
use ackline_shared::overdraft::Holding;
use std::collections::{BTreeMap, HashMap};

/// The share, and from when on it binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Of the stream's size, in percent.
    pub tenant_percent: u64,
    /// Fill with what is not finished, in percent, from which it binds.
    pub from_percent: u64,
}

/// Part of a limit that somebody who was over it has to come down to, in percent.
const RELEASE_PERCENT: u64 = 80;

impl Share {
    /// Who holds too much of a stream of this size; `was` tells who did before.
    pub fn exceeded(
        &self,
        size: u64,
        held: &HashMap<TenantId, u64>,
        unfinished: u64,
        was: impl Fn(&TenantId) -> bool,
    ) -> BTreeMap<TenantId, Holding> {
        let part = |percent: u64| {
            u64::try_from(u128::from(size) * u128::from(percent) / 100).unwrap_or(u64::MAX)
        };
        let (limit, from) = (part(self.tenant_percent), part(self.from_percent));
        let lower = |bound: u64| bound / 100 * RELEASE_PERCENT;
        let is_over = |(tenant, bytes): &(&TenantId, &u64)| {
            let (limit, from) = if was(tenant) {
                (lower(limit), lower(from))
            } else {
                (limit, from)
            };
            **bytes > limit && unfinished >= from
        };
        let over = held.iter().filter(is_over);
        over.map(|(tenant, bytes)| {
            (
                tenant.clone(),
                Holding {
                    bytes: *bytes,
                    limit,
                },
            )
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: Share = Share {
        tenant_percent: 25,
        from_percent: 50,
    };

    fn exceeded(held: &[(&str, u64)], unfinished: u64, was: &[&str]) -> Vec<String> {
        let held = held
            .iter()
            .map(|(name, bytes)| (TenantId::new(*name).unwrap(), *bytes))
            .collect();
        let over = SHARE.exceeded(100_000, &held, unfinished, |tenant| {
            was.contains(&tenant.as_str())
        });
        assert!(over.values().all(|held| held.limit == 25_000));
        over.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn nobody_is_bound_while_there_is_room() {
        assert!(exceeded(&[("a", 49_000)], 49_000, &[]).is_empty());
        assert_eq!(exceeded(&[("a", 49_000), ("b", 1_000)], 50_000, &[]), ["a"]);
        assert!(exceeded(&[("a", 24_000), ("b", 24_000), ("c", 24_000)], 72_000, &[]).is_empty());
    }

    #[test]
    fn who_was_over_it_stays_so_until_well_below() {
        assert_eq!(exceeded(&[("a", 21_000)], 60_000, &["a"]), ["a"]);
        assert!(exceeded(&[("a", 21_000)], 60_000, &[]).is_empty());
        assert!(exceeded(&[("a", 19_000)], 60_000, &["a"]).is_empty());
        assert!(
            exceeded(&[("a", 30_000)], 39_000, &["a"]).is_empty(),
            "there is room again"
        );
    }
}
