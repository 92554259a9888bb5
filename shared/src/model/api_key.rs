//! A bearer key of the REST API, and what it may do.

use super::SecretField;
use super::entity::{Entity, Faults};
use crate::ids::{EntityId, TenantId};
use serde::{Deserialize, Serialize};

const KEY_CHARS_MIN: usize = 24;

/// A bearer key of the REST API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Its id; shown in audit, never the key.
    pub id: EntityId,
    /// The tenant it acts for.
    pub tenant: TenantId,
    /// The key itself: at least 24 characters.
    pub key: SecretField,
    /// What it may do.
    #[serde(default = "usual_scopes")]
    pub scopes: Vec<Scope>,
    /// Whose pools it sees and turns, with the scope `operate`, and whose entities it sees and deletes.
    #[serde(default, skip_serializing_if = "Reach::is_usual")]
    pub reach: Reach,
}

/// What an API key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Read conversations, messages, bots, flows and dead letters.
    Read,
    /// Send messages.
    Send,
    /// Change bots and flows, edit and replay dead letters; no key has it unless it is declared.
    Manage,
    /// See and turn the pools, as far as the key reaches; no key has it unless it is declared.
    Operate,
}

fn usual_scopes() -> Vec<Scope> {
    vec![Scope::Read, Scope::Send]
}

/// How far the scope `operate` of an API key reaches, and what it shows and deletes of the configuration; from the least.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// The key's own tenant.
    #[default]
    Tenant,
    /// Every tenant of the brand that the key's tenant belongs to.
    Brand,
    /// The whole installation, with the pools that all tenants share.
    Platform,
}

impl Reach {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl Entity for ApiKey {
    const NOUN: &str = "api key";
    const FAMILY: &str = "key";
    const SECRETS: &[&str] = &["key"];
    const DISTINCT: Option<&str> = Some("key");
    const COUNT_MAX: Option<&str> = Some("limits.api_keys_max");

    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn owner(&self) -> Option<&TenantId> {
        Some(&self.tenant)
    }

    fn check(&self, faults: &mut Faults) {
        if let Some(key) = self.key.as_plain() {
            let is_usable = key.expose().bytes().all(|byte| byte.is_ascii_graphic());
            if key.expose().len() < KEY_CHARS_MIN || !is_usable {
                let how = "make one with `openssl rand -hex 24`";
                faults.add(
                    "/key",
                    format!("expected at least {KEY_CHARS_MIN} printable characters; {how}"),
                );
            }
        }
        if self.scopes.is_empty() {
            let what = "is empty, so the key could do nothing; leave it out for all";
            faults.add("/scopes", what);
        }
    }
}
