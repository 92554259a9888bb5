//! Posts webhooks the way Meta does: concurrently, only HTTP 200 is success, everything else is retried.
//!
//! Deliveries waiting and attempts in flight are bounded; past the bound a new delivery is refused here
//! rather than queued. A delivery keeps its bytes over every attempt.

use super::entry::{BODY_BYTES_MAX, Entry, Outcome, WebhookAttempt};
use super::retry::Schedule;
use super::signing::{Signature, Signer};
use crate::journal::Journal;
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

/// A body on its way.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub body: Bytes,
    pub signature: Signature,
    /// How many updates they carry.
    pub updates: usize,
    /// The conversation, when all updates are of one.
    pub conversation: Option<String>,
    /// The messages the updates are about.
    pub message_ids: Arc<[String]>,
    /// Whether a failure is retried.
    pub retry: bool,
}

#[derive(Debug)]
pub struct Posted {
    /// Its number in the journal.
    pub number: u64,
    /// Resolves when the first attempt has ended.
    pub first_attempt: oneshot::Receiver<()>,
}

/// Why a delivery is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The bound on waiting deliveries is reached.
    #[error("too many deliveries are waiting; let the receiver catch up")]
    Full,
    /// No webhook URL is set.
    #[error("no webhook URL is set; put one to /_sim/webhook")]
    NoTarget,
}

#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Attempts at the same time.
    pub in_flight_max: usize,
    pub pending_max: usize,
}

/// Posts deliveries until they are taken or given up.
pub struct Courier {
    client: reqwest::Client,
    signer: Signer,
    journal: Arc<Journal<Entry>>,
    schedule: Schedule,
    target: RwLock<Option<String>>,
    in_flight: Semaphore,
    pending: Arc<Semaphore>,
    pending_max: usize,
    next: AtomicU64,
    stop: watch::Receiver<bool>,
}

impl Courier {
    /// Makes a courier that ends its tasks when `stop` turns true.
    pub fn new(
        client: reqwest::Client,
        signer: Signer,
        journal: Arc<Journal<Entry>>,
        schedule: Schedule,
        bounds: Bounds,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            client,
            signer,
            journal,
            schedule,
            target: RwLock::new(None),
            in_flight: Semaphore::new(bounds.in_flight_max.max(1)),
            pending: Arc::new(Semaphore::new(bounds.pending_max)),
            pending_max: bounds.pending_max,
            next: AtomicU64::new(1),
            stop,
        }
    }

    /// The URL webhooks go to.
    pub fn target(&self) -> Option<String> {
        self.target
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Sends webhooks to another URL from the next attempt on, those already waiting too.
    pub fn set_target(&self, url: Option<String>) {
        *self.target.write().unwrap_or_else(PoisonError::into_inner) = url;
    }

    /// How many deliveries have not ended.
    pub fn pending(&self) -> usize {
        self.pending_max
            .saturating_sub(self.pending.available_permits())
    }

    /// Accepts a delivery and posts it in the background.
    pub fn post(self: &Arc<Self>, delivery: Delivery) -> Result<Posted, Refused> {
        if self.target().is_none() {
            return Err(Refused::NoTarget);
        }
        let permit = self
            .pending
            .clone()
            .try_acquire_owned()
            .map_err(|_| Refused::Full)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (ended, first_attempt) = oneshot::channel();
        let courier = self.clone();
        tokio::spawn(async move {
            let mut stop = courier.stop.clone();
            tokio::select! {
                () = courier.carry(number, delivery, ended, permit) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        });
        Ok(Posted {
            number,
            first_attempt,
        })
    }

    async fn carry(
        &self,
        number: u64,
        delivery: Delivery,
        ended: oneshot::Sender<()>,
        _permit: OwnedSemaphorePermit,
    ) {
        let first = Instant::now();
        let mut ended = Some(ended);
        for attempt in 1.. {
            let (answer, taken) = self.attempt(&delivery).await;
            let wait = match answer {
                Ok(200) => None,
                _ if delivery.retry => self.schedule.after(attempt, first.elapsed()),
                _ => None,
            };
            let outcome = match (&answer, wait) {
                (Ok(200), _) => Outcome::Delivered,
                (_, Some(_)) => Outcome::Retrying,
                (_, None) => Outcome::GivenUp,
            };
            self.journal.record(Entry::Webhook(record(
                number, attempt, &delivery, answer, taken, outcome,
            )));
            if let Some(ended) = ended.take() {
                // Nobody may be waiting for the first attempt.
                let _ = ended.send(());
            }
            let Some(wait) = wait else { return };
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt(&self, delivery: &Delivery) -> (Result<u16, String>, Duration) {
        // The semaphore is never closed, so there is always a permit; waiting for it is not the receiver's time.
        let _permit = self.in_flight.acquire().await;
        let begun = Instant::now();
        let answer = self.ask(delivery).await;
        (answer, begun.elapsed())
    }

    async fn ask(&self, delivery: &Delivery) -> Result<u16, String> {
        let target = self.target().ok_or_else(|| Refused::NoTarget.to_string())?;
        let mut request = self
            .client
            .post(target)
            .header("accept", "*/*")
            .header("accept-encoding", "deflate, gzip")
            .header("user-agent", "facebookexternalua")
            .header("content-type", "application/json");
        for (name, value) in self.signer.headers(&delivery.body, delivery.signature) {
            request = request.header(name, value);
        }
        let response = request
            .body(delivery.body.clone())
            .send()
            .await
            .map_err(|error| reason(&error))?;
        let status = response.status().as_u16();
        // The answer's body means nothing to Meta; reading a small one lets the connection be used again.
        if response
            .content_length()
            .is_some_and(|length| length < 64 * 1024)
        {
            let _ = response.bytes().await;
        }
        Ok(status)
    }
}

/// A client that waits at most `within` for an answer, follows nothing and uses no proxy.
pub fn client(within: Duration) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .timeout(within)
        .connect_timeout(within)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
}

fn reason(error: &reqwest::Error) -> String {
    let kind = match error {
        error if error.is_timeout() => "timeout",
        error if error.is_connect() => "could not connect",
        error if error.is_builder() => "bad url",
        _ => "connection lost",
    };
    kind.to_owned()
}

fn record(
    number: u64,
    attempt: u32,
    delivery: &Delivery,
    answer: Result<u16, String>,
    taken: Duration,
    outcome: Outcome,
) -> WebhookAttempt {
    let body = (delivery.body.len() <= BODY_BYTES_MAX)
        .then(|| String::from_utf8_lossy(&delivery.body).into_owned());
    WebhookAttempt {
        delivery: number,
        attempt,
        conversation: delivery.conversation.clone(),
        message_ids: delivery.message_ids.clone(),
        signature: delivery.signature,
        updates: delivery.updates,
        body_bytes: delivery.body.len(),
        body,
        status: answer.as_ref().ok().copied(),
        error: answer.err(),
        duration_us: u64::try_from(taken.as_micros()).unwrap_or(u64::MAX),
        outcome,
    }
}
