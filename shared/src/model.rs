//! The declared configuration: brands, tenants and what they own, as `ackline apply` writes it into the `config` bucket.
//!
//! One [`Document`] declares a whole installation. Every part is stored under its own key as JSON, by the rule for
//! [stored records](crate::stored): whoever reads a document refuses a field that a part does not have, whoever reads
//! the bucket passes over it. Secrets are [`SecretField`]s: plain (or `env:NAME`) in a document, sealed under the
//! scope's data key in the bucket.

use crate::ids::{AppId, EntityId, PhoneNumberId, TenantId};
use crate::secret::Secret;
use crate::stored::Stored;
use crate::subjects::config_key;
use crate::vault::{Sealed, VaultError, VaultKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::time::Duration;

/// A secret inside the configuration, in one of its two forms.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretField(String);

impl fmt::Debug for SecretField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl SecretField {
    /// Wraps a plain secret that is about to be sealed.
    pub fn plain(text: &Secret<String>) -> Self {
        Self(text.expose().clone())
    }

    /// Wraps a sealed secret.
    pub fn sealed(sealed: &Sealed) -> Self {
        Self(sealed.as_str().to_owned())
    }

    /// The variable a document wants the secret read from, for `env:NAME`.
    pub fn environment_name(&self) -> Option<&str> {
        self.0.strip_prefix("env:")
    }

    /// Opens a stored secret with the scope's data key; a plain one is given as it is.
    pub fn open(&self, key: &VaultKey, scope: &str) -> Result<Secret<String>, VaultError> {
        match Sealed::from_text(&self.0) {
            Some(sealed) => key.open(scope, &sealed),
            None => Ok(Secret::new(self.0.clone())),
        }
    }
}

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
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub secrets: std::collections::BTreeMap<String, SecretField>,
}

fn default_shards() -> u8 {
    4
}

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

/// The longest time of a request to a tenant's URL: a second to five minutes, written with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestTimeout(pub Duration);

impl TryFrom<String> for RequestTimeout {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const BOUNDS: std::ops::RangeInclusive<Duration> =
            Duration::from_secs(1)..=Duration::from_secs(300);
        let parsed = humantime::parse_duration(&text)
            .ok()
            .filter(|timeout| BOUNDS.contains(timeout));
        parsed
            .map(Self)
            .ok_or("expected a duration from \"1s\" to \"5m\"")
    }
}

impl From<RequestTimeout> for String {
    fn from(timeout: RequestTimeout) -> Self {
        humantime::format_duration(timeout.0).to_string()
    }
}

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
    /// Whose pools it sees and turns, with the scope `operate`.
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

/// How far the scope `operate` of an API key reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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

fn enabled() -> bool {
    true
}

/// Facts fixed when the installation was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    /// How many partitions the streams have.
    pub partitions: u16,
}

impl Stored for Installation {}

/// A whole installation, as a file declares it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Document {
    /// Brands.
    pub brands: Vec<Brand>,
    /// Tenants.
    pub tenants: Vec<Tenant>,
    /// Meta apps.
    pub apps: Vec<App>,
    /// Business numbers.
    pub phone_numbers: Vec<PhoneNumber>,
    /// Bots.
    pub bots: Vec<Bot>,
    /// Flows.
    pub flows: Vec<Flow>,
    /// Relays.
    pub relays: Vec<Relay>,
    /// Customers' endpoints.
    pub endpoints: Vec<Endpoint>,
    /// CRM links.
    pub crm_links: Vec<CrmLink>,
    /// API keys.
    pub api_keys: Vec<ApiKey>,
}

/// The scope whose data key seals what belongs to no single tenant.
pub const INSTALLATION_SCOPE: &str = "_installation";

/// A part of the configuration: where it is stored and under which scope its secrets are sealed.
pub trait Entity: Stored + Clone + PartialEq {
    /// The word people use for it.
    const NOUN: &'static str;

    /// Its key in the `config` bucket.
    fn config_key(&self) -> String;

    /// The scope of its secrets.
    fn scope(&self) -> &str;

    /// Its secret fields.
    fn secrets(&mut self) -> Vec<&mut SecretField>;
}

macro_rules! entity {
    ($type:ty, $noun:literal, |$key_self:ident| $key:expr, |$scope_self:ident| $scope:expr, |$secret_self:ident| $secrets:expr) => {
        impl Stored for $type {}

        impl Entity for $type {
            const NOUN: &'static str = $noun;
            fn config_key(&self) -> String {
                let $key_self = self;
                $key
            }
            fn scope(&self) -> &str {
                let $scope_self = self;
                $scope
            }
            fn secrets(&mut self) -> Vec<&mut SecretField> {
                let $secret_self = self;
                $secrets
            }
        }
    };
}

entity!(
    Brand,
    "brand",
    |b| config_key::brand(&b.id),
    |_b| INSTALLATION_SCOPE,
    |_b| vec![]
);
entity!(
    Tenant,
    "tenant",
    |t| config_key::tenant(&t.id),
    |t| t.id.as_str(),
    |t| t.secrets.values_mut().collect()
);
entity!(
    App,
    "app",
    |a| config_key::app(&a.id),
    |a| a
        .tenant
        .as_ref()
        .map_or(INSTALLATION_SCOPE, TenantId::as_str),
    |a| a.secrets.iter_mut().chain([&mut a.verify_token]).collect()
);
entity!(
    PhoneNumber,
    "phone number",
    |p| config_key::phone(&p.id),
    |p| p.tenant.as_str(),
    |p| vec![&mut p.access_token]
);
entity!(
    Bot,
    "bot",
    |b| config_key::owned("bot", &b.tenant, &b.id),
    |b| b.tenant.as_str(),
    |_b| vec![]
);
entity!(
    Flow,
    "flow",
    |f| config_key::owned("flow", &f.tenant, &f.id),
    |f| f.tenant.as_str(),
    |_f| vec![]
);
entity!(
    Relay,
    "relay",
    |r| config_key::owned("relay", &r.tenant, &r.id),
    |r| r.tenant.as_str(),
    |r| r.app_secret.iter_mut().collect()
);
entity!(
    Endpoint,
    "endpoint",
    |e| config_key::owned("endpoint", &e.tenant, &e.id),
    |e| e.tenant.as_str(),
    |e| e.secrets.iter_mut().collect()
);
entity!(
    CrmLink,
    "crm link",
    |c| config_key::owned("crm", &c.tenant, &c.id),
    |c| c.tenant.as_str(),
    |c| [&mut c.access_token, &mut c.hook_token]
        .into_iter()
        .chain(c.webhook_secret.iter_mut())
        .collect()
);
entity!(
    ApiKey,
    "api key",
    |k| config_key::owned("key", &k.tenant, &k.id),
    |k| k.tenant.as_str(),
    |k| vec![&mut k.key]
);
