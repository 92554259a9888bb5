//! How NATS is reached and what is kept in it: settings, the streams and buckets every part relies on, and how they
//! are made.
//!
//! The parts that connect with async-nats are behind the feature `client`: the edge asks on a connection of its own.

pub mod api;
mod bucket_bytes;
#[cfg(feature = "client")]
mod client;
pub mod layout;
pub mod preparation;
mod server_urls;

#[cfg(feature = "client")]
pub use client::{Buckets, connect, jetstream, prepare};

pub use bucket_bytes::BucketBytes;
pub use server_urls::ServerUrls;

use crate::config::Reader;
use crate::secret::Secret;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// What a 200 promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// PubAck under the server's own sync interval: survives process crashes.
    Stored,
    /// PubAck after fsync: survives power loss.
    Synced,
    /// Three replicas, each synced: survives the loss of a machine.
    Replicated,
    /// The edge's own synced log, then JetStream: survives power loss of the edge's machine, not of its disk.
    Logged,
}

impl Durability {
    /// The mode's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Synced => "synced",
            Self::Replicated => "replicated",
            Self::Logged => "logged",
        }
    }

    fn replicas(self) -> usize {
        if self == Self::Replicated { 3 } else { 1 }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The `[nats]` section.
#[derive(Debug, Clone)]
pub struct NatsSettings {
    /// Servers, separated by commas.
    pub url: ServerUrls,
    /// Credentials file.
    pub credentials_file: Option<PathBuf>,
    /// Monitoring address of the server.
    pub monitor_url: Option<String>,
    /// What a 200 promises.
    pub durability: Durability,
    /// Partitions of every stream.
    pub partitions: u16,
    /// Longest time updates and commands are kept.
    pub max_age: Duration,
    /// Longest time dead letters are kept.
    pub dead_max_age: Duration,
    /// Size of each stream.
    pub stream_bytes_max: u64,
    /// Size of each bucket.
    pub bucket_bytes: BucketBytes,
    /// How long message ids are remembered.
    pub duplicate_window: Duration,
    /// How long idle conversation state is kept.
    pub session_max_age: Duration,
    /// How long a process counts as alive without renewal.
    pub lease_ttl: Duration,
}

impl NatsSettings {
    /// Reads the section.
    pub fn read(reader: &mut Reader) -> Self {
        let modes = [
            Durability::Stored,
            Durability::Synced,
            Durability::Replicated,
            Durability::Logged,
        ]
        .map(|mode| (mode.as_str(), mode));
        let partitions = reader.count("nats.partitions", 1..=256);
        Self {
            url: ServerUrls::new(reader.text("nats.url")),
            credentials_file: reader
                .optional_text("nats.credentials_file")
                .map(PathBuf::from),
            monitor_url: reader.optional_text("nats.monitor_url"),
            durability: reader
                .choice("nats.durability", &modes)
                .unwrap_or(Durability::Synced),
            partitions: u16::try_from(partitions).unwrap_or(1),
            max_age: reader.duration("nats.max_age"),
            dead_max_age: reader.duration("nats.dead_max_age"),
            stream_bytes_max: reader.bytes("nats.stream_bytes_max", 1 << 20..=1 << 50),
            bucket_bytes: BucketBytes::read(reader),
            duplicate_window: reader.duration("nats.duplicate_window"),
            session_max_age: reader.duration("nats.session_max_age"),
            lease_ttl: reader.duration("pools.lease_ttl"),
        }
    }
}

/// Why NATS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// The servers cannot be reached or refuse us.
    #[error("cannot connect to NATS at {url}: {reason}; is nats-server running there?")]
    Connect {
        /// Configured servers.
        url: ServerUrls,
        /// What the client said.
        reason: String,
    },
    /// A stream or bucket cannot be read or created.
    #[error("cannot prepare {what} in JetStream: {reason}")]
    Prepare {
        /// The stream or bucket.
        what: String,
        /// What the server said.
        reason: String,
    },
    /// The installation has another partition count.
    #[error(
        "this installation was created with nats.partitions = {stored}, but {configured} is configured; set it back, or drain and create the installation anew"
    )]
    Partitions {
        /// Recorded.
        stored: u16,
        /// Configured.
        configured: u16,
    },
}

impl NatsError {
    fn prepare(what: &str, error: &dyn fmt::Display) -> Self {
        let mut reason = error.to_string();
        if reason.contains(NO_STORAGE) {
            reason.push_str(
                "; every stream reserves nats.stream_bytes_max, and the buckets nats.session_bytes_max and nats.config_bytes_max: lower it, or give JetStream more max_file_store",
            );
        }
        Self::Prepare {
            what: what.to_owned(),
            reason,
        }
    }
}

/// The user a URL names, and the password; a token is a user without one.
pub fn user_of(url: &Url) -> Option<(String, Option<Secret<String>>)> {
    let decoded = |text: &str| {
        url::form_urlencoded::parse(text.replace('+', "%2B").as_bytes())
            .next()
            .map(|(text, _)| text.into_owned())
    };
    let user = decoded(url.username())?;
    Some((user, url.password().and_then(decoded).map(Secret::new)))
}

/// JetStream's words when the sizes of all streams exceed what it may store.
const NO_STORAGE: &str = "insufficient storage resources";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_user_with_a_password_or_a_token() {
        let user = |url: &str| user_of(&Url::parse(url).unwrap());
        let ann = Some(("ann".to_owned(), Some(Secret::new("p@s+s=".to_owned()))));
        assert_eq!(user("nats://ann:p%40s+s%3D@a"), ann);
        assert_eq!(user("nats://token@a"), Some(("token".to_owned(), None)));
        assert_eq!(user("nats://a"), None);
    }
}
