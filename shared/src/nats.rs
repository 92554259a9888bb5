//! The connection to NATS and the streams and buckets every part relies on.
//!
//! Whoever starts first creates what is missing; what exists is left as it is, but for subjects that a stream of an
//! older version lacks. The partition count is recorded
//! when the installation is created, and a process configured otherwise refuses to start.

use crate::config::Reader;
use crate::model::Installation;
use crate::secret::Secret;
use crate::subjects::{self, config_key};
use async_nats::jetstream::kv;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, ContextBuilder};
use async_nats::{Client, ConnectOptions};
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
    pub url: String,
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
        let modes = [Durability::Stored, Durability::Synced, Durability::Replicated, Durability::Logged]
            .map(|mode| (mode.as_str(), mode));
        let partitions = reader.count("nats.partitions", 1..=256);
        Self {
            url: reader.text("nats.url"),
            credentials_file: reader.optional_text("nats.credentials_file").map(PathBuf::from),
            monitor_url: reader.optional_text("nats.monitor_url"),
            durability: reader.choice("nats.durability", &modes).unwrap_or(Durability::Synced),
            partitions: u16::try_from(partitions).unwrap_or(1),
            max_age: reader.duration("nats.max_age"),
            dead_max_age: reader.duration("nats.dead_max_age"),
            stream_bytes_max: reader.bytes("nats.stream_bytes_max", 1 << 20..=1 << 50),
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
        url: String,
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

/// Connects; with `wait` it returns at once and keeps trying in the background.
pub async fn connect(settings: &NatsSettings, name: &str, wait: bool) -> Result<Client, NatsError> {
    connect_with(settings, name, wait, |options| options).await
}

/// Connects like [`connect`], with options of the caller's own on top of ours.
pub async fn connect_with(
    settings: &NatsSettings,
    name: &str,
    wait: bool,
    adjust: impl FnOnce(ConnectOptions) -> ConnectOptions,
) -> Result<Client, NatsError> {
    let failed = |reason: String| NatsError::Connect { url: settings.url.clone(), reason };
    let mut options = ConnectOptions::new()
        .name(name)
        .ping_interval(Duration::from_secs(5))
        .connection_timeout(Duration::from_secs(5))
        .reconnect_delay_callback(|attempts| {
            Duration::from_millis(u64::try_from(attempts).unwrap_or(8).min(8) * 25)
        });
    if wait {
        options = options.retry_on_initial_connect();
    }
    if let Some(path) = &settings.credentials_file {
        options = options.credentials_file(path).await.map_err(|error| failed(error.to_string()))?;
    }
    let servers: Vec<String> = settings.url.split(',').map(|url| url.trim().to_owned()).collect();
    // The client does not look for a user in the URL.
    match servers.first().and_then(|url| Url::parse(url).ok()).and_then(|url| user_of(&url)) {
        Some((user, Some(password))) => {
            options = options.user_and_password(user, password.expose().clone());
        }
        Some((token, None)) => options = options.token(token),
        None => {}
    }
    adjust(options).connect(servers).await.map_err(|error| failed(error.to_string()))
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

/// The JetStream context with our deadlines.
pub fn jetstream(client: Client) -> Context {
    ContextBuilder::new().timeout(Duration::from_secs(5)).build(client)
}

/// The buckets of the installation.
#[derive(Debug, Clone)]
pub struct Buckets {
    /// Declared configuration.
    pub config: kv::Store,
    /// Conversation state.
    pub sessions: kv::Store,
    /// Processes that are alive.
    pub leases: kv::Store,
    /// Who owns which partition.
    pub owners: kv::Store,
    /// Errands that only one process may run at a time.
    pub errands: kv::Store,
    /// Live settings.
    pub tuning: kv::Store,
    /// Replays, and which dead letters are settled.
    pub replays: kv::Store,
}

/// Makes sure every stream and bucket exists and the partition count is the recorded one.
pub async fn prepare(context: &Context, settings: &NatsSettings) -> Result<Buckets, NatsError> {
    for config in streams(settings) {
        let name = config.name.clone();
        let wanted = config.subjects.clone();
        let stream =
            context.get_or_create_stream(config).await.map_err(|error| prepare_error(&name, &error))?;
        let mut stored = stream.cached_info().config.clone();
        let missing: Vec<String> =
            wanted.into_iter().filter(|subject| !stored.subjects.contains(subject)).collect();
        if !missing.is_empty() {
            stored.subjects.extend(missing);
            context.update_stream(stored).await.map_err(|error| prepare_error(&name, &error))?;
        }
    }
    let replicas = settings.durability.replicas();
    let bucket = |name: &str, history: i64, max_age: Duration| kv::Config {
        bucket: name.to_owned(),
        history,
        max_age,
        storage: StorageType::File,
        num_replicas: replicas,
        ..kv::Config::default()
    };
    let buckets = Buckets {
        config: open(context, bucket(subjects::BUCKET_CONFIG, 8, Duration::ZERO)).await?,
        sessions: open(context, bucket(subjects::BUCKET_SESSIONS, 1, settings.session_max_age)).await?,
        leases: open(context, bucket(subjects::BUCKET_LEASES, 1, settings.lease_ttl)).await?,
        errands: open(context, bucket(subjects::BUCKET_ERRANDS, 1, settings.lease_ttl)).await?,
        tuning: open(context, bucket(subjects::BUCKET_TUNING, TUNING_HISTORY, Duration::ZERO)).await?,
        replays: open(context, bucket(subjects::BUCKET_REPLAYS, 1, settings.dead_max_age)).await?,
        owners: open(context, bucket(subjects::BUCKET_OWNERS, 1, Duration::ZERO)).await?,
    };
    check_partitions(&buckets.config, settings.partitions).await?;
    Ok(buckets)
}

/// Changes of each live setting that stay readable; the bucket's history is the audit.
const TUNING_HISTORY: i64 = 64;

fn streams(settings: &NatsSettings) -> [Config; 4] {
    let stream = |name: &str, subjects: &[&str], max_age: Duration| Config {
        name: name.to_owned(),
        subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: settings.durability.replicas(),
        max_age,
        max_bytes: i64::try_from(settings.stream_bytes_max).unwrap_or(i64::MAX),
        duplicate_window: settings.duplicate_window.min(max_age),
        max_consumers: -1,
        allow_direct: true,
        allow_atomic_publish: true,
        ..Config::default()
    };
    // Lines are read without consumers and taken out by their owner, so that none waits behind another.
    let spill = stream(subjects::SPILL, &subjects::SPILL_SUBJECTS, settings.max_age);
    let spill_bytes = i64::try_from(settings.stream_bytes_max / SPILL_FRACTION).unwrap_or(i64::MAX);
    let [updates, records] = subjects::UPDATES_SUBJECTS;
    [
        Config { max_bytes: spill_bytes.max(1 << 20), ..spill },
        stream(subjects::UPDATES, &[updates, records, subjects::REPLAY_SUBJECTS], settings.max_age),
        stream(subjects::OUTBOUND, &subjects::OUTBOUND_SUBJECTS, settings.max_age),
        stream(subjects::DEAD, &subjects::DEAD_SUBJECTS, settings.dead_max_age),
    ]
}

/// SPILL gets one part in this many of what the other streams get.
const SPILL_FRACTION: u64 = 4;

async fn open(context: &Context, config: kv::Config) -> Result<kv::Store, NatsError> {
    let name = config.bucket.clone();
    if let Ok(store) = context.get_key_value(&name).await {
        return Ok(store);
    }
    match context.create_key_value(config).await {
        Ok(store) => Ok(store),
        // Another process may have created it between the two calls.
        Err(error) => context.get_key_value(&name).await.map_err(|_| prepare_error(&name, &error)),
    }
}

async fn check_partitions(config: &kv::Store, configured: u16) -> Result<(), NatsError> {
    let fail = |error: &dyn fmt::Display| prepare_error(config_key::INSTALLATION, error);
    let record =
        serde_json::to_vec(&Installation { partitions: configured }).map_err(|error| fail(&error))?;
    if config.create(config_key::INSTALLATION, record.into()).await.is_ok() {
        return Ok(());
    }
    let stored =
        config.get(config_key::INSTALLATION).await.map_err(|error| fail(&error))?.unwrap_or_default();
    let stored: Installation = serde_json::from_slice(&stored).map_err(|error| fail(&error))?;
    if stored.partitions == configured {
        Ok(())
    } else {
        Err(NatsError::Partitions { stored: stored.partitions, configured })
    }
}

fn prepare_error(what: &str, error: &dyn fmt::Display) -> NatsError {
    let mut reason = error.to_string();
    if reason.contains(NO_STORAGE) {
        reason.push_str(
            "; every stream reserves nats.stream_bytes_max: lower it, or give JetStream more max_file_store",
        );
    }
    NatsError::Prepare { what: what.to_owned(), reason }
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
