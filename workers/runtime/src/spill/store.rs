//! Spill queues in the stream SPILL: appending in order, reading from a place on, taking out, counting.
//!
//! Spill queues are read by direct gets instead of consumers: none waits behind another, there is nothing to create or
//! to set back, and a spill queue costs the server nothing but its messages.

use super::copy::Reference;
use crate::direct;
use crate::group_commit::{SINGLY_MAX, Write, publish_together};
use ackline_shared::subjects::{self, SPILL};
use async_nats::jetstream::Context;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{
    DirectGetErrorKind, LastRawMessageErrorKind, RawMessageErrorKind,
};
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use std::collections::HashMap;
use std::fmt::Display;

/// Larger messages travel alone: a batch must not fail because one of it is too large for the server.
const GROUPED_BYTES_MAX: usize = 256 << 10;

/// A message that a spill queue refers to, in a stream: from where it was stored first, or where the janitor kept it when
/// the room was needed. None when neither has it any more.
pub async fn original(
    context: &Context,
    reference: &Reference,
) -> Result<Option<StreamMessage>, StoreError> {
    let Reference {
        stream, sequence, ..
    } = reference;
    let failed = |error: &dyn Display| StoreError {
        verb: "read",
        reason: format!("{stream}: {error}"),
    };
    let of = context
        .get_stream_no_info(stream)
        .await
        .map_err(|error| failed(&error))?;
    match of.direct_get(*sequence).await {
        Ok(message) => return Ok(Some(message).filter(|message| reference.is_to(message))),
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => {}
        Err(error) => return Err(failed(&error)),
    }
    // A follower may lag behind; the stream's leader knows.
    match of.get_raw_message(*sequence).await {
        Ok(message) => return Ok(Some(message).filter(|message| reference.is_to(message))),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {}
        Err(error) => return Err(failed(&error)),
    }
    match of
        .get_last_raw_message_by_subject(&subjects::kept(stream, *sequence))
        .await
    {
        Ok(message) => Ok(Some(message).filter(|message| reference.is_to(message))),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

/// A message on its way into a spill queue; its headers have a dedupe id.
pub type SpillEntry = Write;

/// SPILL could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("SPILL cannot be {verb}: {reason}")]
pub struct StoreError {
    verb: &'static str,
    reason: String,
}

impl StoreError {
    /// Says what could not be done, and why.
    pub(super) fn new(verb: &'static str, reason: &dyn Display) -> Self {
        Self {
            verb,
            reason: reason.to_string(),
        }
    }
}

/// The stream; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    context: Context,
}

impl Store {
    pub fn new(context: Context) -> Self {
        Self { context }
    }

    /// Appends entries, those of each spill queue in order; doing it again with the same ids stores nothing twice.
    pub async fn append(&self, entries: &[SpillEntry]) -> Result<(), StoreError> {
        let mut queues: HashMap<&str, Vec<&SpillEntry>> = HashMap::new();
        for entry in entries {
            queues.entry(&entry.subject).or_default().push(entry);
        }
        let deepest = queues.values().map(Vec::len).max().unwrap_or(0);
        let together = deepest > SINGLY_MAX
            && entries
                .iter()
                .all(|entry| entry.payload.len() <= GROUPED_BYTES_MAX);
        if together && self.append_together(entries).await? {
            return Ok(());
        }
        // A batch with a duplicate is refused whole; one by one, what is stored already is passed over.
        try_join_all(queues.into_values().map(|queue| self.append_singly(queue)))
            .await
            .map(drop)
    }

    /// One after the other, so that none overtakes one before it that fails.
    async fn append_singly(&self, entries: Vec<&SpillEntry>) -> Result<(), StoreError> {
        for entry in entries {
            let SpillEntry {
                subject,
                headers,
                payload,
            } = entry.clone();
            let receipt = self
                .context
                .publish_with_headers(subject, headers, payload)
                .await;
            let receipt = receipt.map_err(|error| StoreError::new("written", &error))?;
            receipt
                .await
                .map_err(|error| StoreError::new("written", &error))?;
        }
        Ok(())
    }

    /// All or nothing; false when the server refused the batch.
    async fn append_together(&self, entries: &[SpillEntry]) -> Result<bool, StoreError> {
        let entries: Vec<&SpillEntry> = entries.iter().collect();
        let stored = publish_together(&self.context, &entries).await;
        let stored = stored.map_err(|error| StoreError::new("written", &error))?;
        Ok(stored.is_some())
    }

    /// The next messages of a spill queue from a sequence on, oldest first, and how many it has after them; none when it has
    /// no more.
    pub async fn load(
        &self,
        subject: &str,
        from: u64,
        max: usize,
    ) -> Result<(Vec<StreamMessage>, u64), StoreError> {
        let read = direct::next_of(&self.context, SPILL, subject, from, max).await;
        read.map_err(|error| StoreError::new("read", &error))
    }

    /// What an entry refers to; none when it is gone.
    pub async fn original(
        &self,
        reference: &Reference,
    ) -> Result<Option<StreamMessage>, StoreError> {
        original(&self.context, reference).await
    }

    /// Takes everything of a spill queue out up to a sequence.
    pub async fn remove(&self, subject: &str, up_to: u64) -> Result<(), StoreError> {
        let failed = |error: &dyn Display| StoreError {
            verb: "cleared",
            reason: error.to_string(),
        };
        let stream = self
            .context
            .get_stream_no_info(SPILL)
            .await
            .map_err(|error| failed(&error))?;
        let purge = stream.purge().filter(subject).sequence(up_to + 1);
        purge.await.map(|_| ()).map_err(|error| failed(&error))
    }

    /// The spill queues under a filter with how many messages each has.
    pub async fn count(&self, filter: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let failed = |error: &dyn Display| StoreError {
            verb: "counted",
            reason: error.to_string(),
        };
        let stream = self
            .context
            .get_stream_no_info(SPILL)
            .await
            .map_err(|error| failed(&error))?;
        let counts = stream
            .info_with_subjects(filter)
            .await
            .map_err(|error| failed(&error))?;
        let counts =
            counts.map_ok(|(subject, count)| (subject, u64::try_from(count).unwrap_or(u64::MAX)));
        counts.try_collect().await.map_err(|error| failed(&error))
    }
}
