//! Writing one folded entry; every statement here may run again without changing more.

use super::contact::{self, Between};
use super::fold::{JournalEntry, MessageEntry, StatusEntry};
use super::held::{self, hold};
use super::progress::{Progress, Status};
use ackline_runtime::job::Work;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use std::collections::BTreeMap;

const LAST_TEXT_CHARS_MAX: usize = 160;

/// Writes an entry unless its update was written before.
pub async fn entry(
    db: &mut SqliteConnection,
    work: &Work,
    entry: &JournalEntry,
) -> Result<(), sqlx::Error> {
    let tenant = work.head.tenant.as_str();
    let seen = sqlx::query(
        "INSERT INTO updates (tenant, id, seen_ms) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
    )
    .bind(tenant)
    .bind(work.head.id.as_str())
    .bind(integer(work.head.received_ms))
    .execute(&mut *db)
    .await?;
    if seen.rows_affected() == 0 {
        return Ok(());
    }
    match entry {
        JournalEntry::Message(entry) => message(db, tenant, entry).await,
        JournalEntry::Messages(entries) => {
            for entry in entries {
                message(db, tenant, entry).await?;
            }
            Ok(())
        }
        JournalEntry::Status(entry) => status(db, tenant, entry).await,
        JournalEntry::Contact(entry) => {
            let between = Between {
                tenant,
                phone_number_id: &entry.phone_number_id,
                person: &entry.person,
            };
            contact::conversation(db, between, entry.received_ms)
                .await
                .map(drop)
        }
        JournalEntry::Nothing => Ok(()),
    }
}

/// SQLite's integers are signed; times and sequences stay far below the limit.
pub fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What changes of a message after it was written.
struct Stored {
    id: String,
    conversation: String,
    phone_number_id: String,
    wamid: Option<String>,
    progress: Progress,
}

async fn message(
    db: &mut SqliteConnection,
    tenant: &str,
    entry: &MessageEntry,
) -> Result<(), sqlx::Error> {
    let known = match find(db, tenant, Some(&entry.id), None).await? {
        Some(known) => Some(known),
        None => find(db, tenant, None, entry.wamid.as_deref()).await?,
    };
    let mut stored = match known {
        Some(mut known) => {
            known.progress.advance(&entry.step);
            known.wamid = known.wamid.or_else(|| entry.wamid.clone());
            known
        }
        None => insert(db, tenant, entry).await?,
    };
    claim_held(db, tenant, &mut stored).await?;
    save(db, tenant, &stored).await
}

async fn status(
    db: &mut SqliteConnection,
    tenant: &str,
    entry: &StatusEntry,
) -> Result<(), sqlx::Error> {
    let known = match find(db, tenant, None, Some(&entry.wamid)).await? {
        Some(known) => Some(known),
        None => find(db, tenant, entry.message.as_deref(), None).await?,
    };
    let Some(mut stored) = known else {
        return hold(db, tenant, entry).await;
    };
    stored.progress.advance(&entry.step);
    if stored.wamid.is_none() {
        // Meta's answer was lost, and its id comes to light only now.
        stored.wamid = Some(entry.wamid.clone());
        claim_held(db, tenant, &mut stored).await?;
    }
    let between = Between {
        tenant,
        phone_number_id: &stored.phone_number_id,
        person: &entry.person,
    };
    contact::identify(db, between, &stored.conversation, entry.step.at_ms).await?;
    save(db, tenant, &stored).await
}

async fn find(
    db: &mut SqliteConnection,
    tenant: &str,
    id: Option<&str>,
    wamid: Option<&str>,
) -> Result<Option<Stored>, sqlx::Error> {
    let query = match (id, wamid) {
        (Some(id), _) => sqlx::query(
            "SELECT id, conversation, phone_number_id, wamid, status, status_times, fault FROM messages WHERE tenant = ?1 AND id = ?2",
        )
        .bind(tenant)
        .bind(id),
        (None, Some(wamid)) => sqlx::query(
            "SELECT id, conversation, phone_number_id, wamid, status, status_times, fault FROM messages
             WHERE tenant = ?1 AND wamid = ?2 LIMIT 1",
        )
        .bind(tenant)
        .bind(wamid),
        (None, None) => return Ok(None),
    };
    query
        .fetch_optional(db)
        .await?
        .map(|row| stored(&row))
        .transpose()
}

fn stored(row: &SqliteRow) -> Result<Stored, sqlx::Error> {
    Ok(Stored {
        id: row.try_get("id")?,
        conversation: row.try_get("conversation")?,
        phone_number_id: row.try_get("phone_number_id")?,
        wamid: row.try_get("wamid")?,
        progress: progress(row)?,
    })
}

/// Reads the columns that hold a message's progress.
pub fn progress(row: &SqliteRow) -> Result<Progress, sqlx::Error> {
    let decode = |error: serde_json::Error| sqlx::Error::Decode(Box::new(error));
    let times: BTreeMap<String, u64> =
        serde_json::from_str(row.try_get("status_times")?).map_err(decode)?;
    // A status that only a newer version knows is passed over.
    let times = times
        .into_iter()
        .filter_map(|(name, at_ms)| Some((Status::parse(&name)?, at_ms)))
        .collect();
    let fault: Option<&str> = row.try_get("fault")?;
    Ok(Progress {
        status: Status::parse(row.try_get("status")?).unwrap_or(Status::Received),
        times,
        fault: fault
            .map(serde_json::from_str)
            .transpose()
            .map_err(decode)?,
    })
}

async fn insert(
    db: &mut SqliteConnection,
    tenant: &str,
    entry: &MessageEntry,
) -> Result<Stored, sqlx::Error> {
    let between = Between {
        tenant,
        phone_number_id: &entry.phone_number_id,
        person: &entry.person,
    };
    let conversation = contact::conversation(db, between, entry.created_ms).await?;
    let progress = Progress::begin(&entry.step);
    sqlx::query(
        "INSERT INTO messages (tenant, id, conversation, phone_number_id, direction, kind, text, content, wamid, reply_to,
             status, status_times, fault, origin, created_ms, received_ms, sequence)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, '{}', NULL, ?12, ?13, ?14, ?15)",
    )
    .bind(tenant)
    .bind(&entry.id)
    .bind(&conversation)
    .bind(&entry.phone_number_id)
    .bind(entry.direction.as_str())
    .bind(&entry.kind)
    .bind(&entry.text)
    .bind(entry.content.to_string())
    .bind(&entry.wamid)
    .bind(&entry.reply_to)
    .bind(progress.status.as_str())
    .bind(entry.origin.as_ref().map(ToString::to_string))
    .bind(integer(entry.created_ms))
    .bind(integer(entry.received_ms))
    .bind(integer(entry.sequence))
    .execute(&mut *db)
    .await?;
    let text = entry
        .text
        .clone()
        .unwrap_or_else(|| format!("[{}]", entry.kind));
    let text: String = text.chars().take(LAST_TEXT_CHARS_MAX).collect();
    contact::count(db, &conversation, entry, &text).await?;
    Ok(Stored {
        id: entry.id.clone(),
        conversation,
        phone_number_id: entry.phone_number_id.clone(),
        wamid: entry.wamid.clone(),
        progress,
    })
}

async fn save(db: &mut SqliteConnection, tenant: &str, stored: &Stored) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE messages SET wamid = ?3, status = ?4, status_times = ?5, fault = ?6 WHERE tenant = ?1 AND id = ?2",
    )
    .bind(tenant)
    .bind(&stored.id)
    .bind(&stored.wamid)
    .bind(stored.progress.status.as_str())
    .bind(json(&stored.progress.times))
    .bind(stored.progress.fault.as_ref().map(json))
    .execute(db)
    .await?;
    Ok(())
}

/// Applies the statuses that waited for this message.
async fn claim_held(
    db: &mut SqliteConnection,
    tenant: &str,
    stored: &mut Stored,
) -> Result<(), sqlx::Error> {
    let rows = sqlx::query(
        "DELETE FROM held_statuses WHERE tenant = ?1 AND (wamid = ?2 OR message = ?3)
         RETURNING wamid, status, at_ms, fault",
    )
    .bind(tenant)
    .bind(&stored.wamid)
    .bind(&stored.id)
    .fetch_all(db)
    .await?;
    for row in rows {
        let Some(step) = held::step(&row)? else {
            continue;
        };
        stored.progress.advance(&step);
        if stored.wamid.is_none() {
            stored.wamid = Some(row.try_get("wamid")?);
        }
    }
    Ok(())
}

/// A value as it is stored.
pub fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
