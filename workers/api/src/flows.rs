//! `/v1/flows`: the definitions bots run. A definition is stored only when the engine takes it.

use super::App;
use super::auth::{CanManage, CanRead};
use super::input::{JsonBody, PathOf};
use super::page::Page;
use super::problem::{Mistake, Problem, ProblemBody};
use super::revision;
use ackline_catalog::check;
use ackline_shared::ids::EntityId;
use ackline_shared::model;
use ackline_shared::registry::Snapshot;
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// What a flow is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FlowBody {
    /// Its id as `GET` shows it; that of the path when missing.
    #[serde(default)]
    id: Option<String>,
    /// The definition, format 1.
    #[schema(value_type = Value)]
    definition: Box<RawValue>,
    /// As `GET` shows them; passed over, for they are found anew.
    #[serde(default)]
    #[allow(dead_code, reason = "only so that what GET shows can be put back")]
    warnings: Option<Vec<Value>>,
}

/// A flow.
#[derive(Debug, Serialize, ToSchema)]
pub struct Flow {
    /// Its id.
    #[schema(value_type = String)]
    id: EntityId,
    /// The definition, format 1.
    definition: Value,
    /// What an author should look at, though the flow runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Mistake>,
}

/// A flow in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct FlowSummary {
    /// Its id.
    #[schema(value_type = String)]
    id: EntityId,
    /// Its name, when the definition has one.
    name: Option<String>,
}

/// Lists the tenant's flows.
#[utoipa::path(get, path = "/flows", tag = "flows", operation_id = "listFlows",
    responses((status = 200, description = "All of them.", body = Page<FlowSummary>)))]
pub async fn list(State(app): State<App>, CanRead(caller): CanRead) -> Json<Page<FlowSummary>> {
    let snapshot = app.platform.snapshot();
    let items = Snapshot::owned(&snapshot.flows, "flow", &caller.tenant).map(|flow| FlowSummary {
        id: flow.id.clone(),
        name: flow.name.clone(),
    });
    Json(Page {
        items: items.collect(),
        next_cursor: None,
    })
}

/// Reads a flow; its ETag is what a change is matched against.
#[utoipa::path(get, path = "/flows/{id}", tag = "flows", operation_id = "getFlow",
    params(("id" = String, Path, description = "The flow.")),
    responses(
        (status = 200, description = "The flow.", body = Flow, headers(("ETag" = String, description = "Its revision."))),
        (status = 404, description = "No such flow.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn get(
    State(app): State<App>,
    CanRead(caller): CanRead,
    PathOf(id): PathOf<EntityId>,
) -> Result<Response, Problem> {
    let _slot = app.slots.enter(&caller.tenant).await?;
    let found = revision::load::<model::Flow>(&app, &caller.tenant, &id).await?;
    let show = |flow: model::Flow| {
        let warnings = check::definition(&flow.definition);
        Flow {
            id: flow.id,
            definition: flow.definition,
            warnings: warnings.into_iter().map(Mistake::from).collect(),
        }
    };
    Ok(found.map(show).into_response())
}

/// Makes or changes a flow; a definition the engine would not run is refused with all of its problems.
#[utoipa::path(put, path = "/flows/{id}", tag = "flows", operation_id = "putFlow", request_body = FlowBody,
    params(
        ("id" = String, Path, description = "The flow."),
        ("If-Match" = Option<String>, Header, description = "The ETag it must still have."),
        ("If-None-Match" = Option<String>, Header, description = "`*`: there must be none yet."),
    ),
    responses(
        (status = 200, description = "Changed.", body = Flow, headers(("ETag" = String, description = "Its revision."))),
        (status = 201, description = "Made.", body = Flow, headers(("ETag" = String, description = "Its revision."))),
        (status = 412, description = "It is not as expected.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "The definition is refused.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn put(
    State(app): State<App>,
    CanManage(caller): CanManage,
    PathOf(id): PathOf<EntityId>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<FlowBody>,
) -> Result<Response, Problem> {
    let expected = revision::expected(&headers)?;
    revision::check_id(&id, body.id.as_deref())?;
    // As values a definition takes many times its bytes.
    let _slot = app.slots.enter(&caller.tenant).await?;
    let definition: Value = serde_json::from_str(body.definition.get())
        .map_err(|error| Problem::invalid("/definition", error.to_string()))?;
    let flow = model::Flow {
        id,
        tenant: caller.tenant.clone(),
        definition,
    };
    let (saved, warnings) = revision::save(&app, flow, expected).await?;
    let show = |flow: model::Flow| Flow {
        id: flow.id,
        definition: flow.definition,
        warnings,
    };
    Ok(saved.map(show).into_response())
}
