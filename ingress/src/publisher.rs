//! Stores updates in JetStream: publishes with a dedupe id, and waits for the PubAck of each.
//!
//! One subscription holds the answers of all publishes; a slot in a fixed table waits for each. What is in
//! flight is bounded by permits. An update that is not acknowledged in time, was refused, or was on its way
//! when the connection broke is published again under the same id, within the delivery's budget, so that
//! JetStream stores it once. Success is a PubAck, of now or of the same update before, and nothing else is.

use crate::acknowledged::{Acknowledged, Fingerprint};
use crate::durability::Promise;
use crate::group::{Committer, Group, Outgoing};
use crate::link::{Follower, Link};
use crate::metrics::Metrics;
use crate::receipt;
use crate::settings::Publishing;
use crate::slots::{Claim, Outcome, Slots};
use crate::update_log::{StoreError, Update, UpdateLog};
use ackline_shared::nats::{self, Durability, NatsError, NatsSettings};
use async_nats::Client;
use async_nats::client::PublishErrorKind;
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};

/// Most updates of one delivery in flight at once.
const DELIVERY_WINDOW: usize = 256;
/// Publishes that may wait in the client for the connection's task.
const SENDER_CAPACITY: usize = 1024;
/// First wait before an update that was refused is published again; doubles.
const BACKOFF_INITIAL: Duration = Duration::from_millis(25);

/// Publishes to one NATS connection.
#[derive(Debug)]
pub struct Publisher {
    client: Client,
    inbox: String,
    slots: Arc<Slots>,
    permits: Semaphore,
    link: watch::Sender<Link>,
    limits: Publishing,
    metrics: Arc<Metrics>,
    acknowledged: Arc<Acknowledged>,
    promise: Arc<Promise>,
    group: Option<Group>,
}

impl Publisher {
    /// Connects in the background and starts to listen for answers.
    pub async fn connect(
        settings: &NatsSettings,
        limits: Publishing,
        metrics: Arc<Metrics>,
        acknowledged: Arc<Acknowledged>,
        promise: Arc<Promise>,
    ) -> Result<Arc<Self>, NatsError> {
        // One more than updates in flight: a group waits for an answer of its own.
        let slots = Slots::new(limits.in_flight_max + 1);
        let (link, _) = watch::channel(Link::New);
        let follower = Follower { link: link.clone(), slots: slots.clone() };
        let client = nats::connect_with(settings, "ackline-ingress", true, |options| {
            // Our subjects are made of tokens by type.
            options.skip_subject_validation(true).client_capacity(SENDER_CAPACITY).event_callback(
                move |event| {
                    follower.follow(&event);
                    std::future::ready(())
                },
            )
        })
        .await?;
        let inbox = client.new_inbox();
        let answers = client
            .subscribe(format!("{inbox}.*"))
            .await
            .map_err(|error| NatsError::Connect { url: settings.url.clone(), reason: error.to_string() })?;
        tokio::spawn(listen(answers, inbox.len() + 1, slots.clone()));
        let permits = Semaphore::new(limits.in_flight_max);
        let group = (settings.durability == Durability::Synced).then(|| {
            let committer = Committer {
                client: client.clone(),
                inbox: inbox.clone(),
                slots: slots.clone(),
                answer_timeout: limits.attempt_timeout,
                metrics: metrics.clone(),
            };
            Group::start(committer, limits.in_flight_max)
        });
        Ok(Arc::new(Self {
            client,
            inbox,
            slots,
            permits,
            link,
            limits,
            metrics,
            acknowledged,
            promise,
            group,
        }))
    }

    /// Whether NATS is reachable now.
    pub fn link(&self) -> Link {
        *self.link.borrow()
    }

    /// Updates published and not yet acknowledged.
    pub fn in_flight(&self) -> usize {
        self.limits.in_flight_max.saturating_sub(self.permits.available_permits())
    }

    /// An update to publish, unless its PubAck was seen before.
    fn unless_known(&self, update: Update) -> Option<New> {
        let print = self.acknowledged.fingerprint(&update.head);
        if self.acknowledged.knows(print) {
            self.metrics.repeated.inc();
            return None;
        }
        Some(New { update, print })
    }

    /// Waits until all updates of a window are acknowledged, publishing again what was not.
    async fn store_window(&self, updates: &[New], deadline: Instant) -> Result<(), StoreError> {
        let mut pending = Vec::with_capacity(updates.len());
        for update in updates {
            pending.push(Pending::new(update, self.slots.claim().ok_or(StoreError::Overloaded)?));
        }
        let mut backoff = BACKOFF_INITIAL;
        let mut failure = StoreError::Late;
        loop {
            self.connected(deadline).await?;
            for update in &mut pending {
                if !update.is_stored(self) {
                    update.publish(self, deadline).await?;
                }
            }
            let attempt_end = || deadline.min(Instant::now() + self.limits.attempt_timeout);
            let (mut end, mut refused) = (attempt_end(), false);
            for update in &mut pending {
                match update.outcome(end, self).await {
                    // While answers come in, publishing again would only add to the server's work.
                    Some(Outcome::Stored { .. }) => end = attempt_end(),
                    None => failure = StoreError::Late,
                    Some(Outcome::Lost) => failure = StoreError::Away,
                    Some(Outcome::NoStream) => (failure, refused) = (StoreError::NoStream, true),
                    Some(Outcome::Refused(reason)) => {
                        (failure, refused) = (StoreError::Refused(reason), true)
                    }
                }
            }
            if pending.iter().all(|update| update.stored) {
                return Ok(());
            }
            if refused {
                sleep(backoff.min(deadline.saturating_duration_since(Instant::now()))).await;
                backoff *= 2;
            }
            if Instant::now() >= deadline {
                return Err(failure);
            }
        }
    }

    /// Waits for a connection that has just gone away; gives up at once when it is away for longer.
    async fn connected(&self, deadline: Instant) -> Result<(), StoreError> {
        match self.link() {
            Link::Up => return Ok(()),
            Link::New => return Err(StoreError::Away),
            Link::Down(since) if since.elapsed() >= self.limits.attempt_timeout => {
                return Err(StoreError::Away);
            }
            Link::Down(_) => {}
        }
        let mut link = self.link.subscribe();
        match timeout_at(deadline, link.wait_for(|link| *link == Link::Up)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(StoreError::Away),
        }
    }

    async fn admit(
        &self,
        count: usize,
        first: bool,
        deadline: Instant,
    ) -> Result<SemaphorePermit<'_>, StoreError> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if first {
            return self.permits.try_acquire_many(count).map_err(|_| StoreError::Overloaded);
        }
        let acquired = timeout_at(deadline, self.permits.acquire_many(count)).await;
        acquired.map_err(|_| StoreError::Overloaded)?.map_err(|_| StoreError::Overloaded)
    }
}

impl UpdateLog for Publisher {
    async fn store<I>(&self, updates: I) -> Result<(), StoreError>
    where
        I: Iterator<Item = Update> + Send,
    {
        let deadline = Instant::now() + self.limits.budget;
        let window = DELIVERY_WINDOW.min(self.limits.in_flight_max);
        let mut new = updates.filter_map(|update| self.unless_known(update));
        let mut first = true;
        loop {
            let batch: Vec<New> = new.by_ref().take(window).collect();
            if batch.is_empty() {
                return Ok(());
            }
            let _permit = self.admit(batch.len(), first, deadline).await?;
            first = false;
            self.store_window(&batch, deadline).await?;
        }
    }
}

/// An update that is not known to be stored.
struct New {
    update: Update,
    print: Fingerprint,
}

/// An update on its way.
struct Pending<'u> {
    new: &'u New,
    claim: Claim,
    waiting: Option<oneshot::Receiver<Outcome>>,
    sent: Option<Instant>,
    stored: bool,
}

impl<'u> Pending<'u> {
    fn new(new: &'u New, claim: Claim) -> Self {
        Self { new, claim, waiting: None, sent: None, stored: false }
    }

    /// Whether it is stored, counting an answer that came after its attempt was over.
    fn is_stored(&mut self, publisher: &Publisher) -> bool {
        if let Some(Ok(outcome)) = self.waiting.as_mut().map(oneshot::Receiver::try_recv) {
            self.settle(&outcome, publisher);
        }
        self.stored
    }

    async fn publish(&mut self, publisher: &Publisher, deadline: Instant) -> Result<(), StoreError> {
        if self.waiting.is_none() {
            self.waiting = Some(self.claim.arm());
        }
        let Update { head, payload } = &self.new.update;
        let mut outgoing = Outgoing {
            subject: head.subject(),
            reply: self.claim.reply(&publisher.inbox),
            headers: head.to_headers(),
            payload: payload.clone(),
        };
        match self.sent {
            Some(_) => drop(publisher.metrics.republished.inc()),
            None => {
                self.sent = Some(Instant::now());
                if let Some(group) = publisher.group.as_ref().filter(|_| publisher.promise.in_groups()) {
                    match group.join(outgoing) {
                        None => return Ok(()),
                        Some(back) => outgoing = back,
                    }
                }
            }
        }
        let Outgoing { subject, reply, headers, payload } = outgoing;
        let publishing = publisher.client.publish_with_reply_and_headers(subject, reply, headers, payload);
        match timeout_at(deadline, publishing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                Err(StoreError::TooLarge(error.to_string()))
            }
            Ok(Err(_)) => Err(StoreError::Away),
            Err(_) => Err(StoreError::Late),
        }
    }

    /// Waits for the outcome of the attempt; `None` when there is none yet.
    async fn outcome(&mut self, attempt_end: Instant, publisher: &Publisher) -> Option<Outcome> {
        if self.stored {
            return Some(Outcome::Stored { duplicate: false });
        }
        let receiver = self.waiting.as_mut()?;
        let outcome = timeout_at(attempt_end, receiver).await.ok()?.unwrap_or(Outcome::Lost);
        self.settle(&outcome, publisher);
        Some(outcome)
    }

    fn settle(&mut self, outcome: &Outcome, publisher: &Publisher) {
        self.waiting = None;
        if let Outcome::Stored { duplicate } = outcome {
            self.stored = true;
            publisher.acknowledged.remember(self.new.print);
            let metrics = &publisher.metrics;
            if *duplicate {
                metrics.duplicates.inc();
            }
            if let Some(sent) = self.sent {
                metrics.ack_seconds.observe(sent.elapsed().as_secs_f64());
            }
        }
    }
}

async fn listen(mut answers: async_nats::Subscriber, token_at: usize, slots: Arc<Slots>) {
    while let Some(answer) = answers.next().await {
        if let Some(token) = answer.subject.get(token_at..) {
            slots.resolve(token, receipt::read(&answer));
        }
    }
}
