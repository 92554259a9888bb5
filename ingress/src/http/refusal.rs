//! Every way a request can be refused, and what each is answered: one enum, one match.

use crate::store::StoreError;
use ackline_shared::signature::SignatureError;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONNECTION, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

/// Why a request is not accepted. Nothing of it has been acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such path, or no such app.
    #[error("not found")]
    NotFound,
    /// A method other than GET and POST.
    #[error("method not allowed")]
    Method,
    /// The GET handshake does not carry the app's verify token.
    #[error("verification failed")]
    Handshake,
    /// The signature is missing, malformed or wrong.
    #[error("signature not accepted")]
    Signature(SignatureError),
    /// The body is longer than allowed.
    #[error("body too large")]
    BodyTooLarge,
    /// The body did not arrive in time.
    #[error("body too slow")]
    BodyTooSlow,
    /// The body broke off or is badly framed.
    #[error("body incomplete")]
    BodyBroken,
    /// The configuration has not been read yet.
    #[error("not ready")]
    NotReady,
    /// The app's secrets do not open under our master key.
    #[error("not ready")]
    SecretsLocked,
    /// The entry of the app, of a number or of its tenant does not parse.
    #[error("not ready")]
    Unreadable,
    /// Everything in it is of tenants that hold more than their share of what is stored.
    #[error("over its share")]
    OverShare,
    /// As many bytes are held as may be.
    #[error("overloaded")]
    Overloaded,
    /// The sender's address holds as many bytes of unfinished bodies as it may, and nothing it signed.
    #[error("address crowded")]
    AddressLimitReached,
    /// What was taken before is stored too slowly.
    #[error("overloaded")]
    Shed,
    /// The log did not take it.
    #[error("not stored")]
    Store(StoreError),
}

impl Refusal {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Handshake => StatusCode::FORBIDDEN,
            Self::Signature(_) => StatusCode::UNAUTHORIZED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::NotReady
            | Self::SecretsLocked
            | Self::Unreadable
            | Self::OverShare
            | Self::Overloaded
            | Self::AddressLimitReached
            | Self::Shed
            | Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A short word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Method => "method",
            Self::Handshake => "handshake",
            Self::Signature(SignatureError::Missing) => "signature_missing",
            Self::Signature(SignatureError::Malformed) => "signature_malformed",
            Self::Signature(SignatureError::Mismatch) => "signature_mismatch",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTooSlow => "body_too_slow",
            Self::BodyBroken => "body_broken",
            Self::NotReady => "not_ready",
            Self::SecretsLocked => "secrets_locked",
            Self::Unreadable => "entry_unreadable",
            Self::OverShare => "over_share",
            Self::Overloaded => "overloaded",
            Self::AddressLimitReached => "address_crowded",
            Self::Shed => "shed",
            Self::Store(error) => error.reason(),
        }
    }

    pub fn response(&self, retry_after: &HeaderValue) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(format!("{self}\n"))));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        match self {
            Self::Method => drop(headers.insert(ALLOW, HeaderValue::from_static("GET, POST"))),
            // The rest of the body is not worth reading.
            Self::BodyTooLarge | Self::BodyTooSlow | Self::BodyBroken => {
                drop(headers.insert(CONNECTION, HeaderValue::from_static("close")));
            }
            Self::NotReady
            | Self::SecretsLocked
            | Self::Unreadable
            | Self::OverShare
            | Self::Overloaded
            | Self::AddressLimitReached
            | Self::Shed
            | Self::Store(_) => {
                drop(headers.insert(RETRY_AFTER, retry_after.clone()));
            }
            Self::NotFound | Self::Handshake | Self::Signature(_) => {}
        }
        response
    }
}
