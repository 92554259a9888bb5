//! A customer of the installation.

use super::SecretField;
use super::entity::{Entity, Faults, Reference};
use crate::ids::{EntityId, TenantId, is_token};
use crate::partition::SHARDS_MAX;
use crate::subjects::config_key;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const SHARDS: std::ops::RangeInclusive<u8> = 1..=SHARDS_MAX;

/// A customer of the installation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name as people see it.
    pub name: String,
    /// The brand it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brand: Option<EntityId>,
    /// Partitions the tenant's conversations spread over, 1 to 8. Change it only while nothing is in flight.
    #[serde(default = "default_shards")]
    pub shards: u8,
    /// Private destinations that this tenant's URLs may reach, beside the operator's; written as in `egress.allow`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress_allow: Vec<String>,
    /// Named secrets that flows may use, such as API keys of agents.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretField>,
}

fn default_shards() -> u8 {
    4
}

impl Entity for Tenant {
    const NOUN: &str = "tenant";
    const FAMILY: &str = "tenant";
    const IS_OWNED: bool = false;
    const IS_OPERATORS: bool = true;
    const OPERATORS_FIELDS: &[&str] = &["egress_allow"];
    const SECRETS: &[&str] = &["secrets"];

    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn owner(&self) -> Option<&TenantId> {
        Some(&self.id)
    }

    fn references(&self) -> Vec<Reference> {
        let brand = self.brand.as_ref();
        brand
            .map(|id| Reference::one("/brand", config_key::brand(id)))
            .into_iter()
            .collect()
    }

    fn check(&self, faults: &mut Faults) {
        if !SHARDS.contains(&self.shards) {
            faults.add("/shards", format!("{} is outside 1 to 8", self.shards));
        }
        for name in self.secrets.keys().filter(|name| !is_token(name)) {
            let form = "use 1 to 64 letters, digits, `_` or `-`";
            faults.add(
                "/secrets",
                format!("`{name}` is no name for a secret; {form}"),
            );
        }
    }
}
