//! One conversation per person and business number: found by either of a person's ids, the other one filled in.
//!
//! The business-scoped id decides who somebody is; a phone number alone may pass to somebody else. Two
//! conversations that turn out to be the same person's become one, and the older one's id stays.

use super::fold::{Direction, MessageEntry, Person};
use super::working::{ContactRow, ConversationRow, Place, Working};
use super::write::integer;
use ackline_shared::ids::{ConversationKey, conversation_id};
use sqlx::SqliteConnection;

/// Moves everything of the second conversation into the first.
pub(super) const MERGE: [&str; 5] = [
        "UPDATE messages SET conversation = ?1 WHERE conversation = ?2",
        "UPDATE contacts SET conversation = ?1 WHERE conversation = ?2",
        "UPDATE conversations SET merged_into = ?1 WHERE id = ?2 OR merged_into = ?2",
        "UPDATE conversations SET
             last_sequence = gone.last_sequence, last_text = gone.last_text, last_direction = gone.last_direction
         FROM conversations gone WHERE conversations.id = ?1 AND gone.id = ?2
             AND (gone.last_ms / 1000, gone.last_sequence) > (conversations.last_ms / 1000, conversations.last_sequence)",
        "UPDATE conversations SET
             user_id = coalesce(conversations.user_id, gone.user_id),
             phone = coalesce(conversations.phone, gone.phone),
             name = coalesce(conversations.name, gone.name),
             incoming = conversations.incoming + gone.incoming,
             outgoing = conversations.outgoing + gone.outgoing,
             last_ms = max(conversations.last_ms, gone.last_ms)
         FROM conversations gone WHERE conversations.id = ?1 AND gone.id = ?2",
    ];

/// Between whom a conversation is.
#[derive(Debug, Clone, Copy)]
pub struct Between<'b, 'a> {
    pub tenant: &'b str,
    pub phone_number_id: &'a str,
    pub person: &'a Person,
}

#[derive(Debug, Clone)]
struct Found {
    id: String,
    user_id: Option<String>,
    created_ms: i64,
}

/// Finds the conversation, or makes an empty one; afterwards it is found by every id of the person.
pub async fn conversation<'b>(
    rows: &mut Working<'b>,
    between: Between<'b, '_>,
    at_ms: u64,
) -> Result<String, sqlx::Error> {
    let keys = between.person.keys();
    let id = match gather(rows, between, &keys, None).await? {
        Some(found) => found.id,
        None => create(rows, between, &keys, at_ms),
    };
    link(rows, between, &keys, &id).await?;
    Ok(id)
}

/// Makes a message's conversation be found by every id of who received it. Whoever is somebody else than the conversation
/// is with gets one of their own.
pub async fn identify<'b>(
    rows: &mut Working<'b>,
    between: Between<'b, '_>,
    id: &str,
    at_ms: u64,
) -> Result<(), sqlx::Error> {
    if !between.person.is_somebody() || is_linked(rows, between, id).await? {
        return Ok(());
    }
    let Some(known) = by_id(rows, id).await? else {
        return Ok(());
    };
    if is_other_person(&known, between.person) {
        return conversation(rows, between, at_ms).await.map(drop);
    }
    // A phone number alone is the number of whoever the message went to, and of nobody who had it before.
    let user_id = between
        .person
        .user_id
        .clone()
        .or_else(|| known.user_id.clone());
    let person = Person {
        user_id,
        ..between.person.clone()
    };
    let between = Between {
        person: &person,
        ..between
    };
    let keys = person.keys();
    match gather(rows, between, &keys, Some(known)).await? {
        Some(found) => link(rows, between, &keys, &found.id).await,
        None => Ok(()),
    }
}

/// Whether every id of the person leads to a conversation, by its alias too.
async fn is_linked<'b>(
    rows: &mut Working<'b>,
    between: Between<'b, '_>,
    id: &str,
) -> Result<bool, sqlx::Error> {
    for key in between.person.keys() {
        let place = rows
            .contact(between.tenant, between.phone_number_id, &key)
            .await?;
        let contact = place.and_then(|place| rows.contacts.get(place));
        if !contact.is_some_and(|contact| contact.conversation == id && contact.has_alias) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_other_person(found: &Found, person: &Person) -> bool {
    let is_told = person.user_id.is_some();
    found
        .user_id
        .as_deref()
        .is_some_and(|theirs| is_told && !person.is_user(theirs))
}

/// Finds what the keys lead to; more than one conversation becomes one.
async fn gather<'b>(
    rows: &mut Working<'b>,
    between: Between<'b, '_>,
    keys: &[ConversationKey],
    known: Option<Found>,
) -> Result<Option<Found>, sqlx::Error> {
    let mut found = known;
    for key in keys {
        let Some(candidate) = by_key(rows, between, key).await? else {
            continue;
        };
        found = match found {
            // A user id leads to one person, also when they have another one by now.
            _ if key.as_user().is_none() && is_other_person(&candidate, between.person) => found,
            None => Some(candidate),
            Some(known) if known.id == candidate.id => Some(known),
            Some(known) => {
                // What is changed here must be in the file, and what changes there is read again.
                rows.save().await?;
                let one = merge(rows.db, known, candidate).await?;
                rows.forget();
                Some(one)
            }
        };
    }
    Ok(found)
}

async fn link<'b>(
    rows: &mut Working<'b>,
    between: Between<'b, '_>,
    keys: &[ConversationKey],
    id: &str,
) -> Result<(), sqlx::Error> {
    for key in keys {
        let place = rows
            .contact(between.tenant, between.phone_number_id, key)
            .await?;
        match place.and_then(|place| rows.contacts.get_mut(place)) {
            Some(contact) if contact.conversation == id && contact.has_alias => {}
            Some(contact) => {
                id.clone_into(&mut contact.conversation);
                (contact.has_alias, contact.is_changed) = (true, true);
            }
            None => rows.add_contact(ContactRow {
                tenant: between.tenant,
                phone_number_id: between.phone_number_id.to_owned(),
                key: key.clone(),
                conversation: id.to_owned(),
                has_alias: true,
                is_changed: true,
            }),
        }
    }
    fill_in(rows, id, between.person).await
}

async fn by_id(rows: &mut Working<'_>, id: &str) -> Result<Option<Found>, sqlx::Error> {
    let place = rows.conversation(id).await?;
    let row = place.and_then(|place| rows.conversations.get(place));
    Ok(row.map(|row| Found {
        id: row.id.clone(),
        user_id: row.user_id.clone(),
        created_ms: row.created_ms,
    }))
}

async fn by_key<'b>(
    rows: &mut Working<'b>,
    between: Between<'b, '_>,
    key: &ConversationKey,
) -> Result<Option<Found>, sqlx::Error> {
    let place = rows
        .contact(between.tenant, between.phone_number_id, key)
        .await?;
    let Some(contact) = place.and_then(|place| rows.contacts.get(place)) else {
        return Ok(None);
    };
    let id = contact.conversation.clone();
    by_id(rows, &id).await
}

fn create<'b>(
    rows: &mut Working<'b>,
    between: Between<'b, '_>,
    keys: &[ConversationKey],
    at_ms: u64,
) -> String {
    let key = keys.first().cloned().unwrap_or_else(ConversationKey::none);
    let id = conversation_id(between.tenant, between.phone_number_id, &key);
    rows.add_conversation(ConversationRow {
        origin: Place::New(between.tenant),
        id: id.clone(),
        phone_number_id: between.phone_number_id.to_owned(),
        group_id: between.person.group_id.clone(),
        user_id: None,
        phone: None,
        name: None,
        last_ms: 0,
        last_sequence: 0,
        last: None,
        incoming: 0,
        outgoing: 0,
        created_ms: integer(at_ms),
        is_changed: false,
    });
    id
}

async fn fill_in(rows: &mut Working<'_>, id: &str, person: &Person) -> Result<(), sqlx::Error> {
    let place = rows.conversation(id).await?;
    let Some(row) = place.and_then(|place| rows.conversations.get_mut(place)) else {
        return Ok(());
    };
    for (held, told) in [
        (&mut row.user_id, &person.user_id),
        (&mut row.phone, &person.phone),
        (&mut row.name, &person.name),
    ] {
        if told.is_some() && held != told {
            held.clone_from(told);
            row.is_changed = true;
        }
    }
    Ok(())
}

/// Moves everything of the younger conversation into the older one.
async fn merge(db: &mut SqliteConnection, one: Found, other: Found) -> Result<Found, sqlx::Error> {
    let (kept, gone) = if (one.created_ms, &one.id) <= (other.created_ms, &other.id) {
        (one, other)
    } else {
        (other, one)
    };
    for statement in MERGE {
        sqlx::query(statement)
            .bind(&kept.id)
            .bind(&gone.id)
            .execute(&mut *db)
            .await?;
    }
    let user_id = kept.user_id.or(gone.user_id);
    Ok(Found {
        id: kept.id,
        user_id,
        created_ms: kept.created_ms,
    })
}

/// Counts a new message in, and shows it when it is the newest: within one second, the last one in the log.
pub async fn count(
    rows: &mut Working<'_>,
    id: &str,
    entry: &MessageEntry,
    text: String,
) -> Result<(), sqlx::Error> {
    let place = rows.conversation(id).await?;
    let Some(row) = place.and_then(|place| rows.conversations.get_mut(place)) else {
        return Ok(());
    };
    let (created_ms, sequence) = (integer(entry.created_ms), integer(entry.sequence));
    if (row.last_ms / 1000, row.last_sequence) <= (created_ms / 1000, sequence) {
        row.last_sequence = sequence;
        row.last = Some((text, entry.direction.as_str()));
    }
    match entry.direction {
        Direction::In => row.incoming += 1,
        Direction::Out => row.outgoing += 1,
    }
    row.created_ms = row.created_ms.min(created_ms);
    row.last_ms = row.last_ms.max(created_ms);
    row.is_changed = true;
    Ok(())
}
