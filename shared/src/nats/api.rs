//! JetStream's API: what is asked and answered as JSON, whatever connection carries it.

use bytes::Bytes;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::future::Future;

const PREFIX: &str = "$JS.API.";
const NOT_FOUND: u16 = 404;

/// A request to NATS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Where it goes.
    pub subject: String,
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// NATS cannot be reached, or went away.
    #[error("NATS is not connected")]
    Away,
    /// Nobody listens.
    #[error("nobody answers; is JetStream enabled in nats-server, and has it begun?")]
    Nobody,
    /// The answer takes too long.
    #[error("no answer in time")]
    Late,
    /// It was not sent.
    #[error("{0}")]
    Unsent(String),
}

/// A connection that requests can be sent on.
pub trait Ask: Sync {
    /// Sends a request and waits for the answer's payload, for a bounded time.
    fn ask(&self, question: Question) -> impl Future<Output = Result<Bytes, Unanswered>> + Send;
}

/// Why JetStream did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// It said no.
    #[error("{description} ({err_code})")]
    Refused {
        /// The kind of error, as HTTP has them.
        code: u16,
        /// The error's number.
        err_code: u64,
        /// Its words.
        description: String,
    },
    /// It said nothing.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// Its answer is something else.
    #[error("the answer of JetStream cannot be read: {0}")]
    Unreadable(String),
}

impl ApiError {
    /// Whether what was asked for does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                code: NOT_FOUND,
                ..
            }
        )
    }

    /// Whether it is the error of this number.
    pub fn is(&self, number: u64) -> bool {
        matches!(self, Self::Refused { err_code, .. } if *err_code == number)
    }
}

/// Calls an endpoint of the API, such as `STREAM.INFO.<stream>`.
pub async fn call<T: DeserializeOwned>(
    asker: &impl Ask,
    endpoint: &str,
    request: &(impl Serialize + Sync),
) -> Result<T, ApiError> {
    let payload = serde_json::to_vec(request).map_err(unreadable)?;
    let question = Question {
        subject: format!("{PREFIX}{endpoint}"),
        headers: Vec::new(),
        payload,
    };
    read(&asker.ask(question).await?)
}

/// Publishes on a stream's subject, if the last message there still has this sequence; 0 stands for none.
pub async fn publish_after(
    asker: &impl Ask,
    subject: &str,
    last: u64,
    payload: Vec<u8>,
) -> Result<(), ApiError> {
    let headers = vec![("Nats-Expected-Last-Subject-Sequence", last.to_string())];
    let question = Question {
        subject: subject.to_owned(),
        headers,
        payload,
    };
    read::<IgnoredAny>(&asker.ask(question).await?).map(drop)
}

/// Reads an answer.
pub fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T, ApiError> {
    let failure: Failure = serde_json::from_slice(answer).map_err(unreadable)?;
    match failure.error {
        Some(Refusal {
            code,
            err_code,
            description,
        }) => Err(ApiError::Refused {
            code,
            err_code,
            description,
        }),
        None => serde_json::from_slice(answer).map_err(unreadable),
    }
}

fn unreadable(error: serde_json::Error) -> ApiError {
    ApiError::Unreadable(error.to_string())
}

#[derive(serde::Deserialize)]
struct Failure {
    #[serde(default)]
    error: Option<Refusal>,
}

#[derive(serde::Deserialize)]
struct Refusal {
    code: u16,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn an_answer_is_what_was_asked_for_or_says_why_not() {
        let missing = read::<Value>(
            br#"{"type":"x","error":{"code":404,"err_code":10059,"description":"stream not found"}}"#,
        );
        let missing = missing.unwrap_err();
        assert!(missing.is_missing() && missing.is(10_059) && !missing.is(1));
        assert_eq!(missing.to_string(), "stream not found (10059)");
        assert_eq!(read::<Value>(br#"{"seq":7}"#).unwrap()["seq"], 7);
        for other in ["", "+OK", "{\"error\":1}"] {
            assert!(
                matches!(
                    read::<Value>(other.as_bytes()),
                    Err(ApiError::Unreadable(_))
                ),
                "{other}"
            );
        }
    }
}
