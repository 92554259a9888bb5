//! Group commit: what waits while one group is being synced is committed together next, by one atomic batch.
//!
//! A single server syncs once a publish and once a batch, so a group costs hardly more than one update. No
//! timer collects: an idle edge commits at once. A batch is all or nothing, and a duplicate in it refuses it
//! whole; its updates are then published one by one, in the same order, each with its own answer. An update
//! is stored only when the commit's PubAck says so.

use crate::metrics::Metrics;
use crate::slots::{Outcome, Slots};
use async_nats::header::{NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE};
use async_nats::{Client, HeaderMap, PublishError};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Most updates of a group; the server takes a thousand.
const UPDATES_MAX: usize = 500;
/// Larger payloads travel alone: a batch must not fail because one of it is too large for the server.
const GROUPED_BYTES_MAX: usize = 256 << 10;

/// An update ready to travel, with the subject its answer comes back on.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Where it goes.
    pub subject: String,
    /// Where its answer goes.
    pub reply: String,
    /// What travels beside it.
    pub headers: HeaderMap,
    /// The update.
    pub payload: Bytes,
}

/// Hands updates to the task that commits them.
#[derive(Debug)]
pub struct Group(mpsc::Sender<Outgoing>);

/// What the committing task works with.
#[derive(Debug)]
pub struct Committer {
    /// The connection whose inbox brings the answers.
    pub client: Client,
    /// That inbox.
    pub inbox: String,
    /// Who waits for which answer.
    pub slots: Arc<Slots>,
    /// Longest wait for a group's answer; its updates are then published again by whoever waits for them.
    pub answer_timeout: Duration,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Group {
    /// Starts the task; at most `waiting_max` updates wait for it.
    pub fn start(committer: Committer, waiting_max: usize) -> Self {
        let (sender, waiting) = mpsc::channel(waiting_max);
        tokio::spawn(committer.run(waiting));
        Self(sender)
    }

    /// Puts an update into the next group; gives it back when too many wait.
    pub fn join(&self, outgoing: Outgoing) -> Option<Outgoing> {
        self.0.try_send(outgoing).err().map(mpsc::error::TrySendError::into_inner)
    }
}

impl Committer {
    async fn run(self, mut waiting: mpsc::Receiver<Outgoing>) {
        let (unique, mut number) = (rand::random::<u64>(), 0_u64);
        let mut group = Vec::new();
        while waiting.recv_many(&mut group, UPDATES_MAX).await > 0 {
            number += 1;
            self.commit(&group, &format!("{unique:x}-{number:x}")).await;
            group.clear();
        }
    }

    async fn commit(&self, group: &[Outgoing], id: &str) {
        let too_large = group.iter().any(|outgoing| outgoing.payload.len() > GROUPED_BYTES_MAX);
        let outcome = if too_large { None } else { self.batch(group, id).await };
        match outcome {
            Some(Outcome::Stored { duplicate }) => {
                self.metrics.groups.inc();
                self.resolve(group, &Outcome::Stored { duplicate });
            }
            // One update is refused for its own reasons, and a missing stream is missing for all.
            Some(outcome) if group.len() == 1 || outcome == Outcome::NoStream => {
                self.resolve(group, &outcome)
            }
            Some(Outcome::Lost) | None if !too_large => {}
            _ => {
                self.metrics.groups_split.inc();
                for outgoing in group {
                    self.alone(outgoing).await;
                }
            }
        }
    }

    /// Publishes a group as one batch; no outcome when no answer came in time.
    async fn batch(&self, group: &[Outgoing], id: &str) -> Option<Outcome> {
        let claim = self.slots.claim()?;
        let answer = claim.arm();
        for (outgoing, sequence) in group.iter().zip(1_u64..) {
            let is_last = usize::try_from(sequence) == Ok(group.len());
            let mut headers = outgoing.headers.clone();
            if group.len() > 1 {
                headers.insert(NATS_BATCH_ID, id);
                headers.insert(NATS_BATCH_SEQUENCE, sequence.to_string());
                if is_last {
                    headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
                }
            }
            let reply = is_last.then(|| claim.reply(&self.inbox));
            if let Err(error) = self.publish(outgoing, reply, headers).await {
                return Some(Outcome::Refused(error.to_string()));
            }
        }
        timeout(self.answer_timeout, answer).await.ok()?.ok()
    }

    async fn alone(&self, outgoing: &Outgoing) {
        let published = self.publish(outgoing, Some(outgoing.reply.clone()), outgoing.headers.clone()).await;
        if let Err(error) = published {
            self.resolve(std::slice::from_ref(outgoing), &Outcome::Refused(error.to_string()));
        }
    }

    async fn publish(
        &self,
        outgoing: &Outgoing,
        reply: Option<String>,
        headers: HeaderMap,
    ) -> Result<(), PublishError> {
        let (subject, payload) = (outgoing.subject.clone(), outgoing.payload.clone());
        match reply {
            Some(reply) => self.client.publish_with_reply_and_headers(subject, reply, headers, payload).await,
            None => self.client.publish_with_headers(subject, headers, payload).await,
        }
    }

    fn resolve(&self, group: &[Outgoing], outcome: &Outcome) {
        for outgoing in group {
            if let Some(token) = outgoing.reply.get(self.inbox.len() + 1..) {
                self.slots.resolve(token, outcome.clone());
            }
        }
    }
}
