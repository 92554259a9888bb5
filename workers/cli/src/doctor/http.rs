//! The doctor's own HTTP client: small answers within deadlines, for the server's monitor and the Graph API.

use ackline_shared::secret::Secret;
use serde_json::Value;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The client; cheap to clone.
#[derive(Debug, Clone)]
pub struct Http(reqwest::Client);

/// Status and body of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpAnswer {
    pub status: u16,
    /// The body, null when it is not JSON.
    pub body: Value,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("the answer is too long")]
    TooLong,
    #[error("{}", words(.0))]
    Failed(#[from] reqwest::Error),
}

/// The client cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be built: {0}")]
pub struct SetupError(String);

impl Http {
    /// Builds the client with its deadlines.
    pub fn new() -> Result<Self, SetupError> {
        // Whoever installs a provider first wins; all of ours are the same.
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TOTAL_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("Ackline/", env!("CARGO_PKG_VERSION")))
            .build();
        client
            .map(Self)
            .map_err(|error| SetupError(error.to_string()))
    }

    /// Makes a GET request.
    pub async fn get(
        &self,
        url: &str,
        token: Option<&Secret<String>>,
    ) -> Result<HttpAnswer, NoAnswer> {
        let mut request = self.0.get(url);
        if let Some(token) = token {
            request = request.bearer_auth(token.expose());
        }
        let mut response = request.send().await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(NoAnswer::TooLong);
            }
        }
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(HttpAnswer {
            status: response.status().as_u16(),
            body,
        })
    }
}

/// The error's causes on one line.
fn words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", TOTAL_TIMEOUT.as_secs());
    }
    let mut out = String::new();
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
