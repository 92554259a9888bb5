//! One conversation per person and business number: found by either of a person's ids, the other one filled in.
//!
//! The business-scoped id decides who somebody is; a phone number alone may pass to somebody else. Two
//! conversations that turn out to be the same person's become one, and the older one's id stays.

use super::fold::{MessageEntry, Person};
use super::write::integer;
use ackline_shared::ids::{ConversationKey, conversation_id};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

/// Between whom a conversation is.
#[derive(Debug, Clone, Copy)]
pub struct Between<'a> {
    pub tenant: &'a str,
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
pub async fn conversation(
    db: &mut SqliteConnection,
    between: Between<'_>,
    at_ms: u64,
) -> Result<String, sqlx::Error> {
    let keys = between.person.keys();
    let id = match gather(db, between, &keys, None).await? {
        Some(found) => found.id,
        None => create(db, between, &keys, at_ms).await?,
    };
    link(db, between, &keys, &id).await?;
    Ok(id)
}

/// Makes a message's conversation be found by every id of who received it. Whoever is somebody else than the conversation
/// is with gets one of their own.
pub async fn identify(
    db: &mut SqliteConnection,
    between: Between<'_>,
    id: &str,
    at_ms: u64,
) -> Result<(), sqlx::Error> {
    if !between.person.is_somebody() || is_linked(db, between, id).await? {
        return Ok(());
    }
    let Some(known) = by_id(db, id).await? else {
        return Ok(());
    };
    if is_other_person(&known, between.person) {
        return conversation(db, between, at_ms).await.map(drop);
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
    match gather(db, between, &keys, Some(known)).await? {
        Some(found) => link(db, between, &keys, &found.id).await,
        None => Ok(()),
    }
}

/// Whether every id of the person leads to a conversation, by its alias too.
async fn is_linked(
    db: &mut SqliteConnection,
    between: Between<'_>,
    id: &str,
) -> Result<bool, sqlx::Error> {
    for key in between.person.keys() {
        let row = sqlx::query(
            "SELECT 1 FROM contacts WHERE tenant = ?1 AND phone_number_id = ?2 AND key = ?3 AND conversation = ?4
             AND alias IS NOT NULL",
        )
        .bind(between.tenant)
        .bind(between.phone_number_id)
        .bind(key.as_str())
        .bind(id)
        .fetch_optional(&mut *db)
        .await?;
        if row.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_other_person(found: &Found, person: &Person) -> bool {
    matches!((&found.user_id, &person.user_id), (Some(theirs), Some(ours)) if theirs != ours)
}

/// Finds what the keys lead to; more than one conversation becomes one.
async fn gather(
    db: &mut SqliteConnection,
    between: Between<'_>,
    keys: &[ConversationKey],
    known: Option<Found>,
) -> Result<Option<Found>, sqlx::Error> {
    let mut found = known;
    for key in keys {
        let Some(candidate) = by_key(db, between, key).await? else {
            continue;
        };
        found = match found {
            _ if is_other_person(&candidate, between.person) => found,
            None => Some(candidate),
            Some(known) if known.id == candidate.id => Some(known),
            Some(known) => Some(merge(db, known, candidate).await?),
        };
    }
    Ok(found)
}

async fn link(
    db: &mut SqliteConnection,
    between: Between<'_>,
    keys: &[ConversationKey],
    id: &str,
) -> Result<(), sqlx::Error> {
    for key in keys {
        sqlx::query(
            "INSERT INTO contacts (tenant, phone_number_id, key, conversation, alias) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET conversation = excluded.conversation, alias = excluded.alias
             WHERE conversation <> excluded.conversation OR alias IS NULL",
        )
        .bind(between.tenant)
        .bind(between.phone_number_id)
        .bind(key.as_str())
        .bind(id)
        .bind(conversation_id(between.tenant, between.phone_number_id, key))
        .execute(&mut *db)
        .await?;
    }
    fill_in(db, id, between.person).await
}

async fn by_id(db: &mut SqliteConnection, id: &str) -> Result<Option<Found>, sqlx::Error> {
    let row = sqlx::query("SELECT id, user_id, created_ms FROM conversations WHERE id = ?1")
        .bind(id)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(found).transpose()
}

async fn by_key(
    db: &mut SqliteConnection,
    between: Between<'_>,
    key: &ConversationKey,
) -> Result<Option<Found>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT c.id, c.user_id, c.created_ms FROM contacts k JOIN conversations c ON c.id = k.conversation
         WHERE k.tenant = ?1 AND k.phone_number_id = ?2 AND k.key = ?3",
    )
    .bind(between.tenant)
    .bind(between.phone_number_id)
    .bind(key.as_str())
    .fetch_optional(db)
    .await?;
    row.as_ref().map(found).transpose()
}

fn found(row: &SqliteRow) -> Result<Found, sqlx::Error> {
    Ok(Found {
        id: row.try_get(0)?,
        user_id: row.try_get(1)?,
        created_ms: row.try_get(2)?,
    })
}

async fn create(
    db: &mut SqliteConnection,
    between: Between<'_>,
    keys: &[ConversationKey],
    at_ms: u64,
) -> Result<String, sqlx::Error> {
    let key = keys.first().cloned().unwrap_or_else(ConversationKey::none);
    let id = conversation_id(between.tenant, between.phone_number_id, &key);
    sqlx::query(
        "INSERT INTO conversations (id, tenant, phone_number_id, group_id, last_ms, last_text, last_direction, incoming, outgoing, created_ms)
         VALUES (?1, ?2, ?3, ?4, 0, '', '', 0, 0, ?5)",
    )
    .bind(&id)
    .bind(between.tenant)
    .bind(between.phone_number_id)
    .bind(&between.person.group_id)
    .bind(integer(at_ms))
    .execute(db)
    .await?;
    Ok(id)
}

async fn fill_in(db: &mut SqliteConnection, id: &str, person: &Person) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE conversations SET user_id = coalesce(?2, user_id), phone = coalesce(?3, phone), name = coalesce(?4, name)
         WHERE id = ?1",
    )
    .bind(id)
    .bind(&person.user_id)
    .bind(&person.phone)
    .bind(&person.name)
    .execute(db)
    .await?;
    Ok(())
}

/// Moves everything of the younger conversation into the older one.
async fn merge(db: &mut SqliteConnection, one: Found, other: Found) -> Result<Found, sqlx::Error> {
    let (kept, gone) = if (one.created_ms, &one.id) <= (other.created_ms, &other.id) {
        (one, other)
    } else {
        (other, one)
    };
    for statement in [
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
    ] {
        sqlx::query(statement).bind(&kept.id).bind(&gone.id).execute(&mut *db).await?;
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
    db: &mut SqliteConnection,
    id: &str,
    entry: &MessageEntry,
    text: &str,
) -> Result<(), sqlx::Error> {
    let (direction, created_ms) = (entry.direction.as_str(), integer(entry.created_ms));
    sqlx::query(
        "UPDATE conversations SET last_sequence = ?3, last_direction = ?4, last_text = ?5 WHERE id = ?1
             AND (last_ms / 1000, last_sequence) <= (?2 / 1000, ?3)",
    )
    .bind(id)
    .bind(created_ms)
    .bind(integer(entry.sequence))
    .bind(direction)
    .bind(text)
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "UPDATE conversations SET incoming = incoming + (?2 = 'in'), outgoing = outgoing + (?2 = 'out'),
             created_ms = min(created_ms, ?3), last_ms = max(last_ms, ?3) WHERE id = ?1",
    )
    .bind(id)
    .bind(direction)
    .bind(created_ms)
    .execute(db)
    .await?;
    Ok(())
}
