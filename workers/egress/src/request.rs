//! What goes into the client and what comes out of it.

use super::address_filter::Closed;
use bytes::Bytes;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use std::fmt;
use std::time::{Duration, SystemTime};

/// Bytes of an answer that are read when nothing in it matters but its status.
pub const RESPONSE_BYTES_SMALL: usize = 16 * 1024;

/// The longest wait that another side may ask of us.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(15 * 60);

/// A request to a URL that a tenant gave.
pub struct EgressRequest {
    pub method: Method,
    /// The URL as the tenant gave it.
    pub url: String,
    /// Headers; those that frame or route the request, such as Host, are set by the client and dropped here.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Time for everything: connecting, sending and reading the answer.
    pub timeout: Duration,
    /// Bytes of the answer's body that are kept; the rest is not read.
    pub response_bytes_max: usize,
}

impl EgressRequest {
    /// A POST whose answer matters only by its status.
    pub fn post(
        url: impl Into<String>,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> Self {
        Self {
            method: Method::POST,
            url: url.into(),
            headers,
            body,
            timeout,
            response_bytes_max: RESPONSE_BYTES_SMALL,
        }
    }
}

/// An answer, whatever its status.
pub struct EgressAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The body up to the bytes asked for.
    pub body: Bytes,
    /// False when the body was longer than asked for, broke off, or did not end in time.
    pub whole: bool,
    /// Whether it broke off or did not end in time.
    pub broke_off: bool,
}

impl fmt::Debug for EgressAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "EgressAnswer({}, {} bytes, whole: {})",
            self.status,
            self.body.len(),
            self.whole
        )
    }
}

impl EgressAnswer {
    /// How long the other side asked us to wait, within what we are ready to.
    pub fn retry_after(&self, now: SystemTime) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        let wait = match text.parse() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => {
                let until = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
                SystemTime::from(until).duration_since(now).ok()?
            }
        };
        Some(wait.min(RETRY_AFTER_MAX))
    }
}

/// Why there is no answer, in words that a tenant may read: nothing in them tells a private address from a
/// closed port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// The URL may not be requested; it will be the same next time.
    #[error("{0}")]
    Refused(&'static str),
    /// No connection came about, so nothing was sent.
    #[error("the destination cannot be reached{}", .tls.as_ref().map(|tls| format!(": TLS: {tls}")).unwrap_or_default())]
    Connect {
        /// What TLS said, when the connection failed there.
        tls: Option<String>,
    },
    /// No answer in time; the request may have taken effect.
    #[error("no answer in time")]
    Timeout,
    /// The connection broke before an answer; the request may have taken effect.
    #[error("the connection broke before an answer came")]
    Broken,
}

impl EgressError {
    /// Whether another attempt cannot help.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    /// Whether the request may have taken effect.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Timeout | Self::Broken)
    }
}

impl From<Closed> for EgressError {
    fn from(closed: Closed) -> Self {
        Self::Refused(match closed {
            Closed::Insecure => "the URL must start with https://",
            Closed::Private => "the destination cannot be reached",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry_after(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().unwrap());
        let answer = EgressAnswer {
            status: StatusCode::SERVICE_UNAVAILABLE,
            headers,
            body: Bytes::new(),
            whole: true,
            broke_off: false,
        };
        answer.retry_after(SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_470))
    }

    #[test]
    fn retry_after_is_read_in_both_its_forms_and_capped() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            retry_after("Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(Duration::from_secs(10))
        );
        assert_eq!(retry_after("86400"), Some(RETRY_AFTER_MAX));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:27:00 GMT"), None);
        for unreadable in ["", "-1", "soon"] {
            assert_eq!(retry_after(unreadable), None, "{unreadable}");
        }
    }

    #[test]
    fn a_blocked_address_reads_like_one_that_does_not_answer() {
        let blocked = EgressError::from(Closed::Private);
        assert_eq!(
            blocked.to_string(),
            EgressError::Connect { tls: None }.to_string()
        );
        assert!(blocked.is_permanent() && !blocked.is_ambiguous());
    }
}
