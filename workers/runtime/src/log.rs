//! Writing to the streams: every publish carries a message id, waits for its receipt and has a deadline.

use crate::group_commit::{Destination, Receipt, Write, WriteError, Writer};
use ackline_message::SendCommand;
use ackline_shared::envelope::{Family, Head};
use ackline_shared::nats::layout::bucket_subject;
use ackline_shared::stored;
use ackline_shared::subjects::{BUCKET_SESSIONS, Lane};
use async_nats::jetstream::Context;
use async_nats::{HeaderMap, header};
use bytes::Bytes;

/// A handle on the streams; cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    context: Context,
    /// On a connection of its own: what is long, and what is read in bulk.
    bulk: Context,
    writer: Writer,
    partitions: u16,
}

/// Why something could not be written; writing it again with the same id is safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot write to {subject}: {reason}")]
pub struct LogError {
    /// Where it was to go.
    pub subject: String,
    pub reason: String,
}

impl Log {
    /// Wraps a JetStream context, whose timeout bounds every write.
    pub fn new(context: Context, partitions: u16) -> Self {
        Self {
            writer: Writer::new(context.clone()),
            bulk: context.clone(),
            context,
            partitions,
        }
    }

    /// The same for a server that syncs each write: what is written at the same moment is stored together.
    pub fn grouped(context: Context, partitions: u16) -> Self {
        Self {
            writer: Writer::grouped(context.clone()),
            ..Self::new(context, partitions)
        }
    }

    /// The same with a second connection for what others must not wait behind.
    #[must_use]
    pub fn with_bulk(self, bulk: Context) -> Self {
        Self {
            writer: self.writer.with_bulk(bulk.clone()),
            bulk,
            ..self
        }
    }

    /// The JetStream context for what is long and for what is read in bulk.
    pub fn bulk(&self) -> &Context {
        &self.bulk
    }

    /// The JetStream context, for reading.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// How many partitions the streams have.
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// Stores a send command; one with the same id stored again changes nothing, and where the first stands is told.
    pub async fn command(
        &self,
        lane: Lane,
        command: &SendCommand,
    ) -> Result<Option<u64>, LogError> {
        let mut head = command.head(lane, self.partitions);
        // A command that an attempt gives is part of the attempt's trace.
        head.traceparent = head.traceparent.or_else(ackline_traces::current);
        self.write_once(&head, stored::encode(command).into()).await
    }

    /// Stores a message under its head; one with the same id stored again changes nothing, and where the first stands is
    /// told.
    pub async fn write_once(&self, head: &Head, payload: Bytes) -> Result<Option<u64>, LogError> {
        let into = match head.family {
            Family::Command(_) => Destination::Outbound,
            Family::Update(_) | Family::Record => Destination::Updates,
        };
        let receipt = self
            .store(into, head.subject(), head.to_headers(), payload)
            .await?;
        Ok(receipt.duplicate.then_some(receipt.sequence))
    }

    /// Stores a message under its head.
    pub async fn write(&self, head: &Head, payload: Bytes) -> Result<(), LogError> {
        self.write_once(head, payload).await.map(drop)
    }

    /// Stores a message whose headers already hold its id.
    pub async fn write_raw(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), LogError> {
        self.store(Destination::Other, subject, headers, payload)
            .await
            .map(drop)
    }

    /// Writes the state of a conversation over what stood there under a revision; gives the new one.
    pub async fn put_session(
        &self,
        key: &str,
        value: Bytes,
        revision: u64,
    ) -> Result<u64, WriteError> {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            revision.to_string(),
        );
        let write = Write {
            subject: bucket_subject(BUCKET_SESSIONS, key),
            headers,
            payload: value,
        };
        let receipt = self.writer.write(Destination::Sessions, write).await?;
        Ok(receipt.sequence)
    }

    /// The longest message nats-server takes, headers included.
    pub fn message_bytes_max(&self) -> usize {
        match self.context.client().server_info().max_payload {
            0 => usize::MAX,
            bytes => bytes,
        }
    }

    async fn store(
        &self,
        into: Destination,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Receipt, LogError> {
        // nats-server would end the connection over it, and everything that is on its way with it.
        if payload.len() > SURELY_FITS && size(&headers, &payload) > self.message_bytes_max() {
            let (bytes, most) = (size(&headers, &payload), self.message_bytes_max());
            let reason = format!(
                "{bytes} bytes are more than nats-server takes ({most}); raise its max_payload"
            );
            return Err(LogError { subject, reason });
        }
        let write = Write {
            subject: subject.clone(),
            headers,
            payload,
        };
        let stored = self.writer.write(into, write).await;
        stored.map_err(|error| LogError {
            subject,
            reason: error.to_string(),
        })
    }
}

/// A payload up to this size is not measured: headers of ours are shorter than the rest of the least max_payload worth having.
const SURELY_FITS: usize = 32 << 10;

/// What nats-server counts against its `max_payload`.
pub fn size(headers: &HeaderMap, payload: &[u8]) -> usize {
    const FRAME: usize = "NATS/1.0\r\n\r\n".len();
    const LINE: usize = ": \r\n".len();
    let lines = headers.iter().flat_map(|(name, values)| {
        values
            .iter()
            .map(|value| AsRef::<str>::as_ref(name).len() + value.as_str().len() + LINE)
    });
    FRAME + lines.sum::<usize>() + payload.len()
}

/// Serialises one of our own types.
pub fn to_bytes(value: &impl serde::Serialize) -> Bytes {
    // Our own types hold only texts, numbers and JSON values, all of which serialise.
    serde_json::to_vec(value)
        .map(Bytes::from)
        .unwrap_or_default()
}
