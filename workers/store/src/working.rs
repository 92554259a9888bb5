//! The rows that a batch touches, held in memory: read together before, changed here, written once after.
//!
//! What was not foreseen is read when it is asked for, so that reading ahead decides about the time only. Nothing is kept
//! from one batch to the next.

use super::fold::MessageEntry;
use super::progress::Progress;
use ackline_shared::ids::ConversationKey;
use sqlx::SqliteConnection;
use std::collections::{HashMap, HashSet};

/// The rows of a batch, and where they come from.
pub struct Working<'b> {
    pub db: &'b mut SqliteConnection,
    pub(super) tenants: HashMap<&'b str, OfTenant>,
    pub(super) messages: Vec<MessageRow<'b>>,
    pub(super) contacts: Vec<ContactRow<'b>>,
    pub(super) conversations: Vec<ConversationRow<'b>>,
    /// Where conversations are, by id; nowhere when there is none.
    pub(super) places: HashMap<String, Option<usize>>,
    /// What is taken out of the file of the statuses that waited: tenant, wamid, status.
    pub(super) claimed: HashSet<(&'b str, String, String)>,
    /// Whether it is known that the file holds no status that waits.
    pub(super) none_held: bool,
    /// Updates to be noted, by tenant and id, with when they were received.
    pub(super) seen: HashMap<(&'b str, &'b str), u64>,
}

/// Where a tenant's rows are; nowhere when there is none.
#[derive(Default)]
pub struct OfTenant {
    pub by_id: HashMap<String, Option<usize>>,
    pub by_wamid: HashMap<String, Option<usize>>,
    /// By business number and key.
    pub contacts: HashMap<String, HashMap<String, Option<usize>>>,
    pub held: Held,
}

/// A message.
pub struct MessageRow<'b> {
    pub tenant: &'b str,
    pub origin: Place<&'b MessageEntry>,
    pub id: String,
    pub conversation: String,
    pub phone_number_id: String,
    pub wamid: Option<String>,
    pub progress: Progress,
    pub is_changed: bool,
    pub has_new_wamid: bool,
}

/// Where a row is from.
#[derive(Clone, Copy)]
pub enum Place<T> {
    /// It is in the file, there.
    File(i64),
    /// It is not yet.
    New(T),
}

/// What a person's key leads to.
pub struct ContactRow<'b> {
    pub tenant: &'b str,
    pub phone_number_id: String,
    pub key: ConversationKey,
    pub conversation: String,
    pub has_alias: bool,
    pub is_changed: bool,
}

/// A conversation; what is not held of one in the file does not change.
pub struct ConversationRow<'b> {
    pub origin: Place<&'b str>,
    pub id: String,
    pub phone_number_id: String,
    pub group_id: Option<String>,
    pub user_id: Option<String>,
    pub phone: Option<String>,
    pub name: Option<String>,
    pub last_ms: i64,
    pub last_sequence: i64,
    /// The newest message's text and direction, when it is another than in the file.
    pub last: Option<(String, &'static str)>,
    pub incoming: i64,
    pub outgoing: i64,
    pub created_ms: i64,
    pub is_changed: bool,
}

/// Statuses that wait for their message.
#[derive(Default)]
pub struct Held {
    /// By wamid.
    pub rows: HashMap<String, Vec<HeldRow>>,
    /// Of which wamids all are here.
    pub asked: HashSet<String>,
    /// Of which messages of ours all are here.
    pub asked_ids: HashSet<String>,
    /// The wamids of statuses that name a message of ours.
    pub named: HashMap<String, Vec<String>>,
}

/// A status that waits.
#[derive(Debug, Clone)]
pub struct HeldRow {
    pub is_new: bool,
    pub wamid: String,
    pub status: String,
    pub message: Option<String>,
    pub at_ms: u64,
    pub fault: Option<String>,
    pub received_ms: u64,
    pub phone_number_id: Option<String>,
    pub conversation: Option<String>,
}

impl<'b> Working<'b> {
    pub fn new(db: &'b mut SqliteConnection) -> Self {
        Self {
            db,
            tenants: HashMap::new(),
            messages: Vec::new(),
            contacts: Vec::new(),
            conversations: Vec::new(),
            places: HashMap::new(),
            claimed: HashSet::new(),
            none_held: false,
            seen: HashMap::new(),
        }
    }

    /// Forgets all rows, after they were written.
    pub fn forget(&mut self) {
        self.tenants.clear();
        self.messages.clear();
        self.contacts.clear();
        self.conversations.clear();
        self.places.clear();
        self.claimed.clear();
        self.seen.clear();
        self.none_held = false;
    }

    pub fn of(&mut self, tenant: &'b str) -> &mut OfTenant {
        self.tenants.entry(tenant).or_default()
    }

    /// Takes in a message that is not in the file.
    pub fn add_message(&mut self, row: MessageRow<'b>) -> usize {
        let place = self.messages.len();
        let of = self.of(row.tenant);
        of.by_id.insert(row.id.clone(), Some(place));
        if let Some(wamid) = &row.wamid {
            let found = of.by_wamid.entry(wamid.clone()).or_default();
            found.get_or_insert(place);
        }
        self.messages.push(row);
        place
    }

    /// Gives a message the id that Meta knows it by.
    pub fn name_message(&mut self, place: usize, wamid: &str) {
        let Some(row) = self.messages.get_mut(place) else {
            return;
        };
        row.wamid = Some(wamid.to_owned());
        (row.is_changed, row.has_new_wamid) = (true, true);
        let of = self.tenants.entry(row.tenant).or_default();
        let found = of.by_wamid.entry(wamid.to_owned()).or_default();
        found.get_or_insert(place);
    }

    /// Takes in what a key leads to.
    pub fn add_contact(&mut self, row: ContactRow<'b>) {
        let place = self.contacts.len();
        let of = self.tenants.entry(row.tenant).or_default();
        let keys = match of.contacts.get_mut(&row.phone_number_id) {
            Some(keys) => keys,
            None => of.contacts.entry(row.phone_number_id.clone()).or_default(),
        };
        keys.insert(row.key.as_str().to_owned(), Some(place));
        self.contacts.push(row);
    }

    /// Takes in a conversation.
    pub fn add_conversation(&mut self, row: ConversationRow<'b>) {
        self.places
            .insert(row.id.clone(), Some(self.conversations.len()));
        self.conversations.push(row);
    }
}

impl Held {
    pub fn add(&mut self, row: HeldRow) {
        let rows = self.rows.entry(row.wamid.clone()).or_default();
        if rows.iter().any(|known| known.status == row.status) {
            return;
        }
        if let Some(message) = &row.message {
            self.named
                .entry(message.clone())
                .or_default()
                .push(row.wamid.clone());
        }
        rows.push(row);
    }

    /// Whether a status of a message waits already.
    pub fn has(&self, wamid: &str, status: &str) -> bool {
        let rows = self.rows.get(wamid).into_iter().flatten();
        rows.into_iter().any(|row| row.status == status)
    }

    /// Takes out what waits for a message under either id.
    pub fn take(&mut self, wamid: Option<&str>, id: &str) -> Vec<HeldRow> {
        let mut taken = wamid
            .and_then(|wamid| self.rows.remove(wamid))
            .unwrap_or_default();
        for wamid in self.named.remove(id).unwrap_or_default() {
            let Some(rows) = self.rows.get_mut(&wamid) else {
                continue;
            };
            let is_for = |row: &mut HeldRow| row.message.as_deref() == Some(id);
            taken.extend(rows.extract_if(.., is_for));
        }
        taken
    }
}
