//! Writing to the streams: every publish carries a message id, waits for its receipt and has a deadline.

use ackline_message::SendCommand;
use ackline_shared::envelope::Head;
use ackline_shared::stored;
use ackline_shared::subjects::Lane;
use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::publish::PublishAck;
use bytes::Bytes;

/// A handle on the streams; cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    context: Context,
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
            context,
            partitions,
        }
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
        let receipt = self
            .publish(
                head.subject(),
                head.to_headers(),
                stored::encode(command).into(),
            )
            .await?;
        Ok(receipt.duplicate.then_some(receipt.sequence))
    }

    /// Stores a message under its head; one with the same id stored again changes nothing, and where the first stands is
    /// told.
    pub async fn write_once(&self, head: &Head, payload: Bytes) -> Result<Option<u64>, LogError> {
        let receipt = self
            .publish(head.subject(), head.to_headers(), payload)
            .await?;
        Ok(receipt.duplicate.then_some(receipt.sequence))
    }

    /// Stores a message under its head.
    pub async fn write(&self, head: &Head, payload: Bytes) -> Result<(), LogError> {
        self.write_raw(head.subject(), head.to_headers(), payload)
            .await
    }

    /// Stores a message whose headers already hold its id.
    pub async fn write_raw(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), LogError> {
        self.publish(subject, headers, payload).await.map(drop)
    }

    /// The longest message nats-server takes, headers included.
    pub fn message_bytes_max(&self) -> usize {
        match self.context.client().server_info().max_payload {
            0 => usize::MAX,
            bytes => bytes,
        }
    }

    async fn publish(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<PublishAck, LogError> {
        let failed = |error: &dyn std::fmt::Display| LogError {
            subject: subject.clone(),
            reason: error.to_string(),
        };
        // nats-server would end the connection over it, and everything that is on its way with it.
        if payload.len() > SURELY_FITS && size(&headers, &payload) > self.message_bytes_max() {
            let (bytes, most) = (size(&headers, &payload), self.message_bytes_max());
            let error = format!(
                "{bytes} bytes are more than nats-server takes ({most}); raise its max_payload"
            );
            return Err(failed(&error));
        }
        let receipt = self
            .context
            .publish_with_headers(subject.clone(), headers, payload)
            .await;
        receipt
            .map_err(|error| failed(&error))?
            .await
            .map_err(|error| failed(&error))
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
