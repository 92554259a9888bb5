//! A status as Meta nearly always sends it, read without a tree of all that is around it: statuses are most of what comes.
//!
//! Whatever is not just so, an id that is a number, half a character, an error, is read by the one lenient reader.

use ackline_message::Recipient;
use ackline_shared::meta::{Body, Status, Update};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::borrow::Cow;

#[derive(Deserialize)]
struct Envelope<'u> {
    #[serde(borrow)]
    entry: [Entry<'u>; 1],
}

#[derive(Deserialize)]
struct Entry<'u> {
    #[serde(borrow)]
    changes: [Change<'u>; 1],
}

#[derive(Deserialize)]
struct Change<'u> {
    #[serde(borrow)]
    field: Cow<'u, str>,
    #[serde(borrow)]
    value: Reports<'u>,
}

#[derive(Deserialize)]
struct Reports<'u> {
    #[serde(borrow)]
    metadata: Metadata<'u>,
    #[serde(borrow)]
    statuses: [Reported<'u>; 1],
    messages: Option<IgnoredAny>,
    history: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Metadata<'u> {
    #[serde(borrow)]
    phone_number_id: Cow<'u, str>,
}

#[derive(Deserialize)]
struct Reported<'u> {
    #[serde(borrow)]
    id: Cow<'u, str>,
    #[serde(borrow)]
    status: Cow<'u, str>,
    #[serde(borrow)]
    timestamp: Cow<'u, str>,
    #[serde(borrow)]
    recipient_id: Option<Cow<'u, str>>,
    #[serde(borrow)]
    recipient_user_id: Option<Cow<'u, str>>,
    #[serde(borrow)]
    biz_opaque_callback_data: Option<Cow<'u, str>>,
    errors: Option<IgnoredAny>,
}

/// Reads a status that is just so, without `raw`; nothing when it is not.
pub fn status(payload: &[u8]) -> Option<Update> {
    let envelope: Envelope<'_> = serde_json::from_slice(payload).ok()?;
    let [Entry { changes: [change] }] = envelope.entry;
    let reports = change.value;
    let [status] = reports.statuses;
    let is_apart =
        reports.messages.is_some() || reports.history.is_some() || status.errors.is_some();
    let texts = [
        &change.field,
        &reports.metadata.phone_number_id,
        &status.id,
        &status.status,
    ];
    let more = [
        &status.recipient_id,
        &status.recipient_user_id,
        &status.biz_opaque_callback_data,
    ];
    let has_gap = texts
        .into_iter()
        .chain(more.into_iter().flatten())
        .any(|text| text.is_empty());
    if is_apart || has_gap || change.field == "history" {
        return None;
    }
    let body = Status {
        timestamp: Some(status.timestamp.parse().ok()?),
        id: status.id.into_owned(),
        status: status.status.into_owned(),
        recipient: Recipient {
            user_id: status.recipient_user_id.map(Cow::into_owned),
            phone: status.recipient_id.map(Cow::into_owned),
        },
        callback_data: status.biz_opaque_callback_data.map(Cow::into_owned),
        errors: Vec::new(),
        raw: Value::Null,
    };
    Some(Update {
        waba_id: None,
        field: Some(change.field.into_owned()),
        phone_number_id: Some(reports.metadata.phone_number_id.into_owned()),
        display_phone_number: None,
        body: Body::Status(Box::new(body)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::meta;
    use serde_json::json;

    fn usual() -> Value {
        let status = json!({"id": "w", "status": "read", "timestamp": "1795000000", "recipient_id": "49",
            "recipient_user_id": "US.1", "biz_opaque_callback_data": "m \u{e9}\n", "pricing": {"billable": true}});
        let value = json!({"metadata": {"phone_number_id": "1", "display_phone_number": "2"}, "statuses": [status]});
        json!({"object": "o", "entry": [{"id": "W", "changes": [{"value": value, "field": "messages"}]}]})
    }

    /// What the lenient reader makes of it, without what is not read here.
    fn lenient(payload: &[u8]) -> Update {
        let mut update = meta::read(payload).unwrap();
        (update.waba_id, update.display_phone_number) = (None, None);
        if let Body::Status(status) = &mut update.body {
            status.raw = Value::Null;
        }
        update
    }

    #[test]
    fn a_usual_status_reads_as_the_lenient_reader_reads_it() {
        let payload = usual().to_string();
        assert_eq!(
            status(payload.as_bytes()),
            Some(lenient(payload.as_bytes()))
        );
    }

    #[test]
    fn whatever_is_not_just_so_is_left_to_the_lenient_reader_or_read_the_same() {
        let place = "/entry/0/changes/0/value/statuses/0";
        let members = [
            "id",
            "status",
            "timestamp",
            "recipient_id",
            "recipient_user_id",
            "biz_opaque_callback_data",
            "errors",
        ];
        let values = [
            json!(null),
            json!(7),
            json!(""),
            json!([]),
            json!({}),
            json!("x"),
            json!([{"code": 1}]),
        ];
        let mut read = 0;
        for member in members {
            for value in &values {
                let mut payload = usual();
                payload.pointer_mut(place).unwrap()[member] = value.clone();
                let payload = payload.to_string();
                if let Some(update) = status(payload.as_bytes()) {
                    assert_eq!(update, lenient(payload.as_bytes()), "{payload}");
                    read += 1;
                }
            }
        }
        assert!(read > 5, "{read}");
        for (place, value) in [
            ("/entry/0/changes/0/value/messages", json!([{"id": "w"}])),
            ("/entry/0/changes/0/value/history", json!([])),
            ("/entry/0/changes/0/field", json!("history")),
            ("/entry/0/changes/0/value/statuses/1", json!({})),
            ("/entry/1", json!({})),
        ] {
            let mut payload = usual();
            let (parent, name) = place.rsplit_once('/').unwrap();
            match payload.pointer_mut(parent).unwrap() {
                Value::Array(list) => list.push(value),
                parent => parent[name] = value,
            }
            assert_eq!(status(payload.to_string().as_bytes()), None, "{place}");
        }
        assert_eq!(status(br#"{"entry":["\ud83d"#), None);
        let half = usual().to_string().replace("\"US.1\"", r#""US.1\ud83d""#);
        assert_eq!(status(half.as_bytes()), None);
    }
}
