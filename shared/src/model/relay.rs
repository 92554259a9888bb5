//! An existing bot that gets Meta's updates unchanged.

use super::entity::{Entity, Faults, Reference};
use super::url::{RequestTimeout, check_url};
use super::{SecretField, enabled};
use crate::ids::{EntityId, PhoneNumberId, TenantId};
use crate::subjects::config_key;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// An existing bot that gets Meta's updates unchanged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Relay {
    /// Its id.
    pub id: EntityId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Where the bot listens.
    pub url: String,
    /// The numbers it gets updates of; empty means all of the tenant's.
    #[serde(default)]
    pub phone_numbers: Vec<PhoneNumberId>,
    /// The app secret the bot was configured with, when it is not our app's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_secret: Option<SecretField>,
    /// Webhook fields it gets, such as `messages` or `standby`; empty means all. Each comes as Meta sent it.
    #[serde(default)]
    pub fields: Vec<String>,
    /// Requests to it at once.
    #[serde(default = "default_relay_concurrency")]
    pub concurrency: u16,
    /// Longest time of one request, such as `10s`; absent for the pool's `attempt_timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<RequestTimeout>,
    /// Whether a request is made again whose answer was lost.
    #[serde(default, skip_serializing_if = "Redelivery::is_usual")]
    pub redelivery: Redelivery,
    /// Whether it gets anything.
    #[serde(default = "enabled")]
    pub enabled: bool,
}

fn default_relay_concurrency() -> u16 {
    8
}

impl Relay {
    /// Longest time of one request, where it says one.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout.map(|timeout| timeout.0)
    }
}

/// Whether a request is made again whose answer was lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Redelivery {
    /// It is, a minute later at the earliest: the bot may get an update twice, and tells by its id.
    #[default]
    AtLeastOnce,
    /// It is not: the update goes to the dead letters.
    AtMostOnce,
}

impl Redelivery {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl Entity for Relay {
    const NOUN: &str = "relay";
    const FAMILY: &str = "relay";
    const SECRETS: &[&str] = &["app_secret"];
    const COUNT_MAX: Option<&str> = Some("limits.relays_max");

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
        if self.concurrency == 0 {
            let what = "0 would stop the relay; use 1 or more, or enabled = false";
            faults.add("/concurrency", what);
        }
    }
}
