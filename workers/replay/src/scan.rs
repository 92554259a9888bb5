//! Reading a stretch of a stream from front to back, in large pulls and without leaving anything behind.
//!
//! The consumer lives in the server's memory and goes at the end, or when it is not read for a while. A message that got lost on
//! the way makes the read fail; it never comes out short.

use async_nats::datetime;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::{Context, Message};
use futures_util::StreamExt;
use std::time::Duration;
use tokio::time::timeout;

const MESSAGE_WAIT: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(30);

/// A stretch of a stream.
#[derive(Debug, Clone)]
pub struct Stretch {
    pub stream: &'static str,
    /// Its messages on these subjects.
    pub filters: Vec<String>,
    pub from: u64,
    /// From this time on, in unix milliseconds; wins over `from`.
    pub from_ms: Option<u64>,
    /// Up to and including this sequence.
    pub until: u64,
    /// Whether payloads stay in the stream.
    pub headers_only: bool,
}

/// Why a stream could not be read to the end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stream {stream} cannot be read: {reason}")]
pub struct ScanError {
    stream: String,
    reason: String,
}

#[derive(Debug)]
pub struct Scan {
    stretch: Stretch,
    context: Context,
    consumer: PullConsumer,
    taken: u64,
    ended: bool,
}

impl Scan {
    pub async fn open(context: &Context, stretch: Stretch) -> Result<Self, ScanError> {
        let failed = |reason: String| ScanError {
            stream: stretch.stream.to_owned(),
            reason,
        };
        let deliver_policy = match stretch.from_ms {
            Some(ms) => DeliverPolicy::ByStartTime {
                start_time: datetime::from_nanos(i128::from(ms) * 1_000_000)
                    .map_err(|error| failed(error.to_string()))?,
            },
            None => DeliverPolicy::ByStartSequence {
                start_sequence: stretch.from.max(1),
            },
        };
        let config = pull::Config {
            filter_subjects: stretch.filters.clone(),
            deliver_policy,
            ack_policy: AckPolicy::None,
            headers_only: stretch.headers_only,
            inactive_threshold: IDLE,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer: PullConsumer = context
            .create_consumer_on_stream(config, stretch.stream)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let ended = consumer.cached_info().num_pending == 0;
        let scan = Self {
            stretch,
            context: context.clone(),
            consumer,
            taken: 0,
            ended,
        };
        if ended {
            scan.clear().await;
        }
        Ok(scan)
    }

    /// Takes the consumer away now; one that stays goes by itself.
    async fn clear(&self) {
        let name = &self.consumer.cached_info().name;
        let deleting = self
            .context
            .delete_consumer_from_stream(name, self.stretch.stream);
        if !matches!(timeout(MESSAGE_WAIT, deleting).await, Ok(Ok(_))) {
            tracing::debug!(
                consumer = name,
                "a consumer was not deleted and will expire"
            );
        }
    }

    /// The next messages, up to `max`; none at the end.
    pub async fn next(&mut self, max: usize) -> Result<Vec<(u64, Message)>, ScanError> {
        let had_ended = self.ended;
        let messages = self.pull(max).await?;
        if self.ended && !had_ended {
            self.clear().await;
        }
        Ok(messages)
    }

    async fn pull(&mut self, max: usize) -> Result<Vec<(u64, Message)>, ScanError> {
        let stream = self.stretch.stream;
        let failed = |reason: String| ScanError {
            stream: stream.to_owned(),
            reason,
        };
        let mut messages = Vec::new();
        if self.ended {
            return Ok(messages);
        }
        let pulled = timeout(
            MESSAGE_WAIT,
            self.consumer.fetch().max_messages(max).messages(),
        )
        .await;
        let mut pulled = pulled
            .map_err(|_| failed("no answer in time".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        loop {
            let next = timeout(MESSAGE_WAIT, pulled.next()).await;
            let Some(message) = next.map_err(|_| failed("no answer in time".to_owned()))? else {
                break;
            };
            let message = message.map_err(|error| failed(error.to_string()))?;
            let info = message.info().map_err(|error| failed(error.to_string()))?;
            let (sequence, place, pending) =
                (info.stream_sequence, info.consumer_sequence, info.pending);
            if place != self.taken + 1 {
                return Err(failed("a message was lost on the way".to_owned()));
            }
            self.taken = place;
            if sequence > self.stretch.until {
                self.ended = true;
                return Ok(messages);
            }
            messages.push((sequence, message));
            if pending == 0 || sequence == self.stretch.until {
                self.ended = true;
                return Ok(messages);
            }
        }
        // A pull that brought nothing although more was promised: what was promised has expired.
        self.ended |= messages.is_empty();
        Ok(messages)
    }
}
