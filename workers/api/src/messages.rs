//! `/v1/messages`: send one, read one.
//!
//! A message is answered 202 once its command is stored. With an `Idempotency-Key` its id follows from the
//! key, so a repeat is the same message: JetStream drops it while it remembers the id, the read model after.

use super::App;
use super::auth::{Caller, CanRead, CanSend};
use super::input::{JsonBody, PathOf};
use super::problem::{Mistake, Problem, ProblemBody};
use super::queue::queue;
use ackline_message::{Content, Origin, Recipient, SendCommand};
use ackline_message::{check, check_recipient, check_reply_to};
use ackline_replay::time::rfc3339;
use ackline_shared::clock::now_ms;
use ackline_shared::ids::{PhoneNumberId, hex, short_hash};
use ackline_shared::meta::incoming::{Context, Details, Media, Referral};
use ackline_shared::meta::{self, Incoming};
use ackline_shared::raw::RawJson;
use ackline_shared::subjects::Lane;
use ackline_store::fold::{BY_APP, BY_STANDBY};
use ackline_store::query::StoredMessage;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;
/// The direction of what people wrote.
const IN: &str = "in";

/// A message to send.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMessage {
    /// The business number that sends; needed when the tenant has more than one.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    phone_number_id: Option<PhoneNumberId>,
    /// Who receives.
    to: Recipient,
    /// What is sent.
    content: Content,
    /// Meta's id (wamid) of the message this one answers.
    #[serde(default)]
    reply_to: Option<String>,
    /// Whether somebody waits for it (`live`) or not (`bulk`).
    #[serde(default)]
    lane: LaneName,
}

/// How urgent a message is.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LaneName {
    /// Part of a conversation; goes first.
    #[default]
    Live,
    /// A campaign; goes when nothing live waits.
    Bulk,
}

/// A message that will be sent.
#[derive(Debug, Serialize, ToSchema)]
pub struct AcceptedMessage {
    /// Its id, to read it by.
    id: String,
    /// `queued`.
    status: &'static str,
}

/// A message.
#[derive(Debug, Serialize, ToSchema)]
pub struct Message {
    /// Our id.
    id: String,
    /// The conversation it is in.
    conversation_id: String,
    /// The business number.
    phone_number_id: String,
    /// `in` for messages from the person, `out` for messages to them.
    direction: String,
    /// Who wrote it, for messages from a person; in a group, which of its members.
    from: Option<Recipient>,
    /// Its type, such as `text`; `unknown` for what another program sent, of which only statuses are known.
    #[serde(rename = "type")]
    kind: String,
    /// What a person reads of it.
    text: Option<String>,
    /// Media it carries, if it is incoming or was sent from the Business app; so with the three that follow.
    media: Option<Media>,
    /// What it holds besides text and media.
    details: Option<Details>,
    /// What it answers, and whether it was forwarded.
    context: Option<Context>,
    /// The ad or post it came from.
    referral: Option<Referral>,
    /// All of it: incoming messages in Meta's shape, outgoing ones in the shape they were sent in.
    #[schema(value_type = Value)]
    content: RawJson,
    /// Meta's id.
    wamid: Option<String>,
    /// The wamid it answers.
    reply_to: Option<String>,
    /// `received`, `queued`, `unknown`, `accepted`, `sent`, `failed`, `delivered`, `read` or `played`.
    status: &'static str,
    /// When each status was first true.
    status_times: BTreeMap<&'static str, String>,
    /// Why it failed.
    error: Option<MessageError>,
    /// Who asked for it, for outgoing messages.
    #[schema(value_type = Option<Value>)]
    origin: Option<RawJson>,
    /// Whether it was written while another responder at Meta had the conversation, so that nobody here answers it.
    standby: bool,
    /// When it was written.
    created_at: String,
}

/// Why a message failed.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessageError {
    /// Meta's error code, when there is one.
    code: Option<i64>,
    /// In words.
    reason: String,
}

impl From<StoredMessage> for Message {
    fn from(stored: StoredMessage) -> Self {
        let fault = stored.progress.shown_fault();
        let origin = stored.origin.as_ref();
        let origin = origin.and_then(|origin| serde_json::from_str::<Value>(origin.get()).ok());
        let by = origin
            .as_ref()
            .and_then(|origin| origin.get("by"))
            .and_then(Value::as_str);
        let standby = by == Some(BY_STANDBY);
        let is_metas = stored.direction == IN || standby || by == Some(BY_APP);
        let raw = is_metas.then(|| serde_json::from_str(stored.content.get()).unwrap_or_default());
        let from = raw.as_ref().filter(|_| stored.direction == IN);
        let from = from
            .map(meta::author)
            .filter(|from| *from != Recipient::default());
        let held = raw.as_ref().map(Incoming::read);
        let (media, details, context, referral) = held.map_or_else(Default::default, |held| {
            (held.media, held.details, held.context, held.referral)
        });
        Self {
            error: fault.map(|fault| MessageError {
                code: fault.code,
                reason: fault.reason.clone(),
            }),
            status: stored.progress.status.as_str(),
            status_times: stored
                .progress
                .times
                .iter()
                .map(|(status, ms)| (status.as_str(), rfc3339(*ms)))
                .collect(),
            id: stored.id,
            conversation_id: stored.conversation,
            phone_number_id: stored.phone_number_id,
            direction: stored.direction,
            from,
            kind: stored.kind,
            text: stored.text,
            media,
            details,
            context,
            referral,
            content: stored.content,
            wamid: stored.wamid,
            reply_to: stored.reply_to,
            origin: stored.origin.filter(|_| !standby),
            standby,
            created_at: rfc3339(stored.created_ms),
        }
    }
}

/// Accepts a message to be sent.
#[utoipa::path(
    post, path = "/messages", tag = "messages", operation_id = "sendMessage", request_body = NewMessage,
    params(("Idempotency-Key" = Option<String>, Header, description = "Any text of up to 255 characters; the same text always means the same message.")),
    responses(
        (status = 202, description = "Stored; it will be sent.", body = AcceptedMessage),
        (status = 409, description = "The first request with this Idempotency-Key still runs; repeat after `Retry-After` seconds.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Not acceptable, `errors` lists why; or the Idempotency-Key was used for another request.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The log cannot be reached.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn send(
    State(app): State<App>,
    CanSend(caller): CanSend,
    headers: HeaderMap,
    JsonBody(body): JsonBody<NewMessage>,
) -> Result<Response, Problem> {
    let idempotency = idempotency_key(&headers)?;
    let lane = match body.lane {
        LaneName::Live => Lane::Live,
        LaneName::Bulk => Lane::Bulk,
    };
    let command = command(&app, &caller, idempotency, body)?;
    let _turn = idempotency
        .map(|_| app.running.begin(&caller.tenant, &command.id))
        .transpose()?;
    if idempotency.is_none() || !is_stored(&app, &command).await? {
        queue(&app, lane, &command).await?;
    }
    let location = format!("/v1/messages/{}", command.id);
    let body = Json(AcceptedMessage {
        id: command.id,
        status: "queued",
    });
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], body).into_response())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let text = value
        .to_str()
        .ok()
        .filter(|text| (1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&text.len()));
    text.map(Some).ok_or_else(|| {
        Problem::Malformed(format!(
            "Idempotency-Key: use 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters"
        ))
    })
}

fn command(
    app: &App,
    caller: &Caller,
    idempotency: Option<&str>,
    body: NewMessage,
) -> Result<SendCommand, Problem> {
    let found = check_recipient(&body.to).into_iter();
    let found = found.chain(check(&body.content));
    let found = found.chain(check_reply_to(body.reply_to.as_deref()));
    let mistakes: Vec<Mistake> = found.map(Mistake::from).collect();
    let number = number(app, caller, body.phone_number_id);
    match number {
        Ok(phone_number_id) if mistakes.is_empty() => {
            let asked = (&phone_number_id, &body.to, &body.content, &body.reply_to);
            let request = serde_json::to_vec(&asked)
                .map(|bytes| short_hash(&bytes))
                .ok();
            Ok(SendCommand {
                id: message_id(caller, idempotency),
                tenant: caller.tenant.clone(),
                phone_number_id,
                to: body.to,
                content: body.content,
                reply_to: body.reply_to,
                origin: Origin::Api {
                    key: caller.key.to_string(),
                    request: idempotency.and(request),
                },
                created_ms: now_ms(),
            })
        }
        number => Err(Problem::Invalid(
            mistakes.into_iter().chain(number.err()).collect(),
        )),
    }
}

/// The number that sends: the one asked for, or the tenant's only one.
fn number(
    app: &App,
    caller: &Caller,
    wanted: Option<PhoneNumberId>,
) -> Result<PhoneNumberId, Mistake> {
    let snapshot = app.platform.snapshot();
    let mut own = snapshot
        .phone_numbers
        .values()
        .filter(|phone| phone.tenant == caller.tenant);
    match wanted {
        Some(id) => own
            .any(|phone| phone.id == id)
            .then_some(id)
            .ok_or_else(|| Mistake::new("/phone_number_id", "is none of the tenant's numbers")),
        None => match (own.next(), own.next()) {
            (Some(only), None) => Ok(only.id.clone()),
            (None, _) => Err(Mistake::new("/phone_number_id", "the tenant has no number")),
            _ => Err(Mistake::new(
                "/phone_number_id",
                "is needed: the tenant has several numbers",
            )),
        },
    }
}

fn message_id(caller: &Caller, idempotency: Option<&str>) -> String {
    match idempotency {
        Some(text) => {
            format!(
                "api_{}",
                short_hash(format!("{}/{}/{text}", caller.tenant, caller.key).as_bytes())
            )
        }
        None => format!("api_{}", hex(&rand::random::<[u8; 16]>())),
    }
}

/// Tells whether the read model has this message already. It may be behind or away: then JetStream decides alone.
async fn is_stored(app: &App, command: &SendCommand) -> Result<bool, Problem> {
    match app
        .journal
        .message(command.tenant.as_str(), &command.id)
        .await
    {
        Ok(None) => Ok(false),
        Ok(Some(stored)) if is_repeat(command, &stored) => Ok(true),
        Ok(Some(_)) => Err(Problem::IdempotencyConflict),
        Err(error) => {
            tracing::warn!(%error, "the read model cannot be asked for an earlier message of the same Idempotency-Key");
            Ok(false)
        }
    }
}

/// Whether a message is the same request again; one of an earlier version has no hash of it.
fn is_repeat(command: &SendCommand, stored: &StoredMessage) -> bool {
    let origin = stored
        .origin
        .as_ref()
        .and_then(|origin| serde_json::from_str(origin.get()).ok());
    match (origin, &command.origin) {
        (
            Some(Origin::Api {
                request: Some(first),
                ..
            }),
            Origin::Api {
                request: Some(again),
                ..
            },
        ) => first == *again,
        _ => {
            let content = serde_json::from_str::<Value>(stored.content.get()).ok();
            serde_json::to_value(&command.content).ok() == content
        }
    }
}

/// Reads a message by our id, or by Meta's.
#[utoipa::path(
    get, path = "/messages/{id}", tag = "messages", operation_id = "getMessage",
    params(("id" = String, Path, description = "Our id, or the wamid percent-encoded; so every `message_id` of an event.")),
    responses(
        (status = 200, description = "The message.", body = Message),
        (status = 404, description = "No such message; a new one appears within a second.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "The read model cannot be read.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn get(
    State(app): State<App>,
    CanRead(caller): CanRead,
    PathOf(id): PathOf<String>,
) -> Result<Json<Message>, Problem> {
    let found = app
        .journal
        .message(caller.tenant.as_str(), &id)
        .await
        .map_err(super::journal_away)?;
    found
        .map(|stored| Json(stored.into()))
        .ok_or(Problem::NotFound("message"))
}
