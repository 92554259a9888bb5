//! JSON that is passed on as it was written: it costs its bytes, and not those of the values in it.

use serde::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use std::fmt;

/// Levels of nesting that any reader of JSON takes.
const DEPTH_MAX: usize = 120;

/// A JSON value as text.
#[derive(Clone)]
pub struct RawJson(Box<RawValue>);

impl RawJson {
    /// Takes a text that is JSON.
    pub fn parse(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(Self)
    }

    /// Takes bytes that may be anything: what is no JSON, or nested too deep for readers, becomes a text.
    pub fn of(bytes: &[u8]) -> Self {
        let json = serde_json::from_slice::<&RawValue>(bytes)
            .ok()
            .filter(|json| is_shallow(json.get()));
        let text = || to_raw_value(&String::from_utf8_lossy(bytes)).unwrap_or_default();
        Self(json.map_or_else(text, ToOwned::to_owned))
    }

    /// The text.
    pub fn get(&self) -> &str {
        self.0.get()
    }
}

fn is_shallow(json: &str) -> bool {
    let (mut depth, mut in_text, mut is_escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return false;
        }
    }
    true
}

impl PartialEq for RawJson {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl fmt::Debug for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes of JSON]", self.get().len())
    }
}

impl Serialize for RawJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_passed_on_as_it_is_and_anything_else_as_a_text() {
        let shown = |bytes: &[u8]| serde_json::to_string(&RawJson::of(bytes)).unwrap();
        assert_eq!(
            shown(b" {\"a\": 1.50, \"b\":[\"\\\"{[\"]}"),
            "{\"a\": 1.50, \"b\":[\"\\\"{[\"]}"
        );
        assert_eq!(shown(b"{\"a\":"), "\"{\\\"a\\\":\"");
        assert_eq!(shown(b"\xff"), "\"\u{fffd}\"");
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert_eq!(shown(deep.as_bytes()), format!("\"{deep}\""));
        let text = format!("[\"{}\"]", "[".repeat(200));
        assert_eq!(
            shown(text.as_bytes()),
            text,
            "brackets in a text are no depth"
        );
        assert!(RawJson::parse("{".to_owned()).is_err());
        assert_eq!(
            format!("{:?}", RawJson::of(b"\"Ada\"")),
            "[5 bytes of JSON]"
        );
    }
}
