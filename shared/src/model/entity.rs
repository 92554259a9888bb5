//! What every kind of declared entity says of itself, and what follows from it for all of them.

use super::INSTALLATION_SCOPE;
use crate::ids::{TenantId, is_token};
use crate::stored::Stored;
use crate::subjects::config_key;
use serde_json::Value;
use std::fmt;

/// A kind of declared entity: one row of the table by which it is read, checked, sealed, counted, written and deleted.
pub trait Entity: Stored + Clone + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// The word people use for it.
    const NOUN: &'static str;
    /// The first token of its keys in the `config` bucket.
    const FAMILY: &'static str;
    /// Whether its key names its tenant, so that an id may be used once by each.
    const IS_OWNED: bool = true;
    /// Whether only the operator makes and deletes it.
    const IS_OPERATORS: bool = false;
    /// Fields that only the operator sees.
    const OPERATORS_FIELDS: &'static [&'static str] = &[];
    /// Fields of secrets, a text or several: sealed where they are stored, compared opened and never shown.
    const SECRETS: &'static [&'static str] = &[];
    /// The secret that no two of the kind may share.
    const DISTINCT: Option<&'static str> = None;
    /// The setting that bounds how many a tenant may have; without one the bytes of all that it declares bound them.
    const COUNT_MAX: Option<&'static str> = None;

    /// Its id.
    fn id(&self) -> &str;

    /// Whose it is; `None` for what is the installation's.
    fn owner(&self) -> Option<&TenantId>;

    /// What it needs beside its tenant.
    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }

    /// Says what cannot work, as far as it can be seen by the entity alone.
    fn check(&self, _faults: &mut Faults) {}

    /// Its key in the `config` bucket.
    fn config_key(&self) -> String {
        key(
            Self::FAMILY,
            self.owner().filter(|_| Self::IS_OWNED),
            self.id(),
        )
    }

    /// The scope of its secrets.
    fn scope(&self) -> &str {
        self.owner().map_or(INSTALLATION_SCOPE, TenantId::as_str)
    }
}

fn key(family: &str, tenant: Option<&TenantId>, id: &str) -> String {
    match tenant {
        Some(tenant) => format!("{family}.{tenant}.{id}"),
        None => format!("{family}.{id}"),
    }
}

/// What is known of a kind without an entity of it.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its section of a document.
    pub section: &'static str,
    /// The word people use for it.
    pub noun: &'static str,
    /// The first token of its keys.
    pub family: &'static str,
    /// Whether its key names its tenant.
    pub is_owned: bool,
    /// Whether only the operator makes and deletes it.
    pub is_operators: bool,
    /// Fields that only the operator sees.
    pub operators_fields: &'static [&'static str],
    /// Fields of secrets.
    pub secrets: &'static [&'static str],
    /// The secret that no two may share.
    pub distinct: Option<&'static str>,
    /// The setting that bounds how many a tenant may have.
    pub count_max: Option<&'static str>,
}

impl Kind {
    /// What a type says of its kind.
    pub const fn of<T: Entity>(section: &'static str) -> Self {
        Self {
            section,
            noun: T::NOUN,
            family: T::FAMILY,
            is_owned: T::IS_OWNED,
            is_operators: T::IS_OPERATORS,
            operators_fields: T::OPERATORS_FIELDS,
            secrets: T::SECRETS,
            distinct: T::DISTINCT,
            count_max: T::COUNT_MAX,
        }
    }

    /// The kind of what a key holds, and its name as people write it; `None` for a key of nothing declared.
    pub fn of_key(key: &str) -> Option<(&'static Self, String)> {
        let (family, id) = key.split_once('.')?;
        let kind = super::KINDS.iter().find(|kind| kind.family == family)?;
        Some((kind, id.replace('.', "/")))
    }

    /// The secrets among the fields of one of them, each with what it is called.
    pub fn secrets_in<'v>(&self, fields: &'v mut Value) -> Vec<(String, &'v mut String)> {
        let mut secrets = Vec::new();
        for (name, value) in fields.as_object_mut().into_iter().flatten() {
            let several: Vec<(String, &mut Value)> = match value {
                _ if !self.secrets.contains(&name.as_str()) => Vec::new(),
                Value::Array(texts) => (1..)
                    .zip(texts)
                    .map(|(number, text)| (format!("secret {number}"), text))
                    .collect(),
                Value::Object(texts) => texts
                    .iter_mut()
                    .map(|(name, text)| (format!("secret `{name}`"), text))
                    .collect(),
                text => vec![(name.clone(), text)],
            };
            secrets.extend(several.into_iter().filter_map(|(name, text)| match text {
                Value::String(text) => Some((name, text)),
                _ => None,
            }));
        }
        secrets
    }

    /// The key of one of them; `None` when the id is none, or when its tenant is missing or too much.
    pub fn key(&self, tenant: Option<&TenantId>, id: &str) -> Option<String> {
        let is_whole = tenant.is_some() == self.is_owned && is_token(id);
        is_whole.then(|| key(self.family, tenant, id))
    }
}

/// What an entity needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Where it names it, as a JSON pointer.
    pub at: String,
    /// The key of what it names.
    pub key: String,
}

impl Reference {
    /// What a field names: one thing, or each of several.
    pub fn each<'a, T: 'a>(
        at: &str,
        ids: impl IntoIterator<Item = &'a T>,
        key: impl Fn(&T) -> String,
    ) -> Vec<Self> {
        let numbered = |(index, id)| Self {
            at: format!("{at}/{index}"),
            key: key(id),
        };
        ids.into_iter().enumerate().map(numbered).collect()
    }

    /// What a field names.
    pub fn one(at: &str, key: String) -> Self {
        let at = at.to_owned();
        Self { at, key }
    }

    /// The tenant of whatever names its own.
    pub fn to_tenant(tenant: &TenantId) -> Self {
        Self::one("/tenant", config_key::tenant(tenant))
    }
}

/// Something that is wrong with an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where, as a JSON pointer; empty for the whole.
    pub at: String,
    /// A stable code, when there is one.
    pub code: Option<&'static str>,
    /// What is wrong and what would be right.
    pub detail: String,
    /// Whether the entity works all the same.
    pub is_warning: bool,
}

/// Everything that is wrong with an entity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// Says that something cannot work.
    pub fn add(&mut self, at: impl Into<String>, detail: impl Into<String>) {
        self.0.push(Fault {
            at: at.into(),
            code: None,
            detail: detail.into(),
            is_warning: false,
        });
    }

    /// Whether something cannot work.
    pub fn refuse(&self) -> bool {
        self.0.iter().any(|fault| !fault.is_warning)
    }
}
