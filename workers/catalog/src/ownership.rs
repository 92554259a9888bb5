//! What a document owns: what is stored of it and not declared is surplus, and everything else is somebody else's.
//!
//! A file owns the tenants it declares. A top-level `owns` adds tenants by name, the tenants of a brand with the brand,
//! and what belongs to the installation: all brands, and apps that belong to no tenant.

use super::part;
use super::references;
use super::stored::Stored;
use ackline_shared::ids::{EntityId, TenantId};
use ackline_shared::model::{Brand, Entity, Kind, Tenant};
use ackline_shared::registry::{Held, Snapshot};
use serde::Deserialize;
use std::collections::BTreeSet;

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Owns {
    /// These brands, with their tenants.
    pub brands: BTreeSet<EntityId>,
    pub tenants: BTreeSet<TenantId>,
    /// All brands, and apps without a tenant.
    pub installation: bool,
}

impl Owns {
    /// Whether what is stored under a key is the document's.
    pub fn has(&self, key: &str, stored: &Snapshot) -> bool {
        let Some((family, id)) = key.split_once('.') else {
            return false;
        };
        if family == Brand::FAMILY {
            return self.installation || self.brands.iter().any(|brand| brand.as_str() == id);
        }
        let tenant = match Kind::of_key(key) {
            Some((kind, _)) if !kind.is_owned && family != Tenant::FAMILY => {
                match stored.get(key).map(Held::tenant) {
                    Some(None) => return self.installation,
                    owner => owner.flatten().cloned(),
                }
            }
            _ => id
                .split('.')
                .next()
                .and_then(|tenant| TenantId::new(tenant).ok()),
        };
        tenant.is_some_and(|tenant| self.has_tenant(&tenant, stored))
    }

    fn has_tenant(&self, tenant: &TenantId, stored: &Snapshot) -> bool {
        let brand = stored
            .tenants
            .get(tenant)
            .and_then(|tenant| tenant.brand.as_ref());
        self.tenants.contains(tenant) || brand.is_some_and(|brand| self.brands.contains(brand))
    }

    /// The keys of what is stored, the document's, and not declared; data keys go with their tenants.
    pub fn surplus(&self, declared: &BTreeSet<String>, stored: &Stored) -> BTreeSet<String> {
        let (snapshot, _) = stored.snapshot();
        let is_surplus = |key: &&String| !declared.contains(*key) && self.has(key, &snapshot);
        let parts = stored.0.keys().filter(|key| part::describe(key).is_some());
        parts.filter(is_surplus).cloned().collect()
    }
}

/// What is stored beside the surplus and needs some of it, one sentence each.
pub fn needed(
    surplus: &BTreeSet<String>,
    declared: &BTreeSet<String>,
    stored: &Stored,
) -> Vec<String> {
    let (snapshot, _) = stored.snapshot();
    let is_elsewhere = |key: &String| !surplus.contains(key) && !declared.contains(key);
    let needed = references::referrers_of(&snapshot, surplus).into_iter().filter_map(|(key, referrers)| {
        let referrers: Vec<String> = referrers.into_iter().filter(is_elsewhere).collect();
        let (noun, name) = part::describe(&key)?;
        let named = references::named(&referrers);
        (!referrers.is_empty()).then(|| {
            format!("{noun} {name} is not declared and --prune would remove it, but it is used by {named}; declare it, or delete these first")
        })
    });
    needed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::Part;
    use crate::samples;
    use crate::stored::StoredEntry;

    fn stored() -> Stored {
        let parts = Part::all_of(&samples::document());
        let entry = |part: &Part| StoredEntry {
            revision: 1,
            value: part.to_json().into(),
        };
        let mut stored = Stored(parts.iter().map(|part| (part.key(), entry(part))).collect());
        let own = r#"{"id":"own","tenant":"globex","secrets":["s"],"verify_token":"t"}"#;
        stored.0.insert(
            "app.own".to_owned(),
            StoredEntry {
                revision: 1,
                value: own.into(),
            },
        );
        stored.0.insert(
            "phone.7".to_owned(),
            StoredEntry {
                revision: 1,
                value: "{".into(),
            },
        );
        stored
    }

    fn surplus(owns: &Owns) -> Vec<String> {
        owns.surplus(&BTreeSet::new(), &stored())
            .into_iter()
            .collect()
    }

    fn owns(text: &str) -> Owns {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_document_owns_what_is_its_tenants_and_what_it_says() {
        assert_eq!(surplus(&Owns::default()), Vec::<String>::new());
        assert_eq!(
            surplus(&owns("tenants = ['globex']")),
            ["app.own", "tenant.globex"]
        );
        assert_eq!(
            surplus(&owns("installation = true")),
            ["app.main", "brand.ackline"]
        );
        let acme = [
            "bot.acme.shop",
            "crm.acme.desk",
            "endpoint.acme.main",
            "flow.acme.welcome",
            "key.acme.ci",
            "phone.106540352242922",
            "relay.acme.old",
            "tenant.acme",
        ];
        assert_eq!(surplus(&owns("tenants = ['acme']")), acme);
        let brand = surplus(&owns("brands = ['ackline']"));
        assert_eq!(
            (brand.len(), brand.contains(&"brand.ackline".to_owned())),
            (9, true),
            "with its tenants"
        );
        assert!(toml::from_str::<Owns>("tenant = ['acme']").is_err());
    }

    #[test]
    fn what_others_need_is_told() {
        let surplus = owns("installation = true").surplus(&BTreeSet::new(), &stored());
        let reported = needed(&surplus, &BTreeSet::new(), &stored());
        assert_eq!(reported.len(), 2, "{reported:?}");
        assert!(
            reported[0].starts_with("app main is not declared")
                && reported[0].contains("phone number 106540352242922")
        );
        let declared = ["phone.106540352242922", "tenant.acme"]
            .map(str::to_owned)
            .into();
        assert_eq!(
            needed(&surplus, &declared, &stored()),
            Vec::<String>::new(),
            "the check of the document tells"
        );
    }
}
