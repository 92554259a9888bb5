//! Stores updates in JetStream: publishes with a dedupe id, and waits for the PubAck of each.
//!
//! One subscription holds the answers of all publishes; a slot in a fixed table waits for each. What is in
//! flight is bounded by permits. An update that is not acknowledged in time, was refused, or was on its way
//! when the connection broke is published again under the same id, within the delivery's budget, so that
//! JetStream stores it once. Nothing is acknowledged from memory: success is a PubAck, and nothing else is.

use crate::metrics::Metrics;
use crate::settings::Publishing;
use crate::slots::{Claim, Outcome, Slots};
use crate::update_log::{StoreError, Update, UpdateLog};
use ackline_shared::nats::{self, NatsError, NatsSettings};
use async_nats::client::PublishErrorKind;
use async_nats::{Client, Event, Message, StatusCode};
use futures_util::StreamExt;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};

/// Most updates of one delivery in flight at once.
const DELIVERY_WINDOW: usize = 256;
/// Publishes that may wait in the client for the connection's task.
const SENDER_CAPACITY: usize = 1024;
/// First wait before an update that was refused is published again; doubles.
const BACKOFF_INITIAL: Duration = Duration::from_millis(25);

/// Whether NATS is reachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Connected.
    Up,
    /// Not connected since then.
    Down(Instant),
    /// Not connected yet.
    New,
}

impl Link {
    /// The state's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "connected",
            Self::Down(_) => "away",
            Self::New => "connecting",
        }
    }
}

/// Publishes to one NATS connection.
#[derive(Debug)]
pub struct Publisher {
    client: Client,
    inbox: String,
    slots: Arc<Slots>,
    permits: Arc<Semaphore>,
    link: watch::Sender<Link>,
    limits: Publishing,
    metrics: Arc<Metrics>,
}

impl Publisher {
    /// Connects in the background and starts to listen for answers.
    pub async fn connect(
        settings: &NatsSettings,
        limits: Publishing,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, NatsError> {
        let slots = Slots::new(limits.in_flight_max);
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
        let permits = Arc::new(Semaphore::new(limits.in_flight_max));
        Ok(Arc::new(Self { client, inbox, slots, permits, link, limits, metrics }))
    }

    /// Whether NATS is reachable now.
    pub fn link(&self) -> Link {
        *self.link.borrow()
    }

    /// Updates published and not yet acknowledged.
    pub fn in_flight(&self) -> usize {
        self.limits.in_flight_max.saturating_sub(self.permits.available_permits())
    }

    /// Waits until all updates of a window are acknowledged, publishing again what was not.
    async fn store_window(&self, updates: &[Update], deadline: Instant) -> Result<(), StoreError> {
        let mut pending = Vec::with_capacity(updates.len());
        for update in updates {
            pending.push(Pending::new(update, self.slots.claim().ok_or(StoreError::Overloaded)?));
        }
        let mut backoff = BACKOFF_INITIAL;
        let mut failure = StoreError::Late;
        loop {
            self.connected(deadline).await?;
            for update in &mut pending {
                if !update.is_stored(&self.metrics) {
                    update.publish(self, deadline).await?;
                }
            }
            let attempt_end = || deadline.min(Instant::now() + self.limits.attempt_timeout);
            let (mut end, mut refused) = (attempt_end(), false);
            for update in &mut pending {
                match update.outcome(end, &self.metrics).await {
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
    ) -> Result<OwnedSemaphorePermit, StoreError> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let permits = self.permits.clone();
        if first {
            return permits.try_acquire_many_owned(count).map_err(|_| StoreError::Overloaded);
        }
        let acquired = timeout_at(deadline, permits.acquire_many_owned(count)).await;
        acquired.map_err(|_| StoreError::Overloaded)?.map_err(|_| StoreError::Overloaded)
    }
}

impl UpdateLog for Publisher {
    async fn store<I>(&self, mut updates: I) -> Result<(), StoreError>
    where
        I: Iterator<Item = Update> + Send,
    {
        let deadline = Instant::now() + self.limits.budget;
        let window = DELIVERY_WINDOW.min(self.limits.in_flight_max);
        let mut first = true;
        loop {
            let batch: Vec<Update> = updates.by_ref().take(window).collect();
            if batch.is_empty() {
                return Ok(());
            }
            let _permit = self.admit(batch.len(), first, deadline).await?;
            first = false;
            self.store_window(&batch, deadline).await?;
        }
    }
}

/// An update on its way.
struct Pending<'u> {
    update: &'u Update,
    claim: Claim,
    waiting: Option<oneshot::Receiver<Outcome>>,
    sent: Option<Instant>,
    stored: bool,
}

impl<'u> Pending<'u> {
    fn new(update: &'u Update, claim: Claim) -> Self {
        Self { update, claim, waiting: None, sent: None, stored: false }
    }

    /// Whether it is stored, counting an answer that came after its attempt was over.
    fn is_stored(&mut self, metrics: &Metrics) -> bool {
        if let Some(Ok(outcome)) = self.waiting.as_mut().map(oneshot::Receiver::try_recv) {
            self.settle(&outcome, metrics);
        }
        self.stored
    }

    async fn publish(&mut self, publisher: &Publisher, deadline: Instant) -> Result<(), StoreError> {
        if self.waiting.is_none() {
            self.waiting = Some(self.claim.arm());
        }
        if self.sent.is_some() {
            publisher.metrics.republished.inc();
        }
        let reply = format!("{}.{}", publisher.inbox, self.claim.token());
        let head = &self.update.head;
        let publishing = publisher.client.publish_with_reply_and_headers(
            head.subject(),
            reply,
            head.to_headers(),
            self.update.payload.clone(),
        );
        self.sent.get_or_insert_with(Instant::now);
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
    async fn outcome(&mut self, attempt_end: Instant, metrics: &Metrics) -> Option<Outcome> {
        if self.stored {
            return Some(Outcome::Stored { duplicate: false });
        }
        let receiver = self.waiting.as_mut()?;
        let outcome = timeout_at(attempt_end, receiver).await.ok()?.unwrap_or(Outcome::Lost);
        self.settle(&outcome, metrics);
        Some(outcome)
    }

    fn settle(&mut self, outcome: &Outcome, metrics: &Metrics) {
        self.waiting = None;
        if let Outcome::Stored { duplicate } = outcome {
            self.stored = true;
            metrics.duplicates.inc_by(u64::from(*duplicate));
            if let Some(sent) = self.sent {
                metrics.ack_seconds.observe(sent.elapsed().as_secs_f64());
            }
        }
    }
}

/// Turns the client's events into the state of the link.
struct Follower {
    link: watch::Sender<Link>,
    slots: Arc<Slots>,
}

impl Follower {
    fn follow(&self, event: &Event) {
        match event {
            Event::Connected => {
                tracing::info!("connected to NATS");
                self.link.send_replace(Link::Up);
            }
            Event::Disconnected | Event::Closed => {
                tracing::warn!("NATS is away; deliveries get 503 until it is back");
                self.link.send_replace(Link::Down(Instant::now()));
                self.slots.lose_all();
            }
            other => tracing::debug!(event = %other, "NATS"),
        }
    }
}

async fn listen(mut answers: async_nats::Subscriber, token_at: usize, slots: Arc<Slots>) {
    while let Some(answer) = answers.next().await {
        if let Some(token) = answer.subject.get(token_at..) {
            slots.resolve(token, read_answer(&answer));
        }
    }
}

#[derive(Deserialize)]
struct Receipt<'a> {
    #[serde(borrow, default)]
    error: Option<ReceiptError<'a>>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
}

#[derive(Deserialize)]
struct ReceiptError<'a> {
    #[serde(default)]
    err_code: u64,
    #[serde(borrow, default)]
    description: std::borrow::Cow<'a, str>,
}

fn read_answer(answer: &Message) -> Outcome {
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Outcome::NoStream;
    }
    match serde_json::from_slice::<Receipt<'_>>(&answer.payload) {
        Ok(Receipt { error: Some(error), .. }) => {
            Outcome::Refused(format!("{} ({})", error.description, error.err_code))
        }
        Ok(Receipt { seq: 1.., duplicate, .. }) => Outcome::Stored { duplicate },
        _ => Outcome::Refused("the answer is no PubAck".to_owned()),
    }
}
