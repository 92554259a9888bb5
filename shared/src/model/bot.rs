//! An automation that answers on some numbers with flows.

use super::entity::{Entity, Faults, Reference};
use super::{Flow, enabled};
use crate::ids::{EntityId, PhoneNumberId, TenantId};
use crate::subjects::config_key;
use serde::{Deserialize, Serialize};

const NAME_CHARS_MAX: usize = 200;
const FLOWS_MAX: usize = 100;

/// An automation that answers on some numbers with flows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bot {
    /// Its id.
    pub id: EntityId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its name as people see it.
    #[serde(default)]
    pub name: String,
    /// The numbers it answers on; empty means all of the tenant's.
    #[serde(default)]
    pub phone_numbers: Vec<PhoneNumberId>,
    /// Its flows; which one starts is decided by their triggers, the first wins a tie.
    pub flows: Vec<EntityId>,
    /// Whether it answers.
    #[serde(default = "enabled")]
    pub enabled: bool,
}

impl Entity for Bot {
    const NOUN: &str = "bot";
    const FAMILY: &str = "bot";
    const COUNT_MAX: Option<&str> = Some("limits.bots_max");

    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn owner(&self) -> Option<&TenantId> {
        Some(&self.tenant)
    }

    fn references(&self) -> Vec<Reference> {
        let flow = |id: &EntityId| config_key::owned(Flow::FAMILY, &self.tenant, id);
        let mut all = Reference::each("/phone_numbers", &self.phone_numbers, config_key::phone);
        all.extend(Reference::each("/flows", &self.flows, flow));
        all
    }

    fn check(&self, faults: &mut Faults) {
        if self.name.chars().count() > NAME_CHARS_MAX {
            faults.add(
                "/name",
                format!("has more than {NAME_CHARS_MAX} characters"),
            );
        }
        if self.flows.is_empty() || self.flows.len() > FLOWS_MAX {
            faults.add("/flows", format!("needs 1 to {FLOWS_MAX} flows"));
        }
    }
}
