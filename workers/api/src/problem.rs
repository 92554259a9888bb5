//! What goes wrong for a caller, and the one place where it becomes an answer: `application/problem+json` (RFC 9457).

use ackline_message::ContentError;
use ackline_shared::model::Scope;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::time::Duration;
use utoipa::ToSchema;

const RETRY_SOON: Duration = Duration::from_secs(2);
const RETRY_SHARE: Duration = Duration::from_secs(30);

/// Why a request is not answered as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// No key, or none we know.
    Unauthorized,
    /// A webhook that is not proven to be genuine.
    Forged(String),
    /// The key may not do this.
    Forbidden(Scope),
    /// The key operates less than the whole installation.
    PlatformOnly,
    /// No such thing, or not this tenant's.
    NotFound(&'static str),
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// Not readable: not JSON, a bad query, a bad header.
    Malformed(String),
    /// Readable, but not acceptable.
    Invalid(Vec<Mistake>),
    /// A message that cannot be sent; the words are for the person who wrote it.
    Unsendable(String),
    /// The body is over the limit.
    TooLarge(usize),
    /// The body is declared as something else than JSON.
    MediaType,
    /// Too many requests with this key.
    RateLimited(Duration),
    /// The tenant holds more of what all share than it may.
    OverShare(String),
    /// The idempotency key was used for another request.
    IdempotencyConflict,
    /// A request with the same idempotency key is not answered yet.
    IdempotencyRunning,
    /// `If-Match` or `If-None-Match` does not hold.
    PreconditionFailed,
    /// Somebody else changed it at the same time.
    Conflict,
    /// It cannot go away, for something else needs it.
    InUse(String),
    /// Too many large requests are worked on.
    Busy,
    /// NATS cannot be reached.
    NatsAway,
    /// The read model cannot be read.
    JournalAway,
    /// The request took longer than it may.
    TimedOut,
    /// Our fault.
    Internal,
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Mistake {
    /// Where, as a JSON pointer into the body; empty for the whole.
    pub at: String,
    /// A stable code, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What is wrong and what would be right.
    pub detail: String,
}

impl From<ContentError> for Mistake {
    fn from(error: ContentError) -> Self {
        Self::new(error.at, error.detail)
    }
}

impl Mistake {
    /// Says what is wrong where.
    pub fn new(at: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            at: at.into(),
            code: None,
            detail: detail.into(),
        }
    }
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ProblemBody {
    /// Identifies the kind of problem; decide by this.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What happened here.
    pub detail: String,
    /// Everything that is wrong with the request, when it was read and refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Mistake>,
}

struct ProblemParts {
    status: StatusCode,
    name: &'static str,
    title: &'static str,
    detail: String,
}

impl Problem {
    fn answer(&self) -> ProblemParts {
        let answer = |status, name, title, detail: &str| ProblemParts {
            status,
            name,
            title,
            detail: detail.to_owned(),
        };
        match self {
            Self::Unauthorized => answer(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "A valid API key is needed",
                "send the header `Authorization: Bearer <key>` with a key of this installation",
            ),
            Self::Forged(detail) => answer(
                StatusCode::UNAUTHORIZED,
                "forged",
                "The webhook is not proven to be genuine",
                detail,
            ),
            Self::Forbidden(scope) => {
                let scope = scope_name(*scope);
                let detail = format!("the key lacks the scope `{scope}`");
                answer(
                    StatusCode::FORBIDDEN,
                    "forbidden",
                    "The key may not do this",
                    &detail,
                )
            }
            Self::PlatformOnly => answer(
                StatusCode::FORBIDDEN,
                "platform-only",
                "This is the platform's to see or change",
                "it concerns every tenant, or was set by the platform; it needs a key that is declared with reach = \"platform\"",
            ),
            Self::NotFound(what) => answer(
                StatusCode::NOT_FOUND,
                "not-found",
                "Not found",
                &format!("there is no such {what}"),
            ),
            Self::MethodNotAllowed => answer(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "The method is not allowed here",
                "see /openapi.json for the methods of this path",
            ),
            Self::Malformed(detail) => answer(
                StatusCode::BAD_REQUEST,
                "malformed",
                "The request cannot be read",
                detail,
            ),
            Self::Invalid(mistakes) => {
                let detail = format!("{} mistake(s), listed in `errors`", mistakes.len());
                answer(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "invalid",
                    "The request is not acceptable",
                    &detail,
                )
            }
            Self::Unsendable(words) => answer(
                StatusCode::UNPROCESSABLE_ENTITY,
                "unsendable",
                "The message cannot be sent",
                words,
            ),
            Self::TooLarge(limit) => {
                let detail = format!("the body may have {limit} bytes");
                answer(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too-large",
                    "The body is too large",
                    &detail,
                )
            }
            Self::MediaType => answer(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "media-type",
                "The body must be JSON",
                "send the header `Content-Type: application/json`",
            ),
            Self::RateLimited(after) => {
                let detail = format!(
                    "this key, or this address without one, may go on in {} s",
                    seconds(*after)
                );
                answer(
                    StatusCode::TOO_MANY_REQUESTS,
                    "rate-limited",
                    "Too many requests",
                    &detail,
                )
            }
            Self::OverShare(words) => answer(
                StatusCode::TOO_MANY_REQUESTS,
                "over-share",
                "The tenant holds more than its share",
                &format!("{words}; nothing was stored, come back when less of it waits"),
            ),
            Self::IdempotencyConflict => answer(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-conflict",
                "The idempotency key was used before",
                "a message with this Idempotency-Key exists and was asked for otherwise (recipient, content, number or reply_to), so nothing was sent; use a new key",
            ),
            Self::IdempotencyRunning => answer(
                StatusCode::CONFLICT,
                "idempotency-running",
                "A request with this idempotency key still runs",
                "this one stored nothing; repeat it with the same Idempotency-Key when the first is answered",
            ),
            Self::PreconditionFailed => answer(
                StatusCode::PRECONDITION_FAILED,
                "precondition-failed",
                "It is not as the request expects",
                "read it again and send its ETag as If-Match",
            ),
            Self::Conflict => answer(
                StatusCode::CONFLICT,
                "conflict",
                "It was changed at the same time",
                "read it again and repeat the request",
            ),
            Self::InUse(detail) => answer(
                StatusCode::CONFLICT,
                "in-use",
                "Something else needs it",
                detail,
            ),
            Self::Busy => answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "Too many large requests at once",
                "nothing was done; repeat the request, with fewer at the same time",
            ),
            Self::NatsAway => answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "nats-away",
                "The log cannot be reached",
                "nothing is known to be stored; repeat the request, with the same Idempotency-Key if it had one",
            ),
            Self::JournalAway => answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "journal-away",
                "The read model cannot be read",
                "sending still works; repeat the query later. If it stays so, `ackline doctor` says why",
            ),
            Self::TimedOut => answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "timed-out",
                "The request took too long",
                "it may have taken effect; repeat it, with the same Idempotency-Key if it had one",
            ),
            Self::Internal => answer(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "Something is wrong on our side",
                "the log has the details under the X-Request-Id of this answer",
            ),
        }
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        match self {
            Self::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::RateLimited(after) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds(*after)));
            }
            Self::OverShare(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds(RETRY_SHARE)));
            }
            Self::Busy
            | Self::NatsAway
            | Self::JournalAway
            | Self::TimedOut
            | Self::IdempotencyRunning => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds(RETRY_SOON)));
            }
            _ => {}
        }
        headers
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let ProblemParts {
            status,
            name,
            title,
            detail,
        } = self.answer();
        let headers = self.headers();
        let errors = if let Self::Invalid(mistakes) = self {
            mistakes
        } else {
            Vec::new()
        };
        let kind = format!("urn:ackline:problem:{name}");
        let body = ProblemBody {
            kind,
            title,
            status: status.as_u16(),
            detail,
            errors,
        };
        (
            status,
            headers,
            serde_json::to_vec(&body).unwrap_or_default(),
        )
            .into_response()
    }
}

fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Read => "read",
        Scope::Send => "send",
        Scope::Manage => "manage",
        Scope::Operate => "operate",
    }
}

/// Whole seconds, at least one: clients must not come back at once.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
