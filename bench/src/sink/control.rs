//! The sink's control API under `/_sink`: its journal, its faults, its secrets, answers of agents.

use super::faults::Fault;
use super::{Answered, Entry, Sink, lock};
use crate::journal::{Ask, Page};
use ackline_shared::secret::Secret;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const PAGE_MAX: usize = 10_000;

type Refusal = (StatusCode, Json<Value>);

/// The routes, to be nested under `/_sink`.
pub fn router() -> Router<Arc<Sink>> {
    Router::new()
        .route("/journal", get(journal).delete(clear_journal))
        .route(
            "/faults",
            get(show_faults).post(add_fault).delete(clear_faults),
        )
        .route("/secrets/{name}", put(set_secrets))
        .route("/chatwoot/answers", post(answer))
        .route("/health", get(health))
}

/// Which entries a reader wants; every part is optional.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JournalQuery {
    /// Only entries with a higher number.
    pub since: u64,
    /// Wait until so many match.
    pub n: usize,
    /// Wait at most this long, in milliseconds.
    pub wait_ms: u64,
    /// Return at most so many.
    pub limit: Option<usize>,
    /// `webhook`, `relay`, `crm`, `order` or `chat`.
    pub kind: Option<String>,
    /// Only webhooks to this name.
    pub name: Option<String>,
    /// Only webhooks that verified, or that did not.
    pub verified: Option<bool>,
    /// Only webhooks with this `webhook-id`.
    pub webhook_id: Option<String>,
}

impl JournalQuery {
    fn matches(&self, entry: &Entry) -> bool {
        let kind = match entry {
            Entry::Webhook(_) => "webhook",
            Entry::Order(_) => "order",
            Entry::Chat(_) => "chat",
            Entry::Relay(_) => "relay",
            Entry::Crm(_) => "crm",
        };
        let webhook_asked =
            self.name.is_some() || self.verified.is_some() || self.webhook_id.is_some();
        let webhook = match entry {
            Entry::Webhook(webhook) => {
                self.name.as_deref().is_none_or(|name| name == webhook.name)
                    && self
                        .verified
                        .is_none_or(|verified| verified == webhook.verified)
                    && (self.webhook_id.is_none() || self.webhook_id == webhook.webhook_id)
            }
            _ => !webhook_asked,
        };
        webhook && self.kind.as_deref().is_none_or(|asked| asked == kind)
    }
}

impl Sink {
    /// Reads the journal, waiting as asked.
    pub async fn read_journal(&self, query: &JournalQuery) -> Page<Entry> {
        let ask = Ask {
            since: query.since,
            // A wait without a count is a wait for anything at all.
            at_least: if query.wait_ms > 0 {
                query.n.max(1)
            } else {
                query.n
            },
            wait: Duration::from_millis(query.wait_ms),
            limit: query.limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX),
        };
        self.journal.read(ask, |entry| query.matches(entry)).await
    }
}

async fn journal(
    State(sink): State<Arc<Sink>>,
    Query(query): Query<JournalQuery>,
) -> Json<Page<Entry>> {
    Json(sink.read_journal(&query).await)
}

async fn clear_journal(State(sink): State<Arc<Sink>>) -> StatusCode {
    sink.journal.clear();
    lock(&sink.taken).clear();
    StatusCode::NO_CONTENT
}

async fn show_faults(State(sink): State<Arc<Sink>>) -> Json<Vec<Fault>> {
    Json(lock(&sink.faults).list().to_vec())
}

async fn add_fault(State(sink): State<Arc<Sink>>, body: Bytes) -> Result<StatusCode, Refusal> {
    sink.add_fault(read(&body)?)
        .map_err(|error| refuse(&error))?;
    Ok(StatusCode::CREATED)
}

async fn clear_faults(State(sink): State<Arc<Sink>>) -> StatusCode {
    lock(&sink.faults).clear();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretsSpec {
    secrets: Vec<String>,
}

async fn set_secrets(
    State(sink): State<Arc<Sink>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let SecretsSpec { secrets } = read(&body)?;
    sink.set_secrets(&name, secrets.into_iter().map(Secret::new).collect());
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerSpec {
    source_id: String,
    content: String,
}

async fn answer(State(sink): State<Arc<Sink>>, body: Bytes) -> Result<Json<Answered>, Refusal> {
    let AnswerSpec { source_id, content } = read(&body)?;
    let answered = sink.agent_answers(&source_id, &content).await;
    answered
        .map(Json)
        .ok_or_else(|| refuse(&"Chatwoot has no conversation with this source_id"))
}

async fn health(State(sink): State<Arc<Sink>>) -> Json<Value> {
    let names: Vec<String> = lock(&sink.secrets).keys().cloned().collect();
    Json(json!({"ok": true, "names": names, "journal_last": sink.journal.last()}))
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| refuse(&error))
}

fn refuse(error: &dyn std::fmt::Display) -> Refusal {
    (
        StatusCode::BAD_REQUEST,
        Json(json!({"error": error.to_string()})),
    )
}
