//! Receives webhooks: verifies the signature, tells duplicates by id, records, answers.

use super::faults::Planned;
use super::{Entry, ReceivedWebhook, Sink, lock};
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use standardwebhooks::Webhook;
use std::sync::Arc;

const TAKEN_MAX: usize = 1_000_000;

/// What a signature check says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// One of the secrets signed it.
    Verified,
    /// The name has no secret.
    UnknownName,
    /// None did, or a header is missing or too old.
    Refused(String),
}

impl Sink {
    /// Checks a webhook against every secret of a name.
    pub fn verify(&self, name: &str, headers: &HeaderMap, body: &[u8]) -> Verdict {
        let secrets = lock(&self.secrets).get(name).cloned();
        let Some(secrets) = secrets else {
            return Verdict::UnknownName;
        };
        let mut reason = "no usable secret".to_owned();
        for secret in secrets {
            // The crate takes an empty key as valid; a receiver must not.
            let checked = match Webhook::new(secret.expose()) {
                Ok(_) if secret.expose().trim_start_matches("whsec_").is_empty() => continue,
                Ok(webhook) => webhook.verify(body, headers),
                Err(error) => Err(error),
            };
            match checked {
                Ok(()) => return Verdict::Verified,
                Err(error) => reason = error.to_string(),
            }
        }
        Verdict::Refused(reason)
    }

    /// Marks an id as taken; tells whether it was before.
    fn take(&self, name: &str, id: &str, answered_ok: bool) -> bool {
        let key = (name.to_owned(), id.to_owned());
        let mut taken = lock(&self.taken);
        let before = taken.contains(&key);
        if answered_ok && taken.len() < TAKEN_MAX {
            taken.insert(key);
        }
        before
    }
}

pub async fn receive(
    State(sink): State<Arc<Sink>>,
    Path(name): Path<String>,
    Extension(planned): Extension<Planned>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let verdict = sink.verify(&name, &headers, &body);
    let (own, reason) = match &verdict {
        Verdict::Verified => (StatusCode::OK, None),
        Verdict::UnknownName => (
            StatusCode::NOT_FOUND,
            Some("no secret for this name".to_owned()),
        ),
        Verdict::Refused(reason) => (StatusCode::UNAUTHORIZED, Some(reason.clone())),
    };
    let webhook_id = headers
        .get("webhook-id")
        .and_then(|id| id.to_str().ok())
        .map(str::to_owned);
    let status = planned.status(own);
    let verified = verdict == Verdict::Verified;
    let answered_ok = verified && status.is_some_and(|status| (200..300).contains(&status));
    let duplicate = webhook_id
        .as_deref()
        .is_some_and(|id| verified && sink.take(&name, id, answered_ok));
    sink.journal.record(Entry::Webhook(ReceivedWebhook {
        name,
        webhook_id,
        verified,
        reason,
        duplicate,
        status,
        injected: planned.injected(),
        body: serde_json::from_slice(&body).ok(),
        body_bytes: body.len(),
    }));
    own
}
