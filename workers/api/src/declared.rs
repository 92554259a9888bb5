//! `/v1/tenants`, `/v1/relays` and so on: every kind of declared entity, shown without its secrets and deleted.
//!
//! A key sees and deletes what its reach covers: of its own tenant, of the tenants of its brand, or everything. What only
//! the operator makes, only a key of the platform deletes. Bots and flows, which the API also writes, are shown elsewhere.

use super::App;
use super::auth::{Caller, CanManage, CanRead};
use super::input::{PathOf, QueryOf};
use super::page::{self, Page};
use super::problem::Problem;
use super::revision::{Revised, expected, problem};
use ackline_catalog::part::{self, Part};
use ackline_shared::ids::{EntityId, TenantId};
use ackline_shared::model::{Bot, Entity, Flow, KINDS, Kind};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::openapi::path::Paths;
use utoipa_axum::router::OpenApiRouter;

/// Kinds that the API shows in words of their own.
const SHOWN_ELSEWHERE: [&str; 2] = [Bot::FAMILY, Flow::FAMILY];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    tenant: Option<TenantId>,
    limit: Option<u32>,
    cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whose {
    tenant: Option<TenantId>,
}

/// The path of a kind below `/v1`.
pub fn path(kind: &Kind) -> String {
    format!("/{}", kind.section.replace('_', "-"))
}

/// Adds the paths of every kind.
pub fn routes(router: OpenApiRouter<App>) -> OpenApiRouter<App> {
    KINDS.iter().fold(router, |router, kind| {
        let one = format!("{}/{{id}}", path(kind));
        let deletes = delete(move |app, caller, id, whose, headers| {
            remove(kind, app, caller, id, whose, headers)
        });
        let router = router.routes((
            Vec::new(),
            described(&one, json!({"delete": delete_operation(kind)})),
            deletes,
        ));
        if SHOWN_ELSEWHERE.contains(&kind.family) {
            return router;
        }
        let shows = get(move |app, caller, id, whose| show(kind, app, caller, id, whose));
        let lists = get(move |app, caller, query| list(kind, app, caller, query));
        router
            .routes((
                Vec::new(),
                described(&path(kind), json!({"get": list_operation(kind)})),
                lists,
            ))
            .routes((
                Vec::new(),
                described(&one, json!({"get": get_operation(kind)})),
                shows,
            ))
    })
}

async fn list(
    kind: &'static Kind,
    State(app): State<App>,
    CanRead(caller): CanRead,
    QueryOf(query): QueryOf<Listed>,
) -> Result<Json<Page<Value>>, Problem> {
    let snapshot = app.platform.snapshot();
    let bound = page::bound(query.limit)?;
    if let Some(tenant) = &query.tenant
        && !caller.reaches(&snapshot, tenant)
    {
        return Err(Problem::NotFound("tenant"));
    }
    let tenant = query
        .tenant
        .or_else(|| kind.is_owned.then(|| caller.tenant.clone()));
    let prefix = match &tenant {
        Some(tenant) if kind.is_owned => format!("{}.{tenant}.", kind.family),
        _ => format!("{}.", kind.family),
    };
    let after = page::decode_text(query.cursor.as_deref())?;
    let after = after
        .filter(|key| key.starts_with(&prefix))
        .unwrap_or_else(|| prefix.clone());
    let all = snapshot.after(&after).map(|held| (held.key(), held));
    let wanted = all
        .take_while(|(key, _)| key.starts_with(&prefix))
        .filter(|(_, held)| {
            sees(&app, &caller, held.tenant())
                && (tenant.is_none() || held.tenant() == tenant.as_ref())
        });
    let (mut items, mut bytes, mut last) = (Vec::new(), 0, None::<String>);
    for (key, held) in wanted {
        let is_full = bytes > bound.bytes || items.len() >= bound.items as usize;
        if is_full && last.is_some() {
            let next_cursor = last.as_deref().map(page::encode);
            return Ok(Json(Page { items, next_cursor }));
        }
        bytes += usize::try_from(held.stored_bytes()).unwrap_or(usize::MAX);
        items.push(shown(kind, &caller, held.fields()));
        last = Some(key);
    }
    let next_cursor = None;
    Ok(Json(Page { items, next_cursor }))
}

async fn show(
    kind: &'static Kind,
    State(app): State<App>,
    CanRead(caller): CanRead,
    PathOf(id): PathOf<EntityId>,
    QueryOf(whose): QueryOf<Whose>,
) -> Result<Response, Problem> {
    app.reach_log()?;
    let key = key(&app, &caller, kind, whose.tenant, &id)?;
    let found = app.catalog.entry(&key).await.map_err(problem(kind.noun))?;
    let found = found.ok_or(Problem::NotFound(kind.noun))?;
    let part = match Part::read(&key, &found.value) {
        Some(Ok(part)) => part,
        _ => return Err(Problem::Internal),
    };
    if !sees(&app, &caller, part.owner()) {
        return Err(Problem::NotFound(kind.noun));
    }
    let revised = Revised {
        value: shown(kind, &caller, part.held().fields()),
        revision: found.revision,
        is_new: false,
    };
    Ok(revised.into_response())
}

async fn remove(
    kind: &'static Kind,
    State(app): State<App>,
    CanManage(caller): CanManage,
    PathOf(id): PathOf<EntityId>,
    QueryOf(whose): QueryOf<Whose>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let expected = expected(&headers)?;
    if kind.is_operators {
        caller.of_platform()?;
    }
    app.reach_log()?;
    // As values a flow takes many times its bytes.
    let _slot = app.slots.enter(&caller.tenant).await?;
    let key = key(&app, &caller, kind, whose.tenant, &id)?;
    let found = app.catalog.entry(&key).await.map_err(problem(kind.noun))?;
    let part = found
        .as_ref()
        .and_then(|found| Part::read(&key, &found.value)?.ok());
    match (&found, &part) {
        (Some(_), Some(Part::ApiKey(other))) if !caller.has_reach(other.reach) => {
            return Err(Problem::PlatformOnly);
        }
        (Some(_), Some(part)) if !sees(&app, &caller, part.owner()) => {
            return Err(Problem::NotFound(kind.noun));
        }
        // Whose it is cannot be read.
        (Some(_), None) if !kind.is_owned && !caller.is_platform() => {
            return Err(Problem::NotFound(kind.noun));
        }
        _ => {}
    }
    let deleted = app
        .catalog
        .delete(&key, found, expected, app.platform.master())
        .await;
    deleted.map_err(problem(kind.noun))?;
    let by = format!("key:{}/{}", caller.tenant, caller.key);
    tracing::info!(key, by, "a declared entity is deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// The key of what is asked for; whose tenant a caller does not reach, it does not know of.
fn key(
    app: &App,
    caller: &Caller,
    kind: &Kind,
    tenant: Option<TenantId>,
    id: &EntityId,
) -> Result<String, Problem> {
    let tenant = match tenant {
        Some(_) if !kind.is_owned => {
            let words = "tenant: is not for this kind; its id is enough";
            return Err(Problem::Malformed(words.to_owned()));
        }
        Some(tenant) if !sees(app, caller, Some(&tenant)) => {
            return Err(Problem::NotFound(kind.noun));
        }
        None if kind.is_owned => Some(caller.tenant.clone()),
        tenant => tenant,
    };
    let key = kind.key(tenant.as_ref(), id.as_str());
    key.ok_or(Problem::NotFound(kind.noun))
}

/// Whether a caller knows of what somebody owns.
fn sees(app: &App, caller: &Caller, owner: Option<&TenantId>) -> bool {
    match owner {
        Some(tenant) => caller.reaches(&app.platform.snapshot(), tenant),
        None => caller.is_platform(),
    }
}

/// The fields of an entity as a caller may see them.
fn shown(kind: &Kind, caller: &Caller, fields: Value) -> Value {
    let mut fields = part::masked(kind, fields);
    if let (Some(fields), false) = (fields.as_object_mut(), caller.is_platform()) {
        fields.retain(|name, _| !kind.operators_fields.contains(&name.as_str()));
    }
    fields
}

fn list_operation(kind: &Kind) -> Value {
    let name = format!("list{}", pascal(kind.section));
    let mut parameters = vec![tenant_parameter(
        "Whose; another than the key's own where its reach covers it.",
    )];
    parameters.push(parameter(
        "limit",
        "query",
        "Most items on the page.",
        "integer",
    ));
    parameters.push(parameter(
        "cursor",
        "query",
        "The `next_cursor` of the page before.",
        "string",
    ));
    let page = json!({"type": "object", "required": ["items"], "properties": {
        "items": {"type": "array", "items": entity_schema(kind)},
        "next_cursor": {"type": ["string", "null"]},
    }});
    let what = format!(
        "Lists {}, without their secrets.",
        kind.section.replace('_', " ")
    );
    operation(
        kind,
        &name,
        &what,
        parameters,
        json!({"200": answer("One page.", &page)}),
    )
}

fn get_operation(kind: &Kind) -> Value {
    let name = format!("get{}", pascal(kind.noun));
    let what = format!(
        "Reads the {}, without its secrets; its ETag is what a deletion is matched against.",
        kind.noun
    );
    let found = json!({
        "description": format!("The {}.", kind.noun),
        "headers": {"ETag": {"schema": {"type": "string"}, "description": "Its revision."}},
        "content": {"application/json": {"schema": entity_schema(kind)}},
    });
    let answers = json!({"200": found, "404": refusal(&format!("No such {}.", kind.noun))});
    operation(kind, &name, &what, one_parameters(kind), answers)
}

fn delete_operation(kind: &Kind) -> Value {
    let name = format!("delete{}", pascal(kind.noun));
    let by = if kind.is_operators {
        "; the key needs `reach = \"platform\"`"
    } else {
        ""
    };
    let what = format!("Deletes the {}, when nothing refers to it{by}.", kind.noun);
    let mut parameters = one_parameters(kind);
    parameters.push(parameter(
        "If-Match",
        "header",
        "The ETag it must still have.",
        "string",
    ));
    let answers = json!({
        "204": {"description": "Deleted."},
        "404": refusal(&format!("No such {}.", kind.noun)),
        "409": refusal("It is used; `detail` names by what."),
        "412": refusal("It is not as expected."),
    });
    operation(kind, &name, &what, parameters, answers)
}

fn one_parameters(kind: &Kind) -> Vec<Value> {
    let id = json!({"name": "id", "in": "path", "description": format!("The {}.", kind.noun),
        "required": true, "schema": {"type": "string"}});
    let whose =
        tenant_parameter("Whose it is; another than the key's own where its reach covers it.");
    [id].into_iter()
        .chain(kind.is_owned.then_some(whose))
        .collect()
}

fn tenant_parameter(description: &str) -> Value {
    parameter("tenant", "query", description, "string")
}

fn parameter(name: &str, place: &str, description: &str, kind: &str) -> Value {
    json!({"name": name, "in": place, "description": description, "required": false, "schema": {"type": kind}})
}

fn entity_schema(kind: &Kind) -> Value {
    let what = format!(
        "The fields of `[[{}]]` in a document; a secret is shown as `[secret]`.",
        kind.section
    );
    json!({"type": "object", "description": what, "additionalProperties": true})
}

fn answer(description: &str, schema: &Value) -> Value {
    json!({"description": description, "content": {"application/json": {"schema": schema}}})
}

fn refusal(description: &str) -> Value {
    let schema = json!({"$ref": "#/components/schemas/ProblemBody"});
    json!({"description": description, "content": {"application/problem+json": {"schema": schema}}})
}

fn operation(kind: &Kind, name: &str, what: &str, parameters: Vec<Value>, answers: Value) -> Value {
    json!({"tags": [kind.section.replace('_', "-")], "summary": what, "operationId": name,
        "parameters": parameters, "responses": answers})
}

/// The description of a path; the golden document shows that each is there.
fn described(path: &str, operations: Value) -> Paths {
    let paths = Map::from_iter([(path.to_owned(), operations)]);
    serde_json::from_value(Value::Object(paths)).unwrap_or_default()
}

fn pascal(words: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    words.split(['_', ' ']).map(word).collect()
}
