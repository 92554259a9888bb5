//! `/v1/bots`: which flows answer on which numbers.

use super::App;
use super::auth::{CanManage, CanRead};
use super::input::{JsonBody, PathOf};
use super::page::Page;
use super::problem::{Problem, ProblemBody};
use super::revision;
use ackline_shared::ids::{EntityId, PhoneNumberId};
use ackline_shared::model;
use ackline_shared::registry::Snapshot;
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a bot is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BotBody {
    /// Its id as `GET` shows it; that of the path when missing.
    #[serde(default)]
    id: Option<String>,
    /// Its name as people see it.
    #[serde(default)]
    name: String,
    /// The numbers it answers on; empty means all of the tenant's.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    phone_numbers: Vec<PhoneNumberId>,
    /// Its flows; which one starts is decided by their triggers, the first wins a tie.
    #[schema(value_type = Vec<String>)]
    flows: Vec<EntityId>,
    /// Whether it answers.
    #[serde(default = "enabled")]
    enabled: bool,
}

fn enabled() -> bool {
    true
}

/// A bot.
#[derive(Debug, Serialize, ToSchema)]
pub struct Bot {
    /// Its id.
    #[schema(value_type = String)]
    id: EntityId,
    /// Its name as people see it.
    name: String,
    /// The numbers it answers on; empty means all of the tenant's.
    #[schema(value_type = Vec<String>)]
    phone_numbers: Vec<PhoneNumberId>,
    /// Its flows.
    #[schema(value_type = Vec<String>)]
    flows: Vec<EntityId>,
    /// Whether it answers.
    enabled: bool,
}

impl From<model::Bot> for Bot {
    fn from(bot: model::Bot) -> Self {
        Self {
            id: bot.id,
            name: bot.name,
            phone_numbers: bot.phone_numbers,
            flows: bot.flows,
            enabled: bot.enabled,
        }
    }
}

/// Lists the tenant's bots.
#[utoipa::path(get, path = "/bots", tag = "bots", operation_id = "listBots",
    responses((status = 200, description = "All of them.", body = Page<Bot>)))]
pub async fn list(State(app): State<App>, CanRead(caller): CanRead) -> Json<Page<Bot>> {
    let snapshot = app.platform.snapshot();
    let items = Snapshot::owned(&snapshot.bots, "bot", &caller.tenant);
    Json(Page {
        items: items.map(|bot| model::Bot::clone(bot).into()).collect(),
        next_cursor: None,
    })
}

/// Reads a bot; its ETag is what a change is matched against.
#[utoipa::path(get, path = "/bots/{id}", tag = "bots", operation_id = "getBot",
    params(("id" = String, Path, description = "The bot.")),
    responses(
        (status = 200, description = "The bot.", body = Bot, headers(("ETag" = String, description = "Its revision."))),
        (status = 404, description = "No such bot.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn get(
    State(app): State<App>,
    CanRead(caller): CanRead,
    PathOf(id): PathOf<EntityId>,
) -> Result<Response, Problem> {
    let found = revision::load::<model::Bot>(&app, &caller.tenant, &id).await?;
    Ok(found.map(Bot::from).into_response())
}

/// Makes or changes a bot.
#[utoipa::path(put, path = "/bots/{id}", tag = "bots", operation_id = "putBot", request_body = BotBody,
    params(
        ("id" = String, Path, description = "The bot."),
        ("If-Match" = Option<String>, Header, description = "The ETag it must still have."),
        ("If-None-Match" = Option<String>, Header, description = "`*`: there must be none yet."),
    ),
    responses(
        (status = 200, description = "Changed.", body = Bot, headers(("ETag" = String, description = "Its revision."))),
        (status = 201, description = "Made.", body = Bot, headers(("ETag" = String, description = "Its revision."))),
        (status = 412, description = "It is not as expected.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Not acceptable.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn put(
    State(app): State<App>,
    CanManage(caller): CanManage,
    PathOf(id): PathOf<EntityId>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<BotBody>,
) -> Result<Response, Problem> {
    let expected = revision::expected(&headers)?;
    let BotBody {
        id: given,
        name,
        phone_numbers,
        flows,
        enabled,
    } = body;
    revision::check_id(&id, given.as_deref())?;
    let bot = model::Bot {
        id,
        tenant: caller.tenant.clone(),
        name,
        phone_numbers,
        flows,
        enabled,
    };
    let (saved, _) = revision::save(&app, bot, expected).await?;
    Ok(saved.map(Bot::from).into_response())
}
