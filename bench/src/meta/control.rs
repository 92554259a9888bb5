//! The control API under `/_sim`: what a test or a person makes the simulator do, and its journal.
//!
//! | call | does |
//! |---|---|
//! | `POST /messages` | posts one message of a person: an [`IncomingMessage`] and a [`Posting`] in one flat object |
//! | `POST /deliveries` | posts `{"entries": …}` (a [`Batch`]), `{"raw": "…"}` or `{"raw_base64": "…"}`, with a [`Posting`] |
//! | `POST /statuses` | posts `statuses` of `message_id` one after the other, in the order given |
//! | `POST /handovers` | lets a second responder `take`, `pass` or `release` the conversation of a `person` ([`HandoverSpec`]) |
//! | `POST /handshake` | verifies the webhook URL with a GET |
//! | `PUT /webhook` | sends webhooks to `url` from now on |
//! | `GET`, `PUT /ladder` | the statuses that follow a send ([`Ladder`]) |
//! | `GET`, `POST`, `DELETE /rules` | what goes wrong with the next sends ([`Rule`]) |
//! | `GET`, `DELETE /journal` | what happened ([`JournalQuery`]); with `wait_ms`, once `n` entries match |
//! | `GET /conversations/{phone or user id}` | the messages as that person sees them |
//! | `GET /health` | whether it is up, and what is waiting |
//!
//! What is posted is answered 202 with an [`Accepted`]; a mistake is 400, a full queue 503, both with `error`.

use super::compose::{Batch, StatusSpec};
use super::entry::Entry;
use super::incoming::{IncomingMessage, take};
use super::ladder::Ladder;
use super::payload::StatusKind;
use super::routing::HandoverSpec;
use super::rules::Rule;
use super::simulator::{Accepted, Handshake, NotPosted, Posting, Simulator};
use crate::journal::{Ask, Page};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

const BODY_MAX: usize = 16 * 1024 * 1024;
const STATUSES_MAX: usize = 100;
const PAGE_MAX: usize = 10_000;

type Sim = State<Arc<Simulator>>;

/// The routes, to be nested under `/_sim`.
pub fn router() -> Router<Arc<Simulator>> {
    Router::new()
        .route("/messages", post(messages))
        .route("/deliveries", post(deliveries))
        .route("/statuses", post(statuses))
        .route("/handovers", post(handovers))
        .route("/handshake", post(handshake))
        .route("/webhook", put(webhook))
        .route("/ladder", get(show_ladder).put(set_ladder))
        .route("/rules", get(show_rules).post(add_rule).delete(clear_rules))
        .route("/journal", get(journal).delete(clear_journal))
        .route("/conversations/{person}", get(conversation))
        .route("/health", get(health))
        .fallback(async || Refusal(StatusCode::NOT_FOUND, "no such control".to_owned()))
        .layer(DefaultBodyLimit::max(BODY_MAX))
}

struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

impl From<NotPosted> for Refusal {
    fn from(error: NotPosted) -> Self {
        let status = match error {
            NotPosted::Batch(_) | NotPosted::Duplicates => StatusCode::BAD_REQUEST,
            NotPosted::Refused(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, error.to_string())
    }
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        Self(StatusCode::BAD_REQUEST, error.to_string())
    }
}

type Answer<T> = Result<T, Refusal>;

fn read<T: DeserializeOwned>(body: &Bytes) -> Answer<T> {
    Ok(serde_json::from_slice(body)?)
}

fn with_posting<T: DeserializeOwned>(body: &Bytes) -> Answer<(T, Posting)> {
    let mut fields: Map<String, Value> = read(body)?;
    let posting = take(&mut fields, &["signature", "duplicate", "retry"])?;
    Ok((serde_json::from_value(Value::Object(fields))?, posting))
}

async fn messages(State(sim): Sim, body: Bytes) -> Answer<(StatusCode, Json<Accepted>)> {
    let (message, posting) = with_posting::<IncomingMessage>(&body)?;
    Ok((StatusCode::ACCEPTED, Json(sim.receive(message, posting)?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSpec {
    raw: Option<String>,
    raw_base64: Option<String>,
}

async fn deliveries(State(sim): Sim, body: Bytes) -> Answer<(StatusCode, Json<Accepted>)> {
    let (fields, posting) = with_posting::<Map<String, Value>>(&body)?;
    let accepted = if fields.contains_key("entries") {
        sim.deliver(
            &serde_json::from_value::<Batch>(Value::Object(fields))?,
            posting,
        )?
    } else {
        sim.deliver_raw(
            serde_json::from_value::<RawSpec>(Value::Object(fields))?.bytes()?,
            posting,
        )?
    };
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}

impl RawSpec {
    fn bytes(self) -> Answer<Bytes> {
        match (self.raw, self.raw_base64) {
            (Some(text), None) => Ok(Bytes::from(text)),
            (None, Some(text)) => match STANDARD.decode(text) {
                Ok(bytes) => Ok(Bytes::from(bytes)),
                Err(error) => Err(bad_request(format!("raw_base64: {error}"))),
            },
            _ => Err(bad_request("give one of `entries`, `raw` and `raw_base64`")),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusesSpec {
    message_id: String,
    statuses: Vec<StatusKind>,
    to: Option<String>,
    user_id: Option<String>,
    code: Option<u32>,
}

async fn statuses(State(sim): Sim, body: Bytes) -> Answer<(StatusCode, Json<Value>)> {
    let spec: StatusesSpec = read(&body)?;
    if spec.statuses.is_empty() || spec.statuses.len() > STATUSES_MAX {
        return Err(bad_request(format!("give 1 to {STATUSES_MAX} statuses")));
    }
    let status = |status| StatusSpec {
        message_id: spec.message_id.clone(),
        status,
        to: spec.to.clone(),
        user_id: spec.user_id.clone(),
        timestamp: None,
        biz_opaque_callback_data: None,
        code: spec.code,
    };
    let deliveries = sim
        .send_statuses(spec.statuses.iter().map(|kind| status(*kind)).collect())
        .await?;
    Ok((
        StatusCode::ACCEPTED,
        Json(json!({ "deliveries": deliveries })),
    ))
}

async fn handovers(State(sim): Sim, body: Bytes) -> Answer<(StatusCode, Json<Value>)> {
    let accepted = sim.hand_over(&read::<HandoverSpec>(&body)?)?;
    Ok((
        StatusCode::ACCEPTED,
        Json(json!({ "deliveries": accepted.map(|posted| posted.deliveries) })),
    ))
}

async fn handshake(State(sim): Sim) -> Json<Handshake> {
    Json(sim.handshake().await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookSpec {
    url: Option<String>,
}

async fn webhook(State(sim): Sim, body: Bytes) -> Answer<StatusCode> {
    let WebhookSpec { url } = read(&body)?;
    if let Some(url) = &url {
        reqwest::Url::parse(url).map_err(|error| bad_request(format!("url: {error}")))?;
    }
    sim.set_webhook_url(url);
    Ok(StatusCode::NO_CONTENT)
}

async fn show_ladder(State(sim): Sim) -> Json<Ladder> {
    Json(sim.ladder())
}

async fn set_ladder(State(sim): Sim, body: Bytes) -> Answer<Json<Ladder>> {
    sim.set_ladder(read(&body)?);
    Ok(Json(sim.ladder()))
}

async fn show_rules(State(sim): Sim) -> Json<Vec<Rule>> {
    Json(sim.rules().list().to_vec())
}

async fn add_rule(State(sim): Sim, body: Bytes) -> Answer<StatusCode> {
    sim.rules()
        .add(read(&body)?)
        .map_err(|error| bad_request(error.to_string()))?;
    Ok(StatusCode::CREATED)
}

async fn clear_rules(State(sim): Sim) -> StatusCode {
    sim.rules().clear();
    StatusCode::NO_CONTENT
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
    pub kind: Option<String>,
    /// A person's phone number or user id.
    pub conversation: Option<String>,
    pub delivery: Option<u64>,
    /// A message's id: what was posted, called and seen of it.
    pub message_id: Option<String>,
}

impl Simulator {
    /// Reads the journal, waiting as asked.
    pub async fn read_journal(&self, query: &JournalQuery) -> Page<Entry> {
        let conversation = query
            .conversation
            .as_deref()
            .map(|person| self.conversation(person));
        // A wait without a count is a wait for anything at all.
        let at_least = if query.wait_ms > 0 {
            query.n.max(1)
        } else {
            query.n
        };
        let ask = Ask {
            since: query.since,
            at_least,
            wait: Duration::from_millis(query.wait_ms),
            limit: query.limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX),
        };
        let matches = |entry: &Entry| {
            query
                .kind
                .as_deref()
                .is_none_or(|kind| entry.kind() == kind)
                && query
                    .delivery
                    .is_none_or(|delivery| entry.delivery() == Some(delivery))
                && query
                    .message_id
                    .as_deref()
                    .is_none_or(|id| entry.concerns(id))
                && conversation
                    .as_deref()
                    .is_none_or(|person| entry.conversation() == Some(person))
        };
        self.journal().read(ask, matches).await
    }
}

async fn journal(State(sim): Sim, Query(query): Query<JournalQuery>) -> Json<Page<Entry>> {
    Json(sim.read_journal(&query).await)
}

async fn conversation(
    State(sim): Sim,
    Path(person): Path<String>,
    Query(query): Query<JournalQuery>,
) -> Json<Page<Entry>> {
    let kind = Some("message".to_owned());
    Json(
        sim.read_journal(&JournalQuery {
            conversation: Some(person),
            kind,
            ..query
        })
        .await,
    )
}

async fn clear_journal(State(sim): Sim) -> StatusCode {
    sim.journal().clear();
    StatusCode::NO_CONTENT
}

async fn health(State(sim): Sim) -> Json<Value> {
    Json(json!({
        "ok": true, "webhook_url": sim.webhook_url(), "deliveries_pending": sim.pending(),
        "journal_last": sim.journal().last(), "rules_waiting": sim.rules().list().len(),
    }))
}

fn bad_request(error: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, error.into())
}
