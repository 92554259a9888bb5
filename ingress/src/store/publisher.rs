//! Stores updates in JetStream: publishes with a dedupe id, and waits for the PubAck of each.
//!
//! What is in flight is bounded by the slots of the connection. An update that is not acknowledged in time,
//! was refused, or was on its way when the connection broke is published again under the same id, within the
//! delivery's budget, so that JetStream stores it once. Success is a PubAck, and nothing else is; what had one
//! before is remembered, and the webhook does not bring it again.

use crate::metrics::Metrics;
use crate::store::acknowledged::Acknowledged;
use crate::store::durability::DurabilityCheck;
use crate::store::wire::slots::{Outcome, Token};
use crate::store::wire::status::ConnectionStatus;
use crate::store::wire::{Unsent, Wire};
use crate::store::{StoreError, Update, UpdateLog};
use ackline_shared::config::Reader;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Most updates of one delivery in flight at once.
pub const DELIVERY_WINDOW: usize = 256;
/// First wait before an update that was refused is published again; doubles.
const BACKOFF_INITIAL: Duration = Duration::from_millis(25);

/// Most updates that may wait for their PubAck; a NATS subscription holds 65,536 messages and then drops.
const IN_FLIGHT_CEILING: u64 = 32_768;

/// Limits of storing one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publishing {
    /// Updates published and not yet acknowledged at once.
    pub in_flight_max: usize,
    /// Time one delivery may take to be stored, retries included.
    pub budget: Duration,
    /// Time to wait for PubAcks before publishing again.
    pub attempt_timeout: Duration,
}

#[derive(Debug)]
pub struct Publisher {
    wire: Arc<Wire>,
    limits: Publishing,
    metrics: Arc<Metrics>,
    acknowledged: Arc<Acknowledged>,
    durability_check: Arc<DurabilityCheck>,
}

impl Publishing {
    /// One of `threads` equal shares.
    pub fn share_of(self, threads: usize) -> Self {
        Self {
            in_flight_max: self.in_flight_max.div_ceil(threads.max(1)),
            ..self
        }
    }

    /// Reads them from `[ingress]`; mistakes stay with the reader.
    pub fn read(reader: &mut Reader) -> Self {
        Self {
            in_flight_max: size(reader.count("ingress.in_flight_max", 1..=IN_FLIGHT_CEILING)),
            budget: reader.duration("ingress.publish_budget"),
            attempt_timeout: reader.duration("ingress.publish_attempt_timeout"),
        }
    }
}

impl Publisher {
    /// Puts a publisher together; several may share a connection.
    pub fn new(
        wire: Arc<Wire>,
        limits: Publishing,
        metrics: Arc<Metrics>,
        acknowledged: Arc<Acknowledged>,
        durability_check: Arc<DurabilityCheck>,
    ) -> Self {
        Self {
            wire,
            limits,
            metrics,
            acknowledged,
            durability_check,
        }
    }

    /// The connection it publishes on.
    pub fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    /// Waits until all updates of a window are acknowledged, publishing again what was not.
    async fn store_window(
        &self,
        window: &mut Window<'_>,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let mut backoff = BACKOFF_INITIAL;
        let mut failure = StoreError::Late;
        let count = window.updates.len();
        loop {
            self.connected(deadline).await?;
            for update in window.updates.iter_mut() {
                update.is_due &= !update.is_stored(self);
            }
            while let Err(unsent) = window.publish(self) {
                match unsent {
                    Unsent::TooLarge(reason) => return Err(StoreError::TooLarge(reason)),
                    Unsent::Full if self.wire.has_room(0, deadline).await => {}
                    Unsent::Full => return Err(StoreError::Overloaded),
                }
            }
            let attempt_end = |now: Instant| deadline.min(now + self.limits.attempt_timeout);
            let (mut end, mut refused, mut missing) = (attempt_end(Instant::now()), false, false);
            for update in window.updates.iter_mut() {
                let outcome = update.outcome(end, self).await;
                update.is_due = !update.stored;
                missing |= update.is_due;
                match outcome {
                    // While answers come in, publishing again would only add to the server's work.
                    Some(Outcome::Stored { .. }) if count > 1 => end = attempt_end(Instant::now()),
                    Some(Outcome::Stored { .. }) => {}
                    None => failure = StoreError::Late,
                    Some(Outcome::Lost) => failure = StoreError::Away,
                    Some(Outcome::NoStream) => (failure, refused) = (StoreError::NoStream, true),
                    Some(Outcome::Refused(reason)) => {
                        (failure, refused) = (StoreError::Refused(reason), true)
                    }
                }
            }
            if !missing {
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
        match self.wire.status() {
            ConnectionStatus::Up => Ok(()),
            ConnectionStatus::Down(since) if since.elapsed() < self.limits.attempt_timeout => {
                if self.wire.connected(deadline).await {
                    Ok(())
                } else {
                    Err(StoreError::Away)
                }
            }
            ConnectionStatus::New | ConnectionStatus::Down(_) => Err(StoreError::Away),
        }
    }

    /// Takes slots for a window: at once for a delivery's first, or not at all.
    async fn admit<'w>(
        &'w self,
        updates: &'w mut [Pending],
        first: bool,
        deadline: Instant,
    ) -> Result<Window<'w>, StoreError> {
        loop {
            if self
                .wire
                .claim(updates.iter_mut().map(|update| &mut update.token))
            {
                return Ok(Window {
                    wire: &self.wire,
                    updates,
                });
            }
            if first || !self.wire.has_room(updates.len(), deadline).await {
                return Err(StoreError::Overloaded);
            }
        }
    }
}

impl UpdateLog for Publisher {
    async fn store<I>(&self, updates: I) -> Result<(), StoreError>
    where
        I: Iterator<Item = Update> + Send,
    {
        let mut new = updates.map(Pending::new).fuse();
        let Some(mut only) = new.next() else {
            return Ok(());
        };
        let deadline = Instant::now() + self.limits.budget;
        let Some(second) = new.next() else {
            let mut window = self
                .admit(std::slice::from_mut(&mut only), true, deadline)
                .await?;
            return self.store_window(&mut window, deadline).await;
        };
        let size = DELIVERY_WINDOW.min(self.wire.in_flight_max());
        let mut new = [only, second].into_iter().chain(new);
        let mut first = true;
        loop {
            let mut updates: Vec<Pending> = new.by_ref().take(size).collect();
            if updates.is_empty() {
                return Ok(());
            }
            let mut window = self.admit(&mut updates, first, deadline).await?;
            first = false;
            self.store_window(&mut window, deadline).await?;
        }
    }
}

/// Updates that hold slots; dropping it frees them.
struct Window<'w> {
    wire: &'w Wire,
    updates: &'w mut [Pending],
}

impl Window<'_> {
    /// Publishes what is due, in order; all of it unless there is no room.
    fn publish(&mut self, publisher: &Publisher) -> Result<(), Unsent> {
        let grouped = publisher.durability_check.in_groups();
        let now = Instant::now();
        let mut writing = self.wire.write();
        for update in self.updates.iter_mut().filter(|update| update.is_due) {
            let Some(token) = update.token else { continue };
            let is_first = update.sent.is_none();
            writing.publish(
                token,
                &update.update.head,
                &update.update.payload,
                grouped && is_first,
            )?;
            update.is_due = false;
            if is_first {
                update.sent = Some(now);
            } else {
                publisher.metrics.republished.inc();
            }
        }
        Ok(())
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        self.wire.release(
            self.updates
                .iter_mut()
                .filter_map(|update| update.token.take()),
        );
    }
}

/// An update on its way.
struct Pending {
    update: Update,
    token: Option<Token>,
    /// It is to be published in this round.
    is_due: bool,
    sent: Option<Instant>,
    stored: bool,
}

impl Pending {
    fn new(update: Update) -> Self {
        Self {
            update,
            token: None,
            is_due: true,
            sent: None,
            stored: false,
        }
    }

    /// Whether it is stored, counting an answer that came after its attempt was over.
    fn is_stored(&mut self, publisher: &Publisher) -> bool {
        if self.stored || self.sent.is_none() {
            return self.stored;
        }
        if let Some(outcome) = self.token.and_then(|token| publisher.wire.outcome(token)) {
            self.settle(&outcome, publisher);
        }
        self.stored
    }

    /// Waits for the outcome of the attempt; `None` when there is none yet.
    async fn outcome(&mut self, attempt_end: Instant, publisher: &Publisher) -> Option<Outcome> {
        if self.stored {
            return Some(Outcome::Stored { duplicate: false });
        }
        let outcome = publisher.wire.wait(self.token?, attempt_end).await?;
        self.settle(&outcome, publisher);
        Some(outcome)
    }

    fn settle(&mut self, outcome: &Outcome, publisher: &Publisher) {
        if let Outcome::Stored { duplicate } = outcome {
            self.stored = true;
            let acknowledged = &publisher.acknowledged;
            acknowledged.remember(acknowledged.fingerprint(&self.update.head));
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

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
