//! Which endpoints get an event, what the request to them looks like, and what their answer means.

use super::event::{self, Event};
use ackline_egress::{EgressAnswer, Outcome};
use ackline_shared::envelope::Head;
use ackline_shared::model::{Endpoint, Entity};
use ackline_shared::registry::Snapshot;
use ackline_shared::signature::SigningKey;
use ackline_shared::standard_webhooks::{self, SecretError};
use ackline_shared::vault::{VaultError, VaultKey};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// Tells a customer that an event is put before them again; it keeps its id.
pub(super) const REPLAY: HeaderName = HeaderName::from_static("ackline-replay");
const OUR_NAME: &str = concat!("Ackline/", env!("CARGO_PKG_VERSION"));

/// Whether an endpoint wants what an update becomes, once its payload is looked at; one that cannot be read is for the
/// job to say.
pub(super) fn selects(snapshot: &Snapshot, head: &Head, payload: &[u8], name: &str) -> bool {
    let mut endpoints = Snapshot::owned(&snapshot.endpoints, "endpoint", &head.tenant);
    match endpoints.find(|endpoint| endpoint.id.as_str() == name) {
        Some(endpoint) if endpoint.enabled => match event::of(head, payload) {
            Ok(events) => events.iter().any(|event| wants(endpoint, event)),
            Err(_) => true,
        },
        // It was there when the update came: what becomes of it is not passed over in silence.
        _ => !name.is_empty(),
    }
}

/// Whether an endpoint wants an event.
pub(super) fn wants(endpoint: &Endpoint, event: &Event) -> bool {
    is_listed(&endpoint.events, event.name)
}

/// Whether a list of names and families (`message.*`) holds a name; an empty list holds all.
fn is_listed(patterns: &[String], name: &str) -> bool {
    let matches = |pattern: &String| match pattern.strip_suffix('*') {
        Some(family) => name.starts_with(family),
        None => pattern == name,
    };
    patterns.is_empty() || patterns.iter().any(matches)
}

/// Why an event cannot be signed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SignError {
    #[error("the endpoint has no secret to sign with")]
    NoSecret,
    #[error(transparent)]
    Sealed(#[from] VaultError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("a header has no printable value")]
    Header,
}

pub(super) fn keys(
    snapshot: &Snapshot,
    master: &VaultKey,
    endpoint: &Endpoint,
) -> Result<Vec<SigningKey>, SignError> {
    if endpoint.secrets.is_empty() {
        return Err(SignError::NoSecret);
    }
    let key = |field| {
        let secret = snapshot.open(master, endpoint.scope(), field)?;
        Ok(standard_webhooks::key(&secret)?)
    };
    endpoint.secrets.iter().map(key).collect()
}

/// The headers of one attempt, signed with every live key.
pub(super) fn headers(
    keys: &[SigningKey],
    id: &str,
    unix_seconds: u64,
    body: &[u8],
) -> Result<HeaderMap, SignError> {
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| SignError::Header);
    Ok(HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (ACCEPT, HeaderValue::from_static("*/*")),
        (USER_AGENT, HeaderValue::from_static(OUR_NAME)),
        (WEBHOOK_ID, value(id)?),
        (WEBHOOK_TIMESTAMP, HeaderValue::from(unix_seconds)),
        (
            WEBHOOK_SIGNATURE,
            value(&standard_webhooks::sign(keys, id, unix_seconds, body))?,
        ),
    ]))
}

/// What an answer means. Only what speaks of the event is final; what speaks of the address passes, but for one that
/// says it is gone for good.
pub(super) fn outcome(answer: &EgressAnswer) -> Outcome {
    let reason = format!("answered {}", answer.status.as_u16());
    match answer.status.as_u16() {
        200..=299 if answer.broke_off => Outcome::broke_off(answer),
        200..=299 => Outcome::Done,
        410 => Outcome::Final {
            reason: "endpoint is gone (410) and is switched off".to_owned(),
        },
        400 | 413 | 415 | 422 => Outcome::Final { reason },
        _ => Outcome::trouble(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::secret::Secret;
    use serde_json::json;

    #[test]
    fn a_subscription_is_by_name_or_family_and_empty_is_all() {
        let wants = |patterns: &[&str], name| {
            is_listed(
                &patterns
                    .iter()
                    .map(|pattern| (*pattern).to_owned())
                    .collect::<Vec<_>>(),
                name,
            )
        };
        assert!(wants(&[], "flow.started") && wants(&["*"], "flow.started"));
        assert!(wants(&["message.*"], "message.read") && !wants(&["message.*"], "flow.started"));
        assert!(wants(&["flow.started", "message.read"], "message.read"));
        assert!(
            !wants(&["message.read"], "message.received") && !wants(&["message"], "message.read")
        );
    }

    #[test]
    fn an_endpoint_without_a_usable_secret_says_why() {
        let (master, data) = (VaultKey::generate(), VaultKey::generate());
        let mut snapshot = Snapshot::default();
        let data_key = json!(data.seal_under(&master, "acme")).to_string();
        snapshot
            .fold("datakey.acme", Some(data_key.as_bytes()))
            .unwrap();
        let weak = data.seal("acme", &Secret::new("whsec_AAAA".to_owned()));
        let foreign = data.seal(
            "globex",
            &Secret::new("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".to_owned()),
        );
        for (secrets, words) in [
            (json!([]), "no secret"),
            (json!([weak]), "24 to 64 bytes"),
            (json!([foreign]), "does not open"),
        ] {
            let endpoint =
                json!({"id": "e", "tenant": "acme", "url": "https://x/", "secrets": secrets});
            snapshot
                .fold("endpoint.acme.e", Some(endpoint.to_string().as_bytes()))
                .unwrap();
            let error =
                keys(&snapshot, &master, &snapshot.endpoints["endpoint.acme.e"]).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn only_what_speaks_of_the_event_is_final_and_what_says_it_is_gone() {
        let answer = |code| {
            let status = reqwest::StatusCode::from_u16(code).unwrap();
            let (headers, body) = (HeaderMap::new(), bytes::Bytes::new());
            EgressAnswer {
                status,
                headers,
                body,
                whole: true,
                broke_off: false,
            }
        };
        for code in [200, 201, 202, 204] {
            assert_eq!(outcome(&answer(code)), Outcome::Done, "{code}");
        }
        for code in [400, 413, 415, 422] {
            assert_eq!(
                outcome(&answer(code)),
                Outcome::Final {
                    reason: format!("answered {code}")
                }
            );
        }
        assert!(
            matches!(outcome(&answer(410)), Outcome::Final { reason } if reason.contains("switched off"))
        );
        for code in [
            301, 308, 401, 403, 404, 405, 408, 409, 425, 429, 500, 502, 503, 504,
        ] {
            assert!(
                matches!(outcome(&answer(code)), Outcome::Trouble(_)),
                "{code}"
            );
        }
    }
}
