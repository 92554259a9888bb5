//! Where owners are kept: in the record of the conversation that flows read anyway, beside their session.
//!
//! So a message costs no read more, and an owner that was set is met by the next message at the latest, whichever
//! process reads it: both are written by compare-and-set on one record. Whatever else the record holds stays.

use super::moved::{HOPS_MAX, Whereabouts, whereabouts};
use super::record::{Fields, Records};
use ackline_engine::owner::{Event, Owner};
use ackline_message::Recipient;
use ackline_shared::clock::now_ms;
use ackline_shared::ids::{ConversationKey, PhoneNumberId, TenantId};
use ackline_shared::subjects::{Pool, session_key};
use async_nats::jetstream::kv::Store;
use serde_json::json;

/// The member of the record.
pub(super) const OWNER: &str = "owner";

/// One side of a conversation, as far as its person is known: at most two keys, the one that orders messages first.
#[derive(Debug, Clone)]
pub struct Side<'a> {
    pub tenant: &'a TenantId,
    pub number: &'a PhoneNumberId,
    first: ConversationKey,
    second: Option<ConversationKey>,
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
            first: key,
            second,
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

    /// The key that orders its messages.
    pub fn key(&self) -> &ConversationKey {
        &self.first
    }

    /// Where the record of one of the number's conversations stands.
    pub fn record(&self, key: &ConversationKey) -> String {
        session_key::of(Pool::Flows, self.tenant, self.number.as_str(), key)
    }

    fn keys(&self) -> impl Iterator<Item = &ConversationKey> {
        std::iter::once(&self.first).chain(&self.second)
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
    records: Records,
}

/// What a record says to an event.
enum Reported {
    /// The conversation goes on under another key.
    Moved(ConversationKey),
    Owner(Option<Owner>),
}

impl Owners {
    pub fn new(store: Store) -> Self {
        Self {
            records: Records::new(store),
        }
    }

    /// The owner as it was set last; `None` where nobody ever set one.
    pub async fn get(&self, side: &Side<'_>) -> Result<Option<Owner>, OwnerError> {
        let mut latest: Option<Owner> = None;
        let now_ms = now_ms();
        for (place, key) in side.keys().enumerate() {
            let owner = self
                .owner_under(side, key.clone(), place == 0, now_ms)
                .await?;
            let Some(owner) = owner else {
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

    async fn owner_under(
        &self,
        side: &Side<'_>,
        mut key: ConversationKey,
        is_first: bool,
        at_ms: u64,
    ) -> Result<Option<Owner>, OwnerError> {
        for _hop in 0..=HOPS_MAX {
            let Some(fields) = self.records.read(&side.record(&key)).await? else {
                break;
            };
            match whereabouts(&fields, side, is_first, at_ms) {
                Whereabouts::At(to) => key = to,
                Whereabouts::Here => return Ok(owner(&fields)),
                Whereabouts::Elsewhere => break,
            }
        }
        Ok(None)
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
        for (place, key) in side.keys().enumerate() {
            let owner = self
                .report_one(side, key.clone(), event, now_ms, place == 0)
                .await?;
            if place == 0 {
                first = owner;
            }
        }
        Ok(first)
    }

    async fn report_one(
        &self,
        side: &Side<'_>,
        mut key: ConversationKey,
        event: &Event,
        now_ms: u64,
        makes: bool,
    ) -> Result<Option<Owner>, OwnerError> {
        let decide = |found: Option<Fields>| {
            let Some(mut fields) = found.or_else(|| makes.then(Fields::new)) else {
                return Ok((Reported::Owner(None), None));
            };
            match whereabouts(&fields, side, makes, now_ms) {
                Whereabouts::Here => {}
                Whereabouts::At(to) => return Ok((Reported::Moved(to), None)),
                Whereabouts::Elsewhere => return Ok((Reported::Owner(None), None)),
            }
            let current = owner(&fields);
            if current.as_ref().is_some_and(Owner::is_newer) {
                return Err(OwnerError::Newer);
            }
            let Some(next) = Owner::after(current.as_ref(), event, now_ms) else {
                return Ok((Reported::Owner(current), None));
            };
            fields.insert(OWNER.to_owned(), json!(next));
            Ok((Reported::Owner(Some(next)), Some(fields)))
        };
        for _hop in 0..=HOPS_MAX {
            match self.records.change(&side.record(&key), decide).await? {
                Reported::Moved(to) => key = to,
                Reported::Owner(owner) => return Ok(owner),
            }
        }
        Ok(None)
    }
}

/// The owner that a stored record of flows tells.
pub fn owner_in(record: &[u8]) -> Option<Owner> {
    let fields = serde_json::from_slice(record).unwrap_or_default();
    owner(&fields)
}

pub(super) fn owner(fields: &Fields) -> Option<Owner> {
    fields
        .get(OWNER)
        .and_then(|owner| serde_json::from_value(owner.clone()).ok())
}
