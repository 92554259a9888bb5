//! Writes that many tasks make at the same moment, stored together.
//!
//! A server that syncs every message syncs an atomic batch as a whole, so that what a busy moment writes costs a few
//! syncs instead of one each. While a group is on its way the next one gathers, and a lone write waits for nothing. The
//! server takes a group whole or not at all: one that it refuses, for a duplicate or a revision that is not the last, is
//! written once more one by one, so that each write has its own answer.

use ackline_engine::pull::LONG_BYTES;
use async_nats::header::{
    NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE,
};
use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::{HeaderMap, Request};
use bytes::Bytes;
use futures_util::future::join_all;
use serde::Deserialize;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Writes of one group.
const GROUP_MAX: usize = 256;
/// Payload of one group; a larger one is written one by one.
const GROUP_BYTES_MAX: usize = 512 << 10;
/// With so many or fewer a batch is not worth it: whatever its size, the server makes and drops a store of several files
/// for it, and everybody's writes wait behind that.
pub const SINGLY_MAX: usize = 8;
/// Groups of one stream on their way: while the server stores one, it has the next.
const GROUPS_MAX: usize = 2;
/// Writes that wait for a group; who comes later waits before them.
const WAITING_MAX: usize = 4096;
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// What many tasks write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    Updates,
    Outbound,
    Sessions,
    /// Where writes are few.
    Other,
}

/// A message on its way into a stream.
#[derive(Debug, Clone)]
pub struct Write {
    pub subject: String,
    pub headers: HeaderMap,
    pub payload: Bytes,
}

/// Where a message stands, and whether it stood there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    pub sequence: u64,
    pub duplicate: bool,
}

/// Why something was not stored, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("something else was written there meanwhile")]
    Overtaken,
    #[error("{0}")]
    Failed(String),
}

impl WriteError {
    fn new(error: &dyn Display) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What stores messages; cheap to clone.
#[derive(Debug, Clone)]
pub struct Writer {
    context: Context,
    /// For long messages.
    bulk: Context,
    /// To the tasks that gather, one a stream; none where each write is made at once.
    groups: Option<Arc<[mpsc::Sender<Pending>; 3]>>,
}

#[derive(Debug)]
struct Pending {
    write: Write,
    answer: oneshot::Sender<Result<Receipt, WriteError>>,
}

impl Writer {
    /// Makes each write at once.
    pub fn new(context: Context) -> Self {
        Self {
            bulk: context.clone(),
            context,
            groups: None,
        }
    }

    /// Makes writes in groups.
    pub fn grouped(context: Context) -> Self {
        let groups = [(); 3].map(|()| {
            let (sender, pending) = mpsc::channel(WAITING_MAX);
            // It ends when the last writer is gone.
            tokio::spawn(gather(context.clone(), pending));
            sender
        });
        Self {
            bulk: context.clone(),
            context,
            groups: Some(Arc::new(groups)),
        }
    }

    /// Writes what is long on a connection of its own.
    #[must_use]
    pub fn with_bulk(self, bulk: Context) -> Self {
        Self { bulk, ..self }
    }

    /// Stores a message.
    pub async fn write(&self, into: Destination, write: Write) -> Result<Receipt, WriteError> {
        if write.payload.len() > LONG_BYTES {
            return publish(&self.bulk, write).await;
        }
        let Some(groups) = &self.groups else {
            return publish(&self.context, write).await;
        };
        let [updates, outbound, sessions] = groups.as_ref();
        let group = match into {
            Destination::Updates => updates,
            Destination::Outbound => outbound,
            Destination::Sessions => sessions,
            Destination::Other => return publish(&self.context, write).await,
        };
        let (answer, answered) = oneshot::channel();
        let broken = "the task that writes broke";
        if group.send(Pending { write, answer }).await.is_err() {
            return Err(WriteError::new(&broken));
        }
        answered.await.unwrap_or(Err(WriteError::new(&broken)))
    }
}

/// Gathers what is to be written while earlier groups are on their way.
async fn gather(context: Context, mut pending: mpsc::Receiver<Pending>) {
    let mut running = JoinSet::new();
    loop {
        let mut group = Vec::new();
        tokio::select! {
            Some(_ended) = running.join_next() => {}
            count = pending.recv_many(&mut group, GROUP_MAX), if running.len() < GROUPS_MAX => {
                if count == 0 {
                    break;
                }
                running.spawn(commit(context.clone(), group));
            }
        }
    }
    while running.join_next().await.is_some() {}
}

async fn commit(context: Context, group: Vec<Pending>) {
    let bytes: usize = group.iter().map(|one| one.write.payload.len()).sum();
    if group.len() > SINGLY_MAX && bytes <= GROUP_BYTES_MAX {
        let writes: Vec<&Write> = group.iter().map(|one| &one.write).collect();
        match publish_together(&context, &writes).await {
            Ok(Some(last)) => return answer_all(group, last),
            Ok(None) => {}
            Err(error) => {
                for one in group {
                    let _nobody_waits = one.answer.send(Err(error.clone()));
                }
                return;
            }
        }
    }
    join_all(group.into_iter().map(async |Pending { write, answer }| {
        let _nobody_waits = answer.send(publish(&context, write).await);
    }))
    .await;
}

/// What a group stored stands in one piece, up to the last of it.
fn answer_all(group: Vec<Pending>, last: u64) {
    let mut behind = u64::try_from(group.len()).unwrap_or_default();
    for one in group {
        behind = behind.saturating_sub(1);
        let receipt = Receipt {
            sequence: last.saturating_sub(behind),
            duplicate: false,
        };
        let _nobody_waits = one.answer.send(Ok(receipt));
    }
}

async fn publish(context: &Context, write: Write) -> Result<Receipt, WriteError> {
    let Write {
        subject,
        headers,
        payload,
    } = write;
    let sent = context
        .publish_with_headers(subject, headers, payload)
        .await;
    let acknowledged = match sent {
        Ok(sent) => sent.await,
        Err(error) => Err(error),
    };
    match acknowledged {
        Ok(acknowledged) => Ok(Receipt {
            sequence: acknowledged.sequence,
            duplicate: acknowledged.duplicate,
        }),
        Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {
            Err(WriteError::Overtaken)
        }
        Err(error) => Err(WriteError::new(&error)),
    }
}

/// What the server says of a batch.
#[derive(Deserialize)]
struct BatchAnswer {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    error: Option<BatchRefusal>,
}

#[derive(Deserialize)]
struct BatchRefusal {
    #[serde(default)]
    description: String,
}

/// Stores messages of one stream, all or none; gives the sequence of the last, or nothing where the server refused them.
pub async fn publish_together(
    context: &Context,
    writes: &[&Write],
) -> Result<Option<u64>, WriteError> {
    // A client that is not connected takes so much and then waits.
    let published = timeout(ANSWER_WAIT, send_together(context, writes)).await;
    published.unwrap_or_else(|late| Err(WriteError::new(&late)))
}

async fn send_together(context: &Context, writes: &[&Write]) -> Result<Option<u64>, WriteError> {
    let client = context.client();
    let id = format!("{:016x}", rand::random::<u64>());
    for (write, number) in writes.iter().zip(1_usize..) {
        let Write {
            subject,
            mut headers,
            payload,
        } = Write::clone(write);
        headers.insert(NATS_BATCH_ID, id.as_str());
        headers.insert(NATS_BATCH_SEQUENCE, number.to_string());
        if number < writes.len() {
            let sent = client.publish_with_headers(subject, headers, payload).await;
            sent.map_err(|error| WriteError::new(&error))?;
            continue;
        }
        headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
        let request = Request::new().headers(headers).payload(payload);
        let answer = client
            .send_request(subject, request)
            .await
            .map_err(|error| WriteError::new(&error))?;
        let answer: BatchAnswer =
            serde_json::from_slice(&answer.payload).map_err(|error| WriteError::new(&error))?;
        return Ok(match answer.error {
            None => Some(answer.seq),
            Some(BatchRefusal { description }) => {
                tracing::debug!(description, "a batch was refused");
                None
            }
        });
    }
    Ok(Some(0))
}
