//! What refers to what among the declared parts, so that nothing goes away that others need; pure.

use super::part;
use ackline_shared::model::Reference;
use ackline_shared::registry::{Held, Snapshot};
use std::collections::{BTreeMap, BTreeSet};

/// Referrers that are named; there may be thousands.
const NAMED_MAX: usize = 20;

/// The keys of everything that refers to what has this key, in order; for a tenant, of everything it owns.
pub fn referrers(snapshot: &Snapshot, key: &str) -> Vec<String> {
    let keys = BTreeSet::from([key.to_owned()]);
    referrers_of(snapshot, &keys)
        .remove(key)
        .unwrap_or_default()
}

/// The same for several keys.
pub fn referrers_of(snapshot: &Snapshot, keys: &BTreeSet<String>) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entity in snapshot.all() {
        for reference in needs(entity) {
            if keys.contains(&reference.key) {
                found.entry(reference.key).or_default().push(entity.key());
            }
        }
    }
    for referrers in found.values_mut() {
        referrers.sort_unstable();
        referrers.dedup();
    }
    found
}

/// Everything that an entity needs, its tenant first.
pub fn needs(entity: &dyn Held) -> impl Iterator<Item = Reference> {
    let tenant = entity.tenant().map(Reference::to_tenant);
    let itself = entity.key();
    let is_other = move |reference: &Reference| reference.key != itself;
    tenant
        .into_iter()
        .chain(entity.refers_to())
        .filter(is_other)
}

/// What keys hold, in words, as one list.
pub fn named(keys: &[String]) -> String {
    let words = keys
        .iter()
        .take(NAMED_MAX)
        .map(|key| match part::describe(key) {
            Some((noun, name)) => format!("{noun} {name}"),
            None => key.clone(),
        });
    let mut text = words.collect::<Vec<_>>().join(", ");
    if keys.len() > NAMED_MAX {
        text.push_str(&format!(" and {} more", keys.len() - NAMED_MAX));
    }
    text
}

/// Why something cannot be deleted.
pub fn in_use(key: &str, referrers: &[String]) -> String {
    let (noun, name) = part::describe(key).unwrap_or(("entry", key.to_owned()));
    let named = named(referrers);
    format!("{noun} {name} is used by {named}; change or delete these first")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::Part;
    use crate::samples;

    #[test]
    fn everything_that_refers_to_a_part_is_found() {
        let mut snapshot = Snapshot::default();
        for part in Part::all_of(&samples::document()) {
            snapshot.fold(&part.key(), Some(&part.to_json())).unwrap();
        }
        let users = |key: &str| named(&referrers(&snapshot, key));
        assert_eq!(users("brand.ackline"), "tenant acme");
        assert_eq!(users("app.main"), "phone number 106540352242922");
        assert_eq!(users("phone.106540352242922"), "bot acme/shop");
        assert_eq!(users("flow.acme.welcome"), "bot acme/shop");
        assert_eq!(
            users("flow.globex.welcome"),
            "",
            "another tenant's flow of the same name"
        );
        assert_eq!(
            users("tenant.acme"),
            "bot acme/shop, crm link acme/desk, endpoint acme/main, flow acme/welcome, api key acme/ci, phone number 106540352242922, relay acme/old"
        );
        for free in [
            "tenant.globex",
            "bot.acme.shop",
            "relay.acme.old",
            "endpoint.acme.main",
            "key.acme.ci",
        ] {
            assert_eq!(users(free), "", "{free}");
        }
        let many: Vec<String> = (0..25).map(|n| format!("bot.acme.b{n}")).collect();
        assert!(named(&many).ends_with("bot acme/b19 and 5 more"));
    }
}
