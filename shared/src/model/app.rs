//! A Meta app.

use super::SecretField;
use super::entity::{Entity, Faults};
use crate::ids::{AppId, TenantId};
use serde::{Deserialize, Serialize};

/// A Meta app; its webhook is `/webhooks/meta/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct App {
    /// Our id of it, part of the callback URL.
    pub id: AppId,
    /// The tenant that owns it; absent for an app that serves several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Live app secrets; more than one during a rotation. The first signs what the relay splits.
    pub secrets: Vec<SecretField>,
    /// What Meta repeats in the GET handshake.
    pub verify_token: SecretField,
}

impl Entity for App {
    const NOUN: &str = "app";
    const FAMILY: &str = "app";
    const IS_OWNED: bool = false;
    const SECRETS: &[&str] = &["secrets", "verify_token"];

    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn owner(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }

    fn check(&self, faults: &mut Faults) {
        if self.secrets.is_empty() {
            let what = "is empty; add the app secret of Meta's App Dashboard (App settings, Basic)";
            faults.add("/secrets", what);
        }
    }
}
