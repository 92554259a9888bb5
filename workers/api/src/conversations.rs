//! `/v1/conversations`: a tenant's conversations and the messages in them, newest first.

#![allow(
    unused_qualifications,
    reason = "utoipa qualifies the types named in params()"
)]

use super::App;
use super::auth::CanRead;
use super::input::{PathOf, QueryOf};
use super::messages::Message;
use super::page::{self, Page};
use super::problem::{Problem, ProblemBody};
use ackline_replay::time::rfc3339;
use ackline_store::query;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which conversations.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ConversationsQuery {
    /// Where the page begins.
    cursor: Option<String>,
    /// Items on the page, 1 to 200; 50 when absent.
    limit: Option<u32>,
    /// Only those with this business number.
    phone_number_id: Option<String>,
}

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Where the page begins.
    cursor: Option<String>,
    /// Items on the page, 1 to 200; 50 when absent.
    limit: Option<u32>,
}

/// A conversation of one person or group with one business number.
#[derive(Debug, Serialize, ToSchema)]
pub struct Conversation {
    /// Its id.
    id: String,
    /// The business number.
    phone_number_id: String,
    /// The person's business-scoped user id.
    user_id: Option<String>,
    /// The person's phone number without `+`.
    phone: Option<String>,
    /// The group, when it is one.
    group_id: Option<String>,
    /// The name in the person's profile.
    name: Option<String>,
    /// When the newest message was written; nothing while there is none, in a conversation that only events tell of.
    last_message_at: Option<String>,
    /// The beginning of its text.
    last_text: String,
    /// `in` or `out`; empty while there is no message.
    last_direction: String,
    /// Messages from the person.
    incoming: u64,
    /// Messages to the person.
    outgoing: u64,
}

impl From<query::Conversation> for Conversation {
    fn from(stored: query::Conversation) -> Self {
        Self {
            id: stored.id,
            phone_number_id: stored.phone_number_id,
            user_id: stored.user_id,
            phone: stored.phone,
            group_id: stored.group_id,
            name: stored.name,
            last_message_at: (stored.last_ms > 0).then(|| rfc3339(stored.last_ms)),
            last_text: stored.last_text,
            last_direction: stored.last_direction,
            incoming: stored.incoming,
            outgoing: stored.outgoing,
        }
    }
}

/// Lists conversations, the most recently active first.
#[utoipa::path(
    get, path = "/conversations", tag = "conversations", operation_id = "listConversations", params(ConversationsQuery),
    responses(
        (status = 200, description = "A page.", body = Page<Conversation>),
        (status = 503, description = "The read model cannot be read.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn list(
    State(app): State<App>,
    CanRead(caller): CanRead,
    QueryOf(query): QueryOf<ConversationsQuery>,
) -> Result<Json<Page<Conversation>>, Problem> {
    let bound = page::bound(query.limit)?;
    let after = page::decode(query.cursor.as_deref())?;
    let after = after.as_ref().map(|(ms, id)| (*ms, id.as_str()));
    let rows = app
        .journal
        .conversations(
            caller.tenant.as_str(),
            query.phone_number_id.as_deref(),
            after,
            bound,
        )
        .await
        .map_err(super::journal_away)?;
    Ok(Json(Page::new(
        rows,
        |last| format!("{}:{}", last.last_ms, last.id),
        Conversation::from,
    )))
}

/// Lists the messages of a conversation, the newest first; within one second, the last stored first.
#[utoipa::path(
    get, path = "/conversations/{id}/messages", tag = "conversations", operation_id = "listMessages",
    params(("id" = String, Path, description = "The conversation, by its id or by the `conversation_id` of an event."), PageQuery),
    responses(
        (status = 200, description = "A page.", body = Page<Message>),
        (status = 404, description = "No such conversation.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The read model cannot be read.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn messages(
    State(app): State<App>,
    CanRead(caller): CanRead,
    PathOf(id): PathOf<String>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<Page<Message>>, Problem> {
    let bound = page::bound(query.limit)?;
    let after = match page::decode(query.cursor.as_deref())? {
        Some((ms, sequence)) => {
            let sequence = sequence
                .parse()
                .map_err(|_| Problem::Malformed("cursor: is of another list".to_owned()))?;
            Some((ms, sequence))
        }
        None => None,
    };
    let tenant = caller.tenant.as_str();
    let id = app
        .journal
        .conversation_id(tenant, &id)
        .await
        .map_err(super::journal_away)?;
    let id = id.ok_or(Problem::NotFound("conversation"))?;
    let _slot = app.slots.enter(&caller.tenant).await?;
    let rows = app
        .journal
        .messages(tenant, &id, after, bound)
        .await
        .map_err(super::journal_away)?;
    Ok(Json(Page::new(
        rows,
        |last| format!("{}:{}", last.created_ms, last.sequence),
        Message::from,
    )))
}
