//! Entries whose last version does not parse: what is known of them all the same.

use super::Snapshot;
use crate::ids::{AppId, PhoneNumberId, TenantId};
use serde_json::Value;
use std::collections::BTreeMap;

/// What is known of an entry that does not parse.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unreadable {
    /// The account of a number, when that much can be read.
    pub waba_id: Option<String>,
}

impl Unreadable {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let fields = serde_json::from_slice::<Value>(bytes).unwrap_or_default();
        Self {
            waba_id: fields
                .get("waba_id")
                .and_then(Value::as_str)
                .map(str::to_owned),
        }
    }
}

impl Snapshot {
    /// The ids of a family's entries that do not parse, such as `phone`, and what is known of each.
    pub fn unreadable_of(&self, family: &str) -> impl Iterator<Item = (&str, &Unreadable)> {
        let entries = self.unreadable.iter();
        entries.filter_map(move |(key, known)| {
            Some((key.strip_prefix(family)?.strip_prefix('.')?, known))
        })
    }

    /// Takes over what another snapshot says under a key.
    pub(super) fn inherit(&mut self, key: &str, before: &Self) {
        let Some((family, id)) = key.split_once('.') else {
            return;
        };
        match family {
            "brand" => copy(&mut self.brands, &before.brands, key.to_owned()),
            "bot" => copy(&mut self.bots, &before.bots, key.to_owned()),
            "flow" => copy(&mut self.flows, &before.flows, key.to_owned()),
            "relay" => copy(&mut self.relays, &before.relays, key.to_owned()),
            "endpoint" => copy(&mut self.endpoints, &before.endpoints, key.to_owned()),
            "crm" => copy(&mut self.crm_links, &before.crm_links, key.to_owned()),
            "key" => copy(&mut self.api_keys, &before.api_keys, key.to_owned()),
            "tenant" => TenantId::new(id)
                .into_iter()
                .for_each(|id| copy(&mut self.tenants, &before.tenants, id)),
            "app" => AppId::new(id)
                .into_iter()
                .for_each(|id| copy(&mut self.apps, &before.apps, id)),
            "phone" => {
                PhoneNumberId::new(id)
                    .into_iter()
                    .for_each(|id| copy(&mut self.phones, &before.phones, id));
            }
            "datakey" => copy(&mut self.data_keys, &before.data_keys, id.to_owned()),
            _ => {}
        }
    }
}

fn copy<K: Ord, V: Clone>(map: &mut BTreeMap<K, V>, before: &BTreeMap<K, V>, key: K) {
    if let Some(value) = before.get(&key) {
        map.insert(key, value.clone());
    }
}
