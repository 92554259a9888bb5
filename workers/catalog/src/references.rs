//! What refers to what among the declared parts, so that nothing goes away that others need; pure.

use super::part;
use ackline_shared::ids::TenantId;
use ackline_shared::model::Entity;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::config_key;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Referrers that are named; there may be thousands.
const NAMED_MAX: usize = 20;

/// The keys of everything that refers to what has this key; for a tenant, of everything it owns.
pub fn referrers(snapshot: &Snapshot, key: &str) -> Vec<String> {
    let Some((family, id)) = key.split_once('.') else {
        return Vec::new();
    };
    match family {
        "brand" => keys(&snapshot.tenants, |tenant| {
            tenant
                .brand
                .as_ref()
                .is_some_and(|brand| brand.as_str() == id)
        }),
        "app" => keys(&snapshot.phones, |phone| phone.app.as_str() == id),
        "phone" => {
            let mut all = keys(&snapshot.bots, |bot| {
                bot.phone_numbers.iter().any(|n| n.as_str() == id)
            });
            all.extend(keys(&snapshot.relays, |r| {
                r.phone_numbers.iter().any(|n| n.as_str() == id)
            }));
            all.extend(keys(&snapshot.crm_links, |c| {
                c.phone_numbers.iter().any(|n| n.as_str() == id)
            }));
            all
        }
        "flow" => keys(&snapshot.bots, |bot| {
            bot.flows
                .iter()
                .any(|flow| config_key::owned("flow", &bot.tenant, flow) == key)
        }),
        "tenant" => {
            TenantId::new(id).map_or_else(|_| Vec::new(), |tenant| belongings(snapshot, &tenant))
        }
        _ => Vec::new(),
    }
}

/// The keys of everything that a tenant owns, but for the tenant itself.
fn belongings(snapshot: &Snapshot, tenant: &TenantId) -> Vec<String> {
    let own = config_key::tenant(tenant);
    let apps = keys(&snapshot.apps, |app| app.tenant.as_ref() == Some(tenant));
    let others = snapshot.sizes(tenant).into_keys().filter(|key| *key != own);
    apps.into_iter().chain(others).collect()
}

fn keys<K, T: Entity>(map: &BTreeMap<K, Arc<T>>, refers: impl Fn(&T) -> bool) -> Vec<String> {
    map.values()
        .filter(|entity| refers(entity))
        .map(|entity| entity.config_key())
        .collect()
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
