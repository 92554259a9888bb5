//! `/v1/conversations/{id}` and its `owner`: one conversation, and whose turn it is in it.
//!
//! Sending by the API never asks for the owner; only flows do.

use super::App;
use super::auth::{CanRead, CanSend};
use super::conversations::Conversation;
use super::input::{JsonBody, PathOf};
use super::problem::{Mistake, Problem, ProblemBody};
use ackline_replay::time::rfc3339;
use ackline_runtime::conversation::{self, Event, OwnerError, Owners, Side, Who};
use ackline_shared::clock::now_ms;
use ackline_shared::ids::{ConversationKey, PhoneNumberId, TenantId};
use ackline_store::query;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::time::Duration;
use utoipa::ToSchema;

/// How long a conversation may be somebody's for a while.
const FOR: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 3600);

/// A conversation with its owner.
#[derive(Debug, Serialize, ToSchema)]
pub struct OwnedConversation {
    #[serde(flatten)]
    conversation: Conversation,
    /// Whose turn it is.
    owner: ConversationOwner,
}

/// Whose turn it is in a conversation. Flows answer while it is `bot` or `idle`.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConversationOwner {
    /// `bot`, `person` (an agent of yours), `responder` (another responder at Meta) or `idle` (nobody).
    who: String,
    /// Since when; absent where nobody ever set it.
    since: Option<String>,
    /// Until when, if it ends by itself.
    until: Option<String>,
    /// Who or what set it, in words.
    why: Option<String>,
}

/// Whose turn it shall be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOwner {
    /// Who.
    who: NewWho,
    /// How long, such as `2h`, for `person`; without it until it is set anew or resolved in the CRM.
    #[serde(default, rename = "for")]
    duration: Option<String>,
}

/// Who may be set: another responder at Meta takes a conversation there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NewWho {
    /// Flows.
    Bot,
    /// An agent of yours; flows rest.
    Person,
    /// Nobody; flows answer.
    Idle,
}

impl App {
    /// The owners of conversations.
    pub(super) fn owners(&self) -> Owners {
        Owners::new(self.platform.buckets.sessions.clone())
    }
}

impl ConversationOwner {
    fn new(owner: Option<conversation::Owner>, now_ms: u64) -> Self {
        let Some(owner) = owner else {
            return Self {
                who: Who::Idle.as_str().to_owned(),
                since: None,
                until: None,
                why: None,
            };
        };
        match owner.until_ms.filter(|until| *until <= now_ms) {
            Some(ended) => Self {
                who: Who::Idle.as_str().to_owned(),
                since: Some(rfc3339(ended)),
                until: None,
                why: Some(format!("its time as {} ended", owner.who.as_str())),
            },
            None => Self {
                who: owner.who.as_str().to_owned(),
                since: Some(rfc3339(owner.since_ms)),
                until: owner.until_ms.map(rfc3339),
                why: Some(owner.why),
            },
        }
    }
}

/// Reads a conversation.
#[utoipa::path(
    get, path = "/conversations/{id}", tag = "conversations", operation_id = "getConversation",
    params(("id" = String, Path, description = "The conversation, by its id or by the `conversation_id` of an event.")),
    responses(
        (status = 200, description = "The conversation and whose turn it is.", body = OwnedConversation),
        (status = 404, description = "No such conversation.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The read model or the log cannot be read.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn get(
    State(app): State<App>,
    CanRead(caller): CanRead,
    PathOf(id): PathOf<String>,
) -> Result<Json<OwnedConversation>, Problem> {
    let found = find(&app, &caller.tenant, &id).await?;
    app.reach_log()?;
    let (number, key) = place(&found)?;
    let side = Side::new(&caller.tenant, &number, key, found.phone.as_deref());
    let owner = app.owners().get(&side).await.map_err(problem)?;
    let owner = ConversationOwner::new(owner, now_ms());
    Ok(Json(OwnedConversation {
        conversation: found.into(),
        owner,
    }))
}

/// Sets whose turn it is in a conversation; messages sent by the API go out whoever it is.
#[utoipa::path(
    put, path = "/conversations/{id}/owner", tag = "conversations", operation_id = "setOwner", request_body = NewOwner,
    params(("id" = String, Path, description = "The conversation, by its id or by the `conversation_id` of an event.")),
    responses(
        (status = 200, description = "It is set.", body = ConversationOwner),
        (status = 404, description = "No such conversation.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Not acceptable, `errors` lists why.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The read model or the log cannot be reached.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn set(
    State(app): State<App>,
    CanSend(caller): CanSend,
    PathOf(id): PathOf<String>,
    JsonBody(body): JsonBody<NewOwner>,
) -> Result<Json<ConversationOwner>, Problem> {
    let now_ms = now_ms();
    let until_ms = until_ms(&body, now_ms).map_err(|mistake| Problem::Invalid(vec![mistake]))?;
    let found = find(&app, &caller.tenant, &id).await?;
    app.reach_log()?;
    let who = match body.who {
        NewWho::Bot => Who::Bot,
        NewWho::Person => Who::Person,
        NewWho::Idle => Who::Idle,
    };
    let (number, key) = place(&found)?;
    let side = Side::new(&caller.tenant, &number, key, found.phone.as_deref());
    let event = Event::Set {
        who,
        until_ms,
        key: caller.key.to_string(),
    };
    let owner = app
        .owners()
        .report(&side, &event, now_ms)
        .await
        .map_err(problem)?;
    Ok(Json(ConversationOwner::new(owner, now_ms)))
}

fn until_ms(body: &NewOwner, now_ms: u64) -> Result<Option<u64>, Mistake> {
    let Some(text) = &body.duration else {
        return Ok(None);
    };
    if body.who != NewWho::Person {
        return Err(Mistake::new(
            "/for",
            "only a person has a conversation for a while",
        ));
    }
    let parsed = humantime::parse_duration(text)
        .ok()
        .filter(|duration| FOR.contains(duration));
    let duration =
        parsed.ok_or_else(|| Mistake::new("/for", "expected a duration from \"1s\" to \"30d\""))?;
    Ok(Some(now_ms.saturating_add(
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
    )))
}

async fn find(app: &App, tenant: &TenantId, id: &str) -> Result<query::Conversation, Problem> {
    let found = app
        .journal
        .conversation(tenant.as_str(), id)
        .await
        .map_err(super::journal_away)?;
    found.ok_or(Problem::NotFound("conversation"))
}

/// The number of a conversation, and the key that its messages have.
fn place(found: &query::Conversation) -> Result<(PhoneNumberId, ConversationKey), Problem> {
    let number = PhoneNumberId::new(found.phone_number_id.as_str())
        .map_err(|_| Problem::NotFound("conversation"))?;
    let group = found.group_id.as_deref().map(ConversationKey::group);
    let user = || found.user_id.as_deref().map(ConversationKey::user);
    let phone = || found.phone.as_deref().map(ConversationKey::phone);
    Ok((
        number,
        group
            .or_else(user)
            .or_else(phone)
            .unwrap_or_else(ConversationKey::none),
    ))
}

fn problem(error: OwnerError) -> Problem {
    tracing::warn!(%error, "the owner of a conversation is not told");
    match error {
        OwnerError::Away { .. } => Problem::NatsAway,
        OwnerError::Newer => Problem::Internal,
    }
}
