//! One attempt at one piece of work, from remembering to acknowledging.
//!
//! The order is what makes effects take place once: recall, run, remember, acknowledge. Whatever fails in
//! between leaves the message unacknowledged and the attempt is made again; a panic or a time-out ends the
//! attempt, never the pool.

use super::adaptive::Ended;
use super::dead;
use super::dead_class::DeadClass;
use super::intake::{Arrival, acknowledge};
use super::job::{Job, Verdict, WHOLE, Work};
use super::log::{Log, now_ms};
use super::metrics::Metrics;
use super::ring::{Progress, Recall, Ring, RingError};
use super::settings::PoolSettings;
use super::tenure::Tenure;
use crate::traces::{Attempt, Context};
use ackline_shared::ids::PhoneNumberId;
use ackline_shared::subjects::session_key;
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Pause before trying again what could not be written to NATS; it does not count as an attempt.
const STORE_RETRY: Duration = Duration::from_millis(500);
/// Processes that may take an update over and end while they work on it, before the update is given up.
const BEGUN_MAX: u32 = 3;

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

/// What is known of a piece of work's earlier attempts, here and in other processes.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    /// When it first failed or had to wait, in unix milliseconds.
    first_ms: Option<u64>,
    /// Whether the memory was asked.
    recalled: bool,
    /// Whether the memory holds something of it that has to be taken out in the end.
    noted: bool,
    /// How many marks the memory holds; none when what happened is not all noted.
    noted_marks: Option<usize>,
    /// Attempts that other processes began and never ended.
    begun: u32,
}

impl Trail {
    /// Whether an attempt was begun in this process.
    pub fn is_begun(&self) -> bool {
        self.recalled
    }

    /// Whether a successor, or this process later, would find everything that is known of the work.
    pub fn is_durable(&self) -> bool {
        self.noted_marks.is_some()
    }
}

/// What there is to do with a piece of work right now.
enum Next {
    Conclude(Verdict),
    Later(Duration),
}

impl<J: Job> Attempts<J> {
    /// Makes an attempt, and tells how it went where something was asked.
    pub async fn make(self, lane_name: &'static str, mut arrival: Box<Arrival>) -> (Outcome, Option<Ended>) {
        let started = Instant::now();
        arrival.presence.run();
        let verdict = match self.begin(lane_name, &mut arrival).await {
            Next::Conclude(verdict) => verdict,
            Next::Later(wait) => return (Outcome::Again(arrival, wait), None),
        };
        let (work, took) = (&arrival.work, started.elapsed());
        self.metrics.attempted(J::POOL, name(&verdict), took);
        self.metrics.following().tell(J::POOL, &work.head, work.attempt, &verdict, took);
        let ended = Ended::of(&verdict, started, took);
        (self.conclude(arrival, verdict).await, ended)
    }

    async fn conclude(&self, arrival: Box<Arrival>, verdict: Verdict) -> Outcome {
        let work = &arrival.work;
        match verdict {
            Verdict::Idle => self.settle(arrival).await,
            Verdict::Done => self.remember(arrival).await,
            Verdict::Retry { reason, after } if !work.last_attempt => {
                self.put_off(arrival, &reason, after).await
            }
            Verdict::Retry { reason, .. } => {
                let reason = format!("gave up after {} attempts: {reason}", work.attempt);
                self.give_up(arrival, &reason).await
            }
            Verdict::Wait { reason, after } if !work.overdue => self.hold(arrival, &reason, after).await,
            Verdict::Wait { reason, .. } => {
                let hours = self.settings.give_up_after.as_secs_f64() / 3600.0;
                let reason = format!("gave up, for it waited longer than {hours:.1} h: {reason}");
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

    /// Recalls what is known and runs the job.
    async fn begin(&self, lane_name: &str, arrival: &mut Arrival) -> Next {
        if let Some(defect) = &arrival.defect {
            return Next::Conclude(Verdict::dead(defect.clone()));
        }
        // The tenure may have changed since the last attempt.
        let tenure = arrival.reading.tenure.clone();
        arrival.work.keeper.hold_under(tenure.clone());
        if arrival.work.marks.has(WHOLE) {
            return Next::Conclude(Verdict::Done);
        }
        if !self.job.concerns(&arrival.work.head) {
            return Next::Conclude(Verdict::Idle);
        }
        if !arrival.trail.recalled {
            let head = &arrival.work.head;
            self.metrics.started(J::POOL, Duration::from_millis(now_ms().saturating_sub(head.received_ms)));
            arrival.work.keeper =
                self.ring.keeper(memory_key::<J>(lane_name, &arrival.work), Some(tenure.clone()));
            // A job with a memory of its own asks ours only about attempts that somebody else made.
            if J::REMEMBERS || arrival.again {
                match self.recall(arrival).await {
                    Ok(None) => {}
                    Ok(Some(next)) => return next,
                    Err(error) => {
                        tracing::warn!(pool = %J::POOL, %error, "trying again");
                        return Next::Later(STORE_RETRY);
                    }
                }
            }
            arrival.trail.recalled = true;
            if arrival.again && arrival.trail.begun >= BEGUN_MAX {
                return Next::Conclude(Verdict::dead(format!(
                    "{BEGUN_MAX} processes took this update over and ended while they worked on it"
                )));
            }
            if arrival.again {
                self.note_begun(arrival).await;
            }
        }
        let work = &mut arrival.work;
        let waited =
            arrival.trail.first_ms.map(|first| Duration::from_millis(now_ms().saturating_sub(first)));
        work.overdue = waited.is_some_and(|waited| waited >= self.settings.give_up_after);
        work.last_attempt = work.overdue || work.attempt >= self.settings.attempts_max;
        // A process that was stopped for a while goes on here, and its partition is another's by now.
        if !tenure.is_current() {
            return Next::Later(STORE_RETRY);
        }
        self.run(work, &tenure).await.map_or(Next::Later(STORE_RETRY), Next::Conclude)
    }

    /// Takes up what the memory knows of the work.
    async fn recall(&self, arrival: &mut Arrival) -> Result<Option<Next>, RingError> {
        let work = &mut arrival.work;
        let progress = match work.keeper.recall(work.head.id.as_str()).await? {
            Recall::Done => return Ok(Some(Next::Conclude(Verdict::Idle))),
            Recall::Open(progress) => progress,
        };
        if progress == Progress::default() {
            return Ok(None);
        }
        let noted_marks = Some(progress.parts.len());
        progress.parts.iter().for_each(|part| work.marks.set(part));
        work.attempt = progress.attempts.saturating_add(1);
        arrival.trail = Trail {
            first_ms: (progress.first_ms > 0).then_some(progress.first_ms),
            recalled: true,
            noted: true,
            noted_marks,
            begun: progress.begun,
        };
        let rest = Duration::from_millis(progress.due_ms.saturating_sub(now_ms()));
        Ok((!rest.is_zero()).then(|| Next::Later(rest.min(self.settings.backoff.longest()))))
    }

    /// Runs the job; `None` when its partition was taken away before the job ended.
    async fn run(&self, work: &Work, tenure: &Tenure) -> Option<Verdict> {
        let traced = self.metrics.traces().begin(&work.head);
        let verdict = self.run_guarded(work, tenure, traced.as_ref().map(Attempt::context)).await;
        if let (Some(traced), Some(verdict)) = (traced, &verdict) {
            traced.end(J::POOL, &work.head, work.attempt, name(verdict), verdict.reason());
        }
        verdict
    }

    async fn run_guarded(&self, work: &Work, tenure: &Tenure, context: Option<Context>) -> Option<Verdict> {
        let job = Context::around(context, self.job.run(work));
        let guarded = AssertUnwindSafe(job).catch_unwind();
        let ended = tokio::select! {
            ended = timeout(self.settings.attempt_timeout, guarded) => ended,
            () = tenure.was_cut() => return None,
        };
        Some(match ended {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_panic)) => {
                tracing::error!(pool = %J::POOL, update = %work.head.id, "a job panicked; its update goes to the dead letters");
                Verdict::dead("the job panicked on this update; the log of the worker has the place")
            }
            Err(_elapsed) => {
                Verdict::retry(format!("took longer than {} s", self.settings.attempt_timeout.as_secs()))
            }
        })
    }

    async fn remember(&self, mut arrival: Box<Arrival>) -> Outcome {
        if !J::REMEMBERS {
            return self.settle(arrival).await;
        }
        if let Err(error) = arrival.work.keeper.finish(arrival.work.head.id.as_str()).await {
            tracing::warn!(pool = %J::POOL, %error, "an effect took place and is not remembered yet; trying again");
            // The effect is marked whole, so that the next attempt only remembers it.
            arrival.work.marks.set(WHOLE);
            return Outcome::Again(arrival, STORE_RETRY);
        }
        arrival.trail.noted = false;
        self.settle(arrival).await
    }

    /// Puts a failed attempt off; the count and the wait outlive this process.
    async fn put_off(&self, mut arrival: Box<Arrival>, reason: &str, after: Option<Duration>) -> Outcome {
        let wait = self.settings.backoff.wait(arrival.work.attempt, after, rand::random());
        let attempts = arrival.work.attempt;
        tracing::info!(
            pool = %J::POOL, tenant = %arrival.work.head.tenant, update = %arrival.work.head.id, attempt = attempts,
            wait_ms = wait.as_millis(), reason, "will be tried again"
        );
        // It ended in the process that began it.
        arrival.trail.begun = 0;
        self.note(&mut arrival, attempts, wait).await;
        arrival.work.attempt = attempts.saturating_add(1);
        Outcome::Again(arrival, wait)
    }

    /// Lets work wait that was not tried. Only the first wait is noted, and what changed since: while its
    /// downstream is left alone, the work costs nothing more.
    async fn hold(&self, mut arrival: Box<Arrival>, reason: &str, after: Duration) -> Outcome {
        let wait = self.settings.backoff.spread(after, rand::random());
        if arrival.trail.first_ms.is_none()
            || arrival.trail.noted_marks != Some(arrival.work.marks.all().len())
        {
            tracing::info!(
                pool = %J::POOL, tenant = %arrival.work.head.tenant, update = %arrival.work.head.id,
                wait_ms = wait.as_millis(), reason, "waits without an attempt"
            );
            let attempts = arrival.work.attempt.saturating_sub(1);
            self.note(&mut arrival, attempts, wait).await;
        }
        Outcome::Again(arrival, wait)
    }

    /// Notes, for an update that somebody else had read before, that an attempt begins: should its process end
    /// with it, again and again, it is the update that ends it.
    async fn note_begun(&self, arrival: &mut Arrival) {
        arrival.trail.begun = arrival.trail.begun.saturating_add(1);
        let attempts = arrival.work.attempt.saturating_sub(1);
        self.note(arrival, attempts, Duration::ZERO).await;
    }

    async fn note(&self, arrival: &mut Arrival, attempts: u32, wait: Duration) {
        let now = now_ms();
        let first_ms = *arrival.trail.first_ms.get_or_insert(now);
        let due_ms = now.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let work = &arrival.work;
        let begun = arrival.trail.begun;
        let progress = Progress { parts: work.marks.all(), attempts, first_ms, due_ms, begun };
        arrival.trail.noted = true;
        arrival.trail.noted_marks = Some(progress.parts.len());
        if let Err(error) = work.keeper.note(work.head.id.as_str(), progress).await {
            arrival.trail.noted_marks = None;
            tracing::warn!(pool = %J::POOL, %error, "an attempt is not remembered yet; a successor would count it anew");
        }
    }

    async fn give_up(&self, mut arrival: Box<Arrival>, reason: &str) -> Outcome {
        let work = &arrival.work;
        tracing::warn!(
            pool = %J::POOL, tenant = %work.head.tenant, update = %work.head.id, attempts = work.attempt, reason,
            "went to the dead letters"
        );
        match dead::bury(&self.log, J::POOL, arrival.stream, work, reason).await {
            Ok(()) => {
                self.metrics.buried(J::POOL, &work.head.tenant, DeadClass::of(reason));
                self.remember(arrival).await
            }
            Err(error) => {
                tracing::warn!(pool = %J::POOL, %error, "a dead letter is not stored yet; trying again");
                arrival.defect = Some(reason.to_owned());
                Outcome::Again(arrival, STORE_RETRY)
            }
        }
    }

    async fn settle(&self, arrival: Box<Arrival>) -> Outcome {
        self.metrics.finished(J::POOL, 1);
        if arrival.trail.noted
            && let Err(error) = arrival.work.keeper.forget(arrival.work.head.id.as_str()).await
        {
            tracing::debug!(pool = %J::POOL, %error, "the note of a finished update stays until newer ones push it out");
        }
        acknowledge(&arrival.message).await;
        Outcome::Finished
    }
}

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
        Verdict::Wait { .. } => "wait",
        Verdict::Dead { .. } => "dead",
    }
}
