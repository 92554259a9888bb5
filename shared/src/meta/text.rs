//! What is text, number and id in Meta's JSON: the one reading that the edge and the pools have of it.
//!
//! Half of a surrogate pair, and bytes that are no UTF-8, read as U+FFFD, as in JavaScript: a name cut in the middle of an
//! emoji costs nobody the message. A number stands for its digits where an id is expected, if it is whole and not longer than
//! what JSON readers keep exactly.

use super::{ReadError, shown};
use serde_json::Value;

/// Reads a JSON text, whatever its characters are.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, ReadError> {
    // What still stands in the way, once characters are whole, is what makes it unreadable.
    serde_json::from_slice(bytes)
        .or_else(|_| serde_json::from_str(&with_whole_characters(bytes)))
        .map_err(|error| ReadError::Json(error.to_string()))
}

/// The text that a JSON string with its quotes stands for.
pub fn decoded(string: &str) -> Option<String> {
    let read = serde_json::from_str(string).ok();
    read.or_else(|| serde_json::from_str(&with_whole_characters(string.as_bytes())).ok())
}

/// Whether a JSON number may be an id.
pub fn is_id(number: &str) -> bool {
    number.parse::<u64>().is_ok()
}

/// A text that is not empty.
pub(super) fn text_at(value: &Value, pointer: &str) -> Option<String> {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

/// A text as it is shown to people, when there is anything to be seen of it.
pub(super) fn shown_at(value: &Value, pointer: &str) -> Option<String> {
    let found = value.pointer(pointer)?.as_str()?;
    Some(shown::text(found).into_owned()).filter(|text| !text.is_empty())
}

/// A text that is not empty, or the digits of a number.
pub(super) fn id_at(value: &Value, pointer: &str) -> Option<String> {
    text_at(value, pointer).or_else(|| match value.pointer(pointer)? {
        Value::Number(number) if number.is_u64() => Some(number.to_string()),
        _ => None,
    })
}

/// Timestamps are texts of unix seconds in messages and numbers in some other fields.
pub(super) fn seconds_at(value: &Value, pointer: &str) -> Option<u64> {
    let found = value.pointer(pointer)?;
    found.as_u64().or_else(|| found.as_str()?.parse().ok())
}

fn with_whole_characters(bytes: &[u8]) -> String {
    const REPLACED: &str = "\\ufffd";
    let text = String::from_utf8_lossy(bytes);
    let unit = |rest: &str| {
        let digits = rest.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    while let Some(at) = rest.find('\\') {
        let (plain, escape) = rest.split_at(at);
        out.push_str(plain);
        let low = || escape.get(6..).and_then(unit);
        let (written, length) = match unit(escape) {
            Some(0xd800..=0xdbff) if matches!(low(), Some(0xdc00..=0xdfff)) => {
                (escape.get(..12), 12)
            }
            Some(0xd800..=0xdfff) => (Some(REPLACED), 6),
            Some(_) => (escape.get(..6), 6),
            None => (escape.get(..2), 2),
        };
        let Some(written) = written else { break };
        out.push_str(written);
        rest = escape.get(length..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}
