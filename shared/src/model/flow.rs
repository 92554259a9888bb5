//! A flow as its author declares it.

use super::entity::Entity;
use crate::ids::{EntityId, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A flow's definition; the flow engine validates it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Its id.
    pub id: EntityId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The definition, format 1.
    pub definition: Value,
}

impl Entity for Flow {
    const NOUN: &str = "flow";
    const FAMILY: &str = "flow";
    const COUNT_MAX: Option<&str> = Some("limits.flows_max");

    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn owner(&self) -> Option<&TenantId> {
        Some(&self.tenant)
    }
}
