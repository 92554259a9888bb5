//! Reads what JetStream answers to a publish.

use super::slots::Outcome;
use serde::Deserialize;

/// The status by which the server says that nothing listens.
const NO_RESPONDERS: &[u8] = b"NATS/1.0 503";

/// What an answer means, by its block of headers, if any, and its payload.
pub fn read(headers: &[u8], payload: &[u8]) -> Outcome {
    if headers.starts_with(NO_RESPONDERS) {
        return Outcome::NoStream;
    }
    if is_plain(payload) {
        return Outcome::Stored { duplicate: false };
    }
    match serde_json::from_slice::<Receipt<'_>>(payload) {
        Ok(Receipt {
            error: Some(error), ..
        }) => Outcome::Refused(format!("{} ({})", error.description, error.err_code)),
        Ok(Receipt {
            seq: 1..,
            duplicate,
            ..
        }) => Outcome::Stored { duplicate },
        _ => Outcome::Refused("the answer is no PubAck".to_owned()),
    }
}

/// Whether it is exactly what a single server writes for an update that is new; all else is parsed.
fn is_plain(payload: &[u8]) -> bool {
    let Some(rest) = payload.strip_prefix(b"{\"stream\":\"") else {
        return false;
    };
    let Some(name) = rest.iter().position(|byte| *byte == b'"') else {
        return false;
    };
    let Some(sequence) = rest
        .get(name..)
        .and_then(|rest| rest.strip_prefix(b"\", \"seq\":"))
    else {
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
    fn an_answer_is_a_pub_ack_a_refusal_or_a_word_that_nothing_listens() {
        let word = |headers: &str, payload: &str| read(headers.as_bytes(), payload.as_bytes());
        assert_eq!(word("NATS/1.0 503\r\n\r\n", ""), Outcome::NoStream);
        assert_eq!(
            word("", r#"{"stream":"UPDATES", "seq":7}"#),
            Outcome::Stored { duplicate: false }
        );
        let duplicate = r#"{"stream":"UPDATES","domain":"hub", "seq":7,"duplicate": true}"#;
        assert_eq!(word("", duplicate), Outcome::Stored { duplicate: true });
        let error = r#"{"error":{"code":400,"err_code":10201,"description":"no"},"stream":"UPDATES","seq":0}"#;
        assert_eq!(word("", error), Outcome::Refused("no (10201)".to_owned()));
        for other in ["", "+OK", "{}", r#"{"stream":"UPDATES","seq":0}"#] {
            assert!(matches!(word("", other), Outcome::Refused(_)), "{other}");
        }
    }

    #[test]
    fn only_a_sequence_and_nothing_else_is_plain() {
        for (answer, plain) in [
            (r#"{"stream":"UPDATES", "seq":1}"#, true),
            (r#"{"stream":"UPDATES", "seq":90123}"#, true),
            (r#"{"stream":"UPDATES", "seq":0}"#, false),
            (r#"{"stream":"UPDATES", "seq":}"#, false),
            (r#"{"stream":"UPDATES", "seq":12,"duplicate": true}"#, false),
            (
                r#"{"error":{"code":503},"stream":"UPDATES", "seq":12}"#,
                false,
            ),
            (r#"{"stream":"UPDATES", "seq":12"#, false),
        ] {
            assert_eq!(is_plain(answer.as_bytes()), plain, "{answer}");
        }
    }
}
