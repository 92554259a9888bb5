//! Reads what JetStream answers to a publish.

use crate::slots::Outcome;
use async_nats::{Message, StatusCode};
use serde::Deserialize;

/// What an answer means.
pub fn read(answer: &Message) -> Outcome {
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Outcome::NoStream;
    }
    if is_plain(&answer.payload) {
        return Outcome::Stored { duplicate: false };
    }
    match serde_json::from_slice::<Receipt<'_>>(&answer.payload) {
        Ok(Receipt { error: Some(error), .. }) => {
            Outcome::Refused(format!("{} ({})", error.description, error.err_code))
        }
        Ok(Receipt { seq: 1.., duplicate, .. }) => Outcome::Stored { duplicate },
        _ => Outcome::Refused("the answer is no PubAck".to_owned()),
    }
}

/// Whether it is exactly what a single server writes for an update that is new; all else is parsed.
fn is_plain(payload: &[u8]) -> bool {
    let Some(rest) = payload.strip_prefix(b"{\"stream\":\"") else { return false };
    let Some(name) = rest.iter().position(|byte| *byte == b'"') else { return false };
    let Some(sequence) = rest.get(name..).and_then(|rest| rest.strip_prefix(b"\", \"seq\":")) else {
        return false;
    };
    match sequence {
        [b'1'..=b'9', digits @ .., b'}'] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

#[derive(Deserialize)]
struct Receipt<'a> {
    #[serde(borrow, default)]
    error: Option<ReceiptError<'a>>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
}

#[derive(Deserialize)]
struct ReceiptError<'a> {
    #[serde(default)]
    err_code: u64,
    #[serde(borrow, default)]
    description: std::borrow::Cow<'a, str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sequence_and_nothing_else_is_plain() {
        for (answer, plain) in [
            (r#"{"stream":"UPDATES", "seq":1}"#, true),
            (r#"{"stream":"UPDATES", "seq":90123}"#, true),
            (r#"{"stream":"UPDATES", "seq":0}"#, false),
            (r#"{"stream":"UPDATES", "seq":}"#, false),
            (r#"{"stream":"UPDATES", "seq":12,"duplicate": true}"#, false),
            (r#"{"error":{"code":503},"stream":"UPDATES", "seq":12}"#, false),
            (r#"{"stream":"UPDATES", "seq":12"#, false),
        ] {
            assert_eq!(is_plain(answer.as_bytes()), plain, "{answer}");
        }
    }
}
