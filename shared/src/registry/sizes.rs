//! How much a tenant has declared: each of its entries with its bytes.

use super::Snapshot;
use crate::ids::TenantId;
use crate::model::Entity;
use crate::subjects::config_key;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Snapshot {
    /// What a tenant has declared, by config key, with the bytes that each takes in the bucket.
    pub fn sizes(&self, tenant: &TenantId) -> BTreeMap<String, u64> {
        let mut sizes = BTreeMap::new();
        let flows = Self::owned(&self.flows, "flow", tenant);
        sizes.extend(flows.map(|flow| {
            (
                config_key::owned("flow", tenant, &flow.id),
                flow.stored_bytes,
            )
        }));
        add(&mut sizes, Self::owned(&self.bots, "bot", tenant));
        add(&mut sizes, Self::owned(&self.relays, "relay", tenant));
        add(&mut sizes, Self::owned(&self.endpoints, "endpoint", tenant));
        add(&mut sizes, Self::owned(&self.crm_links, "crm", tenant));
        add(&mut sizes, Self::owned(&self.api_keys, "key", tenant));
        add(
            &mut sizes,
            self.phones.values().filter(|phone| phone.tenant == *tenant),
        );
        add(&mut sizes, self.tenants.get(tenant).into_iter());
        sizes
    }
}

fn add<'a, T: Entity + 'a>(
    sizes: &mut BTreeMap<String, u64>,
    entities: impl Iterator<Item = &'a Arc<T>>,
) {
    for entity in entities {
        let bytes = serde_json::to_vec(&**entity).map_or(0, |bytes| bytes.len());
        sizes.insert(
            entity.config_key(),
            u64::try_from(bytes).unwrap_or(u64::MAX),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_a_tenant_counts_and_nobody_elses() {
        let mut snapshot = Snapshot::default();
        let flow = br#"{"id":"f","tenant":"acme","definition":{"format":1,"ui":{"a":1}}}"#;
        for (key, value) in [
            (
                "tenant.acme",
                &br#"{"id":"acme","name":"Acme","shards":4}"#[..],
            ),
            ("tenant.acme-2", br#"{"id":"acme-2","name":"Other"}"#),
            ("bot.acme.b", br#"{"id":"b","tenant":"acme","flows":["f"]}"#),
            (
                "bot.acme-2.b",
                br#"{"id":"b","tenant":"acme-2","flows":["f"]}"#,
            ),
            ("flow.acme.f", flow),
            (
                "phone.1",
                br#"{"id":"1","tenant":"acme","app":"a","waba_id":"W","access_token":"t"}"#,
            ),
            (
                "phone.2",
                br#"{"id":"2","tenant":"acme-2","app":"a","waba_id":"W","access_token":"t"}"#,
            ),
        ] {
            snapshot.fold(key, Some(value)).unwrap();
        }
        let sizes = snapshot.sizes(&TenantId::new("acme").unwrap());
        assert_eq!(
            sizes.keys().collect::<Vec<_>>(),
            ["bot.acme.b", "flow.acme.f", "phone.1", "tenant.acme"]
        );
        assert_eq!(
            sizes["flow.acme.f"],
            u64::try_from(flow.len()).unwrap(),
            "with its drawing"
        );
        assert_eq!(sizes["tenant.acme"], 38);
    }
}
