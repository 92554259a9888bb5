//! A form that was filled in: Meta sends its fields as JSON within a string.

use super::super::text::{parse, shown_at, text_at};
use super::Details;
use serde_json::{Map, Value};

/// Longest answer that is looked into; what a person fills in has far less.
const BYTES_MAX: usize = 256 << 10;

/// Reads an `nfm_reply`.
pub(super) fn read(reply: &Value) -> Details {
    let response = reply.get("response_json");
    let fields = match response {
        Some(Value::Object(fields)) => Some(fields.clone()),
        Some(Value::String(text)) => object(text),
        _ => None,
    };
    let unread = match (&fields, response) {
        (None, Some(Value::String(text))) => Some(text.clone()),
        (None, Some(Value::Null) | None) | (Some(_), _) => None,
        (None, Some(other)) => Some(other.to_string()),
    };
    Details::Form {
        name: text_at(reply, "/name"),
        body: shown_at(reply, "/body"),
        fields: fields.unwrap_or_default(),
        response: unread,
    }
}

fn object(text: &str) -> Option<Map<String, Value>> {
    let read = (text.len() <= BYTES_MAX).then(|| parse(text.as_bytes()).ok())?;
    match read {
        Some(Value::Object(fields)) => Some(fields),
        _ => None,
    }
}
