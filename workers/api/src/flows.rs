//! `/v1/flows`: the definitions bots run. A definition is stored only when the engine takes it.

use super::App;
use super::auth::{CanManage, CanRead};
use super::input::{JsonBody, PathOf};
use super::page::Page;
use super::problem::{Mistake, Problem, ProblemBody};
use super::revision::{self, Expectation};
use ackline_flow::{Compiled, report};
use ackline_shared::ids::EntityId;
use ackline_shared::model;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::config_key;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// What a flow is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FlowBody {
    /// The definition, format 1.
    #[schema(value_type = Value)]
    definition: Box<RawValue>,
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
    let found =
        revision::load::<model::Flow>(&app, &config_key::owned("flow", &caller.tenant, &id))
            .await?;
    let show = |flow: model::Flow| {
        let warnings = check(&flow.definition).unwrap_or_else(|mistakes| mistakes);
        Flow {
            id: flow.id,
            definition: flow.definition,
            warnings,
        }
    };
    Ok(found
        .ok_or(Problem::NotFound("flow"))?
        .map(show)
        .into_response())
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
    let expected = Expectation::read(&headers)?;
    // As values a definition takes many times its bytes.
    let _slot = app.slots.enter(&caller.tenant).await?;
    let definition: Value = serde_json::from_str(body.definition.get())
        .map_err(|error| Problem::invalid("/definition", error.to_string()))?;
    let warnings = check(&definition).map_err(Problem::Invalid)?;
    let flow = model::Flow {
        id,
        tenant: caller.tenant.clone(),
        definition,
    };
    let show = |flow: model::Flow| Flow {
        id: flow.id,
        definition: flow.definition,
        warnings,
    };
    Ok(revision::save(&app, &caller.tenant, flow, expected)
        .await?
        .map(show)
        .into_response())
}

/// Deletes a flow that no bot uses.
#[utoipa::path(delete, path = "/flows/{id}", tag = "flows", operation_id = "deleteFlow",
    params(
        ("id" = String, Path, description = "The flow."),
        ("If-Match" = Option<String>, Header, description = "The ETag it must still have."),
    ),
    responses(
        (status = 204, description = "Deleted."),
        (status = 404, description = "No such flow.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "Bots use it; `detail` names them.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "It is not as expected.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn delete(
    State(app): State<App>,
    CanManage(caller): CanManage,
    PathOf(id): PathOf<EntityId>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let expected = Expectation::read(&headers)?;
    let bots = revision::all_of::<model::Bot>(&app, "bot", &caller.tenant).await?;
    let users: Vec<_> = bots
        .iter()
        .filter(|bot| bot.flows.contains(&id))
        .map(|bot| bot.id.as_str())
        .collect();
    if !users.is_empty() {
        let named = users.join(", ");
        return Err(Problem::InUse(format!(
            "bots use it: {named}; take it out of these, or delete them, first"
        )));
    }
    let key = config_key::owned("flow", &caller.tenant, &id);
    revision::remove(&app, &caller.tenant, ("flow", &key), expected).await
}

/// Asks the engine: warnings when it takes the definition, problems when it does not.
fn check(definition: &Value) -> Result<Vec<Mistake>, Vec<Mistake>> {
    match Compiled::from_json(definition) {
        Ok(compiled) => Ok(compiled.warnings().iter().map(mistake).collect()),
        Err(report) => Err(report.problems.iter().map(mistake).collect()),
    }
}

fn mistake(problem: &report::Problem) -> Mistake {
    let at = problem.node.as_ref().map_or_else(
        || "/definition".to_owned(),
        |node| {
            format!(
                "/definition/nodes/{}",
                node.replace('~', "~0").replace('/', "~1")
            )
        },
    );
    Mistake {
        at,
        code: Some(problem.code.to_owned()),
        detail: problem.message.clone(),
    }
}
