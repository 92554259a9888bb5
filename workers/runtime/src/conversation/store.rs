//! Where owners are kept: in the record of the conversation that flows read anyway, beside their session.
//!
//! So a message costs no read more, and an owner that was set is met by the next message at the latest, whichever
//! process reads it: both are written by compare-and-set on one record. Whatever else the record holds stays.

use crate::log::to_bytes;
use ackline_engine::owner::{Event, Owner};
use ackline_message::Recipient;
use ackline_shared::ids::{ConversationKey, PhoneNumberId, TenantId};
use ackline_shared::subjects::{Pool, session_key};
use async_nats::jetstream::kv::{Entry, Operation, Store, UpdateErrorKind};
use serde_json::{Map, Value, json};

/// The member of the record.
const OWNER: &str = "owner";
/// The version of a record that holds nothing but an owner, as a session counts it.
const SCHEMA: u32 = 1;
/// How often a write is tried again that lost against another one.
const ATTEMPTS_MAX: u32 = 8;

/// One side of a conversation, as far as its person is known: at most two keys, the one that orders messages first.
#[derive(Debug, Clone)]
pub struct Side<'a> {
    pub tenant: &'a TenantId,
    pub number: &'a PhoneNumberId,
    keys: Vec<ConversationKey>,
}

impl<'a> Side<'a> {
    /// The conversation that messages with this key are in, and the person's phone number if that is known besides.
    pub fn new(
        tenant: &'a TenantId,
        number: &'a PhoneNumberId,
        key: ConversationKey,
        phone: Option<&str>,
    ) -> Self {
        let second = phone
            .filter(|_| key.as_user().is_some())
            .map(ConversationKey::phone);
        Self {
            tenant,
            number,
            keys: std::iter::once(key).chain(second).collect(),
        }
    }

    /// The conversation with a person.
    pub fn of_person(tenant: &'a TenantId, number: &'a PhoneNumberId, person: &Recipient) -> Self {
        Self::new(
            tenant,
            number,
            person.conversation(),
            person.phone.as_deref(),
        )
    }

    fn records(&self) -> impl Iterator<Item = String> {
        self.keys
            .iter()
            .map(|key| session_key::of(Pool::Flows, self.tenant, self.number.as_str(), key))
    }
}

/// Why an owner could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// NATS did not do it; it may be tried again.
    #[error("the owner of a conversation cannot be {verb}: {reason}")]
    Away { verb: &'static str, reason: String },
    /// A newer version wrote it, and knows more about it than this one.
    #[error("the owner of a conversation was written by a newer version; upgrade this process")]
    Newer,
}

/// The owners of all conversations; cheap to clone.
#[derive(Debug, Clone)]
pub struct Owners {
    store: Store,
}

impl Owners {
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The owner as it was set last; `None` where nobody ever set one.
    pub async fn get(&self, side: &Side<'_>) -> Result<Option<Owner>, OwnerError> {
        let mut latest: Option<Owner> = None;
        for key in side.records() {
            let Some(owner) = self
                .entry(&key)
                .await?
                .and_then(|entry| owner(&record(&entry)))
            else {
                continue;
            };
            if latest
                .as_ref()
                .is_none_or(|latest| owner.set_ms > latest.set_ms)
            {
                latest = Some(owner);
            }
        }
        Ok(latest)
    }

    /// Takes an event; gives the owner after it. A person's second key is written only where it has a record: then
    /// messages came under it, too.
    pub async fn report(
        &self,
        side: &Side<'_>,
        event: &Event,
        now_ms: u64,
    ) -> Result<Option<Owner>, OwnerError> {
        let mut first = None;
        for (place, key) in side.records().enumerate() {
            let owner = self.report_one(&key, event, now_ms, place == 0).await?;
            if place == 0 {
                first = owner;
            }
        }
        Ok(first)
    }

    async fn report_one(
        &self,
        key: &str,
        event: &Event,
        now_ms: u64,
        makes: bool,
    ) -> Result<Option<Owner>, OwnerError> {
        let mut attempt = 1;
        loop {
            let entry = self.entry(key).await?;
            if entry.is_none() && !makes {
                return Ok(None);
            }
            let mut fields = entry.as_ref().map(record).unwrap_or_default();
            let current = owner(&fields);
            if current.as_ref().is_some_and(Owner::is_newer) {
                return Err(OwnerError::Newer);
            }
            let Some(next) = Owner::after(current.as_ref(), event, now_ms) else {
                return Ok(current);
            };
            fields.entry("schema").or_insert(json!(SCHEMA));
            fields.insert(OWNER.to_owned(), json!(next));
            let revision = entry.map_or(0, |entry| entry.revision);
            match self.store.update(key, to_bytes(&fields), revision).await {
                Ok(_) => return Ok(Some(next)),
                Err(error)
                    if error.kind() == UpdateErrorKind::WrongLastRevision
                        && attempt < ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                Err(error) => {
                    return Err(OwnerError::Away {
                        verb: "written",
                        reason: error.to_string(),
                    });
                }
            }
        }
    }

    async fn entry(&self, key: &str) -> Result<Option<Entry>, OwnerError> {
        let entry = self.store.entry(key).await;
        entry.map_err(|error| OwnerError::Away {
            verb: "read",
            reason: error.to_string(),
        })
    }
}

/// The owner that a stored record of flows tells.
pub fn owner_in(record: &[u8]) -> Option<Owner> {
    let fields = serde_json::from_slice(record).unwrap_or_default();
    owner(&fields)
}

/// The fields of a record; none of one that was removed or cannot be read.
fn record(entry: &Entry) -> Map<String, Value> {
    let value = (entry.operation == Operation::Put).then_some(&entry.value);
    value
        .and_then(|value| serde_json::from_slice(value).ok())
        .unwrap_or_default()
}

fn owner(fields: &Map<String, Value>) -> Option<Owner> {
    fields
        .get(OWNER)
        .and_then(|owner| serde_json::from_value(owner.clone()).ok())
}
