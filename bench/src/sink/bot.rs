//! An existing bot behind the relay: verifies Meta's signature over the raw bytes and records what it got.
//!
//! It knows nothing of Ackline: the bytes and the signature have to be what Meta would have sent.

use super::faults::Planned;
use super::{Entry, RelayedWebhook, Sink, lock};
use ackline_shared::secret::Secret;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use std::sync::Arc;

const HEADER: &str = "x-hub-signature-256";
const TAKEN_MAX: usize = 1_000_000;

pub async fn receive(
    State(sink): State<Arc<Sink>>,
    Path(name): Path<String>,
    Extension(planned): Extension<Planned>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let secrets = lock(&sink.bots).get(&name).cloned();
    let given = headers.get(HEADER).and_then(|value| value.to_str().ok());
    let (own, reason) = match secrets
        .as_deref()
        .map(|secrets| verify(secrets, given, &body))
    {
        None => (StatusCode::NOT_FOUND, Some("no bot of this name")),
        Some(Err(reason)) => (StatusCode::UNAUTHORIZED, Some(reason)),
        Some(Ok(())) => (StatusCode::OK, None),
    };
    let verified = own == StatusCode::OK;
    let status = planned.status(own);
    let update_ids = update_ids(&body);
    let mut duplicate = false;
    if verified && !update_ids.is_empty() {
        let key = (format!("relay/{name}"), update_ids.join(" "));
        let mut taken = lock(&sink.taken);
        duplicate = taken.contains(&key);
        if status.is_some_and(|status| (200..300).contains(&status)) && taken.len() < TAKEN_MAX {
            taken.insert(key);
        }
    }
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    sink.journal.record(Entry::Relay(RelayedWebhook {
        name,
        verified,
        reason: reason.map(str::to_owned),
        duplicate,
        update_ids,
        status,
        injected: planned.injected(),
        content_length: length,
        body_bytes: body.len(),
        body: String::from_utf8(body.to_vec()).ok(),
    }));
    own
}

fn verify(
    secrets: &[Secret<String>],
    given: Option<&str>,
    body: &[u8],
) -> Result<(), &'static str> {
    let given = given
        .ok_or("no signature header")?
        .strip_prefix("sha256=")
        .ok_or("not a sha256 signature")?;
    let digest = unhex(given).ok_or("the signature is not hexadecimal")?;
    let signed = secrets.iter().any(|secret| {
        Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
            .is_ok_and(|mac| mac.chain_update(body).verify_slice(&digest).is_ok())
    });
    signed.then_some(()).ok_or("another secret signed it")
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    rest.is_empty()
        .then(|| pairs.iter().map(byte).collect::<Option<_>>())?
}

/// What tells the updates of a body apart: message ids, and statuses with the message they are of.
pub fn update_ids(body: &[u8]) -> Vec<String> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let list = |value: &Value, name: &str| {
        value
            .get(name)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let text =
        |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let mut ids = Vec::new();
    for change in list(&body, "entry")
        .iter()
        .flat_map(|entry| list(entry, "changes"))
    {
        let Some(value) = change.get("value") else {
            continue;
        };
        ids.extend(
            list(value, "messages")
                .iter()
                .filter_map(|message| text(message, "id")),
        );
        ids.extend(list(value, "statuses").iter().filter_map(|status| {
            Some(format!(
                "{}:{}",
                text(status, "id")?,
                text(status, "status")?
            ))
        }));
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_documented_signature_verifies_and_one_flipped_bit_does_not() {
        let secrets = [
            Secret::new("other".to_owned()),
            Secret::new("It's a Secret to Everybody".to_owned()),
        ];
        let good = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert_eq!(verify(&secrets, Some(good), b"Hello, World!"), Ok(()));
        assert!(verify(&secrets, Some(good), b"Hello, World?").is_err());
        assert!(verify(&secrets, Some("sha256=75710"), b"Hello, World!").is_err());
        assert!(verify(&secrets, None, b"Hello, World!").is_err());
    }

    #[test]
    fn statuses_of_one_message_are_different_updates() {
        let body = br#"{"entry":[{"changes":[{"value":{"messages":[{"id":"a"}]}},
            {"value":{"statuses":[{"id":"b","status":"sent"},{"id":"b","status":"read"}]}}]}]}"#;
        assert_eq!(update_ids(body), ["a", "b:sent", "b:read"]);
        assert!(update_ids(b"nonsense").is_empty());
    }
}
