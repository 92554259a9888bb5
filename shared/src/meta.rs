//! What the pools read out of one update of Meta's: a view that keeps everything it does not know.
//!
//! Reading is lenient on purpose. Every field may be absent or of another type than documented; then it is
//! `None` here and still there in `raw`. Shapes: Meta's webhook reference for the `messages` field, 2026.

mod handover;
mod identity;
pub mod incoming;
pub mod shown;
mod text;

pub use handover::Handover;
pub use incoming::Incoming;
pub use text::{decoded, is_id};

use crate::recipient::Recipient;
use crate::spelling;
use serde_json::Value;
use std::fmt;
use text::{id_at, parse, seconds_at, text_at};

/// The field of what people send to the business while the conversation is its own.
pub const MESSAGES: &str = "messages";
/// The field of what happens in a conversation that another responder has.
pub const STANDBY: &str = "standby";
/// The field of who gained or lost a conversation.
pub const HANDOVERS: &str = "messaging_handovers";
/// The kind of a message in which Meta tells that somebody has another number or user id.
pub const SYSTEM: &str = "system";

/// The array of what was sent from the Business app.
const ECHOES: &str = "message_echoes";

/// One update, taken out of its envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The WhatsApp Business Account (`entry[].id`).
    pub waba_id: Option<String>,
    /// The webhook field, such as `messages`.
    pub field: Option<String>,
    /// The business number's id.
    pub phone_number_id: Option<String>,
    /// The business number as people write it.
    pub display_phone_number: Option<String>,
    /// What it is about.
    pub body: Body,
}

impl Update {
    /// Whether it came from a conversation that another responder has, and is not to be answered.
    pub fn is_standby(&self) -> bool {
        self.field.as_deref() == Some(STANDBY)
    }

    /// Whether it is addressed to us: it came as `messages`, or nobody knows as what.
    pub fn is_ours(&self) -> bool {
        self.field.as_deref().is_none_or(|field| field == MESSAGES)
    }

    /// Who gained or lost the conversation, when it tells that.
    pub fn handover(&self) -> Option<Handover> {
        let (Some(HANDOVERS), Body::Other(value)) = (self.field.as_deref(), &self.body) else {
            return None;
        };
        Handover::read(value)
    }
}

/// What an update is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Somebody wrote to us.
    Message(Box<Message>),
    /// Something we sent moved on.
    Status(Box<Status>),
    /// Somebody wrote from the Business app; `from` is whom it went to.
    Echo(Box<Message>),
    /// Anything else: the change's `value`.
    Other(Value),
}

/// An incoming message.
#[derive(Clone, PartialEq)]
pub struct Message {
    /// Meta's id (wamid).
    pub id: String,
    /// Who wrote; people with usernames have no phone here. Whose ids changed is named by the new ones.
    pub from: Recipient,
    /// The ids that a person had until now, in a message that tells of new ones.
    pub formerly: Option<Recipient>,
    /// The group it was written in, if it was in one.
    pub group_id: Option<String>,
    /// The name in the sender's profile.
    pub name: Option<String>,
    /// Unix seconds at which Meta got it.
    pub timestamp: Option<u64>,
    /// What it holds.
    pub content: Incoming,
    /// The message as Meta sent it.
    pub raw: Value,
}

/// Shows its kind: who people are and what they say does not belong into logs.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("kind", &self.content.kind)
            .finish_non_exhaustive()
    }
}

/// A status of a message we sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The wamid of the message.
    pub id: String,
    /// `sent`, `delivered`, `read`, `played`, `failed`, or one we do not know.
    pub status: String,
    /// Unix seconds.
    pub timestamp: Option<u64>,
    /// Who received it.
    pub recipient: Recipient,
    /// What we sent along as `biz_opaque_callback_data`: our own id of the message.
    pub callback_data: Option<String>,
    /// Why it failed.
    pub errors: Vec<MetaError>,
    /// The status as Meta sent it.
    pub raw: Value,
}

/// An error as Meta describes it, in webhooks and in Graph API answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaError {
    /// The code decisions are made by.
    pub code: i64,
    /// Its title and details, for people.
    pub text: String,
}

impl MetaError {
    /// Reads an error object; one without a number as code is none.
    pub fn read(value: &Value) -> Option<Self> {
        let code = value.get("code")?.as_i64()?;
        let parts = [
            value.get("title"),
            value.get("message"),
            value.pointer("/error_data/details"),
        ];
        let mut texts: Vec<&str> = parts
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        texts.dedup();
        Some(Self {
            code,
            text: texts.join(": "),
        })
    }
}

/// Why bytes are not a webhook envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Not JSON.
    #[error("the payload is not JSON: {0}")]
    Json(String),
    /// No `entry[0]`.
    #[error("the payload has no entry")]
    Shape,
}

/// Reads an envelope that holds exactly one update.
pub fn read(bytes: &[u8]) -> Result<Update, ReadError> {
    let mut envelope = parse(bytes)?;
    let entry = first_mut(&mut envelope, "entry").ok_or(ReadError::Shape)?;
    let (waba_id, mut nothing) = (id_at(entry, "/id"), Value::Null);
    let change = first_mut(entry, "changes").unwrap_or(&mut nothing);
    let field = id_at(change, "/field");
    let mut value = change.get_mut("value").map(Value::take).unwrap_or_default();
    // History is an import of the past, and never live traffic.
    let is_live = field.as_deref() != Some("history") && value.get("history").is_none();
    let phone_number_id = id_at(&value, "/metadata/phone_number_id")
        .or_else(|| id_at(&value, "/recipient/phone_number_id"));
    let display_phone_number = id_at(&value, "/metadata/display_phone_number");
    let message =
        first(&value, "messages").map(|raw| read_message(raw, &value, identity::read(raw)));
    let body = if let Some(message) = message.filter(|_| is_live) {
        let raw = taken(&mut value, "messages");
        Body::Message(Box::new(Message { raw, ..message }))
    } else if let Some(status) = first(&value, "statuses").filter(|_| is_live) {
        let status = read_status(status);
        let raw = taken(&mut value, "statuses");
        Body::Status(Box::new(Status { raw, ..status }))
    } else if let Some(echo) = first(&value, ECHOES).filter(|_| is_live) {
        let echo = read_message(echo, &value, (identity::receiver(echo), None));
        let raw = taken(&mut value, ECHOES);
        Body::Echo(Box::new(Message { raw, ..echo }))
    } else {
        Body::Other(value)
    };
    Ok(Update {
        waba_id,
        field,
        phone_number_id,
        display_phone_number,
        body,
    })
}

/// The person on the other side, and the ids they no longer have.
type Named = (Recipient, Option<Recipient>);

fn first_mut<'v>(value: &'v mut Value, name: &str) -> Option<&'v mut Value> {
    value.get_mut(name)?.as_array_mut()?.first_mut()
}

/// The first element of a member, taken out of it: it is large, and a copy costs as much as reading it.
fn taken(value: &mut Value, name: &str) -> Value {
    first_mut(value, name).map(Value::take).unwrap_or_default()
}

/// The first element of a member that is an array.
fn first<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    value.get(name)?.as_array()?.first()
}

/// The contact of whoever wrote, by what names both: an update that was cut out of a batch may have others beside it.
fn contact_of<'v>(author: &Recipient, value: &'v Value) -> Option<&'v Value> {
    let ids = |value, user, phone| (id_at(value, user), id_at(value, phone));
    let (user, phone) = (author.user_id.clone(), author.phone.clone());
    let all = value.get("contacts")?.as_array()?;
    let found = match all.as_slice() {
        [only] => Some(only),
        all => {
            let with = |pointer, wanted: &Option<String>, is_same: fn(&str, &str) -> bool| {
                let wanted = wanted.as_deref()?;
                let is_theirs = |contact: &&Value| {
                    id_at(contact, pointer).is_some_and(|id| is_same(&id, wanted))
                };
                all.iter().find(is_theirs)
            };
            with("/user_id", &user, |one, other| one == other)
                .or_else(|| with("/wa_id", &phone, spelling::is_same))
        }
    }?;
    let agrees = match (ids(found, "/user_id", "/wa_id"), (user, phone)) {
        ((Some(ours), _), (Some(theirs), _)) => ours == theirs,
        ((_, Some(ours)), (_, Some(theirs))) => spelling::is_same(&ours, &theirs),
        _ => true,
    };
    agrees.then_some(found)
}

/// Who wrote a message, as far as the message itself tells.
pub fn author(raw: &Value) -> Recipient {
    identity::read(raw).0
}

/// Reads all but `raw`.
fn read_message(raw: &Value, value: &Value, (author, formerly): Named) -> Message {
    let contact = contact_of(&author, value);
    let contact_id = |pointer| contact.and_then(|contact| id_at(contact, pointer));
    Message {
        id: id_at(raw, "/id").unwrap_or_default(),
        from: Recipient {
            user_id: author.user_id.or_else(|| contact_id("/user_id")),
            phone: author.phone.or_else(|| contact_id("/wa_id")),
        },
        formerly,
        group_id: id_at(raw, "/group_id"),
        name: contact
            .and_then(|contact| text_at(contact, "/profile/name"))
            .and_then(|name| shown::name(&name)),
        timestamp: seconds_at(raw, "/timestamp"),
        content: Incoming::read(raw),
        raw: Value::Null,
    }
}

/// Reads all but `raw`.
fn read_status(raw: &Value) -> Status {
    let errors = raw.get("errors").and_then(Value::as_array);
    Status {
        id: id_at(raw, "/id").unwrap_or_default(),
        status: id_at(raw, "/status").unwrap_or_else(|| "unknown".to_owned()),
        timestamp: seconds_at(raw, "/timestamp"),
        recipient: Recipient {
            user_id: id_at(raw, "/recipient_user_id"),
            phone: id_at(raw, "/recipient_id"),
        },
        callback_data: text_at(raw, "/biz_opaque_callback_data"),
        errors: errors
            .into_iter()
            .flatten()
            .filter_map(MetaError::read)
            .collect(),
        raw: Value::Null,
    }
}

/// How far Meta's clock may be ahead of ours.
const AHEAD_MAX_MS: u64 = 24 * 3600 * 1000;

/// From here on a time has thirteen digits: the seconds of the year 33658, or milliseconds.
const MILLISECONDS_MIN: u64 = 1_000_000_000_000;

/// When something happened, in unix milliseconds, by what Meta says in seconds. A time of thirteen digits is in
/// milliseconds; one that cannot be, none at all or one to come, is when it was received.
pub fn happened_ms(reported: Option<u64>, received_ms: u64) -> u64 {
    let latest = received_ms.saturating_add(AHEAD_MAX_MS);
    let reported = reported.filter(|reported| *reported > 0);
    let seconds = reported
        .and_then(|seconds| seconds.checked_mul(1000))
        .filter(|ms| *ms <= latest);
    seconds
        .or(reported.filter(|ms| *ms <= latest && *ms >= MILLISECONDS_MIN))
        .unwrap_or(received_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_character_costs_nobody_the_message() {
        let envelope = |name: &str, id: &str| {
            format!(
                r#"{{"entry":[{{"id":7,"changes":[{{"field":"messages","value":{{"metadata":{{"phone_number_id":{id}}},
                "contacts":[{{"profile":{{"name":"{name}"}},"wa_id":49170}}],
                "messages":[{{"from":"49170","id":"w","type":"text","text":{{"body":"hi"}}}}]}}}}]}}]}}"#
            )
        };
        for (name, read_as) in [
            (r"Ana \ud83d", "Ana"),
            (r"\ude00 Ana", "Ana"),
            (r"\ud83d\ud83d\ude00", "\u{1f600}"),
            (r"\\ud83d \ud83dx\n", "\\ud83d x"),
            (r"\ud83d\u00e9", "\u{e9}"),
        ] {
            let update = read(envelope(name, "106").as_bytes()).unwrap();
            assert_eq!(
                (update.phone_number_id.as_deref(), update.waba_id.as_deref()),
                (Some("106"), Some("7"))
            );
            let Body::Message(message) = update.body else {
                panic!("{name}")
            };
            assert_eq!(message.name.as_deref(), Some(read_as), "{name}");
        }
        let mut cut = envelope("Ana \u{1f600}", "\"106\"").into_bytes();
        let at = cut
            .windows(4)
            .position(|four| four == "\u{1f600}".as_bytes())
            .unwrap();
        cut.remove(at + 3);
        assert!(read(&cut).is_ok());
        assert!(matches!(
            read(br#"{"entry":["\ud83d"#),
            Err(ReadError::Json(_))
        ));
    }

    #[test]
    fn a_time_that_cannot_be_is_when_it_was_received() {
        let received = 1_763_784_000_500;
        for (reported, expected) in [
            (Some(1_763_784_000), 1_763_784_000_000),
            (Some(1_763_784_000_123), 1_763_784_000_123),
            (Some(1_763_784_000 + 3600), 1_763_787_600_000),
            (Some(1_763_784_000 + 90_000), received),
            (Some(99_999_999_999_999_999), received),
            (Some(u64::MAX), received),
            (Some(0), received),
            (None, received),
        ] {
            assert_eq!(happened_ms(reported, received), expected, "{reported:?}");
        }
    }
    use proptest::prelude::*;
    use serde_json::json;

    fn envelope(value: Value) -> Vec<u8> {
        json!({"object": "whatsapp_business_account", "entry": [{"id": "W", "changes": [{"value": value, "field": "messages"}]}]})
            .to_string()
            .into_bytes()
    }

    fn message(raw: Value) -> Message {
        let contact = json!({"profile": {"name": "Ana"}, "user_id": "US.1"});
        let bytes = envelope(
            json!({"metadata": {"phone_number_id": "1"}, "contacts": [contact], "messages": [raw]}),
        );
        match read(&bytes).unwrap().body {
            Body::Message(message) => *message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_without_a_phone_number_has_its_business_scoped_id() {
        let message = message(
            json!({"id": "wamid.1", "type": "text", "timestamp": "17", "text": {"body": "hi"}}),
        );
        assert_eq!(
            message.from,
            Recipient {
                user_id: Some("US.1".into()),
                phone: None
            }
        );
        assert_eq!(
            (message.content.text.as_deref(), message.timestamp),
            (Some("hi"), Some(17))
        );
    }

    #[test]
    fn pressed_buttons_and_picked_rows_carry_their_ids() {
        let reply = json!({"type": "interactive", "id": "w", "interactive":
            {"type": "list_reply", "list_reply": {"id": "row", "title": "Row"}}});
        let button =
            json!({"type": "button", "id": "w", "button": {"payload": "PAY", "text": "Pay"}});
        assert_eq!(message(reply).content.payload_id.as_deref(), Some("row"));
        assert_eq!(message(button).content.payload_id.as_deref(), Some("PAY"));
    }

    #[test]
    fn an_unknown_type_is_kept_whole() {
        let raw = json!({"type": "hologram", "id": "w", "hologram": {"depth": 3}});
        assert_eq!(message(raw.clone()).raw, raw);
    }

    #[test]
    fn a_failed_status_says_why() {
        let error = json!({"code": 131_047, "title": "Re-engagement", "message": "Re-engagement"});
        let status = json!({"id": "w", "status": "failed", "errors": [error], "biz_opaque_callback_data": "m1"});
        let bytes = envelope(json!({"statuses": [status]}));
        let Body::Status(status) = read(&bytes).unwrap().body else {
            panic!("a status")
        };
        assert_eq!(
            status.errors,
            [MetaError {
                code: 131_047,
                text: "Re-engagement".into()
            }]
        );
        assert_eq!(status.callback_data.as_deref(), Some("m1"));
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}\":,a-z0-9]{0,200}") {
            let _any_result = (read(&bytes), read(text.as_bytes()));
        }
    }
}
