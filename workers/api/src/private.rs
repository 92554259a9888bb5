//! The private listener: `/livez`, `/readyz` and `/metrics`, for whoever runs the process and nobody else.

use ackline_fleet::board::Board;
use ackline_fleet::diagnosis::seconds;
use ackline_ownership::standing::Standing;
use ackline_replay::time::rfc3339;
use ackline_runtime::platform::Platform;
use ackline_runtime::upkeep::Upkeep;
use ackline_shared::subjects::Pool;
use ackline_shared::surroundings::Surroundings;
use ackline_store::Journal;
use async_nats::connection::State as Connection;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const JOURNAL_WAIT: Duration = Duration::from_secs(1);

/// What the private listener reports on.
#[derive(Clone)]
pub struct PrivateState {
    pub platform: Platform,
    /// The read model, when this process uses it.
    pub journal: Option<Journal>,
    /// Where the pools of the process stand.
    pub standing: Standing,
    /// What they say of themselves.
    pub board: Board,
    /// What it needs of the machine and of NATS.
    pub surroundings: Arc<Surroundings>,
    /// All metrics of the process.
    pub metrics: Arc<Registry>,
    /// Whether JetStream's streams are there.
    pub upkeep: Upkeep,
    /// Entries of the configuration that do not parse, set when read.
    pub unreadable: Gauge,
}

/// Makes the gauge of entries that do not parse.
pub fn register_unreadable(registry: &mut Registry) -> Gauge {
    let gauge = Gauge::default();
    let help = "Entries of the configuration that do not parse and have no effect, or the one they had before";
    registry.register(
        "ackline_configuration_entries_unreadable",
        help,
        gauge.clone(),
    );
    gauge
}

pub fn build_private(state: PrivateState) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(state)
}

/// Ready means: NATS is connected and has the streams, the configuration was read, and every pool works or stands by and
/// has nothing that is stuck. The read model may be away; queries say so. Warnings, such as of a disk that is nearly
/// full, change nothing.
async fn ready(State(state): State<PrivateState>) -> Response {
    let is_connected =
        state.platform.log.context().client().connection_state() == Connection::Connected;
    let is_loaded = state.platform.registry.is_loaded();
    let journal = match &state.journal {
        Some(journal) => Some(
            timeout(JOURNAL_WAIT, journal.is_readable())
                .await
                .unwrap_or(false),
        ),
        None => None,
    };
    let lacks = match &state.journal {
        Some(journal) => timeout(JOURNAL_WAIT, journal.lacks_before())
            .await
            .ok()
            .and_then(Result::ok)
            .flatten(),
        None => None,
    };
    let warnings = state
        .surroundings
        .warnings()
        .into_iter()
        .map(|warning| warning.text);
    let warnings: Vec<String> = warnings.chain(lacks.map(lack)).collect();
    let pools = state.standing.all();
    let stuck: Vec<String> = pools
        .keys()
        .flat_map(|pool| stuck(&state.board, *pool))
        .collect();
    let is_settled = pools.values().all(|state| state.is_settled());
    let is_lost = state.upkeep.is_lost();
    let is_ready = is_connected && !is_lost && is_loaded && is_settled && stuck.is_empty();
    let pools: BTreeMap<&str, &str> = pools
        .into_iter()
        .map(|(pool, state)| (pool.as_str(), state.as_str()))
        .collect();
    let body = json!({
        "ready": is_ready,
        "nats": if is_connected { "connected" } else { "away" },
        "max_payload": state.surroundings.message_bytes_max(),
        "warnings": warnings,
        "streams": state.upkeep.words(),
        "pools": pools,
        "stuck": stuck,
        "configuration": if is_loaded { "loaded" } else { "not yet read" },
        "unreadable": state.platform.snapshot().unreadable.keys().collect::<Vec<_>>(),
        "journal": journal.map_or("not used", |is_readable| if is_readable { "readable" } else { "away" }),
        "journal_fault": state.journal.as_ref().and_then(Journal::fault),
    });
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(body)).into_response()
}

fn lack(before_ms: u64) -> String {
    let before = rfc3339(before_ms);
    format!(
        "the read model lacks what was written before {before}, when its file was gone and a new one was begun; run `ackline journal rebuild`, which writes what the log still holds"
    )
}

fn stuck(board: &Board, pool: Pool) -> Vec<String> {
    let stuck = board.activity(pool).stuck();
    stuck
        .iter()
        .map(|stuck| format!("{pool}, {stuck}, for {}", seconds(stuck.since())))
        .collect()
}

async fn metrics(State(state): State<PrivateState>) -> Response {
    let mut text = String::new();
    let unreadable = state.platform.snapshot().unreadable.len();
    state
        .unreadable
        .set(i64::try_from(unreadable).unwrap_or(i64::MAX));
    match encode(&mut text, &state.metrics) {
        Ok(()) => {
            let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, media)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
