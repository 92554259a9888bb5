//! `/v1/dead-letters`: what was given up for a tenant, oldest first, with why and from where.
//!
//! They are read straight from the stream, one direct get a letter, so listing leaves nothing behind there.

#![allow(unused_qualifications, reason = "utoipa qualifies the types named in params()")]

use super::App;
use super::auth::CanRead;
use super::input::QueryOf;
use super::page::{self, Page};
use super::problem::{Problem, ProblemBody};
use super::time::rfc3339;
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::{self, Pool, Subject, header};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::DirectGetErrorKind;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

/// Payload bytes on one page; a page may therefore be shorter than asked for.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// Which dead letters.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DeadLettersQuery {
    /// Only those of this pool: `flows`, `replies`, `relay`, `crm`, `events` or `journal`.
    pool: Option<String>,
    /// Where the page begins.
    cursor: Option<String>,
    /// Items on the page, 1 to 200; 50 when absent.
    limit: Option<u32>,
}

/// Something given up.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetter {
    /// Its place among the dead letters.
    sequence: u64,
    /// The pool that gave it up.
    pool: Option<&'static str>,
    /// Why, in words.
    reason: Option<String>,
    /// How often it was tried.
    attempts: Option<u64>,
    /// When it was given up.
    at: Option<String>,
    /// Stream, sequence and subject it came from.
    origin: Option<String>,
    /// What it was, such as `message.text`.
    kind: Option<String>,
    /// Its other headers.
    headers: BTreeMap<String, String>,
    /// What it held: JSON, or a text when it is none.
    payload: Value,
}

/// Lists dead letters, the oldest first.
#[utoipa::path(
    get, path = "/dead-letters", tag = "dead letters", operation_id = "listDeadLetters", params(DeadLettersQuery),
    responses(
        (status = 200, description = "A page.", body = Page<DeadLetter>),
        (status = 503, description = "The log cannot be reached.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn list(
    State(app): State<App>,
    CanRead(caller): CanRead,
    QueryOf(query): QueryOf<DeadLettersQuery>,
) -> Result<Json<Page<DeadLetter>>, Problem> {
    let limit = page::limit(query.limit)?;
    let pool: Option<Pool> = query
        .pool
        .map(|name| name.parse().map_err(|error| Problem::Malformed(format!("pool: {error}"))))
        .transpose()?;
    let start = page::decode(query.cursor.as_deref())?.map_or(1, |(sequence, _)| sequence.max(1));
    app.reach_log()?;
    let letters = read(&app, pool, &caller.tenant, start, limit).await?;
    Ok(Json(letters))
}

async fn read(
    app: &App,
    pool: Option<Pool>,
    tenant: &TenantId,
    start: u64,
    limit: u32,
) -> Result<Page<DeadLetter>, Problem> {
    let filter = subjects::dead_filter(pool, Some(tenant));
    let stream =
        app.platform.log.context().get_stream_no_info(subjects::DEAD).await.map_err(|error| away(&error))?;
    let (mut items, mut sequence, mut bytes) = (Vec::new(), start, 0);
    let room = usize::try_from(limit).unwrap_or(usize::MAX);
    loop {
        let letter = match stream.direct_get_next_for_subject(filter.clone(), Some(sequence)).await {
            Ok(letter) => letter,
            Err(error) if matches!(error.kind(), DirectGetErrorKind::NotFound) => {
                return Ok(Page { items, next_cursor: None });
            }
            Err(error) => return Err(away(&error)),
        };
        if items.len() >= room || (bytes + letter.payload.len() > PAGE_BYTES_MAX && !items.is_empty()) {
            return Ok(Page { items, next_cursor: Some(page::encode(&format!("{}:", letter.sequence))) });
        }
        (bytes, sequence) = (bytes + letter.payload.len(), letter.sequence + 1);
        items.push(show(&letter));
    }
}

fn away(error: &dyn std::fmt::Display) -> Problem {
    tracing::warn!(%error, "the dead letters cannot be read");
    Problem::NatsAway
}

fn show(letter: &StreamMessage) -> DeadLetter {
    let get = |name: &str| letter.headers.get(name).map(|value| value.as_str().to_owned());
    let shown = [
        header::DEAD_REASON,
        header::DEAD_ATTEMPTS,
        header::DEAD_AT,
        header::DEAD_ORIGIN,
        header::KIND,
        // It vouches for the bytes to us; a reader of the API has no use for it.
        header::SIGNATURE,
    ];
    let others = letter.headers.iter().filter(|(name, _)| !shown.contains(&name.as_ref()));
    let pool = match Subject::parse(&letter.subject) {
        Some(Subject::Dead(pool, _)) => Some(pool.as_str()),
        _ => None,
    };
    DeadLetter {
        sequence: letter.sequence,
        pool,
        reason: get(header::DEAD_REASON),
        attempts: get(header::DEAD_ATTEMPTS).and_then(|text| text.parse().ok()),
        at: get(header::DEAD_AT).and_then(|text| text.parse().ok()).map(rfc3339),
        origin: get(header::DEAD_ORIGIN),
        kind: get(header::KIND),
        headers: others
            .filter_map(|(name, values)| Some((name.to_string(), values.first()?.as_str().to_owned())))
            .filter(|(name, _)| !name.starts_with("Nats-") || name == header::MSG_ID)
            .collect(),
        payload: serde_json::from_slice(&letter.payload)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&letter.payload).into_owned())),
    }
}
