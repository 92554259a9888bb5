//! A customer's URL that gets signed events.

use super::entity::{Entity, Faults};
use super::url::{RequestTimeout, check_url};
use super::{SecretField, enabled};
use crate::ids::{EntityId, TenantId};
use crate::standard_webhooks;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A customer's URL that gets signed events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its id.
    pub id: EntityId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Where events go.
    pub url: String,
    /// Standard Webhooks secrets (`whsec_…`); more than one during a rotation.
    pub secrets: Vec<SecretField>,
    /// Event names it wants, `message.*` for a family; empty means all.
    #[serde(default)]
    pub events: Vec<String>,
    /// Longest time of one request, such as `10s`; absent for the pool's `attempt_timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<RequestTimeout>,
    /// Whether it gets anything.
    #[serde(default = "enabled")]
    pub enabled: bool,
}

impl Endpoint {
    /// Longest time of one request, where it says one.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout.map(|timeout| timeout.0)
    }
}

impl Entity for Endpoint {
    const NOUN: &str = "endpoint";
    const FAMILY: &str = "endpoint";
    const SECRETS: &[&str] = &["secrets"];
    const COUNT_MAX: Option<&str> = Some("limits.endpoints_max");

    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn owner(&self) -> Option<&TenantId> {
        Some(&self.tenant)
    }

    fn check(&self, faults: &mut Faults) {
        check_url(&self.url, faults);
        if self.secrets.is_empty() {
            let what = "is empty; add a `whsec_` secret that the customer knows too";
            faults.add("/secrets", what);
        }
        for (index, field) in self.secrets.iter().enumerate() {
            if let Some(secret) = field.as_plain()
                && let Err(error) = standard_webhooks::key(&secret)
            {
                faults.add(format!("/secrets/{index}"), error.to_string());
            }
        }
    }
}
