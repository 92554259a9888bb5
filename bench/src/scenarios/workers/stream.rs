//! What stands in a stream, as far as a comparison needs it.

use super::feed::serial_in;
use ackline_shared::envelope::Head;
use ackline_shared::subjects::{Pool, SpillQueue, Subject, header};
use anyhow::{Context, Result};
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::{self, Message};
use futures_util::StreamExt;
use std::time::Duration;
use tokio::time::timeout;

const READ_WITHIN: Duration = Duration::from_secs(60);

/// A message of a stream.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The serial number of the update that it is or came from.
    pub serial: u32,
    /// The business number and the conversation.
    pub conversation: String,
    /// Its partition; 0 for one that has none.
    pub partition: u16,
    /// When it was stored, in unix milliseconds.
    pub at_ms: u64,
    /// The pool that gave it up or has it in a spill queue.
    pub pool: Option<Pool>,
    /// Why it was given up.
    pub reason: Option<String>,
}

/// Reads a stream, oldest first; what carries no serial number is left out.
pub async fn read(context: &jetstream::Context, stream: &str, filter: &str) -> Result<Vec<Seen>> {
    let mut stream = context.get_stream(stream).await?;
    let pending = stream.info().await?.state.messages;
    let config = OrderedConfig {
        filter_subject: filter.to_owned(),
        ..OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let mut seen = Vec::new();
    if pending == 0 || consumer.cached_info().num_pending == 0 {
        return Ok(seen);
    }
    let mut messages = consumer.messages().await?;
    loop {
        let message = timeout(READ_WITHIN, messages.next())
            .await
            .context("reading a stream")?;
        let message = message.context("the stream ended early")??;
        let info = message
            .info()
            .map_err(|error| anyhow::anyhow!("a message without a place: {error}"))?;
        let at_ms = u64::try_from(info.published.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        let pending = info.pending;
        seen.extend(see(&message, at_ms));
        if pending == 0 {
            return Ok(seen);
        }
    }
}

fn see(message: &Message, at_ms: u64) -> Option<Seen> {
    let headers = message.headers.as_ref()?;
    let text = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
    // A command has an id of its own and names the update that caused it.
    let serial =
        serial_in(text(header::MSG_ID)?.as_bytes()).or_else(|| serial_in(&message.payload))?;
    let conversation = text(header::CONVERSATION)?;
    let phone = text(header::PHONE).unwrap_or_default();
    let pool = match Subject::parse(&message.subject) {
        Some(Subject::Dead(pool, _)) => Some(pool),
        _ => SpillQueue::parse(&message.subject).map(|(pool, _)| pool),
    };
    Some(Seen {
        serial,
        conversation: format!("{phone}/{conversation}"),
        partition: Head::read(&message.subject, headers).map_or(0, |head| head.partition.0),
        at_ms,
        pool,
        reason: text(header::DEAD_REASON),
    })
}
