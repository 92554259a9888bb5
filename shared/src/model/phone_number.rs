//! A business number.

use super::SecretField;
use super::entity::{Entity, Faults, Reference};
use crate::ids::{AppId, PhoneNumberId, TenantId, is_token};
use crate::subjects::config_key;
use serde::{Deserialize, Serialize};

/// A business number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhoneNumber {
    /// Meta's `phone_number_id`.
    pub id: PhoneNumberId,
    /// Whose number it is.
    pub tenant: TenantId,
    /// The app that receives for it.
    pub app: AppId,
    /// The WhatsApp Business Account it belongs to; also routes account-level updates.
    pub waba_id: String,
    /// The number as people write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display: Option<String>,
    /// The token that sends for it.
    pub access_token: SecretField,
}

impl Entity for PhoneNumber {
    const NOUN: &str = "phone number";
    const FAMILY: &str = "phone";
    const IS_OWNED: bool = false;
    const SECRETS: &[&str] = &["access_token"];
    const COUNT_MAX: Option<&str> = Some("limits.phone_numbers_max");

    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn owner(&self) -> Option<&TenantId> {
        Some(&self.tenant)
    }

    fn references(&self) -> Vec<Reference> {
        vec![Reference::one("/app", config_key::app(&self.app))]
    }

    fn check(&self, faults: &mut Faults) {
        if !is_token(&self.waba_id) {
            let what = "expected the id of the WhatsApp Business Account, digits only";
            faults.add("/waba_id", what);
        }
    }
}
