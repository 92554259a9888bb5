//! Where a conversation goes on whose person is known by other ids by now.
//!
//! Its record stands under the key that orders its messages. When that key changes, what the record holds is carried to the
//! new one, and the old record says where to: whoever still comes under the old key reads on there. The old one is marked
//! first, so that whoever is cut off between the two steps finds what is left to do.

use super::record::{Fields, Records};
use super::store::{OWNER, OwnerError, Side, owner};
use ackline_shared::ids::ConversationKey;
use async_nats::jetstream::kv::Store;
use serde_json::{Value, json};

/// The member that names the key a record moved to.
const MOVED: &str = "moved";
/// The member that says until when the old key was the same person's; what is written later is a stranger's.
const UNTIL_MS: &str = "moved_ms";
/// The member of a session that says when its person wrote last, by Meta's clock.
const SAID_MS: &str = "said_ms";
/// The member that only a session has.
const FLOW: &str = "flow";
/// What counts under the old key alone: the epoch of its partition's owner, and blocks that are stored under it.
const LEFT: [&str; 4] = [MOVED, UNTIL_MS, "fence", "older"];
/// The members of a mark.
const MARKS: [&str; 2] = [MOVED, UNTIL_MS];
/// How far a record is followed. Ids change rarely; a longer way is a circle.
pub const HOPS_MAX: usize = 4;

/// Carries conversations to other keys; cheap to clone.
#[derive(Debug, Clone)]
pub struct Moves {
    records: Records,
}

impl Moves {
    pub fn new(store: Store) -> Self {
        Self {
            records: Records::new(store),
        }
    }

    /// Carries what is kept under a key to the one that orders the messages of a side; tells whether there was anything.
    /// Doing it again changes nothing. The key may have been the person's until a time only, in unix milliseconds.
    pub async fn carry(
        &self,
        side: &Side<'_>,
        from: &ConversationKey,
        until_ms: Option<u64>,
    ) -> Result<bool, OwnerError> {
        let to = side.key();
        if from == to || *to == ConversationKey::none() {
            return Ok(false);
        }
        let (old, new) = (side.record(from), side.record(to));
        // Under another spelling than today's nobody comes any more: there is no need of a mark where nothing is.
        let is_todays = from.as_phone().map(ConversationKey::phone).as_ref() == Some(from);
        let may_make = is_todays || from.as_phone().is_none();
        let Some(carried) = self.mark(&old, (to, until_ms), may_make).await? else {
            return Ok(false);
        };
        let is_something = carried.contains_key(FLOW) || carried.contains_key(OWNER);
        if is_something {
            self.put(&new, &carried).await?;
            self.clear(&old).await?;
        } else {
            self.unmark(&new).await?;
        }
        Ok(is_something)
    }

    /// Marks a record, and gives what it holds; nothing of one that is another person's by now.
    async fn mark(
        &self,
        key: &str,
        (to, until_ms): (&ConversationKey, Option<u64>),
        may_make: bool,
    ) -> Result<Option<Fields>, OwnerError> {
        let decide = |found: Option<Fields>| {
            let Some(held) = found.or_else(|| may_make.then(Fields::new)) else {
                return Ok((None, None));
            };
            if moved(&held).as_ref() == Some(to) {
                return Ok((Some(held), None));
            }
            let said_ms = held.get(SAID_MS).and_then(Value::as_u64);
            if said_ms
                .zip(until_ms)
                .is_some_and(|(said, until)| said > until)
            {
                return Ok((None, None));
            }
            let mut marked = held.clone();
            marked.insert(MOVED.to_owned(), json!(to.as_str()));
            match until_ms {
                Some(until_ms) => marked.insert(UNTIL_MS.to_owned(), json!(until_ms)),
                None => marked.remove(UNTIL_MS),
            };
            Ok((Some(held), Some(marked)))
        };
        self.records.change(key, decide).await
    }

    /// Puts what was carried where nothing of the kind is; of two owners the one that was set later stays.
    async fn put(&self, key: &str, carried: &Fields) -> Result<(), OwnerError> {
        let decide = |found: Option<Fields>| {
            let mut held = found.unwrap_or_default();
            held.retain(|name, _| !MARKS.contains(&name.as_str()));
            let set_ms = |fields: &Fields| owner(fields).map(|owner| owner.set_ms);
            let owner = if set_ms(&held) >= set_ms(carried) {
                held.get(OWNER).cloned()
            } else {
                carried.get(OWNER).cloned()
            };
            if !held.contains_key(FLOW) {
                let kept = carried
                    .iter()
                    .filter(|(name, _)| !LEFT.contains(&name.as_str()));
                held.extend(kept.map(|(name, value)| (name.clone(), value.clone())));
            }
            if let Some(owner) = owner {
                held.insert(OWNER.to_owned(), owner);
            }
            Ok(((), Some(held)))
        };
        self.records.change(key, decide).await
    }

    /// Whoever comes back to an id they had is not led away from it any more.
    async fn unmark(&self, key: &str) -> Result<(), OwnerError> {
        let decide = |found: Option<Fields>| {
            let mut held = found.unwrap_or_default();
            let was_marked = held.contains_key(MOVED);
            held.retain(|name, _| !MARKS.contains(&name.as_str()));
            Ok(((), was_marked.then_some(held)))
        };
        self.records.change(key, decide).await
    }

    async fn clear(&self, key: &str) -> Result<(), OwnerError> {
        let decide = |found: Option<Fields>| {
            let held = found.unwrap_or_default();
            let is_clear = !held.contains_key(FLOW) && !held.contains_key(OWNER);
            let members = held.into_iter();
            let marked = members.filter(|(name, _)| MARKS.contains(&name.as_str()));
            Ok(((), (!is_clear).then(|| marked.collect())))
        };
        self.records.change(key, decide).await
    }
}

/// Where a record says that its conversation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whereabouts {
    Here,
    At(ConversationKey),
    /// With somebody else, who had this number before.
    Elsewhere,
}

/// Where the conversation of a side is, by the record under one of its keys. A mark of a number leads until somebody
/// else has it; and a number that is known beside a user id may be the one of two people that it was before.
pub(super) fn whereabouts(
    fields: &Fields,
    side: &Side<'_>,
    is_first: bool,
    at_ms: u64,
) -> Whereabouts {
    let until_ms = fields.get(UNTIL_MS).and_then(Value::as_u64);
    let is_over = until_ms.is_some_and(|until| at_ms > until);
    match moved(fields).filter(|_| !is_over) {
        None => Whereabouts::Here,
        Some(to) if is_first || to == *side.key() => Whereabouts::At(to),
        Some(_) => Whereabouts::Elsewhere,
    }
}

/// The key under which a conversation goes on, when its record says so.
fn moved(fields: &Fields) -> Option<ConversationKey> {
    ConversationKey::parse(fields.get(MOVED)?.as_str()?)
}
