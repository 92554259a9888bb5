//! Writing the rows that a batch changed, each once. Each statement gives up at its first refusal: the whole transaction is
//! taken back then, and nothing of a statement needs to be remembered for that.

use super::rows::Many;
use super::working::{MessageRow, Place, Working};
use super::write::{integer, json};
use ackline_shared::ids::conversation_id;

static FORGET_HELD: Many = Many::new(
    "DELETE FROM held_statuses WHERE (tenant, wamid, status) IN (VALUES ",
    3,
    ")",
);
static ADD_CONVERSATIONS: Many = Many::new(
    "INSERT OR FAIL INTO conversations (id, tenant, phone_number_id, group_id, user_id, phone, name, last_ms, last_sequence, last_text,
         last_direction, incoming, outgoing, created_ms) SELECT * FROM (VALUES ",
    14,
    ") WHERE column1 IS NOT NULL",
);
static CHANGE_CONVERSATIONS: Many = Many::new(
    "WITH n (place, user_id, phone, name, last_ms, last_sequence, last_text, last_direction, incoming, outgoing, created_ms) AS (VALUES ",
    11,
    ") UPDATE OR FAIL conversations SET user_id = n.user_id, phone = n.phone, name = n.name, last_ms = n.last_ms,
         last_sequence = n.last_sequence, last_text = coalesce(n.last_text, conversations.last_text),
         last_direction = coalesce(n.last_direction, conversations.last_direction), incoming = n.incoming, outgoing = n.outgoing,
         created_ms = n.created_ms
     FROM n WHERE conversations.rowid = n.place",
);
static PUT_CONTACTS: Many = Many::new(
    "INSERT INTO contacts (tenant, phone_number_id, key, conversation, alias) SELECT * FROM (VALUES ",
    5,
    ") WHERE column1 IS NOT NULL ON CONFLICT DO UPDATE SET conversation = excluded.conversation, alias = excluded.alias",
);
static ADD_MESSAGES: Many = Many::new(
    "INSERT OR FAIL INTO messages (tenant, id, conversation, phone_number_id, direction, kind, text, content, wamid, reply_to, status,
         status_times, fault, origin, created_ms, received_ms, sequence) SELECT * FROM (VALUES ",
    17,
    ") WHERE column1 IS NOT NULL",
);
static CHANGE_MESSAGES: Many = Many::new(
    "WITH n (place, status, times, fault) AS (VALUES ",
    4,
    ") UPDATE OR FAIL messages SET status = n.status, status_times = n.times, fault = n.fault FROM n WHERE messages.rowid = n.place",
);
static NAME_MESSAGES: Many = Many::new(
    "WITH n (place, wamid) AS (VALUES ",
    2,
    ") UPDATE OR FAIL messages SET wamid = n.wamid FROM n WHERE messages.rowid = n.place",
);
static HOLD: Many = Many::new(
    "INSERT INTO held_statuses (tenant, wamid, status, message, at_ms, fault, received_ms, phone_number_id, conversation)
         SELECT * FROM (VALUES ",
    9,
    ") WHERE column1 IS NOT NULL ON CONFLICT DO NOTHING",
);
static NOTE_UPDATES: Many = Many::new(
    "INSERT INTO updates (tenant, id, seen_ms) SELECT * FROM (VALUES ",
    3,
    ") WHERE column1 IS NOT NULL ON CONFLICT DO NOTHING",
);

/// What a test looks at how it is carried out.
#[cfg(test)]
pub(super) static ALL: [&Many; 4] = [
    &FORGET_HELD,
    &CHANGE_CONVERSATIONS,
    &CHANGE_MESSAGES,
    &NAME_MESSAGES,
];

impl Working<'_> {
    /// Writes what was changed.
    pub async fn save(&mut self) -> Result<(), sqlx::Error> {
        let claimed: Vec<_> = self.claimed.iter().collect();
        FORGET_HELD
            .execute(self.db, &claimed, |query, (tenant, wamid, status)| {
                query
                    .bind((*tenant).to_owned())
                    .bind(wamid.clone())
                    .bind(status.clone())
            })
            .await?;
        self.save_conversations().await?;
        let contacts: Vec<_> = self.contacts.iter().filter(|row| row.is_changed).collect();
        PUT_CONTACTS
            .execute(self.db, &contacts, |query, row| {
                query
                    .bind(row.tenant.to_owned())
                    .bind(row.phone_number_id.clone())
                    .bind(row.key.as_str().to_owned())
                    .bind(row.conversation.clone())
                    .bind(conversation_id(row.tenant, &row.phone_number_id, &row.key))
            })
            .await?;
        self.save_messages().await?;
        let held: Vec<_> = self
            .tenants
            .iter()
            .flat_map(|(tenant, of)| {
                of.held
                    .rows
                    .values()
                    .flatten()
                    .map(move |row| (*tenant, row))
            })
            .filter(|(_, row)| row.is_new)
            .collect();
        HOLD.execute(self.db, &held, |query, (tenant, row)| {
            query
                .bind((*tenant).to_owned())
                .bind(row.wamid.clone())
                .bind(row.status.clone())
                .bind(row.message.clone())
                .bind(integer(row.at_ms))
                .bind(row.fault.clone())
                .bind(integer(row.received_ms))
                .bind(row.phone_number_id.clone())
                .bind(row.conversation.clone())
        })
        .await?;
        let seen: Vec<_> = self.seen.iter().collect();
        NOTE_UPDATES
            .execute(self.db, &seen, |query, ((tenant, id), seen_ms)| {
                query
                    .bind((*tenant).to_owned())
                    .bind((*id).to_owned())
                    .bind(integer(**seen_ms))
            })
            .await
    }

    async fn save_conversations(&mut self) -> Result<(), sqlx::Error> {
        let (mut new, mut changed) = (Vec::new(), Vec::new());
        for row in &self.conversations {
            match row.origin {
                Place::New(tenant) => new.push((tenant, row)),
                Place::File(place) if row.is_changed => changed.push((place, row)),
                Place::File(_) => {}
            }
        }
        ADD_CONVERSATIONS
            .execute(self.db, &new, |query, (tenant, row)| {
                let (text, direction) = row.last.clone().unwrap_or_default();
                query
                    .bind(row.id.clone())
                    .bind((*tenant).to_owned())
                    .bind(row.phone_number_id.clone())
                    .bind(row.group_id.clone())
                    .bind(row.user_id.clone())
                    .bind(row.phone.clone())
                    .bind(row.name.clone())
                    .bind(row.last_ms)
                    .bind(row.last_sequence)
                    .bind(text)
                    .bind(direction)
                    .bind(row.incoming)
                    .bind(row.outgoing)
                    .bind(row.created_ms)
            })
            .await?;
        CHANGE_CONVERSATIONS
            .execute(self.db, &changed, |query, (place, row)| {
                let (text, direction) = row.last.clone().unzip();
                query
                    .bind(*place)
                    .bind(row.user_id.clone())
                    .bind(row.phone.clone())
                    .bind(row.name.clone())
                    .bind(row.last_ms)
                    .bind(row.last_sequence)
                    .bind(text)
                    .bind(direction)
                    .bind(row.incoming)
                    .bind(row.outgoing)
                    .bind(row.created_ms)
            })
            .await
    }

    async fn save_messages(&mut self) -> Result<(), sqlx::Error> {
        let (mut new, mut changed, mut named) = (Vec::new(), Vec::new(), Vec::new());
        for row in &self.messages {
            match row.origin {
                Place::New(entry) => new.push((entry, row)),
                Place::File(place) => {
                    if row.is_changed {
                        changed.push((place, row));
                    }
                    if row.has_new_wamid {
                        named.push((place, row));
                    }
                }
            }
        }
        ADD_MESSAGES
            .execute(self.db, &new, |query, (entry, row)| {
                query
                    .bind(row.tenant.to_owned())
                    .bind(row.id.clone())
                    .bind(row.conversation.clone())
                    .bind(row.phone_number_id.clone())
                    .bind(entry.direction.as_str())
                    .bind(entry.kind.clone())
                    .bind(entry.text.clone())
                    .bind(entry.content.clone())
                    .bind(row.wamid.clone())
                    .bind(entry.reply_to.clone())
                    .bind(row.progress.status.as_str())
                    .bind(json(&row.progress.times))
                    .bind(row.progress.fault.as_ref().map(json))
                    .bind(entry.origin.clone())
                    .bind(integer(entry.created_ms))
                    .bind(integer(entry.received_ms))
                    .bind(integer(entry.sequence))
            })
            .await?;
        CHANGE_MESSAGES
            .execute(
                self.db,
                &changed,
                |query, (place, row): &(i64, &MessageRow<'_>)| {
                    query
                        .bind(*place)
                        .bind(row.progress.status.as_str())
                        .bind(json(&row.progress.times))
                        .bind(row.progress.fault.as_ref().map(json))
                },
            )
            .await?;
        NAME_MESSAGES
            .execute(self.db, &named, |query, (place, row)| {
                query.bind(*place).bind(row.wamid.clone())
            })
            .await
    }
}
