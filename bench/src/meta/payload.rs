//! Pieces of webhook bodies in the shape of 2026: user ids always, phone numbers only where shown.
//!
//! Pure: ids, times and people come in. Member order follows captured webhooks (`value` before `field`,
//! content before `type`).

use super::incoming::{Content, Picture, without_nulls};
use super::people::Person;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The progress of a message we sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusKind {
    Sent,
    Delivered,
    Read,
    Failed,
}

/// One status of one message.
#[derive(Debug, Clone)]
pub struct Status<'a> {
    pub message_id: &'a str,
    pub kind: StatusKind,
    pub timestamp: u64,
    /// Who it was sent to.
    pub person: &'a Person,
    /// Whether the send named a phone number rather than a user id.
    pub sent_to_phone: bool,
    /// The sender's own reference, echoed.
    pub opaque: Option<&'a str>,
    /// Whether it was a template, which is what Meta charges for.
    pub template: bool,
    /// The reason of a failure, as `errors[0]`.
    pub error: Option<Value>,
}

/// The `metadata` of a number's updates.
pub fn metadata(display_phone_number: &str, phone_number_id: &str) -> Value {
    json!({"display_phone_number": display_phone_number, "phone_number_id": phone_number_id})
}

pub fn contact(person: &Person) -> Value {
    let name = person.name.as_deref().unwrap_or("Unknown");
    without_nulls(json!({
        "profile": {"name": name}, "wa_id": person.shown_phone(), "user_id": person.user_id,
    }))
}

pub fn message(
    person: &Person,
    id: &str,
    timestamp: u64,
    context: Option<Value>,
    (content, picture): (&Content, &Picture),
) -> Value {
    let mut message = without_nulls(json!({
        "context": context, "from": person.shown_phone(), "from_user_id": person.user_id,
        "id": id, "timestamp": timestamp.to_string(),
    }));
    if let (Some(fields), Some(payload)) = (message.as_object_mut(), content.payload(picture)) {
        fields.insert(content.kind().to_owned(), payload);
    }
    if let Some(fields) = message.as_object_mut() {
        fields.insert("type".to_owned(), json!(content.kind()));
    }
    message
}

pub fn status(status: &Status) -> Value {
    let failed = status.kind == StatusKind::Failed;
    let user_id = (!failed || !status.sent_to_phone).then_some(&status.person.user_id);
    let phone = if status.sent_to_phone {
        status.person.phone.as_deref()
    } else {
        status.person.shown_phone()
    };
    let charged = matches!(status.kind, StatusKind::Sent | StatusKind::Delivered);
    let (billable, kind, category) = if status.template {
        (true, "regular", "utility")
    } else {
        (false, "free_customer_service", "service")
    };
    let pricing = charged
        .then(|| json!({"billable": billable, "pricing_model": "PMP", "type": kind, "category": category}));
    without_nulls(json!({
        "id": status.message_id, "status": status.kind, "timestamp": status.timestamp.to_string(),
        "recipient_id": phone, "recipient_user_id": user_id,
        "biz_opaque_callback_data": status.opaque, "pricing": pricing,
        "errors": status.error.as_ref().map(|error| json!([error])),
    }))
}

/// The `value` of a `messages` change; empty lists are left out.
pub fn messaging_value(
    metadata: Value,
    contacts: Vec<Value>,
    messages: Vec<Value>,
    statuses: Vec<Value>,
) -> Value {
    let some = |list: Vec<Value>| {
        if list.is_empty() {
            Value::Null
        } else {
            Value::Array(list)
        }
    };
    without_nulls(json!({
        "messaging_product": "whatsapp", "metadata": metadata, "contacts": some(contacts),
        "messages": some(messages), "statuses": some(statuses),
    }))
}

pub fn change(field: &str, value: Value) -> Value {
    json!({"value": value, "field": field})
}

/// An `entry[]` element; only account-level changes carry a time.
pub fn entry(waba_id: &str, time: Option<u64>, changes: Vec<Value>) -> Value {
    without_nulls(json!({"id": waba_id, "time": time, "changes": changes}))
}

pub fn envelope(entries: Vec<Value>) -> Value {
    json!({"object": "whatsapp_business_account", "entry": entries})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ada(hides_phone: bool) -> Person {
        let phone = Some("15551".to_owned());
        Person {
            user_id: "US.1".into(),
            phone,
            name: Some("Ada".into()),
            hides_phone,
        }
    }

    fn picture() -> Picture {
        Picture {
            id: "1".into(),
            mime_type: "image/png".into(),
            sha256: "x".into(),
            url: "http://x/1".into(),
        }
    }

    #[test]
    fn a_person_with_a_username_has_no_phone_number_anywhere() {
        let content = Content::Text { text: "hi".into() };
        let message = message(&ada(true), "wamid.1", 5, None, (&content, &picture()));
        assert_eq!(
            message.to_string(),
            r#"{"from_user_id":"US.1","id":"wamid.1","timestamp":"5","text":{"body":"hi"},"type":"text"}"#
        );
        assert_eq!(
            contact(&ada(true)).to_string(),
            r#"{"profile":{"name":"Ada"},"user_id":"US.1"}"#
        );
    }

    #[test]
    fn a_type_without_content_is_only_named() {
        let content = Content::Other {
            kind: "hologram".into(),
            content: None,
        };
        let message = message(&ada(false), "wamid.1", 5, None, (&content, &picture()));
        assert_eq!(
            message.to_string(),
            r#"{"from":"15551","from_user_id":"US.1","id":"wamid.1","timestamp":"5","type":"hologram"}"#
        );
    }

    #[test]
    fn a_failure_sent_to_a_phone_names_no_user_id_and_no_price() {
        let ada = ada(false);
        let failed = status(&Status {
            message_id: "wamid.1",
            kind: StatusKind::Failed,
            timestamp: 5,
            person: &ada,
            sent_to_phone: true,
            opaque: Some("m1"),
            template: false,
            error: Some(json!({"code": 131026})),
        });
        assert_eq!(
            failed.to_string(),
            r#"{"id":"wamid.1","status":"failed","timestamp":"5","recipient_id":"15551","biz_opaque_callback_data":"m1","errors":[{"code":131026}]}"#
        );
    }
}
