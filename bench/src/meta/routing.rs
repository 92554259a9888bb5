//! A second responder: it takes a conversation, gives it back, or lets it go, as Conversation Routing does.
//!
//! While it has one, what the person writes there is delivered on `standby`. Taking and passing back are told by
//! `messaging_handovers`, which names the person by the phone number where one is shown; letting go is told nobody. A
//! send of ours does not take a conversation here.

use super::compose::{Batch, ChangeSpec};
use super::people::Person;
use super::simulator::{Accepted, NotPosted, Posting, Simulator};
use lru::LruCache;
use serde::Deserialize;
use serde_json::{Value, json};
use std::num::NonZeroUsize;

const TAKEN_KEPT: usize = 100_000;
const OUR_ROLE: &str = "AUTOMATION";
const OTHER_ROLE: &str = "SECOND_RESPONDER";

/// What the second responder does with a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hand {
    /// It takes it from us.
    Take,
    /// It passes it to us.
    Pass,
    /// It lets go of it; the next message is ours.
    Release,
}

/// A conversation that changes hands.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandoverSpec {
    /// The person, by phone number or user id.
    pub person: String,
    /// The business number; the simulator's first one when absent.
    #[serde(default)]
    pub phone_number_id: Option<String>,
    pub action: Hand,
}

/// The conversations that the second responder has, by number and person; bounded.
#[derive(Debug)]
pub struct Taken(LruCache<(String, String), ()>);

impl Default for Taken {
    fn default() -> Self {
        Self(LruCache::new(
            NonZeroUsize::new(TAKEN_KEPT).unwrap_or(NonZeroUsize::MIN),
        ))
    }
}

impl Taken {
    /// Whether the second responder has a conversation.
    pub fn has(&self, number: &str, user_id: &str) -> bool {
        self.0.contains(&(number.to_owned(), user_id.to_owned()))
    }

    fn set(&mut self, number: &str, user_id: &str, is_taken: bool) {
        let key = (number.to_owned(), user_id.to_owned());
        let _before = if is_taken {
            self.0.put(key, ())
        } else {
            self.0.pop(&key)
        };
    }
}

impl Simulator {
    /// Lets a conversation change hands; tells what was posted of it.
    pub fn hand_over(&self, spec: &HandoverSpec) -> Result<Option<Accepted>, NotPosted> {
        let number = self.number(spec.phone_number_id.as_deref()).phone_number_id;
        let user_id = self.conversation(&spec.person);
        let person = self.people().meet(None, Some(&user_id), None);
        let (control, from, to) = match spec.action {
            Hand::Take => ("control_taken", OUR_ROLE, OTHER_ROLE),
            Hand::Pass => ("control_passed", OTHER_ROLE, OUR_ROLE),
            Hand::Release => {
                self.taken().set(&number, &user_id, false);
                return Ok(None);
            }
        };
        self.taken()
            .set(&number, &user_id, spec.action == Hand::Take);
        let mut value = json!({
            "messaging_product": "whatsapp", "type": "handover", "timestamp": self.unix_seconds().to_string(),
            "sender": sender(&person), "recipient": {"phone_number_id": number},
        });
        if let Some(fields) = value.as_object_mut() {
            let roles = json!({"previous_owner_role": from, "new_owner_role": to});
            fields.insert(control.to_owned(), roles);
        }
        let change = ChangeSpec {
            phone_number_id: Some(number),
            field: Some("messaging_handovers".to_owned()),
            value: Some(value),
            ..ChangeSpec::default()
        };
        self.deliver(&Batch::of(change), Posting::default())
            .map(Some)
    }
}

fn sender(person: &Person) -> Value {
    match person.shown_phone() {
        Some(phone) => json!({"phone_number": phone}),
        None => json!({"user_id": person.user_id}),
    }
}
