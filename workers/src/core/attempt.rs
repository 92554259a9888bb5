//! One attempt at one piece of work, from remembering to acknowledging.
//!
//! The order is what makes effects take place once: recall, run, remember, acknowledge. Whatever fails in
//! between leaves the message unacknowledged and the attempt is made again; a panic or a time-out ends the
//! attempt, never the pool.

use super::dead;
use super::intake::{Arrival, acknowledge};
use super::job::{Job, Verdict, Work};
use super::log::{Log, now_ms};
use super::metrics::Metrics;
use super::ring::{Recall, Ring};
use super::settings::PoolSettings;
use ackline_shared::ids::PhoneNumberId;
use ackline_shared::subjects::session_key;
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Pause before trying again what could not be written to NATS; it does not count as an attempt.
const STORE_RETRY: Duration = Duration::from_millis(500);

/// What the attempts of one pool share; cheap to clone.
#[derive(Debug)]
pub struct Attempts<J> {
    /// The pool's work.
    pub job: Arc<J>,
    /// Where dead letters go.
    pub log: Log,
    /// What is remembered of conversations.
    pub ring: Ring,
    /// The pool's bounds.
    pub settings: Arc<PoolSettings>,
    /// What is counted.
    pub metrics: Metrics,
}

impl<J> Clone for Attempts<J> {
    fn clone(&self) -> Self {
        Self {
            job: self.job.clone(),
            log: self.log.clone(),
            ring: self.ring.clone(),
            settings: self.settings.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

/// Where a piece of work goes after an attempt.
#[derive(Debug)]
pub enum Outcome {
    /// It is finished and acknowledged.
    Finished,
    /// It waits, then comes again.
    Again(Box<Arrival>, Duration),
}

impl<J: Job> Attempts<J> {
    /// Makes an attempt.
    pub async fn make(self, lane_name: &'static str, mut arrival: Box<Arrival>) -> Outcome {
        let started = Instant::now();
        let verdict = match self.begin(lane_name, &mut arrival).await {
            Some(verdict) => verdict,
            None => return Outcome::Again(arrival, STORE_RETRY),
        };
        self.metrics.attempted(J::POOL, name(&verdict), started.elapsed());
        match verdict {
            Verdict::Idle => self.settle(arrival).await,
            Verdict::Done => self.remember(arrival).await,
            Verdict::Retry { reason, after } if !arrival.work.last_attempt => {
                self.put_off(arrival, &reason, after).await
            }
            Verdict::Retry { reason, .. } => {
                let reason = format!("gave up after {} attempts: {reason}", arrival.work.attempt);
                self.give_up(arrival, &reason).await
            }
            Verdict::Dead { reason } => self.give_up(arrival, &reason).await,
        }
    }

    /// Whether an update asks nothing of this pool, so that it can be acknowledged without an attempt.
    pub fn is_idle(&self, arrival: &Arrival) -> bool {
        arrival.defect.is_none() && arrival.work.attempt == 1 && !self.job.concerns(&arrival.work.head)
    }

    /// Puts an update among the dead letters because somebody said so, without running the job.
    pub async fn discard(self, arrival: Box<Arrival>, by: &str) -> Outcome {
        self.metrics.attempted(J::POOL, "discarded", Duration::ZERO);
        self.give_up(arrival, &format!("discarded by {by}")).await
    }

    /// Recalls what is known and runs the job; `None` when the memory could not be read.
    async fn begin(&self, lane_name: &str, arrival: &mut Arrival) -> Option<Verdict> {
        if let Some(defect) = &arrival.defect {
            return Some(Verdict::dead(defect.clone()));
        }
        let work = &mut arrival.work;
        work.last_attempt = work.attempt >= self.settings.attempts_max;
        if work.attempt == 1 {
            self.metrics
                .started(J::POOL, Duration::from_millis(now_ms().saturating_sub(work.head.received_ms)));
        }
        if work.marks.has(WHOLE) {
            return Some(Verdict::Done);
        }
        if !self.job.concerns(&work.head) {
            return Some(Verdict::Idle);
        }
        if J::REMEMBERS {
            work.keeper = self.ring.keeper(memory_key::<J>(lane_name, work));
            match work.keeper.recall(work.head.id.as_str()).await {
                Ok(Recall::Done) => return Some(Verdict::Idle),
                Ok(Recall::Open(parts)) => parts.iter().for_each(|part| work.marks.set(part)),
                Err(error) => {
                    tracing::warn!(pool = %J::POOL, %error, "trying again");
                    return None;
                }
            }
        }
        Some(self.run(work).await)
    }

    async fn run(&self, work: &Work) -> Verdict {
        let guarded = AssertUnwindSafe(self.job.run(work)).catch_unwind();
        match timeout(self.settings.attempt_timeout, guarded).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_panic)) => {
                tracing::error!(pool = %J::POOL, update = %work.head.id, "a job panicked; its update goes to the dead letters");
                Verdict::dead("the job panicked on this update; the log of the worker has the place")
            }
            Err(_elapsed) => {
                Verdict::retry(format!("took longer than {} s", self.settings.attempt_timeout.as_secs()))
            }
        }
    }

    async fn remember(&self, arrival: Box<Arrival>) -> Outcome {
        if let Err(error) = arrival.work.keeper.finish(arrival.work.head.id.as_str()).await {
            tracing::warn!(pool = %J::POOL, %error, "an effect took place and is not remembered yet; trying again");
            // The effect is marked whole, so that the next attempt only remembers it.
            arrival.work.marks.set(WHOLE);
            return Outcome::Again(arrival, STORE_RETRY);
        }
        self.settle(arrival).await
    }

    async fn put_off(&self, mut arrival: Box<Arrival>, reason: &str, after: Option<Duration>) -> Outcome {
        let work = &mut arrival.work;
        let wait = self.settings.backoff.wait(work.attempt, after, rand::random());
        tracing::info!(
            pool = %J::POOL, tenant = %work.head.tenant, update = %work.head.id, attempt = work.attempt,
            wait_ms = wait.as_millis(), reason, "will be tried again"
        );
        if let Err(error) = work.persist().await {
            tracing::warn!(pool = %J::POOL, %error, "finished parts are not remembered yet");
        }
        work.attempt = work.attempt.saturating_add(1);
        Outcome::Again(arrival, wait)
    }

    async fn give_up(&self, arrival: Box<Arrival>, reason: &str) -> Outcome {
        let work = &arrival.work;
        tracing::warn!(
            pool = %J::POOL, tenant = %work.head.tenant, update = %work.head.id, attempts = work.attempt, reason,
            "went to the dead letters"
        );
        match dead::bury(&self.log, J::POOL, arrival.stream, work, reason).await {
            Ok(()) => self.remember(arrival).await,
            Err(error) => {
                tracing::warn!(pool = %J::POOL, %error, "a dead letter is not stored yet; trying again");
                Outcome::Again(arrival, STORE_RETRY)
            }
        }
    }

    async fn settle(&self, arrival: Box<Arrival>) -> Outcome {
        acknowledge(&arrival.message).await;
        Outcome::Finished
    }
}

/// The mark of work that took effect and only has to be remembered.
pub const WHOLE: &str = "*";

fn memory_key<J: Job>(lane_name: &str, work: &Work) -> String {
    let head = &work.head;
    let phone = head.phone.as_ref().map_or("", PhoneNumberId::as_str);
    format!("{}.{lane_name}", session_key::of(J::POOL, &head.tenant, phone, &head.conversation))
}

fn name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Done => "done",
        Verdict::Idle => "idle",
        Verdict::Retry { .. } => "retry",
        Verdict::Dead { .. } => "dead",
    }
}
