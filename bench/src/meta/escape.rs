//! Writes JSON the way Meta puts it on the wire: minified, non-ASCII as `\uXXXX`, `/` as `\/`.
//!
//! Meta signs these escaped bytes, so a receiver that re-serialises before verifying fails against them.

use serde_json::Value;

/// Serialises a value with Meta's escapes; the result is plain ASCII.
pub fn to_wire(value: &Value) -> Vec<u8> {
    let json = value.to_string();
    let mut wire = Vec::with_capacity(json.len() + json.len() / 8);
    let mut units = [0; 2];
    for character in json.chars() {
        match character {
            // Both cases can only occur inside a string, so no JSON state has to be kept.
            '/' => wire.extend_from_slice(b"\\/"),
            ascii if ascii.is_ascii() => wire.extend(u8::try_from(ascii)),
            other => {
                for unit in other.encode_utf16(&mut units) {
                    wire.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
        }
    }
    wire
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn accents_emoji_and_slashes_are_escaped_and_read_back_the_same() {
        let value = json!({"a": "caf\u{e9} \u{1f600} https://x", "b": "\"\\\n\u{1}"});
        let wire = to_wire(&value);
        assert!(wire.starts_with(br#"{"a":"caf\u00e9 \ud83d\ude00 https:\/\/x""#));
        assert_eq!(serde_json::from_slice::<Value>(&wire).unwrap(), value);
    }
}
