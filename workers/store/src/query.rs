//! Reading: always one tenant's, newest first, a page at a time.

use super::gather::gather;
use super::held;
use super::progress::Progress;
use super::store::{Journal, JournalError};
use super::write::{integer, progress};
use ackline_shared::page::{Bound, Gathered, Weigh};
use ackline_shared::raw::RawJson;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

/// A conversation of one person or group with one business number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    pub id: String,
    pub phone_number_id: String,
    pub user_id: Option<String>,
    pub phone: Option<String>,
    pub group_id: Option<String>,
    /// The name in the profile.
    pub name: Option<String>,
    /// When the newest message was written, in unix milliseconds; 0 while there is none.
    pub last_ms: u64,
    /// The beginning of its text.
    pub last_text: String,
    pub last_direction: String,
    pub incoming: u64,
    pub outgoing: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct StoredMessage {
    pub id: String,
    /// The conversation it is in.
    pub conversation: String,
    pub phone_number_id: String,
    pub direction: String,
    /// Its type, such as `text`.
    pub kind: String,
    /// What a person reads of it.
    pub text: Option<String>,
    pub content: RawJson,
    pub wamid: Option<String>,
    pub reply_to: Option<String>,
    /// How far it has come.
    pub progress: Progress,
    pub origin: Option<RawJson>,
    /// When it was written, in unix milliseconds.
    pub created_ms: u64,
    /// When we had it, in unix milliseconds.
    pub received_ms: u64,
    /// Its place in the log.
    pub sequence: u64,
}

pub(super) const MESSAGE: &str = "SELECT id, conversation, phone_number_id, direction, kind, text, content, wamid, reply_to, status, \
    status_times, fault, origin, created_ms, received_ms, sequence FROM messages WHERE tenant = ?1 AND id = ?2";
pub(super) const MESSAGE_BY_WAMID: &str = "SELECT id, conversation, phone_number_id, direction, kind, text, content, wamid, reply_to, status, \
    status_times, fault, origin, created_ms, received_ms, sequence FROM messages WHERE tenant = ?1 AND wamid = ?2 LIMIT 1";
/// A page of a conversation's messages.
pub(super) const MESSAGES: &str = "SELECT id, conversation, phone_number_id, direction, kind, text, content, wamid, reply_to, status, \
    status_times, fault, origin, created_ms, received_ms, sequence FROM messages \
    WHERE conversation = ?2 AND tenant = ?1 AND (second, sequence) < (?3, ?4) \
    ORDER BY second DESC, sequence DESC LIMIT ?5";
pub(super) const CONVERSATIONS: &str = "SELECT id, phone_number_id, user_id, phone, group_id, name, last_ms, last_text, last_direction, \
    incoming, outgoing FROM conversations WHERE tenant = ?1 AND merged_into IS NULL AND last_ms > 0 AND (last_ms, id) < (?2, ?3) \
    ORDER BY last_ms DESC, id DESC LIMIT ?4";
pub(super) const CONVERSATION: &str = "SELECT id, phone_number_id, user_id, phone, group_id, name, last_ms, last_text, last_direction, \
    incoming, outgoing FROM conversations WHERE tenant = ?1 AND id = ?2";
pub(super) const CONVERSATIONS_OF_NUMBER: &str = "SELECT id, phone_number_id, user_id, phone, group_id, name, last_ms, last_text, last_direction, \
    incoming, outgoing FROM conversations INDEXED BY conversations_by_number WHERE tenant = ?1 AND merged_into IS NULL AND last_ms > 0 AND (last_ms, id) < (?2, ?3) \
    AND phone_number_id = ?5 ORDER BY last_ms DESC, id DESC LIMIT ?4";

pub(super) const CONVERSATION_ID: &str =
    "SELECT coalesce(merged_into, id) FROM conversations WHERE tenant = ?1 AND id = ?2";
// Without figures about its rows, SQLite would go through all of a tenant's contacts.
pub(super) const CONVERSATION_ID_BY_ALIAS: &str = "SELECT conversation FROM contacts INDEXED BY contacts_by_alias WHERE tenant = ?1 AND alias = ?2 LIMIT 1";

/// Of everything about an item that is short.
const SMALL_BYTES: usize = 600;

impl Weigh for Conversation {
    fn bytes(&self) -> usize {
        let texts = [&self.user_id, &self.phone, &self.group_id, &self.name];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        SMALL_BYTES + self.phone_number_id.len() + self.last_text.len() + texts
    }
}

impl Weigh for StoredMessage {
    fn bytes(&self) -> usize {
        let texts: usize = [&self.text, &self.wamid, &self.reply_to]
            .into_iter()
            .flatten()
            .map(String::len)
            .sum();
        let reason = self
            .progress
            .shown_fault()
            .map_or(0, |fault| fault.reason.len());
        let origin = self.origin.as_ref().map_or(0, |origin| origin.get().len());
        SMALL_BYTES + self.id.len() + self.content.get().len() + texts + reason + origin
    }
}

impl Journal {
    /// A tenant's conversations, the most recently active first, starting after `after` (time and id).
    pub async fn conversations(
        &self,
        tenant: &str,
        phone_number_id: Option<&str>,
        after: Option<(u64, &str)>,
        bound: Bound,
    ) -> Result<Gathered<Conversation>, JournalError> {
        let (ms, id) = after.unwrap_or((u64::MAX, ""));
        let statement = if phone_number_id.is_some() {
            CONVERSATIONS_OF_NUMBER
        } else {
            CONVERSATIONS
        };
        let query = sqlx::query(statement)
            .bind(tenant)
            .bind(integer(ms))
            .bind(id)
            .bind(bound.rows());
        let query = match phone_number_id {
            Some(number) => query.bind(number),
            None => query,
        };
        let database = self.database()?;
        gather(bound, query.fetch(&database.readers), conversation).await
    }

    /// The id under which a tenant's conversation is kept now, by any id it ever had or that a key of it makes; `None` when
    /// there is none.
    pub async fn conversation_id(
        &self,
        tenant: &str,
        id: &str,
    ) -> Result<Option<String>, JournalError> {
        for statement in [CONVERSATION_ID, CONVERSATION_ID_BY_ALIAS] {
            let row = sqlx::query(statement)
                .bind(tenant)
                .bind(id)
                .fetch_optional(&self.database()?.readers)
                .await?;
            if let Some(row) = row {
                return Ok(Some(row.try_get(0)?));
            }
        }
        Ok(None)
    }

    /// One of a tenant's conversations, by any of its ids.
    pub async fn conversation(
        &self,
        tenant: &str,
        id: &str,
    ) -> Result<Option<Conversation>, JournalError> {
        let Some(id) = self.conversation_id(tenant, id).await? else {
            return Ok(None);
        };
        let row = sqlx::query(CONVERSATION)
            .bind(tenant)
            .bind(id)
            .fetch_optional(&self.database()?.readers)
            .await?;
        Ok(row.as_ref().map(conversation).transpose()?)
    }

    /// A conversation's messages, the newest first, starting after `after` (time and sequence). Within one second they are
    /// in the order of the log: Meta tells no more than seconds.
    pub async fn messages(
        &self,
        tenant: &str,
        conversation: &str,
        after: Option<(u64, u64)>,
        bound: Bound,
    ) -> Result<Gathered<StoredMessage>, JournalError> {
        let (ms, sequence) = after.unwrap_or((u64::MAX, u64::MAX));
        let query = sqlx::query(MESSAGES)
            .bind(tenant)
            .bind(conversation)
            .bind(integer(ms / 1000))
            .bind(integer(sequence))
            .bind(bound.rows());
        let database = self.database()?;
        gather(bound, query.fetch(&database.readers), message).await
    }

    /// One message by our id, or by Meta's; of what other programs sent, what its statuses tell.
    pub async fn message(
        &self,
        tenant: &str,
        id: &str,
    ) -> Result<Option<StoredMessage>, JournalError> {
        for statement in [MESSAGE, MESSAGE_BY_WAMID] {
            let row = sqlx::query(statement)
                .bind(tenant)
                .bind(id)
                .fetch_optional(&self.database()?.readers)
                .await?;
            if let Some(row) = row {
                return Ok(Some(message(&row)?));
            }
        }
        held::message(self, tenant, id).await
    }

    /// Tells whether the database answers.
    pub async fn is_readable(&self) -> bool {
        let Ok(database) = self.database() else {
            return false;
        };
        sqlx::query("SELECT 1 FROM conversations LIMIT 1")
            .fetch_optional(&database.readers)
            .await
            .is_ok()
    }
}

fn unsigned(row: &SqliteRow, column: &str) -> Result<u64, sqlx::Error> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or_default())
}

fn conversation(row: &SqliteRow) -> Result<Conversation, sqlx::Error> {
    Ok(Conversation {
        id: row.try_get("id")?,
        phone_number_id: row.try_get("phone_number_id")?,
        user_id: row.try_get("user_id")?,
        phone: row.try_get("phone")?,
        group_id: row.try_get("group_id")?,
        name: row.try_get("name")?,
        last_ms: unsigned(row, "last_ms")?,
        last_text: row.try_get("last_text")?,
        last_direction: row.try_get("last_direction")?,
        incoming: unsigned(row, "incoming")?,
        outgoing: unsigned(row, "outgoing")?,
    })
}

fn message(row: &SqliteRow) -> Result<StoredMessage, sqlx::Error> {
    let json =
        |text: String| RawJson::parse(text).map_err(|error| sqlx::Error::Decode(Box::new(error)));
    Ok(StoredMessage {
        id: row.try_get("id")?,
        conversation: row.try_get("conversation")?,
        phone_number_id: row.try_get("phone_number_id")?,
        direction: row.try_get("direction")?,
        kind: row.try_get("kind")?,
        text: row.try_get("text")?,
        content: json(row.try_get("content")?)?,
        wamid: row.try_get("wamid")?,
        reply_to: row.try_get("reply_to")?,
        progress: progress(row)?,
        origin: row
            .try_get::<Option<String>, _>("origin")?
            .map(json)
            .transpose()?,
        created_ms: unsigned(row, "created_ms")?,
        received_ms: unsigned(row, "received_ms")?,
        sequence: unsigned(row, "sequence")?,
    })
}
