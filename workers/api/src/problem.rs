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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No key, or none we know.
    #[error("send the header `Authorization: Bearer <key>` with a key of this installation")]
    Unauthorized,
    /// A webhook that is not proven to be genuine.
    #[error("{0}")]
    Forged(String),
    /// The key may not do this.
    #[error("the key lacks the scope `{name}`", name = scope_name(*.0))]
    Forbidden(Scope),
    /// The key operates less than the whole installation.
    #[error(
        "it concerns every tenant, or was set by the platform; it needs a key that is declared with reach = \"platform\""
    )]
    PlatformOnly,
    /// No such thing, or not this tenant's.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The path exists, the method does not.
    #[error("see /openapi.json for the methods of this path")]
    MethodNotAllowed,
    /// Not readable: not JSON, a bad query, a bad header.
    #[error("{0}")]
    Malformed(String),
    /// Readable, but not acceptable.
    #[error("{count} mistake(s), listed in `errors`", count = .0.len())]
    Invalid(Vec<Mistake>),
    /// A message that cannot be sent; the words are for the person who wrote it.
    #[error("{0}")]
    Unsendable(String),
    /// The body is over the limit.
    #[error("the body may have {0} bytes")]
    TooLarge(usize),
    /// The body is declared as something else than JSON.
    #[error("send the header `Content-Type: application/json`")]
    MediaType,
    /// Too many requests with this key.
    #[error("this key, or this address without one, may go on in {after} s", after = seconds(*.0))]
    RateLimited(Duration),
    /// The tenant holds more of what all share than it may.
    #[error("{0}; nothing was stored, come back when less of it waits")]
    OverShare(String),
    /// The idempotency key was used for another request.
    #[error(
        "a message with this Idempotency-Key exists and was asked for otherwise (recipient, content, number or reply_to), so nothing was sent; use a new key"
    )]
    IdempotencyConflict,
    /// A request with the same idempotency key is not answered yet.
    #[error(
        "this one stored nothing; repeat it with the same Idempotency-Key when the first is answered"
    )]
    IdempotencyRunning,
    /// `If-Match` or `If-None-Match` does not hold.
    #[error("read it again and send its ETag as If-Match")]
    PreconditionFailed,
    /// Somebody else changed it at the same time.
    #[error("read it again and repeat the request")]
    Conflict,
    /// It cannot go away, for something else needs it.
    #[error("{0}")]
    InUse(String),
    /// Too many large requests are worked on.
    #[error("nothing was done; repeat the request, with fewer at the same time")]
    Busy,
    /// NATS cannot be reached.
    #[error(
        "nothing is known to be stored; repeat the request, with the same Idempotency-Key if it had one"
    )]
    NatsAway,
    /// The read model cannot be read.
    #[error(
        "sending still works; repeat the query later. If it stays so, `ackline doctor` says why"
    )]
    JournalAway,
    /// The request took longer than it may.
    #[error("it may have taken effect; repeat it, with the same Idempotency-Key if it had one")]
    TimedOut,
    /// Our fault.
    #[error("the log has the details under the X-Request-Id of this answer")]
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

impl Problem {
    /// One thing is wrong with a request.
    pub fn invalid(at: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![Mistake::new(at, detail)])
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized | Self::Forged(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) | Self::PlatformOnly => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Invalid(_) | Self::Unsendable(_) | Self::IdempotencyConflict => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RateLimited(_) | Self::OverShare(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::IdempotencyRunning | Self::Conflict | Self::InUse(_) => StatusCode::CONFLICT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::Busy | Self::NatsAway | Self::JournalAway | Self::TimedOut => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What the kind is decided by.
    fn name(&self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forged(_) => "forged",
            Self::Forbidden(_) => "forbidden",
            Self::PlatformOnly => "platform-only",
            Self::NotFound(_) => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::Malformed(_) => "malformed",
            Self::Invalid(_) => "invalid",
            Self::Unsendable(_) => "unsendable",
            Self::TooLarge(_) => "too-large",
            Self::MediaType => "media-type",
            Self::RateLimited(_) => "rate-limited",
            Self::OverShare(_) => "over-share",
            Self::IdempotencyConflict => "idempotency-conflict",
            Self::IdempotencyRunning => "idempotency-running",
            Self::PreconditionFailed => "precondition-failed",
            Self::Conflict => "conflict",
            Self::InUse(_) => "in-use",
            Self::Busy => "busy",
            Self::NatsAway => "nats-away",
            Self::JournalAway => "journal-away",
            Self::TimedOut => "timed-out",
            Self::Internal => "internal",
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::Unauthorized => "A valid API key is needed",
            Self::Forged(_) => "The webhook is not proven to be genuine",
            Self::Forbidden(_) => "The key may not do this",
            Self::PlatformOnly => "This is the platform's to see or change",
            Self::NotFound(_) => "Not found",
            Self::MethodNotAllowed => "The method is not allowed here",
            Self::Malformed(_) => "The request cannot be read",
            Self::Invalid(_) => "The request is not acceptable",
            Self::Unsendable(_) => "The message cannot be sent",
            Self::TooLarge(_) => "The body is too large",
            Self::MediaType => "The body must be JSON",
            Self::RateLimited(_) => "Too many requests",
            Self::OverShare(_) => "The tenant holds more than its share",
            Self::IdempotencyConflict => "The idempotency key was used before",
            Self::IdempotencyRunning => "A request with this idempotency key still runs",
            Self::PreconditionFailed => "It is not as the request expects",
            Self::Conflict => "It was changed at the same time",
            Self::InUse(_) => "Something else needs it",
            Self::Busy => "Too many large requests at once",
            Self::NatsAway => "The log cannot be reached",
            Self::JournalAway => "The read model cannot be read",
            Self::TimedOut => "The request took too long",
            Self::Internal => "Something is wrong on our side",
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
        let (status, title, headers) = (self.status(), self.title(), self.headers());
        let kind = format!("urn:ackline:problem:{}", self.name());
        let detail = self.to_string();
        let errors = if let Self::Invalid(mistakes) = self {
            mistakes
        } else {
            Vec::new()
        };
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
