//! Statuses whose message is not known, or not yet: they wait for it, and tell meanwhile what they say of it.
//!
//! Messages that other programs send with our numbers are never more than this.

use super::contact::{self, Between};
use super::fold::{Direction, StatusEntry};
use super::progress::{Fault, Progress, Status, Step};
use super::query::StoredMessage;
use super::store::{Journal, JournalError};
use super::write::{integer, json};
use ackline_shared::raw::RawJson;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

/// What stands for the type of a message of which only statuses are known.
const KIND: &str = "unknown";

/// Keeps a status until its message comes, in the conversation that it belongs to.
pub async fn hold(
    db: &mut SqliteConnection,
    tenant: &str,
    entry: &StatusEntry,
) -> Result<(), sqlx::Error> {
    let number = entry
        .phone_number_id
        .as_deref()
        .filter(|_| entry.person.is_somebody());
    let conversation = match number {
        Some(phone_number_id) => {
            let between = Between {
                tenant,
                phone_number_id,
                person: &entry.person,
            };
            Some(contact::conversation(db, between, entry.step.at_ms).await?)
        }
        None => None,
    };
    sqlx::query(
        "INSERT INTO held_statuses (tenant, wamid, status, message, at_ms, fault, received_ms, phone_number_id, conversation)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
    )
    .bind(tenant)
    .bind(&entry.wamid)
    .bind(entry.step.status.as_str())
    .bind(&entry.message)
    .bind(integer(entry.step.at_ms))
    .bind(entry.step.fault.as_ref().map(json))
    .bind(integer(entry.received_ms))
    .bind(number)
    .bind(conversation)
    .execute(db)
    .await?;
    Ok(())
}

/// Reads what a held status says.
pub fn step(row: &SqliteRow) -> Result<Option<Step>, sqlx::Error> {
    // A status that only a newer version knows is passed over.
    let Some(status) = Status::parse(row.try_get("status")?) else {
        return Ok(None);
    };
    let fault: Option<Fault> = row
        .try_get::<Option<&str>, _>("fault")?
        .and_then(|text| serde_json::from_str(text).ok());
    Ok(Some(Step {
        status,
        at_ms: unsigned(row, "at_ms")?,
        fault,
    }))
}

/// What statuses tell of a message of which nothing else is known.
pub async fn message(
    journal: &Journal,
    tenant: &str,
    wamid: &str,
) -> Result<Option<StoredMessage>, JournalError> {
    let rows = sqlx::query(
        "SELECT h.status, h.at_ms, h.fault, h.received_ms, h.phone_number_id, coalesce(c.merged_into, c.id) AS conversation
         FROM held_statuses h JOIN conversations c ON c.id = h.conversation AND c.tenant = h.tenant
         WHERE h.tenant = ?1 AND h.wamid = ?2",
    )
    .bind(tenant)
    .bind(wamid)
    .fetch_all(&journal.database()?.readers)
    .await?;
    let mut reported: Option<StoredMessage> = None;
    for row in &rows {
        let Some(step) = step(row)? else { continue };
        let received_ms = unsigned(row, "received_ms")?;
        match &mut reported {
            Some(message) => {
                message.progress.advance(&step);
                message.created_ms = message.created_ms.min(step.at_ms);
                message.received_ms = message.received_ms.min(received_ms);
            }
            None => reported = Some(begin(row, wamid, &step, received_ms)?),
        }
    }
    Ok(reported)
}

fn begin(
    row: &SqliteRow,
    wamid: &str,
    step: &Step,
    received_ms: u64,
) -> Result<StoredMessage, sqlx::Error> {
    Ok(StoredMessage {
        id: wamid.to_owned(),
        conversation: row.try_get("conversation")?,
        phone_number_id: row.try_get("phone_number_id")?,
        direction: Direction::Out.as_str().to_owned(),
        kind: KIND.to_owned(),
        text: None,
        content: RawJson::of(b"null"),
        wamid: Some(wamid.to_owned()),
        reply_to: None,
        progress: Progress::begin(step),
        origin: None,
        created_ms: step.at_ms,
        received_ms,
        sequence: 0,
    })
}

fn unsigned(row: &SqliteRow, column: &str) -> Result<u64, sqlx::Error> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or_default())
}
