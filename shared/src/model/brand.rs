//! A reseller's brand.

use super::entity::Entity;
use crate::ids::{EntityId, TenantId};
use serde::{Deserialize, Serialize};

/// A reseller's brand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Brand {
    /// Its id.
    pub id: EntityId,
    /// Its name as people see it.
    pub name: String,
    /// The host name its console answers on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}

impl Entity for Brand {
    const NOUN: &str = "brand";
    const FAMILY: &str = "brand";
    const IS_OWNED: bool = false;
    const IS_OPERATORS: bool = true;

    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn owner(&self) -> Option<&TenantId> {
        None
    }
}
