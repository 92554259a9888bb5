//! Where a person is found again in a CRM: contact and conversation, remembered per link and id of the person.
//!
//! It is a memory and not the truth: a lost or outdated entry costs a few calls and creates nothing twice.
//! An entry is stored under every id the person is known by, so that a phone number that appears later does
//! not fork the thread.

use super::Thread;
use super::entry::Person;
use ackline_message::{Recipient, is_phone, is_user_id};
use ackline_shared::ids::PhoneNumberId;
use ackline_shared::model::CrmLink;
use ackline_shared::registry::Snapshot;
use ackline_shared::stored::{self, Stored};
use ackline_shared::subjects::session_key;
use async_nats::jetstream::kv::Store;
use serde::{Deserialize, Serialize};

/// An entry is written again after this long, so that it does not expire while the person still writes.
const FRESH_MS: u64 = 24 * 60 * 60 * 1000;

/// Ids remembered of a person beside the two they have: whoever changes them so often begins anew.
const OTHERS_MAX: usize = 8;

/// What is remembered of a person in a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkedPerson {
    /// The id the CRM knows the person by.
    pub source_id: String,
    pub thread: Thread,
    /// The business number of the latest message; an agent's answer leaves from it.
    pub number: PhoneNumberId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// What else the person is known by, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// Whether the contact was created under the person's own name.
    #[serde(default)]
    pub named: bool,
    /// When this was written, in unix milliseconds.
    pub written_ms: u64,
}

impl Stored for LinkedPerson {}

impl LinkedPerson {
    pub fn new(
        person: &Person,
        source_id: &str,
        thread: Thread,
        number: &PhoneNumberId,
        now_ms: u64,
    ) -> Self {
        Self {
            source_id: source_id.to_owned(),
            thread,
            number: number.clone(),
            phone: person.phone.clone(),
            user_id: person.user_id.clone(),
            others: person.others.clone(),
            named: person.name.is_some(),
            written_ms: now_ms,
        }
    }

    /// The place with what a later message says; `None` when nothing new is worth writing.
    pub fn updated(&self, person: &Person, number: &PhoneNumberId, now_ms: u64) -> Option<Self> {
        let known: Vec<&str> = self.ids().collect();
        let new = person
            .others
            .iter()
            .filter(|id| !known.contains(&id.as_str()));
        let mut others: Vec<String> = self.others.iter().chain(new).cloned().collect();
        others.drain(..others.len().saturating_sub(OTHERS_MAX));
        let next = Self {
            number: number.clone(),
            others,
            phone: person.phone.clone().or_else(|| self.phone.clone()),
            user_id: person.user_id.clone().or_else(|| self.user_id.clone()),
            named: self.named || person.name.is_some(),
            ..self.clone()
        };
        let stale = now_ms.saturating_sub(self.written_ms) > FRESH_MS;
        (stale || next != *self).then_some(Self {
            written_ms: now_ms,
            ..next
        })
    }

    /// Where the person is reached.
    pub fn recipient(&self) -> Recipient {
        Recipient {
            user_id: self.user_id.clone(),
            phone: self.phone.clone(),
        }
    }

    fn ids(&self) -> impl Iterator<Item = &str> {
        let source = self.source_id.as_str();
        let others = self
            .phone
            .as_deref()
            .into_iter()
            .chain(self.user_id.as_deref())
            .chain(self.others.iter().map(String::as_str));
        std::iter::once(source).chain(others.filter(move |id| *id != source))
    }
}

/// How an agent's answer reaches a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The business number that sends it.
    pub number: PhoneNumberId,
    pub to: Recipient,
}

impl Route {
    /// The way back along a remembered place; without one, from the only number the link follows to the person's
    /// address. `None` when several numbers could be meant.
    pub fn back(
        snapshot: &Snapshot,
        link: &CrmLink,
        place: Option<&LinkedPerson>,
        to: &Recipient,
    ) -> Option<Self> {
        let follows = |number: &PhoneNumberId| {
            let owned = snapshot
                .phone_numbers
                .get(number)
                .is_some_and(|phone| phone.tenant == link.tenant);
            owned && (link.phone_numbers.is_empty() || link.phone_numbers.contains(number))
        };
        if let Some(place) = place.filter(|place| follows(&place.number)) {
            return Some(Self {
                number: place.number.clone(),
                to: place.recipient(),
            });
        }
        let mut numbers = snapshot
            .phone_numbers
            .keys()
            .filter(|number| follows(number));
        let number = numbers.next()?.clone();
        numbers.next().is_none().then(|| Self {
            number,
            to: to.clone(),
        })
    }
}

/// Reads an address: a phone number, in digits or as people write it, or a business-scoped user id.
///
/// Anything else, such as the random id of a conversation that was begun in the CRM, is none.
pub fn address(text: &str) -> Option<Recipient> {
    if is_user_id(text) {
        return Some(Recipient {
            user_id: Some(text.to_owned()),
            phone: None,
        });
    }
    let is_punctuation = |c: char| c.is_whitespace() || "+-().".contains(c);
    let digits: String = text.chars().filter(|c| !is_punctuation(*c)).collect();
    is_phone(&digits).then_some(Recipient {
        user_id: None,
        phone: Some(digits),
    })
}

/// The memory could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the place of a person in the CRM cannot be {verb}: {reason}")]
pub struct LinkedPersonError {
    verb: &'static str,
    reason: String,
}

impl LinkedPersonError {
    pub(super) fn new(verb: &'static str, reason: String) -> Self {
        Self { verb, reason }
    }
}

/// The memory of all places; cheap to clone.
#[derive(Debug, Clone)]
pub struct LinkedPeople {
    store: Store,
}

impl LinkedPeople {
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Finds a person by any of their ids, the preferred one first.
    pub async fn find(
        &self,
        link: &CrmLink,
        person: &Person,
    ) -> Result<Option<LinkedPerson>, LinkedPersonError> {
        for id in person.ids() {
            if let Some(place) = self.of_source(link, id).await? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Finds a person by the id the CRM reports, for an answer that comes from there.
    pub async fn of_source(
        &self,
        link: &CrmLink,
        source_id: &str,
    ) -> Result<Option<LinkedPerson>, LinkedPersonError> {
        let failed = |reason: String| LinkedPersonError {
            verb: "read",
            reason,
        };
        let before = session_key::crm_contacts_before(&link.tenant, &link.id, source_id);
        for key in std::iter::once(key(link, source_id)).chain(before) {
            let stored = self.store.get(key).await;
            let stored = stored.map_err(|error| failed(error.to_string()))?;
            // An entry of another shape is as good as none: the place is found again.
            if let Some(place) = stored.and_then(|bytes| stored::decode(&bytes).ok()) {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Remembers a place under every id of the person.
    pub async fn save(
        &self,
        link: &CrmLink,
        place: &LinkedPerson,
    ) -> Result<(), LinkedPersonError> {
        let failed = |reason: String| LinkedPersonError {
            verb: "written",
            reason,
        };
        let bytes = stored::encode(place);
        for id in place.ids() {
            let put = self.store.put(key(link, id), bytes.clone().into()).await;
            put.map_err(|error| failed(error.to_string()))?;
        }
        Ok(())
    }

    /// Forgets a place that is no longer there.
    pub async fn forget(
        &self,
        link: &CrmLink,
        place: &LinkedPerson,
    ) -> Result<(), LinkedPersonError> {
        for id in place.ids() {
            let deleted = self.store.delete(key(link, id)).await;
            deleted.map_err(|error| LinkedPersonError {
                verb: "removed",
                reason: error.to_string(),
            })?;
        }
        Ok(())
    }
}

fn key(link: &CrmLink, id: &str) -> String {
    session_key::crm_contact(&link.tenant, &link.id, id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn person(phone: Option<&str>, user_id: Option<&str>) -> Person {
        Person {
            phone: phone.map(Into::into),
            user_id: user_id.map(Into::into),
            name: None,
            others: Vec::new(),
        }
    }

    fn number(id: &str) -> PhoneNumberId {
        PhoneNumberId::new(id).unwrap()
    }

    #[test]
    fn a_place_is_written_again_only_when_it_says_more_or_gets_old() {
        let thread = Thread {
            contact: 1,
            conversation: 2,
        };
        let known = person(None, Some("US.1"));
        let place = LinkedPerson::new(&known, "US.1", thread, &number("10"), 0);
        assert_eq!(place.updated(&known, &number("10"), FRESH_MS), None);
        assert!(place.updated(&known, &number("10"), FRESH_MS + 1).is_some());
        assert_eq!(
            place.updated(&known, &number("11"), 5).unwrap().number,
            number("11")
        );

        let with_phone = place
            .updated(&person(Some("1555"), Some("US.1")), &number("10"), 5)
            .unwrap();
        assert_eq!(
            with_phone.source_id, "US.1",
            "the conversation stays the one it was"
        );
        assert_eq!(with_phone.ids().collect::<Vec<_>>(), ["US.1", "1555"]);
    }

    #[test]
    fn a_place_is_found_by_ids_that_came_later_and_by_a_bounded_number_of_them() {
        let thread = Thread {
            contact: 1,
            conversation: 2,
        };
        let mut place = LinkedPerson::new(
            &person(Some("49"), Some("US.1")),
            "49",
            thread,
            &number("10"),
            0,
        );
        for change in 0..20 {
            let mut later = person(Some("50"), Some("US.2"));
            later.others = vec![format!("US.old{change}"), "49".to_owned()];
            place = place.updated(&later, &number("10"), 5).unwrap_or(place);
        }
        let ids: Vec<&str> = place.ids().collect();
        assert_eq!(
            (ids[..3].to_vec(), ids.len()),
            (vec!["49", "50", "US.2"], 3 + OTHERS_MAX)
        );
        assert_eq!(ids.last(), Some(&"US.old19"));
    }

    #[test]
    fn an_answer_goes_back_the_way_the_person_came() {
        let link = |numbers: Value| -> CrmLink {
            serde_json::from_value(json!({
                "id": "desk", "tenant": "acme", "kind": "chatwoot", "url": "https://c.example", "account_id": 3,
                "inbox_id": 7, "inbox_identifier": "abc", "access_token": "t", "hook_token": "h",
                "phone_numbers": numbers,
            }))
            .unwrap()
        };
        let mut snapshot = Snapshot::default();
        for (id, tenant) in [("10", "acme"), ("11", "acme"), ("12", "other")] {
            let phone = json!({"id": id, "tenant": tenant, "app": "a", "waba_id": "w", "access_token": "t"});
            snapshot
                .fold(&format!("phone.{id}"), Some(phone.to_string().as_bytes()))
                .unwrap();
        }
        let thread = Thread {
            contact: 1,
            conversation: 2,
        };
        let place = LinkedPerson::new(
            &person(Some("1555"), Some("US.1")),
            "1555",
            thread,
            &number("11"),
            0,
        );
        let to = address("15550001").unwrap();
        let back =
            |link: &CrmLink, place: Option<&LinkedPerson>| Route::back(&snapshot, link, place, &to);

        let known = back(&link(json!([])), Some(&place)).unwrap();
        assert_eq!(known.number, number("11"));
        assert_eq!(
            known.to,
            Recipient {
                user_id: Some("US.1".into()),
                phone: Some("1555".into())
            }
        );
        assert_eq!(
            back(&link(json!([])), None),
            None,
            "two numbers could be meant"
        );
        let only = back(&link(json!(["10"])), Some(&place)).unwrap();
        assert_eq!((only.number, only.to.user_id), (number("10"), None));
        assert_eq!(
            back(&link(json!(["12"])), None),
            None,
            "another tenant's number sends nothing"
        );
        assert_eq!(only.to.phone.as_deref(), Some("15550001"));
    }

    #[test]
    fn only_a_phone_number_or_a_user_id_is_an_address() {
        let phone = |text: &str| address(text).and_then(|to| to.phone);
        for text in ["15550001", "+15550001", "+1 (555) 00-01"] {
            assert_eq!(phone(text).as_deref(), Some("15550001"), "{text}");
        }
        let user = address("US.1").unwrap();
        assert_eq!((user.user_id.as_deref(), user.phone), (Some("US.1"), None));
        for text in [
            "1b4e28ba-2fa1-41d2-883f-0016d3cca427",
            "12345678-1234-1234-1234-123456789012",
            "ana@shop.example",
            "",
            "contact_33",
        ] {
            assert_eq!(address(text), None, "{text}");
        }
    }
}
