//! Where updates are stored before Meta gets its 200: [`UpdateLog`] is the one thing the webhook asks of the log
//! behind it, which is JetStream, a spool on the local disk, or one behind the other.

pub mod acknowledged;
pub mod durability;
pub mod publisher;
pub mod spool;
pub mod stream_restore;
pub mod wire;

use ackline_shared::envelope::Head;
use bytes::Bytes;
use std::future::Future;

/// An update ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// What travels in subject and headers.
    pub head: Head,
    /// A delivery of Meta's with exactly this update.
    pub payload: Bytes,
}

/// Why a delivery was not stored whole; some of its updates may be, and storing them again is harmless.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// As much is in flight as may be.
    #[error("too many updates are in flight")]
    Overloaded,
    /// As much of one tenant's own app is in flight as may be.
    #[error("too much of this app is in flight")]
    TenantOverloaded,
    #[error("NATS is away")]
    Away,
    /// NATS answers, and nothing takes the update: the stream is missing or has no leader.
    #[error("no stream takes the update")]
    NoStream,
    #[error("JetStream refused the update: {0}")]
    Refused(String),
    /// No answer within the budget.
    #[error("no PubAck within the budget")]
    Late,
    /// The update is larger than the server takes.
    #[error("the update is larger than the server's max_payload: {0}")]
    TooLarge(String),
    /// The local log is full.
    #[error("the spool is full")]
    SpoolFull,
    /// The local log cannot be written.
    #[error("the spool cannot be written")]
    SpoolFailed,
}

impl StoreError {
    /// A short word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::TenantOverloaded => "tenant_overloaded",
            Self::Away => "nats_away",
            Self::NoStream => "no_stream",
            Self::Refused(_) => "jetstream_refused",
            Self::Late => "ack_late",
            Self::TooLarge(_) => "payload_too_large",
            Self::SpoolFull => "spool_full",
            Self::SpoolFailed => "spool_failed",
        }
    }

    /// Whether it is the log behind the edge that is away, so that a spool may stand in for it.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Away | Self::Late | Self::NoStream => true,
            Self::Overloaded
            | Self::TenantOverloaded
            | Self::Refused(_)
            | Self::TooLarge(_)
            | Self::SpoolFull
            | Self::SpoolFailed => false,
        }
    }
}

pub trait UpdateLog: Send + Sync + 'static {
    /// Stores all updates of a delivery, first attempts in order; an error unless every one is acknowledged.
    fn store<I>(&self, updates: I) -> impl Future<Output = Result<(), StoreError>> + Send
    where
        I: Iterator<Item = Update> + Send;
}
