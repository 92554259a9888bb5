//! A part of the declared configuration, of whichever family: its key, its secrets and everything else about it.
//!
//! What leaves this module for people to read never contains a secret's value, only its name.

use super::check;
use ackline_shared::ids::TenantId;
use ackline_shared::model::{self, Document, Entity, Faults, Kind, SecretField};
use ackline_shared::registry::Held;
use ackline_shared::secret::Secret;
use ackline_shared::stored::{self, Newer, Stored};
use ackline_shared::vault::{VaultError, VaultKey};
use serde_json::Value;
use std::collections::BTreeMap;

/// What stands in the place of a secret that is shown.
const MASK: &str = "[secret]";

macro_rules! parts {
    ($($section:ident: $Type:ident [$Key:ty $(=> $Held:ty)?],)*) => {
        /// One entity of a document or of the store.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Part {
            $($Type(model::$Type),)*
        }

        macro_rules! each {
            ($part:expr, $entity:ident => $body:expr) => {
                match $part {
                    $(Part::$Type($entity) => $body,)*
                }
            };
        }

        impl Part {
            /// Every part of a document, in the order in which parts are written.
            pub fn all_of(document: &Document) -> Vec<Self> {
                let mut parts = Vec::new();
                $(parts.extend(document.$section.iter().cloned().map(Self::$Type));)*
                parts
            }

            /// Reads a stored part; `None` for a key that is not a part's.
            pub fn read(key: &str, bytes: &[u8]) -> Option<Result<Self, serde_json::Error>> {
                match key.split_once('.')?.0 {
                    $(model::$Type::FAMILY => Some(stored::decode(bytes).map(Self::$Type)),)*
                    _ => None,
                }
            }

            /// What memory holds; `None` when that does not read back.
            pub fn of(held: &dyn Held) -> Option<Self> {
                let bytes = serde_json::to_vec(&held.fields()).ok()?;
                Self::read(&held.key(), &bytes)?.ok()
            }

            /// Reads what a person wrote of a kind: strictly, and with the place of a mistake.
            pub fn written(kind: &Kind, fields: &Value) -> Option<Result<Self, String>> {
                match kind.family {
                    $(model::$Type::FAMILY => Some(written(fields).map(Self::$Type)),)*
                    _ => None,
                }
            }

            /// What is known of its kind.
            pub fn kind(&self) -> &'static Kind {
                match self {
                    $(Self::$Type(_) => const { &Kind::of::<model::$Type>(stringify!($section)) },)*
                }
            }
        }
    };
}
ackline_shared::entities!(parts);

fn written<T: Entity>(fields: &Value) -> Result<T, String> {
    stored::refuse_unknown::<T>(fields)?;
    serde_path_to_error::deserialize::<_, T>(fields).map_err(|error| {
        let path = error.path().to_string();
        let said = without_values(&error.inner().to_string());
        if path == "." {
            said
        } else {
            format!("{path}: {said}")
        }
    })
}

/// An error of the deserialiser without the value it found, which may be a secret.
pub(super) fn without_values(message: &str) -> String {
    let found = ["invalid type:", "invalid value:", "invalid length"];
    match message.rsplit_once(", expected ") {
        Some((_, expected)) if found.iter().any(|start| message.starts_with(start)) => {
            let whole_number = matches!(expected, "u8" | "u16" | "u32" | "u64");
            format!(
                "expected {}",
                if whole_number {
                    "a whole number, not too large"
                } else {
                    expected
                }
            )
        }
        _ => message.to_owned(),
    }
}

impl Part {
    /// Its key in the `config` bucket.
    pub fn key(&self) -> String {
        each!(self, entity => entity.config_key())
    }

    /// The scope of its secrets.
    pub fn scope(&self) -> &str {
        each!(self, entity => entity.scope())
    }

    /// Whose it is; `None` for what is the installation's.
    pub fn owner(&self) -> Option<&TenantId> {
        each!(self, entity => entity.owner())
    }

    /// What it says of itself, whatever its kind.
    pub fn held(&self) -> &dyn Held {
        each!(self, entity => entity)
    }

    /// What is wrong with it by itself.
    pub fn faults(&self) -> Faults {
        each!(self, entity => check::by_itself(entity))
    }

    /// Its secrets by name; plain ones as they are, sealed ones opened.
    pub fn open_secrets(
        &self,
        data_key: &VaultKey,
    ) -> Result<BTreeMap<String, Secret<String>>, VaultError> {
        let mut fields = self.fields();
        let secrets = self.kind().secrets_in(&mut fields).into_iter();
        let opened = secrets.map(|(name, text)| {
            let secret = SecretField::stored(text).open(data_key, self.scope())?;
            Ok((name, secret))
        });
        opened.collect()
    }

    /// Whether it holds secrets at all.
    pub fn has_secrets(&self) -> bool {
        !self.kind().secrets_in(&mut self.fields()).is_empty()
    }

    /// Everything about it but its secrets.
    pub fn open_side(&self) -> Value {
        let mut value = self.fields();
        if let Some(fields) = value.as_object_mut() {
            fields.retain(|name, _| !self.kind().secrets.contains(&name.as_str()));
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
    pub fn seal(self, data_key: &VaultKey, before: Option<&[u8]>) -> Result<Vec<u8>, SealError> {
        let mut fields = self.fields();
        let scope = self.scope();
        for (_, text) in self.kind().secrets_in(&mut fields) {
            let plain = SecretField::stored(text).open(data_key, scope)?;
            *text = data_key.seal(scope, &plain).as_str().to_owned();
        }
        Ok(each!(&self, entity => stored_form(entity, fields, before))?)
    }

    /// Its JSON with its secrets as they are; for memory only.
    pub fn to_json(&self) -> Vec<u8> {
        each!(self, entity => serde_json::to_vec(entity)).unwrap_or_default()
    }

    fn fields(&self) -> Value {
        each!(self, entity => serde_json::to_value(entity)).unwrap_or_default()
    }
}

fn stored_form<T: Entity>(
    _: &T,
    fields: Value,
    before: Option<&[u8]>,
) -> Result<Vec<u8>, SealError> {
    let sealed: T = serde_json::from_value(fields)?;
    Ok(match before {
        Some(before) => stored::encode_over(&sealed, before)?,
        None => stored::encode(&sealed),
    })
}

/// The fields of an entity as they may be shown: every secret masked.
pub fn masked(kind: &Kind, mut fields: Value) -> Value {
    for (_, text) in kind.secrets_in(&mut fields) {
        *text = MASK.to_owned();
    }
    fields
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
    Kind::of_key(key).map(|(kind, name)| (kind.noun, name))
}

/// The place of a key's family in the order of writing.
pub fn rank(key: &str) -> usize {
    let family = key.split('.').next().unwrap_or_default();
    let kinds = model::KINDS;
    let place = kinds.iter().position(|kind| kind.family == family);
    place.unwrap_or(kinds.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn every_secret_of_every_family_has_a_name_and_is_off_the_open_side_and_masked() {
        let mut count = 0;
        for part in Part::all_of(&samples::document()) {
            let secrets = part.open_secrets(&VaultKey::generate()).unwrap();
            count += secrets.len();
            let masked = masked(part.kind(), part.fields());
            assert_eq!(
                masked.to_string().matches(MASK).count(),
                secrets.len(),
                "{}",
                part.key()
            );
            for secret in samples::SECRETS {
                assert!(!part.open_side().to_string().contains(secret));
                assert!(!masked.to_string().contains(secret), "{}", part.key());
            }
        }
        assert_eq!(count, samples::SECRETS.len());
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
