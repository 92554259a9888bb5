//! Taking one folded entry into the rows of its batch; doing it again changes nothing more.
//!
//! A message and a status tell by what is stored of them whether they were written before; of what only touches a
//! conversation the update's id is noted.

use super::contact::{self, Between};
use super::fold::{JournalEntry, MessageEntry, StatusEntry};
use super::held::{self, hold};
use super::progress::{Progress, Status};
use super::working::{MessageRow, Place, Working};
use ackline_runtime::job::Work;
use ackline_shared::envelope::Family;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use std::collections::BTreeMap;

const LAST_TEXT_CHARS_MAX: usize = 160;

/// Takes an entry in unless its update was written before.
pub async fn entry<'b>(
    rows: &mut Working<'b>,
    work: &'b Work,
    entry: &'b JournalEntry,
) -> Result<(), sqlx::Error> {
    let tenant = work.head.tenant.as_str();
    match entry {
        JournalEntry::Message(entry) => message(rows, tenant, entry).await,
        JournalEntry::Status(entry) => status(rows, tenant, entry).await,
        JournalEntry::Contact(entry) => {
            // A record names one key, which leads where it led before.
            let is_record = work.head.family == Family::Record;
            if !is_record
                && !rows
                    .note_update(tenant, work.head.id.as_str(), work.head.received_ms)
                    .await?
            {
                return Ok(());
            }
            let between = Between {
                tenant,
                phone_number_id: &entry.phone_number_id,
                person: &entry.person,
            };
            contact::conversation(rows, between, entry.received_ms)
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

async fn message<'b>(
    rows: &mut Working<'b>,
    tenant: &'b str,
    entry: &'b MessageEntry,
) -> Result<(), sqlx::Error> {
    let known = match (rows.by_id(tenant, &entry.id).await?, &entry.wamid) {
        (None, Some(wamid)) => rows.by_wamid(tenant, wamid).await?,
        (known, _) => known,
    };
    let place = match known {
        Some(place) => {
            let is_nameless = rows.messages.get_mut(place).is_some_and(|row| {
                row.is_changed |= row.progress.advance(&entry.step);
                row.wamid.is_none()
            });
            if let Some(wamid) = entry.wamid.as_deref().filter(|_| is_nameless) {
                rows.name_message(place, wamid);
            }
            if entry.tells_ids {
                identify(rows, tenant, place, entry).await?;
            }
            place
        }
        None => insert(rows, tenant, entry).await?,
    };
    claim_held(rows, tenant, place).await
}

/// Hears by which ids Meta knows whom a message went to.
async fn identify<'b>(
    rows: &mut Working<'b>,
    tenant: &'b str,
    place: usize,
    entry: &'b MessageEntry,
) -> Result<(), sqlx::Error> {
    let Some(row) = rows.messages.get(place) else {
        return Ok(());
    };
    let conversation = row.conversation.clone();
    let between = Between {
        tenant,
        phone_number_id: &entry.phone_number_id,
        person: &entry.person,
    };
    contact::identify(rows, between, &conversation, entry.received_ms).await
}

async fn status<'b>(
    rows: &mut Working<'b>,
    tenant: &'b str,
    entry: &'b StatusEntry,
) -> Result<(), sqlx::Error> {
    let known = match (rows.by_wamid(tenant, &entry.wamid).await?, &entry.message) {
        (None, Some(message)) => rows.by_id(tenant, message).await?,
        (known, _) => known,
    };
    let Some(place) = known else {
        return hold(rows, tenant, entry).await;
    };
    let Some(row) = rows.messages.get_mut(place) else {
        return Ok(());
    };
    let is_news = row.progress.advance(&entry.step);
    row.is_changed |= is_news;
    let (number, conversation) = (row.phone_number_id.clone(), row.conversation.clone());
    if row.wamid.is_none() {
        // Meta's answer was lost, and its id comes to light only now.
        rows.name_message(place, &entry.wamid);
        claim_held(rows, tenant, place).await?;
    } else if !is_news {
        return Ok(());
    }
    let between = Between {
        tenant,
        phone_number_id: &number,
        person: &entry.person,
    };
    contact::identify(rows, between, &conversation, entry.step.at_ms).await
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

async fn insert<'b>(
    rows: &mut Working<'b>,
    tenant: &'b str,
    entry: &'b MessageEntry,
) -> Result<usize, sqlx::Error> {
    let between = Between {
        tenant,
        phone_number_id: &entry.phone_number_id,
        person: &entry.person,
    };
    let conversation = contact::conversation(rows, between, entry.created_ms).await?;
    let text = entry.preview.chars().take(LAST_TEXT_CHARS_MAX).collect();
    contact::count(rows, &conversation, entry, text).await?;
    Ok(rows.add_message(MessageRow {
        tenant,
        origin: Place::New(entry),
        id: entry.id.clone(),
        conversation,
        phone_number_id: entry.phone_number_id.clone(),
        wamid: entry.wamid.clone(),
        progress: Progress::begin(&entry.step),
        is_changed: false,
        has_new_wamid: false,
    }))
}

/// Applies the statuses that waited for this message.
async fn claim_held<'b>(
    rows: &mut Working<'b>,
    tenant: &'b str,
    place: usize,
) -> Result<(), sqlx::Error> {
    loop {
        let Some(row) = rows.messages.get(place) else {
            return Ok(());
        };
        let (id, wamid) = (row.id.clone(), row.wamid.clone());
        let waited = rows.claim(tenant, wamid.as_deref(), &id).await?;
        for held in &waited {
            let step = held::step_of(held);
            if let (Some(step), Some(row)) = (step, rows.messages.get_mut(place)) {
                row.is_changed |= row.progress.advance(&step);
            }
        }
        // One that named the message may tell Meta's id of it, and others wait for that.
        match waited.first().filter(|_| wamid.is_none()) {
            Some(first) => rows.name_message(place, &first.wamid),
            None => return Ok(()),
        }
    }
}

/// A value as it is stored.
pub fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
