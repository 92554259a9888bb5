//! Statuses whose message is not known, or not yet: they wait for it, and tell meanwhile what they say of it.
//!
//! Messages that other programs send with our numbers are never more than this.

use super::contact::{self, Between};
use super::fold::{Direction, StatusEntry};
use super::progress::{Fault, Progress, Status, Step};
use super::query::StoredMessage;
use super::store::{Journal, JournalError};
use super::working::{HeldRow, Working};
use super::write::json;
use ackline_shared::raw::RawJson;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

/// What stands for the type of a message of which only statuses are known.
const KIND: &str = "unknown";

/// What statuses tell of a message of which nothing else is known.
pub(super) const REPORTED: &str = "SELECT h.status, h.at_ms, h.fault, h.received_ms, h.phone_number_id, coalesce(c.merged_into, c.id) AS conversation
         FROM held_statuses h JOIN conversations c ON c.id = h.conversation AND c.tenant = h.tenant
         WHERE h.tenant = ?1 AND h.wamid = ?2";

/// Keeps a status until its message comes, in the conversation that it belongs to, unless it was kept before.
pub async fn hold<'b>(
    rows: &mut Working<'b>,
    tenant: &'b str,
    entry: &'b StatusEntry,
) -> Result<(), sqlx::Error> {
    let status = entry.step.status.as_str();
    if rows.is_held(tenant, &entry.wamid, status).await? {
        return Ok(());
    }
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
            Some(contact::conversation(rows, between, entry.step.at_ms).await?)
        }
        None => None,
    };
    rows.of(tenant).held.add(HeldRow {
        is_new: true,
        wamid: entry.wamid.clone(),
        status: status.to_owned(),
        message: entry.message.clone(),
        at_ms: entry.step.at_ms,
        fault: entry.step.fault.as_ref().map(json),
        received_ms: entry.received_ms,
        phone_number_id: number.map(str::to_owned),
        conversation,
    });
    Ok(())
}

/// What a held status says; nothing when only a newer version knows it.
pub fn step_of(row: &HeldRow) -> Option<Step> {
    Some(Step {
        status: Status::parse(&row.status)?,
        at_ms: row.at_ms,
        fault: row
            .fault
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok()),
    })
}

/// Reads what a held status says.
fn step(row: &SqliteRow) -> Result<Option<Step>, sqlx::Error> {
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
    let rows = sqlx::query(REPORTED)
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
