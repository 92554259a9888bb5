//! Which endpoints get an event, what the request to them looks like, and what their answer means.

use crate::egress::Outcome;
use ackline_shared::ids::TenantId;
use ackline_shared::model::{Endpoint, Entity};
use ackline_shared::registry::Snapshot;
use ackline_shared::signature::SigningKey;
use ackline_shared::standard_webhooks;
use ackline_shared::vault::VaultKey;
use reqwest::StatusCode;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use std::sync::Arc;
use std::time::Duration;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// Tells a customer that an event is put before them again; it keeps its id.
pub(super) const REPLAY: HeaderName = HeaderName::from_static("ackline-replay");
const OUR_NAME: &str = concat!("Ackline/", env!("CARGO_PKG_VERSION"));

/// An endpoint that gets an event, and the live keys it is signed with or why there are none.
#[derive(Debug)]
pub(super) struct Target {
    pub endpoint: Arc<Endpoint>,
    pub keys: Result<Vec<SigningKey>, String>,
}

/// Whether a tenant has an endpoint at all.
pub(super) fn has_endpoint(snapshot: &Snapshot, tenant: &TenantId) -> bool {
    Snapshot::owned(&snapshot.endpoints, "endpoint", tenant).any(|endpoint| endpoint.enabled)
}

/// The tenant's endpoints that want an event of this name.
pub(super) fn targets(snapshot: &Snapshot, master: &VaultKey, tenant: &TenantId, name: &str) -> Vec<Target> {
    Snapshot::owned(&snapshot.endpoints, "endpoint", tenant)
        .filter(|endpoint| endpoint.enabled && wants(&endpoint.events, name))
        .map(|endpoint| Target { endpoint: endpoint.clone(), keys: keys(snapshot, master, endpoint) })
        .collect()
}

/// Whether a list of names and families (`message.*`) holds a name; an empty list holds all.
fn wants(patterns: &[String], name: &str) -> bool {
    let matches = |pattern: &String| match pattern.strip_suffix('*') {
        Some(family) => name.starts_with(family),
        None => pattern == name,
    };
    patterns.is_empty() || patterns.iter().any(matches)
}

fn keys(snapshot: &Snapshot, master: &VaultKey, endpoint: &Endpoint) -> Result<Vec<SigningKey>, String> {
    if endpoint.secrets.is_empty() {
        return Err("the endpoint has no secret to sign with".to_owned());
    }
    let key = |field| {
        let secret = snapshot.open(master, endpoint.scope(), field).map_err(|error| error.to_string())?;
        standard_webhooks::key(&secret).map_err(|error| error.to_string())
    };
    endpoint.secrets.iter().map(key).collect()
}

/// The headers of one attempt, signed with every live key.
pub(super) fn headers(
    keys: &[SigningKey],
    id: &str,
    unix_seconds: u64,
    body: &[u8],
) -> Result<HeaderMap, String> {
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| "a header has no printable value");
    Ok(HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (ACCEPT, HeaderValue::from_static("*/*")),
        (USER_AGENT, HeaderValue::from_static(OUR_NAME)),
        (WEBHOOK_ID, value(id)?),
        (WEBHOOK_TIMESTAMP, HeaderValue::from(unix_seconds)),
        (WEBHOOK_SIGNATURE, value(&standard_webhooks::sign(keys, id, unix_seconds, body))?),
    ]))
}

/// What an answer means: customers mend their 4xx by a deployment, so most of them are tried again.
pub(super) fn outcome(status: StatusCode, after: Option<Duration>) -> Outcome {
    let reason = format!("answered {}", status.as_u16());
    match status.as_u16() {
        200..=299 => Outcome::Done,
        410 => Outcome::Final { reason: "endpoint is gone (410)".to_owned() },
        413 | 415 => Outcome::Final { reason },
        _ => Outcome::Retry { reason, after },
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
            wants(&patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>(), name)
        };
        assert!(wants(&[], "flow.started") && wants(&["*"], "flow.started"));
        assert!(wants(&["message.*"], "message.read") && !wants(&["message.*"], "flow.started"));
        assert!(wants(&["flow.started", "message.read"], "message.read"));
        assert!(!wants(&["message.read"], "message.received") && !wants(&["message"], "message.read"));
    }

    #[test]
    fn an_endpoint_without_a_usable_secret_says_why() {
        let (master, data) = (VaultKey::generate(), VaultKey::generate());
        let mut snapshot = Snapshot::default();
        let data_key = json!(data.seal_under(&master, "acme")).to_string();
        snapshot.fold("datakey.acme", Some(data_key.as_bytes())).unwrap();
        let weak = data.seal("acme", &Secret::new("whsec_AAAA".to_owned()));
        let foreign = data.seal("globex", &Secret::new("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".to_owned()));
        let tenant = TenantId::new("acme").unwrap();
        for (secrets, words) in
            [(json!([]), "no secret"), (json!([weak]), "24 to 64 bytes"), (json!([foreign]), "does not open")]
        {
            let endpoint = json!({"id": "e", "tenant": "acme", "url": "https://x/", "secrets": secrets});
            snapshot.fold("endpoint.acme.e", Some(endpoint.to_string().as_bytes())).unwrap();
            let targets = targets(&snapshot, &master, &tenant, "message.read");
            let error = targets[0].keys.as_ref().unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert!(has_endpoint(&snapshot, &tenant) && !has_endpoint(&snapshot, &TenantId::unrouted()));
    }

    #[test]
    fn every_status_has_its_meaning() {
        let after = Some(Duration::from_secs(4));
        let meaning = |code| outcome(StatusCode::from_u16(code).unwrap(), after);
        for code in [200, 201, 202, 204] {
            assert_eq!(meaning(code), Outcome::Done, "{code}");
        }
        assert_eq!(meaning(410), Outcome::Final { reason: "endpoint is gone (410)".into() });
        for code in [413, 415] {
            assert_eq!(meaning(code), Outcome::Final { reason: format!("answered {code}") });
        }
        for code in [301, 302, 308, 400, 401, 403, 404, 408, 409, 422, 425, 429, 500, 502, 503, 504] {
            assert_eq!(meaning(code), Outcome::Retry { reason: format!("answered {code}"), after });
        }
    }
}
