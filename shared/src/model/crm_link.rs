//! A connection to a CRM.

use super::entity::{Entity, Faults, Reference};
use super::url::check_url;
use super::{SecretField, enabled};
use crate::ids::{EntityId, PhoneNumberId, TenantId, is_token};
use crate::subjects::config_key;
use serde::{Deserialize, Serialize};

const HOOK_TOKEN_CHARS_MIN: usize = 16;

/// A connection to a CRM; Chatwoot's API channel is the one kind so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CrmLink {
    /// Its id.
    pub id: EntityId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which CRM.
    pub kind: CrmKind,
    /// Origin of the CRM, such as `https://chat.example.com`.
    pub url: String,
    /// The account in the CRM.
    pub account_id: u64,
    /// The inbox (API channel) in the CRM.
    pub inbox_id: u64,
    /// The API channel's public identifier.
    pub inbox_identifier: String,
    /// The token that calls the CRM.
    pub access_token: SecretField,
    /// The secret the CRM signs its webhooks with; old versions sign nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_secret: Option<SecretField>,
    /// Unguessable last segment of the address the CRM posts to.
    pub hook_token: SecretField,
    /// The numbers it follows; empty means all of the tenant's.
    #[serde(default)]
    pub phone_numbers: Vec<PhoneNumberId>,
    /// Whether it is kept in step.
    #[serde(default = "enabled")]
    pub enabled: bool,
}

/// The CRMs we speak to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CrmKind {
    /// Chatwoot, by an API channel inbox.
    Chatwoot,
}

impl Entity for CrmLink {
    const NOUN: &str = "crm link";
    const FAMILY: &str = "crm";
    const SECRETS: &[&str] = &["access_token", "hook_token", "webhook_secret"];
    const DISTINCT: Option<&str> = Some("hook_token");
    const COUNT_MAX: Option<&str> = Some("limits.crm_links_max");

    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn owner(&self) -> Option<&TenantId> {
        Some(&self.tenant)
    }

    fn references(&self) -> Vec<Reference> {
        Reference::each("/phone_numbers", &self.phone_numbers, config_key::phone)
    }

    fn check(&self, faults: &mut Faults) {
        check_url(&self.url, faults);
        for (at, is_missing) in [
            ("/account_id", self.account_id == 0),
            ("/inbox_id", self.inbox_id == 0),
            ("/inbox_identifier", self.inbox_identifier.is_empty()),
        ] {
            if is_missing {
                faults.add(at, "expected the CRM's own value, not nothing");
            }
        }
        if let Some(token) = self.hook_token.as_plain() {
            let text = token.expose();
            if text.len() < HOOK_TOKEN_CHARS_MIN || !is_token(text) {
                let form = "16 to 64 letters, digits, `_` or `-`, hard to guess";
                faults.add("/hook_token", format!("expected {form}"));
            }
        }
    }
}
