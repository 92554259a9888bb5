//! Reading the rows that a batch is about to touch: all together, or one when it is asked for.

use super::rows::{Many, Query};
use super::working::{ContactRow, ConversationRow, HeldRow, MessageRow, Place, Working};
use super::write::progress;
use ackline_shared::ids::ConversationKey;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use std::collections::HashMap;

/// A message of a tenant's, by Meta's id, by ours, or by both.
pub type Key<'b, 'k> = (&'b str, Option<&'k str>, Option<&'k str>);
/// A tenant, a business number of its and a person's key.
pub type ContactKey<'b, 'k> = (&'b str, &'k str, &'k str);

pub(super) static MESSAGES: Many = Many::new(
    "WITH k (tenant, wamid, id) AS (VALUES ",
    3,
    ") SELECT m.rowid AS place, m.tenant, m.id, m.conversation, m.phone_number_id, m.wamid, m.status, m.status_times, m.fault
     FROM k CROSS JOIN messages m ON m.tenant = k.tenant AND m.wamid = k.wamid
     UNION ALL
     SELECT m.rowid AS place, m.tenant, m.id, m.conversation, m.phone_number_id, m.wamid, m.status, m.status_times, m.fault
     FROM k CROSS JOIN messages m ON m.tenant = k.tenant AND m.id = k.id",
);
pub(super) static HELD: Many = Many::new(
    "WITH k (tenant, wamid, id) AS (VALUES ",
    3,
    ") SELECT h.tenant, h.wamid, h.status, h.message, h.at_ms, h.fault, h.received_ms
     FROM k CROSS JOIN held_statuses h ON h.tenant = k.tenant AND h.wamid = k.wamid
     UNION ALL
     SELECT h.tenant, h.wamid, h.status, h.message, h.at_ms, h.fault, h.received_ms
     FROM k CROSS JOIN held_statuses h INDEXED BY held_by_message ON h.tenant = k.tenant AND h.message = k.id",
);
pub(super) static CONTACTS: Many = Many::new(
    "WITH k (tenant, number, key) AS (VALUES ",
    3,
    ") SELECT c.tenant, c.phone_number_id AS number, c.key, c.conversation, c.alias IS NOT NULL AS has_alias,
         v.rowid AS place, v.id, v.phone_number_id, v.user_id, v.phone, v.name, v.last_ms, v.last_sequence, v.incoming, v.outgoing,
         v.created_ms
     FROM k CROSS JOIN contacts c ON c.tenant = k.tenant AND c.phone_number_id = k.number AND c.key = k.key
     LEFT JOIN conversations v ON v.id = c.conversation",
);
pub(super) static CONVERSATIONS: Many = Many::new(
    "WITH k (id) AS (VALUES ",
    1,
    ") SELECT v.rowid AS place, v.id, v.phone_number_id, v.user_id, v.phone, v.name, v.last_ms, v.last_sequence, v.incoming, v.outgoing,
         v.created_ms
     FROM k CROSS JOIN conversations v ON v.id = k.id",
);

pub(super) const ANY_HELD: &str = "SELECT 1 FROM held_statuses LIMIT 1";
pub(super) const SEEN: &str = "SELECT 1 FROM updates WHERE tenant = ?1 AND id = ?2";

impl<'b> Working<'b> {
    /// Where a message of ours is, by its id.
    pub async fn by_id(&mut self, tenant: &'b str, id: &str) -> Result<Option<usize>, sqlx::Error> {
        if let Some(known) = self.of(tenant).by_id.get(id) {
            return Ok(*known);
        }
        self.read_messages(&[(tenant, None, Some(id))]).await?;
        Ok(self.of(tenant).by_id.get(id).copied().flatten())
    }

    /// Where a message is, by Meta's id.
    pub async fn by_wamid(
        &mut self,
        tenant: &'b str,
        wamid: &str,
    ) -> Result<Option<usize>, sqlx::Error> {
        if let Some(known) = self.of(tenant).by_wamid.get(wamid) {
            return Ok(*known);
        }
        self.read_messages(&[(tenant, Some(wamid), None)]).await?;
        Ok(self.of(tenant).by_wamid.get(wamid).copied().flatten())
    }

    /// Where it is what a person's key leads to.
    pub async fn contact(
        &mut self,
        tenant: &'b str,
        number: &str,
        key: &ConversationKey,
    ) -> Result<Option<usize>, sqlx::Error> {
        let known = |working: &mut Self| {
            let numbers = &working.of(tenant).contacts;
            numbers.get(number)?.get(key.as_str()).copied()
        };
        if let Some(known) = known(self) {
            return Ok(known);
        }
        self.read_contacts(&[(tenant, number, key.as_str())])
            .await?;
        Ok(known(self).flatten())
    }

    /// Where a conversation is.
    pub async fn conversation(&mut self, id: &str) -> Result<Option<usize>, sqlx::Error> {
        if let Some(known) = self.places.get(id) {
            return Ok(*known);
        }
        let ids = [id];
        let rows = CONVERSATIONS
            .fetch(self.db, &ids, |query, id| query.bind((*id).to_owned()))
            .await?;
        for row in rows {
            self.take_conversation(&row)?;
        }
        Ok(*self.places.entry(id.to_owned()).or_default())
    }

    /// The statuses that wait for a message under either id, not waiting any more.
    pub async fn claim(
        &mut self,
        tenant: &'b str,
        wamid: Option<&str>,
        id: &str,
    ) -> Result<Vec<HeldRow>, sqlx::Error> {
        let held = &self.of(tenant).held;
        let wamid_unasked = wamid.filter(|wamid| !held.asked.contains(*wamid));
        let id_unasked = Some(id).filter(|id| !held.asked_ids.contains(*id));
        if wamid_unasked.or(id_unasked).is_some() {
            self.read_held(&[(tenant, wamid_unasked, id_unasked)])
                .await?;
        }
        let taken = self.of(tenant).held.take(wamid, id);
        let in_file = taken.iter().filter(|row| !row.is_new);
        self.claimed
            .extend(in_file.map(|row| (tenant, row.wamid.clone(), row.status.clone())));
        Ok(taken)
    }

    /// Whether a status waits already for the message of an id of Meta's.
    pub async fn is_held(
        &mut self,
        tenant: &'b str,
        wamid: &str,
        status: &str,
    ) -> Result<bool, sqlx::Error> {
        if !self.of(tenant).held.asked.contains(wamid) {
            self.read_held(&[(tenant, Some(wamid), None)]).await?;
        }
        Ok(self.of(tenant).held.has(wamid, status))
    }

    /// Notes an update; whether it was not seen before.
    pub async fn note_update(
        &mut self,
        tenant: &'b str,
        id: &'b str,
        received_ms: u64,
    ) -> Result<bool, sqlx::Error> {
        if self.seen.contains_key(&(tenant, id)) {
            return Ok(false);
        }
        let row = sqlx::query(SEEN)
            .bind(tenant)
            .bind(id)
            .fetch_optional(&mut *self.db)
            .await?;
        if row.is_none() {
            self.seen.insert((tenant, id), received_ms);
        }
        Ok(row.is_none())
    }

    pub async fn read_messages(&mut self, keys: &[Key<'b, '_>]) -> Result<(), sqlx::Error> {
        for row in MESSAGES.fetch(self.db, keys, bind_key).await? {
            self.take_message(&row)?;
        }
        for (tenant, wamid, id) in keys {
            let of = self.of(tenant);
            if let Some(wamid) = wamid {
                note_absent(&mut of.by_wamid, wamid);
            }
            if let Some(id) = id {
                note_absent(&mut of.by_id, id);
            }
        }
        Ok(())
    }

    /// Sees whether the file holds any status that waits; when not, none is asked for.
    pub async fn look_for_held(&mut self) -> Result<(), sqlx::Error> {
        let row = sqlx::query(ANY_HELD).fetch_optional(&mut *self.db).await?;
        self.none_held = row.is_none();
        Ok(())
    }

    pub async fn read_held(&mut self, keys: &[Key<'b, '_>]) -> Result<(), sqlx::Error> {
        if !self.none_held {
            for row in HELD.fetch(self.db, keys, bind_key).await? {
                self.take_held(&row)?;
            }
        }
        for (tenant, wamid, id) in keys {
            let held = &mut self.of(tenant).held;
            held.asked.extend(wamid.map(str::to_owned));
            held.asked_ids.extend(id.map(str::to_owned));
        }
        Ok(())
    }

    pub async fn read_contacts(&mut self, keys: &[ContactKey<'b, '_>]) -> Result<(), sqlx::Error> {
        let rows = CONTACTS
            .fetch(self.db, keys, |query, (tenant, number, key)| {
                query
                    .bind((*tenant).to_owned())
                    .bind((*number).to_owned())
                    .bind((*key).to_owned())
            })
            .await?;
        for row in rows {
            self.take_contact(&row)?;
        }
        for (tenant, number, key) in keys {
            let of = self.of(tenant);
            let keys = match of.contacts.get_mut(*number) {
                Some(keys) => keys,
                None => of.contacts.entry((*number).to_owned()).or_default(),
            };
            note_absent(keys, key);
        }
        Ok(())
    }

    /// The tenant of a row, as the batch has it.
    fn tenant_of(&self, row: &SqliteRow) -> Result<Option<&'b str>, sqlx::Error> {
        let tenant: &str = row.try_get("tenant")?;
        Ok(self
            .tenants
            .get_key_value(tenant)
            .map(|(tenant, _)| *tenant))
    }

    fn take_message(&mut self, row: &SqliteRow) -> Result<(), sqlx::Error> {
        let Some(tenant) = self.tenant_of(row)? else {
            return Ok(());
        };
        let id: String = row.try_get("id")?;
        let wamid: Option<String> = row.try_get("wamid")?;
        if let Some(Some(place)) = self.of(tenant).by_id.get(&id).copied() {
            if let Some(wamid) = wamid {
                let found = self.of(tenant).by_wamid.entry(wamid).or_default();
                found.get_or_insert(place);
            }
            return Ok(());
        }
        self.add_message(MessageRow {
            tenant,
            origin: Place::File(row.try_get("place")?),
            id,
            conversation: row.try_get("conversation")?,
            phone_number_id: row.try_get("phone_number_id")?,
            wamid,
            progress: progress(row)?,
            is_changed: false,
            has_new_wamid: false,
        });
        Ok(())
    }

    fn take_held(&mut self, row: &SqliteRow) -> Result<(), sqlx::Error> {
        let Some(tenant) = self.tenant_of(row)? else {
            return Ok(());
        };
        let unsigned = |at_ms: i64| u64::try_from(at_ms).unwrap_or_default();
        let row = HeldRow {
            is_new: false,
            wamid: row.try_get("wamid")?,
            status: row.try_get("status")?,
            message: row.try_get("message")?,
            at_ms: unsigned(row.try_get("at_ms")?),
            fault: row.try_get("fault")?,
            received_ms: unsigned(row.try_get("received_ms")?),
            phone_number_id: None,
            conversation: None,
        };
        let key = (tenant, row.wamid.clone(), row.status.clone());
        if !self.claimed.contains(&key) {
            self.of(tenant).held.add(row);
        }
        Ok(())
    }

    fn take_contact(&mut self, row: &SqliteRow) -> Result<(), sqlx::Error> {
        let Some(tenant) = self.tenant_of(row)? else {
            return Ok(());
        };
        let (number, key): (&str, &str) = (row.try_get("number")?, row.try_get("key")?);
        let numbers = &self.of(tenant).contacts;
        let is_here = numbers.get(number).and_then(|keys| keys.get(key));
        let Some(key) =
            ConversationKey::parse(key).filter(|_| is_here.copied().flatten().is_none())
        else {
            return Ok(());
        };
        self.add_contact(ContactRow {
            tenant,
            phone_number_id: number.to_owned(),
            key,
            conversation: row.try_get("conversation")?,
            has_alias: row.try_get("has_alias")?,
            is_changed: false,
        });
        if row.try_get::<Option<i64>, _>("place")?.is_some() {
            self.take_conversation(row)?;
        }
        Ok(())
    }

    fn take_conversation(&mut self, row: &SqliteRow) -> Result<(), sqlx::Error> {
        let id: String = row.try_get("id")?;
        if let Some(Some(_)) = self.places.get(&id) {
            return Ok(());
        }
        self.add_conversation(ConversationRow {
            origin: Place::File(row.try_get("place")?),
            id,
            phone_number_id: row.try_get("phone_number_id")?,
            group_id: None,
            user_id: row.try_get("user_id")?,
            phone: row.try_get("phone")?,
            name: row.try_get("name")?,
            last_ms: row.try_get("last_ms")?,
            last_sequence: row.try_get("last_sequence")?,
            last: None,
            incoming: row.try_get("incoming")?,
            outgoing: row.try_get("outgoing")?,
            created_ms: row.try_get("created_ms")?,
            is_changed: false,
        });
        Ok(())
    }
}

/// What was asked for and did not come is nowhere.
fn note_absent(places: &mut HashMap<String, Option<usize>>, id: &str) {
    if !places.contains_key(id) {
        places.insert(id.to_owned(), None);
    }
}

fn bind_key(query: Query, (tenant, wamid, id): &Key<'_, '_>) -> Query {
    query
        .bind((*tenant).to_owned())
        .bind(wamid.map(str::to_owned))
        .bind(id.map(str::to_owned))
}
