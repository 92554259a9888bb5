//! NATS through async-nats, as the workers, their tools and the tests reach it.

use super::api::{Ask, Question, Unanswered};
use super::preparation::establish;
use super::{NatsError, NatsSettings, user_of};
use crate::subjects;
use async_nats::jetstream::{Context, ContextBuilder, kv};
use async_nats::{Client, ConnectOptions, HeaderMap, Request, RequestErrorKind};
use bytes::Bytes;
use std::time::Duration;
use url::Url;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects, and then keeps connected in the background; the servers show the name.
pub async fn connect(settings: &NatsSettings, name: &str) -> Result<Client, NatsError> {
    let failed = |reason: String| NatsError::Connect {
        url: settings.url.clone(),
        reason,
    };
    let mut options = ConnectOptions::new()
        .name(name)
        .ping_interval(Duration::from_secs(5))
        .connection_timeout(Duration::from_secs(5))
        .reconnect_delay_callback(|attempts| {
            Duration::from_millis(u64::try_from(attempts).unwrap_or(8).min(8) * 25)
        });
    if let Some(path) = &settings.credentials_file {
        options = options
            .credentials_file(path)
            .await
            .map_err(|error| failed(error.to_string()))?;
    }
    let servers: Vec<&str> = settings.url.expose().collect();
    // The client does not look for a user in the URL.
    match servers
        .first()
        .and_then(|url| Url::parse(url).ok())
        .and_then(|url| user_of(&url))
    {
        Some((user, Some(password))) => {
            options = options.user_and_password(user, password.expose().clone());
        }
        Some((token, None)) => options = options.token(token),
        None => {}
    }
    options
        .connect(servers)
        .await
        .map_err(|error| failed(error.to_string()))
}

/// The JetStream context with our deadlines.
pub fn jetstream(client: Client) -> Context {
    ContextBuilder::new().timeout(REQUEST_TIMEOUT).build(client)
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
    /// Up to where each pool has acknowledged everything.
    pub floors: kv::Store,
    /// Locks: what only one process may do at a time.
    pub locks: kv::Store,
    /// Live settings.
    pub tuning: kv::Store,
    /// Replays, and which dead letters are settled.
    pub replays: kv::Store,
}

/// Makes sure every stream and bucket exists and the partition count is the recorded one.
pub async fn prepare(context: &Context, settings: &NatsSettings) -> Result<Buckets, NatsError> {
    establish(&context.client(), settings).await?;
    Ok(Buckets {
        config: open(context, subjects::BUCKET_CONFIG).await?,
        sessions: open(context, subjects::BUCKET_SESSIONS).await?,
        leases: open(context, subjects::BUCKET_LEASES).await?,
        owners: open(context, subjects::BUCKET_OWNERS).await?,
        floors: open(context, subjects::BUCKET_FLOORS).await?,
        locks: open(context, subjects::BUCKET_LOCKS).await?,
        tuning: open(context, subjects::BUCKET_TUNING).await?,
        replays: open(context, subjects::BUCKET_REPLAYS).await?,
    })
}

async fn open(context: &Context, name: &str) -> Result<kv::Store, NatsError> {
    context
        .get_key_value(name)
        .await
        .map_err(|error| NatsError::prepare(name, &error))
}

impl Ask for Client {
    async fn ask(&self, question: Question) -> Result<Bytes, Unanswered> {
        let mut request = Request::new()
            .payload(question.payload.into())
            .timeout(Some(REQUEST_TIMEOUT));
        if !question.headers.is_empty() {
            let mut headers = HeaderMap::new();
            for (name, value) in question.headers {
                headers.insert(name, value);
            }
            request = request.headers(headers);
        }
        match self.send_request(question.subject, request).await {
            Ok(message) => Ok(message.payload),
            Err(error) => Err(match error.kind() {
                RequestErrorKind::NoResponders => Unanswered::Nobody,
                RequestErrorKind::TimedOut => Unanswered::Late,
                _ => Unanswered::Unsent(error.to_string()),
            }),
        }
    }
}
