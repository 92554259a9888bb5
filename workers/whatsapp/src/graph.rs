//! The client of the Graph API's send call: one request, one answer, and the truth about what was written.
//!
//! It never repeats a request by itself. An error says whether anything can have reached Meta, because a
//! message has no idempotency key and a second request is a second message.

use ackline_shared::config::Reader;
use ackline_shared::ids::PhoneNumberId;
use ackline_shared::secret::Secret;
use bytes::{Bytes, BytesMut};
use reqwest::header::HeaderMap;
use serde_json::Value;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than an attempt of the pool, with the wait for a turn, so that time-outs are told apart here.
pub const TOTAL_TIMEOUT: Duration = Duration::from_secs(14);
/// A connection the other side closes just as we write costs a message its answer; short idleness makes that rare.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
const ANSWER_BYTES_MAX: usize = 256 * 1024;
const REGAIN_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphSettings {
    /// Base of the Graph API, without a slash at its end.
    pub url: String,
    pub version: String,
}

impl GraphSettings {
    pub fn read(reader: &mut Reader) -> Self {
        let version = reader.text("meta.graph_version");
        if !is_version(&version) {
            reader.mistake("meta.graph_version", "expected a version such as \"v26.0\"");
        }
        Self {
            url: reader.url("meta.graph_url", &["https", "http"]),
            version,
        }
    }
}

fn is_version(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let numbers = text.strip_prefix('v').and_then(|rest| rest.split_once('.'));
    numbers.is_some_and(|(major, minor)| digits(major) && digits(minor))
}

/// The HTTP client cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client for the Graph API cannot be built: {0}")]
pub struct ClientError(String);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphAnswer {
    pub status: u16,
    /// How long Meta says to stay away, by `Retry-After` or its usage headers.
    pub regain: Option<Duration>,
    /// The body, cut at a bound.
    pub body: Bytes,
}

impl GraphAnswer {
    /// Whether the API itself answered, and not something broken in its place.
    pub fn is_metas(&self) -> bool {
        self.status < 500
            || serde_json::from_slice::<Value>(&self.body)
                .is_ok_and(|body| body.get("error").is_some())
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Nothing reached Meta: the request may be made again.
    #[error("the Graph API cannot be reached: {0}")]
    NotSent(String),
    /// The request was, or may have been, written: what became of it is unknown.
    #[error("the Graph API's answer was lost: {0}")]
    Lost(String),
}

/// The client; cheap to clone.
#[derive(Debug, Clone)]
pub struct Graph {
    pub(crate) http: reqwest::Client,
    pub(crate) base: String,
    host: String,
}

impl Graph {
    /// Builds the client with its deadlines.
    pub fn new(settings: &GraphSettings) -> Result<Self, ClientError> {
        // Whoever installs a provider first wins; all of ours are the same.
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        // What is configured decides where requests go, and not what the environment says.
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TOTAL_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .user_agent(concat!("Ackline/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ClientError(words(&error)))?;
        let url = reqwest::Url::parse(&settings.url).ok();
        let host = url
            .as_ref()
            .and_then(reqwest::Url::host_str)
            .unwrap_or("graph")
            .to_owned();
        Ok(Self {
            http,
            base: format!("{}/{}", settings.url, settings.version),
            host,
        })
    }

    /// Makes the call `POST /{phone}/messages` once.
    pub async fn send(
        &self,
        phone: &PhoneNumberId,
        token: &Secret<String>,
        body: &Value,
    ) -> Result<GraphAnswer, SendError> {
        let reported = |answer: &Result<GraphAnswer, SendError>| match answer {
            Ok(answer) => Ok(answer.status),
            Err(error) => Err(error.to_string()),
        };
        ackline_traces::downstream(
            "Graph send",
            &self.host,
            self.post(phone, token, body),
            reported,
        )
        .await
    }

    async fn post(
        &self,
        phone: &PhoneNumberId,
        token: &Secret<String>,
        body: &Value,
    ) -> Result<GraphAnswer, SendError> {
        let request = self.http.post(format!("{}/{phone}/messages", self.base));
        let mut response = request
            .bearer_auth(token.expose())
            .json(body)
            .send()
            .await
            .map_err(|error| {
                if error.is_connect() || error.is_builder() {
                    SendError::NotSent(words(&error))
                } else {
                    SendError::Lost(words(&error))
                }
            })?;
        let (status, regain) = (response.status().as_u16(), regain(response.headers()));
        let mut body = BytesMut::new();
        while body.len() < ANSWER_BYTES_MAX {
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                // A refusal is one without its details; a success without its body has no message id.
                Err(_) if status >= 400 => break,
                Err(error) => return Err(SendError::Lost(words(&error))),
            }
        }
        body.truncate(ANSWER_BYTES_MAX);
        Ok(GraphAnswer {
            status,
            regain,
            body: body.freeze(),
        })
    }
}

/// The error and its causes on one line, without the address.
pub(crate) fn words(error: &reqwest::Error) -> String {
    let mut out = if error.is_timeout() {
        "it took too long".to_owned()
    } else {
        String::new()
    };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let separator = if out.is_empty() { "" } else { ": " };
        out = format!("{out}{separator}{error}");
        cause = error.source();
    }
    if out.is_empty() {
        "no details".to_owned()
    } else {
        out
    }
}

/// `Retry-After` in seconds, or the longest `estimated_time_to_regain_access` (minutes) of the usage header.
fn regain(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(seconds) = text("retry-after").and_then(|text| text.trim().parse().ok()) {
        return Some(Duration::from_secs(seconds).min(REGAIN_MAX));
    }
    let usage: Value = serde_json::from_str(text("x-business-use-case-usage")?).ok()?;
    let entries = usage
        .as_object()?
        .values()
        .filter_map(Value::as_array)
        .flatten();
    let minutes = entries
        .filter_map(|entry| entry.get("estimated_time_to_regain_access")?.as_u64())
        .max()?;
    (minutes > 0).then(|| Duration::from_secs(minutes.saturating_mul(60)).min(REGAIN_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_stay_away_is_read_from_either_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(regain(&headers), None);
        let usage = r#"{"1":[{"type":"messages","estimated_time_to_regain_access":2}]}"#;
        headers.insert("x-business-use-case-usage", usage.parse().unwrap());
        assert_eq!(regain(&headers), Some(Duration::from_secs(120)));
        headers.insert("retry-after", "7".parse().unwrap());
        assert_eq!(regain(&headers), Some(Duration::from_secs(7)));
        headers.insert("retry-after", "99999999".parse().unwrap());
        assert_eq!(regain(&headers), Some(REGAIN_MAX));
    }

    #[test]
    fn settings_are_read_from_the_defaults_and_a_wrong_version_is_a_mistake() {
        let mut reader = Reader::load(None, []);
        let settings = GraphSettings::read(&mut reader);
        assert_eq!(settings.url, "https://graph.facebook.com");
        assert!(reader.finish().is_ok());
        let mut reader = Reader::load(
            None,
            [("ACKLINE_META_GRAPH_VERSION".to_owned(), "26".to_owned())],
        );
        GraphSettings::read(&mut reader);
        assert!(reader.finish().unwrap_err().to_string().contains("v26.0"));
    }
}
