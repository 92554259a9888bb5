//! What is in the streams, read for a check: which updates are stored under which tenant, which sends were
//! asked for.

use ackline_shared::envelope::read_message_id;
use ackline_shared::subjects::{
    OUTBOUND, OUTBOUND_SUBJECTS, Subject, UPDATES, UPDATES_SUBJECTS, header,
};
use anyhow::{Context, Result};
use async_nats::jetstream;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use futures_util::StreamExt;
use std::time::Duration;

const READ_AT_ONCE: usize = 1000;

/// A message of a stream.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its dedupe id: of an update the update's, of a command the message's.
    pub id: String,
    pub tenant: String,
    /// When it was stored, in unix microseconds.
    pub at_us: u64,
}

/// A connection that only reads.
#[derive(Debug)]
pub struct Log {
    context: jetstream::Context,
    updates_from: u64,
    commands_from: u64,
}

impl Log {
    /// Connects; reads from the beginning.
    pub async fn connect(url: &str) -> Result<Self> {
        let client = async_nats::connect(url)
            .await
            .context("connecting to nats-server")?;
        Ok(Self {
            context: jetstream::new(client),
            updates_from: 1,
            commands_from: 1,
        })
    }

    /// The same, reading only what is stored from now on: earlier runs may have left a lot.
    pub async fn starting_now(mut self) -> Result<Self> {
        self.updates_from = self.state(UPDATES).await?.last_sequence + 1;
        self.commands_from = self.state(OUTBOUND).await?.last_sequence + 1;
        Ok(self)
    }

    async fn state(&self, stream: &str) -> Result<jetstream::stream::State> {
        let mut stream = self
            .context
            .get_stream(stream)
            .await
            .context("opening the stream")?;
        Ok(stream
            .info()
            .await
            .context("asking about the stream")?
            .state
            .clone())
    }

    pub async fn updates(&self) -> Result<Vec<Stored>> {
        let [updates, _] = UPDATES_SUBJECTS;
        self.read(UPDATES, updates, self.updates_from).await
    }

    /// Every send command, oldest first.
    pub async fn commands(&self) -> Result<Vec<Stored>> {
        let [commands] = OUTBOUND_SUBJECTS;
        self.read(OUTBOUND, commands, self.commands_from).await
    }

    async fn read(&self, stream: &str, filter: &str, from: u64) -> Result<Vec<Stored>> {
        let stream = self
            .context
            .get_stream(stream)
            .await
            .context("opening the stream")?;
        let config = pull::Config {
            filter_subject: filter.to_owned(),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: from,
            },
            ack_policy: jetstream::consumer::AckPolicy::None,
            inactive_threshold: Duration::from_secs(30),
            memory_storage: true,
            ..pull::Config::default()
        };
        let consumer = stream
            .create_consumer(config)
            .await
            .context("reading the stream")?;
        let mut left = consumer.cached_info().num_pending;
        let mut read = Vec::new();
        while left > 0 {
            let mut batch = consumer
                .fetch()
                .max_messages(READ_AT_ONCE)
                .messages()
                .await?;
            let mut got = false;
            while let Some(message) = batch.next().await {
                let message =
                    message.map_err(|error| anyhow::anyhow!("reading the stream: {error}"))?;
                let info = message
                    .info()
                    .map_err(|error| anyhow::anyhow!("reading the stream: {error}"))?;
                (left, got) = (info.pending, true);
                let nanos = info.published.unix_timestamp_nanos();
                let at_us = u64::try_from(nanos / 1000).unwrap_or_default();
                let Some(subject) = Subject::parse(&message.subject) else {
                    continue;
                };
                let tenant = subject.tenant();
                let id = message
                    .headers
                    .as_ref()
                    .and_then(|headers| headers.get(header::MSG_ID));
                let id = id.map(|id| read_message_id(tenant, id.as_str()).as_str().to_owned());
                read.push(Stored {
                    id: id.unwrap_or_default(),
                    tenant: tenant.to_string(),
                    at_us,
                });
            }
            if !got {
                break;
            }
        }
        Ok(read)
    }
}
