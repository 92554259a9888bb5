//! A part of the declared configuration, of whichever family: its key, its secrets and everything else about it.
//!
//! What leaves this module for people to read never contains a secret's value, only its name.

use ackline_shared::model::{
    ApiKey, App, Bot, Brand, CrmLink, Document, Endpoint, Entity, Flow, PhoneNumber, Relay,
    SecretField, Tenant,
};
use ackline_shared::secret::Secret;
use ackline_shared::stored::{self, Newer, Stored};
use ackline_shared::vault::{VaultError, VaultKey};
use serde_json::Value;
use std::collections::BTreeMap;

/// Fields that hold secrets, in any family; they are compared opened and never shown.
pub const SECRET_FIELDS: [&str; 7] = [
    "secrets",
    "verify_token",
    "access_token",
    "app_secret",
    "webhook_secret",
    "hook_token",
    "key",
];

/// Families by the first token of their keys, in the order in which they are written: what something refers to
/// comes before it, and numbers come last, because with its number a tenant's traffic starts.
const FAMILIES: [(&str, &str); 10] = [
    ("brand", Brand::NOUN),
    ("tenant", Tenant::NOUN),
    ("app", App::NOUN),
    ("flow", Flow::NOUN),
    ("bot", Bot::NOUN),
    ("relay", Relay::NOUN),
    ("endpoint", Endpoint::NOUN),
    ("crm", CrmLink::NOUN),
    ("key", ApiKey::NOUN),
    ("phone", PhoneNumber::NOUN),
];

/// One entity of a document or of the store.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    Brand(Brand),
    Tenant(Tenant),
    App(App),
    Flow(Flow),
    Bot(Bot),
    Relay(Relay),
    Endpoint(Endpoint),
    CrmLink(CrmLink),
    ApiKey(ApiKey),
    PhoneNumber(PhoneNumber),
}

macro_rules! each {
    ($part:expr, $entity:ident => $body:expr) => {
        match $part {
            Part::Brand($entity) => $body,
            Part::Tenant($entity) => $body,
            Part::App($entity) => $body,
            Part::Flow($entity) => $body,
            Part::Bot($entity) => $body,
            Part::Relay($entity) => $body,
            Part::Endpoint($entity) => $body,
            Part::CrmLink($entity) => $body,
            Part::ApiKey($entity) => $body,
            Part::PhoneNumber($entity) => $body,
        }
    };
}

impl Part {
    /// Every part of a document, in the order in which parts are written.
    pub fn all_of(document: &Document) -> Vec<Self> {
        let mut parts: Vec<Self> = Vec::new();
        parts.extend(document.brands.iter().cloned().map(Self::Brand));
        parts.extend(document.tenants.iter().cloned().map(Self::Tenant));
        parts.extend(document.apps.iter().cloned().map(Self::App));
        parts.extend(document.flows.iter().cloned().map(Self::Flow));
        parts.extend(document.bots.iter().cloned().map(Self::Bot));
        parts.extend(document.relays.iter().cloned().map(Self::Relay));
        parts.extend(document.endpoints.iter().cloned().map(Self::Endpoint));
        parts.extend(document.crm_links.iter().cloned().map(Self::CrmLink));
        parts.extend(document.api_keys.iter().cloned().map(Self::ApiKey));
        parts.extend(
            document
                .phone_numbers
                .iter()
                .cloned()
                .map(Self::PhoneNumber),
        );
        parts
    }

    /// Reads a stored part; `None` for a key that is not a part's.
    pub fn read(key: &str, bytes: &[u8]) -> Option<Result<Self, serde_json::Error>> {
        Some(match key.split_once('.')?.0 {
            "brand" => stored::decode(bytes).map(Self::Brand),
            "tenant" => stored::decode(bytes).map(Self::Tenant),
            "app" => stored::decode(bytes).map(Self::App),
            "flow" => stored::decode(bytes).map(Self::Flow),
            "bot" => stored::decode(bytes).map(Self::Bot),
            "relay" => stored::decode(bytes).map(Self::Relay),
            "endpoint" => stored::decode(bytes).map(Self::Endpoint),
            "crm" => stored::decode(bytes).map(Self::CrmLink),
            "key" => stored::decode(bytes).map(Self::ApiKey),
            "phone" => stored::decode(bytes).map(Self::PhoneNumber),
            _ => return None,
        })
    }

    /// Its key in the `config` bucket.
    pub fn key(&self) -> String {
        each!(self, entity => entity.config_key())
    }

    /// The scope of its secrets.
    pub fn scope(&self) -> &str {
        each!(self, entity => entity.scope())
    }

    /// Its secrets by name; plain ones as they are, sealed ones opened.
    pub fn open_secrets(
        &self,
        data_key: &VaultKey,
    ) -> Result<BTreeMap<String, Secret<String>>, VaultError> {
        let names = self.secret_names();
        let scope = self.scope().to_owned();
        let mut copy = self.clone();
        let fields = each!(&mut copy, entity => entity.secrets());
        names
            .into_iter()
            .zip(fields)
            .map(|(name, field)| Ok((name, field.open(data_key, &scope)?)))
            .collect()
    }

    /// Whether it holds secrets at all.
    pub fn has_secrets(&self) -> bool {
        !self.secret_names().is_empty()
    }

    /// Everything about it but its secrets.
    pub fn open_side(&self) -> Value {
        let mut value = each!(self, entity => serde_json::to_value(entity)).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            fields.retain(|name, _| !SECRET_FIELDS.contains(&name.as_str()));
        }
        value
    }

    /// Whether it may be written in the place of what is stored.
    pub fn may_replace(&self, before: &[u8]) -> Result<(), Newer> {
        fn check<T: Stored>(_: &T, before: &[u8]) -> Result<(), Newer> {
            stored::check::<T>(before)
        }
        each!(self, entity => check(entity, before))
    }

    /// The stored form, in the place of what is stored: its plain secrets sealed under the data key of its scope.
    pub fn seal(
        mut self,
        data_key: &VaultKey,
        before: Option<&[u8]>,
    ) -> Result<Vec<u8>, SealError> {
        let scope = self.scope().to_owned();
        for field in each!(&mut self, entity => entity.secrets()) {
            let plain = field.open(data_key, &scope)?;
            *field = SecretField::sealed(&data_key.seal(&scope, &plain));
        }
        match before {
            Some(before) => Ok(each!(&self, entity => stored::encode_over(entity, before))?),
            None => Ok(each!(&self, entity => stored::encode(entity))),
        }
    }

    /// Its JSON with its secrets as they are; for memory only.
    pub fn to_json(&self) -> Vec<u8> {
        each!(self, entity => serde_json::to_vec(entity)).unwrap_or_default()
    }

    /// What its secrets are called, in the order of the model's own list.
    fn secret_names(&self) -> Vec<String> {
        let numbered = |count: usize| (1..=count).map(|number| format!("secret {number}"));
        let named = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        match self {
            Self::Tenant(tenant) => tenant
                .secrets
                .keys()
                .map(|name| format!("secret `{name}`"))
                .collect(),
            Self::App(app) => numbered(app.secrets.len())
                .chain(["verify_token".to_owned()])
                .collect(),
            Self::Relay(relay) => relay
                .app_secret
                .iter()
                .map(|_| "app_secret".to_owned())
                .collect(),
            Self::Endpoint(endpoint) => numbered(endpoint.secrets.len()).collect(),
            Self::CrmLink(link) if link.webhook_secret.is_some() => {
                named(&["access_token", "hook_token", "webhook_secret"])
            }
            Self::CrmLink(_) => named(&["access_token", "hook_token"]),
            Self::ApiKey(_) => named(&["key"]),
            Self::PhoneNumber(_) => named(&["access_token"]),
            Self::Brand(_) | Self::Flow(_) | Self::Bot(_) => Vec::new(),
        }
    }
}

/// Why a part could not be brought into its stored form.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A secret does not open.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// What is stored is not to be written over.
    #[error("cannot be written: {0}")]
    Newer(#[from] Newer),
    /// It cannot be written as JSON.
    #[error("cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// The word for what a key holds, and its name as people write it; `None` for a key that is not a part's.
pub fn describe(key: &str) -> Option<(&'static str, String)> {
    let (family, id) = key.split_once('.')?;
    let (_, noun) = FAMILIES.iter().find(|(name, _)| *name == family)?;
    Some((noun, id.replace('.', "/")))
}

/// The place of a key's family in the order of writing.
pub fn rank(key: &str) -> usize {
    let family = key.split('.').next().unwrap_or_default();
    FAMILIES
        .iter()
        .position(|(name, _)| *name == family)
        .unwrap_or(FAMILIES.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn every_secret_of_every_family_has_a_name_and_is_off_the_open_side() {
        for part in Part::all_of(&samples::document()) {
            let mut copy = part.clone();
            assert_eq!(
                part.secret_names().len(),
                each!(&mut copy, e => e.secrets()).len(),
                "{}",
                part.key()
            );
            let shown = part.open_side().to_string();
            for secret in samples::SECRETS {
                assert!(!shown.contains(secret), "{}", part.key());
            }
        }
    }

    #[test]
    fn a_sealed_part_reads_back_with_its_secrets() {
        let data_key = VaultKey::generate();
        for part in Part::all_of(&samples::document()) {
            let bytes = part.clone().seal(&data_key, None).unwrap();
            let back = Part::read(&part.key(), &bytes).unwrap().unwrap();
            assert_eq!(back.open_side(), part.open_side());
            assert!(back.open_secrets(&data_key).unwrap() == part.open_secrets(&data_key).unwrap());
            for secret in samples::SECRETS {
                assert!(
                    !String::from_utf8(bytes.clone()).unwrap().contains(secret),
                    "{}",
                    part.key()
                );
            }
        }
    }

    #[test]
    fn parts_come_in_the_order_of_their_families() {
        let ranks: Vec<_> = Part::all_of(&samples::document())
            .iter()
            .map(|part| rank(&part.key()))
            .collect();
        assert!(ranks.is_sorted(), "{ranks:?}");
        assert_eq!(
            describe("bot.acme.shop"),
            Some(("bot", "acme/shop".to_owned()))
        );
        assert_eq!(describe("installation"), None);
    }
}
