//! Which messages of other streams SPILL refers to, read from headers alone: whoever makes room there, or counts whose it
//! is, has to know.

use super::copy::{self, Reference};
use super::store::StoreError;
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::{SPILL, SpillQueue};
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use futures_util::StreamExt;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::time::Duration;
use tokio::time::timeout;

const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Entries read and gone since, beyond a tenth of those that are there, from which everything is read again.
const GONE_MAX: u64 = 1024;

/// What is referred to: whose it is and how long, by stream and sequence. What was taken out of SPILL since is in it for a
/// while, but nothing is missing.
#[derive(Debug, Default)]
pub struct References {
    /// The sequence of SPILL to read next.
    next: u64,
    read: u64,
    streams: HashMap<String, BTreeMap<u64, (TenantId, Reference)>>,
}

impl References {
    /// Reads on to the end of SPILL. What moves from one spill queue to another is stored there before it is taken out
    /// here, and so is seen in one place or the other.
    pub async fn follow(&mut self, context: &Context) -> Result<(), StoreError> {
        let failed = |error: &dyn Display| StoreError::new("looked through", error);
        let stream = timeout(ANSWER_WAIT, context.get_stream(SPILL))
            .await
            .map_err(|error| failed(&error))?
            .map_err(|error| failed(&error))?;
        let state = &stream.cached_info().state;
        let is_old = self.read > state.messages + state.messages / 10 + GONE_MAX;
        if is_old || state.messages == 0 || self.next > state.last_sequence + 1 {
            *self = Self::default();
        }
        if state.messages == 0 || self.next > state.last_sequence {
            return Ok(());
        }
        let config = OrderedConfig {
            headers_only: true,
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: self.next.max(1),
            },
            ..OrderedConfig::default()
        };
        let consumer = timeout(ANSWER_WAIT, stream.create_consumer(config))
            .await
            .map_err(|error| failed(&error))?
            .map_err(|error| failed(&error))?;
        if consumer.cached_info().num_pending == 0 {
            return Ok(());
        }
        let mut messages = consumer.messages().await.map_err(|error| failed(&error))?;
        loop {
            let next = timeout(ANSWER_WAIT, messages.next())
                .await
                .map_err(|error| failed(&error))?;
            let message = next
                .ok_or_else(|| failed(&"the connection closed"))?
                .map_err(|error| failed(&error))?;
            let place = message.info().map_err(|error| failed(&error))?;
            (self.next, self.read) = (place.stream_sequence + 1, self.read + 1);
            let reference = message.headers.as_ref().and_then(copy::reference);
            if let Some(reference) = reference
                && let Some((_, queue)) = SpillQueue::parse(&message.subject)
            {
                let of = self.streams.entry(reference.stream.clone()).or_default();
                of.insert(reference.sequence, (queue.tenant, reference));
            }
            if place.pending == 0 {
                return Ok(());
            }
        }
    }

    /// What is referred to of a stream below a sequence, ascending.
    pub fn below(&self, stream: &str, below: u64) -> Vec<Reference> {
        self.range(stream, below)
            .map(|(_, reference)| reference.clone())
            .collect()
    }

    pub fn held_below(&self, stream: &str, below: u64) -> HashMap<TenantId, u64> {
        let mut held: HashMap<TenantId, u64> = HashMap::new();
        for (tenant, reference) in self.range(stream, below) {
            let length = u64::try_from(reference.length).unwrap_or(u64::MAX);
            *held.entry(tenant.clone()).or_default() += length;
        }
        held
    }

    fn range(&self, stream: &str, below: u64) -> impl Iterator<Item = &(TenantId, Reference)> {
        let of = self.streams.get(stream).into_iter();
        of.flat_map(move |of| of.range(..below).map(|(_, whose)| whose))
    }
}
