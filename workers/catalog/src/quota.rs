//! What one tenant may declare: the one place that decides it, for the API and for `ackline apply`.
//!
//! Pure. What a tenant has is given as the bytes of each entry by config key ([`Sizes`]). Only growth is refused: who is
//! beyond a limit already, because it was lowered, can still change and remove.

mod ledger;

pub use ledger::Ledger;

use ackline_shared::config::Reader;
use ackline_shared::model::{KINDS, Kind};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use utoipa::ToSchema;

/// The bytes of each entry of one tenant, by config key.
pub type Sizes = BTreeMap<String, u64>;

/// Kinds that are counted: the first token of their keys, what they are called, and the setting.
fn counted() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let limited = |kind: &Kind| Some((kind.family, kind.section, kind.count_max?));
    KINDS.iter().filter_map(limited)
}

const FLOW_BYTES: &str = "limits.flow_bytes_max";
const TENANT_BYTES: &str = "limits.tenant_bytes_max";
/// Of an entry that nobody can keep from growing forever.
const COUNT_MAX: u64 = 100_000;

/// The `[limits]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    counts: BTreeMap<&'static str, u64>,
    flow_bytes_max: u64,
    tenant_bytes_max: u64,
}

/// A limit that a change would go beyond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    /// The setting.
    pub setting: &'static str,
    what: String,
    now: u64,
    then: u64,
    limit: u64,
    is_bytes: bool,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            setting,
            what,
            now,
            then,
            limit,
            is_bytes,
        } = self;
        let unit = if *is_bytes { " bytes" } else { "" };
        write!(
            f,
            "{what}: {then}{unit} are more than the {limit} of {setting} ({now} now); "
        )?;
        f.write_str(if *is_bytes {
            "make it smaller"
        } else {
            "delete some"
        })?;
        f.write_str(", or have the limit raised")
    }
}

/// How much of a limit is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Used {
    /// What there is.
    pub used: u64,
    /// What there may be.
    pub limit: u64,
}

impl Limits {
    /// Reads the section.
    pub fn read(reader: &mut Reader) -> Self {
        let counts =
            counted().map(|(family, _, setting)| (family, reader.count(setting, 1..=COUNT_MAX)));
        Self {
            counts: counts.collect(),
            flow_bytes_max: reader.bytes(FLOW_BYTES, 1 << 10..=2 << 20),
            tenant_bytes_max: reader.bytes(TENANT_BYTES, 1 << 10..=1 << 30),
        }
    }

    /// The limits that a tenant's configuration would newly go beyond.
    pub fn excesses(&self, before: &Sizes, after: &Sizes) -> Vec<Excess> {
        let mut excesses = Vec::new();
        let mut look = |setting, what: String, now: u64, then: u64, limit: u64, is_bytes: bool| {
            if then > limit && then > now {
                excesses.push(Excess {
                    setting,
                    what,
                    now,
                    then,
                    limit,
                    is_bytes,
                });
            }
        };
        for (family, what, setting) in counted() {
            let limit = self.counts.get(family).copied().unwrap_or(u64::MAX);
            look(
                setting,
                what.to_owned(),
                count(before, family),
                count(after, family),
                limit,
                false,
            );
        }
        for (key, bytes) in after.iter().filter(|(key, _)| is_of(key, "flow")) {
            let id = key.rsplit('.').next().unwrap_or_default();
            let now = before.get(key).copied().unwrap_or_default();
            look(
                FLOW_BYTES,
                format!("flow {id}"),
                now,
                *bytes,
                self.flow_bytes_max,
                true,
            );
        }
        let what = "everything that the tenant declares".to_owned();
        look(
            TENANT_BYTES,
            what,
            total(before),
            total(after),
            self.tenant_bytes_max,
            true,
        );
        excesses
    }

    /// How much of each limit a tenant uses; `bytes` for all of it together.
    pub fn used(&self, sizes: &Sizes) -> BTreeMap<&'static str, Used> {
        let counts = counted().map(|(family, what, _)| {
            let limit = self.counts.get(family).copied().unwrap_or(u64::MAX);
            (
                what,
                Used {
                    used: count(sizes, family),
                    limit,
                },
            )
        });
        let bytes = Used {
            used: total(sizes),
            limit: self.tenant_bytes_max,
        };
        counts.chain([("bytes", bytes)]).collect()
    }
}

fn is_of(key: &str, family: &str) -> bool {
    key.split_once('.')
        .is_some_and(|(first, _)| first == family)
}

fn count(sizes: &Sizes, family: &str) -> u64 {
    u64::try_from(sizes.keys().filter(|key| is_of(key, family)).count()).unwrap_or(u64::MAX)
}

fn total(sizes: &Sizes) -> u64 {
    sizes
        .values()
        .fold(0, |sum, bytes| sum.saturating_add(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::limits;

    fn sizes(entries: &[(&str, u64)]) -> Sizes {
        entries
            .iter()
            .map(|(key, bytes)| ((*key).to_owned(), *bytes))
            .collect()
    }

    fn said(limits: &Limits, before: &Sizes, after: &Sizes) -> Vec<String> {
        limits
            .excesses(before, after)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn what_goes_beyond_a_limit_is_refused_with_what_is_used_and_what_to_do() {
        let limits = limits(&[
            ("BOTS_MAX", "1"),
            ("FLOW_BYTES_MAX", "2KiB"),
            ("TENANT_BYTES_MAX", "4KiB"),
        ]);
        let before = sizes(&[("bot.acme.a", 10), ("flow.acme.f", 2000), ("phone.1", 90)]);
        let mut after = before.clone();
        assert_eq!(said(&limits, &before, &after), Vec::<String>::new());
        after.extend(sizes(&[
            ("bot.acme.b", 10),
            ("flow.acme.f", 3000),
            ("flow.acme.g", 2000),
        ]));
        assert_eq!(
            said(&limits, &before, &after),
            [
                "bots: 2 are more than the 1 of limits.bots_max (1 now); delete some, or have the limit raised",
                "flow f: 3000 bytes are more than the 2048 of limits.flow_bytes_max (2000 now); make it smaller, or have the limit raised",
                "everything that the tenant declares: 5110 bytes are more than the 4096 of limits.tenant_bytes_max (2100 now); make it smaller, or have the limit raised",
            ]
        );
    }

    #[test]
    fn who_is_beyond_a_limit_already_may_change_and_remove_but_not_grow() {
        let limits = limits(&[
            ("FLOWS_MAX", "1"),
            ("FLOW_BYTES_MAX", "1KiB"),
            ("TENANT_BYTES_MAX", "1KiB"),
        ]);
        let before = sizes(&[
            ("flow.acme.a", 5000),
            ("flow.acme.b", 5000),
            ("flow.acme.c", 1),
        ]);
        let same = sizes(&[
            ("flow.acme.a", 5000),
            ("flow.acme.b", 4000),
            ("flow.acme.c", 1),
        ]);
        let fewer = sizes(&[("flow.acme.a", 5000), ("flow.acme.b", 5000)]);
        for after in [&before, &same, &fewer] {
            assert_eq!(said(&limits, &before, after), Vec::<String>::new());
        }
        let larger = sizes(&[
            ("flow.acme.a", 4000),
            ("flow.acme.b", 5001),
            ("flow.acme.c", 1),
        ]);
        assert_eq!(
            limits.excesses(&before, &larger)[0].setting,
            "limits.flow_bytes_max"
        );
    }

    #[test]
    fn usage_names_everything_that_is_limited() {
        let used = limits(&[]).used(&sizes(&[
            ("bot.acme.a", 10),
            ("bot.acme.b", 10),
            ("tenant.acme", 5),
        ]));
        assert_eq!(
            used["bots"],
            Used {
                used: 2,
                limit: 200
            }
        );
        assert_eq!(
            used["bytes"],
            Used {
                used: 25,
                limit: 8 << 20
            }
        );
        assert_eq!(used.len(), counted().count() + 1);
    }
}
