//! `/v1/usage`: how much of what it may declare the tenant uses.

use super::App;
use super::auth::CanRead;
use ackline_catalog::quota::Used;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What the tenant declares, and what it may.
#[derive(Debug, Serialize, ToSchema)]
pub struct Usage {
    /// By kind: `flows`, `bots`, `relays`, `endpoints`, `crm_links`, `api_keys`, `phone_numbers`, and `bytes` of all together.
    declared: BTreeMap<&'static str, Used>,
}

/// Tells how much of what it may declare the tenant uses.
#[utoipa::path(get, path = "/usage", tag = "usage", operation_id = "getUsage",
    responses((status = 200, description = "Used and limit of each kind.", body = Usage)))]
pub async fn get(State(app): State<App>, CanRead(caller): CanRead) -> Json<Usage> {
    Json(Usage {
        declared: app
            .limits
            .used(&app.platform.snapshot().sizes(&caller.tenant)),
    })
}
