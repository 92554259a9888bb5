//! `/hooks/…`: where a CRM posts what its agents write and when they are done. An answer of 200 means that the message
//! is stored, and that flows rest in its conversation.
//!
//! The last part of the address is a secret, so paths are never logged. A wrong tenant, link or token is the
//! same "not found", and nothing of the body is read before the token holds.

use super::App;
use super::input::{PathOf, body};
use super::problem::Problem;
use super::queue::queue;
use ackline_connectors::answer::{self, AnswerError, Arrived};
use ackline_connectors::hook::{SIGNATURE_HEADER, TIMESTAMP_HEADER};
use ackline_runtime::conversation::{OwnerError, Side};
use ackline_shared::clock::now_ms;
use ackline_shared::ids::{EntityId, TenantId};
use ackline_shared::model::CrmLink;
use ackline_shared::subjects::{Lane, config_key};
use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Instant;
use subtle::ConstantTimeEq;

/// Takes a webhook of Chatwoot's.
pub async fn chatwoot(
    State(app): State<App>,
    PathOf((tenant, link, token)): PathOf<(String, String, String)>,
    request: Request,
) -> Response {
    let Some(link) = find(&app, tenant, link, &token) else {
        return Problem::NotFound("path").into_response();
    };
    let grant = app
        .limiter
        .take(&format!("hook/{}/{}", link.tenant, link.id), Instant::now());
    let mut response = match grant.wait {
        Some(wait) => Problem::RateLimited(wait).into_response(),
        None => taken(&app, &link, request).await.into_response(),
    };
    response.extensions_mut().insert(grant);
    response
}

/// Turns a webhook of a link into a message, where it is one.
async fn taken(app: &App, link: &CrmLink, request: Request) -> Result<Json<Value>, Problem> {
    let headers = request.headers().clone();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bytes = body(request, app).await?;
    app.reach_log()?;
    let arrived = Arrived {
        timestamp: text(TIMESTAMP_HEADER),
        signature: text(SIGNATURE_HEADER),
        body: &bytes,
    };
    let rest = app.settings.rest_after_agent;
    let asked = answer::read(&app.platform, link, arrived, rest, now_ms()).await;
    let asked = asked.map_err(|error| problem(link, error))?;
    // Before the message goes out: whoever answers it must not meet a flow.
    if let Some((number, person, event)) = &asked.turn {
        let side = Side::of_person(&link.tenant, number, person);
        match app.owners().report(&side, event, now_ms()).await {
            Ok(_) => {}
            Err(error @ OwnerError::Away { .. }) => {
                tracing::warn!(tenant = %link.tenant, link = %link.id, %error, "a webhook of the CRM is not taken");
                return Err(Problem::NatsAway);
            }
            Err(error @ OwnerError::Newer) => {
                tracing::warn!(tenant = %link.tenant, link = %link.id, %error, "who has a conversation is not noted");
            }
        }
    }
    for command in &asked.commands {
        queue(app, Lane::Live, command).await?;
    }
    match asked.commands.first() {
        Some(command) => Ok(Json(json!({"id": command.id}))),
        None => Ok(Json(json!({}))),
    }
}

/// The link an address belongs to, when every part of the address is right.
fn find(app: &App, tenant: String, link: String, token: &str) -> Option<Arc<CrmLink>> {
    let snapshot = app.platform.snapshot();
    let key = config_key::owned(
        "crm",
        &TenantId::new(tenant).ok()?,
        &EntityId::new(link).ok()?,
    );
    let link = snapshot.crm_links.get(&key).filter(|link| link.enabled)?;
    let expected = app.platform.open(link.as_ref(), &link.hook_token);
    let expected = expected
        .inspect_err(|error| tracing::error!(tenant = %link.tenant, link = %link.id, %error, "the hook token does not open"))
        .ok()?;
    let digest = |text: &str| <[u8; 32]>::from(Sha256::digest(text.as_bytes()));
    let is_right = !expected.expose().is_empty()
        && bool::from(digest(expected.expose()).ct_eq(&digest(token)));
    is_right.then(|| link.clone())
}

fn problem(link: &CrmLink, error: AnswerError) -> Problem {
    tracing::warn!(tenant = %link.tenant, link = %link.id, %error, "a webhook of the CRM is not answered with a message");
    match error {
        AnswerError::Forged(error) => Problem::Forged(error.to_string()),
        AnswerError::Unsendable(words) => Problem::Unsendable(words),
        AnswerError::Secret(_) => Problem::Internal,
        AnswerError::Place(_) => Problem::NatsAway,
    }
}
