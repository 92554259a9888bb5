//! One attempt at one piece of work, from remembering to the verdict's being durable.
//!
//! The order is what makes effects take place once: recall, run, remember; the acknowledgement follows when every
//! piece of the update is settled. Whatever fails in between leaves the update unacknowledged and the attempt is made
//! again; a panic or a time-out ends the attempt, never the pool.

use super::activity::Presence;
use super::adaptive;
use super::dead;
use super::dead_class::DeadClass;
use super::dedupe::{DedupeError, DedupeStore, Memory, Progress, Recall};
use super::fate::Fate;
use super::intake::Arrival;
use super::job::{Job, Step, Trouble, TroubleKind, Verdict, Work};
use super::log::Log;
use super::metrics::Metrics;
use super::settings::PoolSettings;
use ackline_engine::state::{End, Ended, Heard, Signal, Target, Waits};
use ackline_engine::verdict::VerdictKind;
use ackline_ownership::lease::Lease;
use ackline_shared::clock::now_ms;
use ackline_shared::envelope::Head;
use ackline_shared::ids::PhoneNumberId;
use ackline_shared::subjects::session_key;
use ackline_traces::{Attempt, Context};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Pause before trying again what could not be written to NATS; it does not count as an attempt.
const STORE_RETRY: Duration = Duration::from_millis(500);
/// Processes that may end while they work on an update, before the update is given up.
const BEGUN_MAX: u32 = 3;
/// First pause after a target's trouble while the target is still asked freely; it doubles.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);
/// Longest such pause for the first few troubles: by then the target's circuit breaker is open if it is to blame.
const TROUBLE_PAUSE_BRISK: Duration = Duration::from_secs(3);
const TROUBLES_BRISK: u32 = 6;
/// Longest such pause where only this one update is in trouble.
const TROUBLE_PAUSE_MAX: Duration = Duration::from_secs(600);
/// What timed out may have taken effect, and is not sent again before this.
const TIMED_OUT_PAUSE: Duration = Duration::from_secs(60);
/// Time beyond a target's own time-out for everything around the request.
const AROUND_A_REQUEST: Duration = Duration::from_secs(10);

/// What the attempts of one pool share; cheap to clone.
#[derive(Debug)]
pub struct Attempts<J> {
    pub job: Arc<J>,
    pub log: Log,
    /// What is remembered of conversations.
    pub dedupe: DedupeStore,
    pub settings: Arc<PoolSettings>,
    pub metrics: Metrics,
}

impl<J> Clone for Attempts<J> {
    fn clone(&self) -> Self {
        Self {
            job: self.job.clone(),
            log: self.log.clone(),
            dedupe: self.dedupe.clone(),
            settings: self.settings.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

/// The work on an update for one target, and what is known of it.
#[derive(Debug)]
pub struct Piece {
    pub arrival: Arc<Arrival>,
    pub work: Work,
    /// What is known of earlier attempts.
    pub trail: Trail,
    /// Its being held, for whoever looks at the pool.
    pub presence: Presence,
}

impl Piece {
    /// Whether a successor that goes by the memory alone does right.
    pub fn is_durable(&self) -> bool {
        !self.work.marks.has(&Step::All) && !self.trail.must_note
    }
}

/// What is known of a piece's earlier attempts, here and in other processes.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    /// When it first failed or had to wait, in unix milliseconds.
    first_ms: Option<u64>,
    /// Since when it had to wait because another of its conversation did.
    behind_ms: Option<u64>,
    /// Whether the memory was asked.
    recalled: bool,
    /// Whether the memory holds something of it that has to be taken out in the end.
    noted: bool,
    /// Attempts that other processes began and never ended.
    begun: u32,
    /// Troubles of its target in a row.
    troubles: u32,
    /// Whether the memory holds something that is not true any more.
    must_note: bool,
    /// Why it is given up, once that is decided.
    given_up: Option<String>,
}

impl Trail {
    /// The trail of a piece that was read from a spill queue.
    pub fn since(first_ms: Option<u64>) -> Self {
        Self {
            first_ms,
            ..Self::default()
        }
    }

    /// It stood behind one that had to wait since then, and has waited itself.
    pub fn stood_behind(&mut self, since_ms: Option<u64>) {
        self.behind_ms = since_ms;
    }

    /// Since when it has had to wait.
    fn since_ms(&self) -> Option<u64> {
        self.first_ms.or(self.behind_ms)
    }

    /// It has to wait, from now on unless it did before.
    fn wait(&mut self) -> u64 {
        *self
            .first_ms
            .get_or_insert_with(|| self.behind_ms.unwrap_or_else(now_ms))
    }
}

/// What there is to do with a piece right now.
enum Next {
    Conclude(Verdict),
    Later(Duration),
}

impl<J: Job> Attempts<J> {
    /// Makes an attempt, and tells how it went where something was asked.
    pub async fn make(
        self,
        lane_name: &'static str,
        lease: Lease,
        mut piece: Box<Piece>,
    ) -> (Ended<Box<Piece>>, Option<adaptive::Ended>) {
        let started = Instant::now();
        piece.presence.run();
        let verdict = match self.begin(lane_name, &lease, &mut piece).await {
            Next::Conclude(verdict) => verdict,
            Next::Later(wait) => return (self.again(piece, wait), None),
        };
        let (work, took) = (&piece.work, started.elapsed());
        let ended = adaptive::Ended::of(&verdict, started, took);
        self.metrics
            .following()
            .report(J::POOL, &work.head, work.attempt, &verdict, took);
        let fate = Fate::of(verdict, work, self.settings.give_up_after);
        self.metrics.attempted(J::POOL, fate.kind(), took);
        let heard = work.answered.take();
        (
            Ended {
                end: self.conclude(piece, fate).await,
                heard,
            },
            ended,
        )
    }

    async fn conclude(&self, piece: Box<Piece>, fate: Fate) -> End<Box<Piece>> {
        match fate {
            Fate::Settle => self.settle(&piece).await,
            Fate::Remember => self.remember(piece).await,
            Fate::PutOff { reason, after } => self.put_off(piece, &reason, after).await,
            Fate::Hold { reason, after } => self.hold(piece, &reason, after).await,
            Fate::Leave(trouble) => self.leave(piece, trouble).await,
            Fate::GiveUp { reason } => self.give_up(piece, &reason).await,
            Fate::Abandon { reason } => match self.job.give_up(&piece.work, &reason).await {
                Verdict::Retry { .. } => self.again(piece, STORE_RETRY).end,
                _ => self.give_up(piece, &reason).await,
            },
        }
    }

    /// Puts an update among the dead letters because somebody said so, without running the job.
    pub async fn discard(self, lease: Lease, mut piece: Box<Piece>, by: &str) -> Ended<Box<Piece>> {
        self.metrics
            .attempted(J::POOL, VerdictKind::Discarded, Duration::ZERO);
        piece.work.record.hold_under(lease);
        Ended {
            end: self.give_up(piece, &format!("discarded by {by}")).await,
            heard: Heard::Nothing,
        }
    }

    /// Recalls what is known and runs the job.
    async fn begin(&self, lane_name: &str, lease: &Lease, piece: &mut Piece) -> Next {
        // The lease may have changed since the last attempt.
        piece.work.record.hold_under(lease.clone());
        if let Some(defect) = piece
            .trail
            .given_up
            .as_ref()
            .or(piece.arrival.defect.as_ref())
        {
            return Next::Conclude(Verdict::dead(defect.clone()));
        }
        if piece.work.marks.has(&Step::All) {
            return Next::Conclude(Verdict::Done);
        }
        if piece.trail.must_note {
            let attempts = piece.work.attempt.saturating_sub(1);
            piece.trail.must_note = !self.note(piece, attempts, Duration::ZERO).await;
            return Next::Later(STORE_RETRY);
        }
        let work = &piece.work;
        if !self.job.selects(&work.head, &work.payload, &work.target) {
            return Next::Conclude(Verdict::Idle);
        }
        if !piece.trail.recalled
            && let Some(next) = self.recall_first(lane_name, lease, piece).await
        {
            return next;
        }
        let work = &mut piece.work;
        let waited = piece
            .trail
            .since_ms()
            .map(|first| Duration::from_millis(now_ms().saturating_sub(first)));
        work.overdue = waited.is_some_and(|waited| waited >= self.settings.give_up_after);
        work.last_attempt = work.overdue || work.attempt >= self.settings.attempts_max;
        if work.overdue && J::asks(&work.target) {
            let words = "its target did not work in all that time";
            return Next::Conclude(Verdict::Wait {
                reason: words.to_owned(),
                after: Duration::ZERO,
            });
        }
        // A process that was stopped for a while goes on here, and its partition is another's by now.
        if !lease.is_current() {
            return Next::Later(STORE_RETRY);
        }
        self.run(work, lease)
            .await
            .map_or(Next::Later(STORE_RETRY), Next::Conclude)
    }

    /// Takes up what the memory knows of a piece that this process works on for the first time.
    async fn recall_first(
        &self,
        lane_name: &str,
        lease: &Lease,
        piece: &mut Piece,
    ) -> Option<Next> {
        let head = &piece.work.head;
        self.metrics.started(
            J::POOL,
            Duration::from_millis(now_ms().saturating_sub(head.received_ms)),
        );
        let memory = memory::<J>(lane_name, &piece.work);
        piece.work.record = self.dedupe.record(memory, Some(lease.clone()));
        let again = piece.arrival.again;
        // A job with a memory of its own asks ours only about attempts that somebody else made.
        if J::REMEMBERS || again {
            match self.recall(piece).await {
                Ok(None) => {}
                Ok(next) => return next,
                Err(error) => {
                    tracing::warn!(pool = %J::POOL, %error, "trying again");
                    return Some(Next::Later(STORE_RETRY));
                }
            }
        }
        piece.trail.recalled = true;
        if again && piece.trail.begun >= BEGUN_MAX {
            return Some(Next::Conclude(Verdict::dead(format!(
                "{BEGUN_MAX} processes took this update over and ended while they worked on it"
            ))));
        }
        if again {
            piece.trail.begun = piece.trail.begun.saturating_add(1);
            let attempts = piece.work.attempt.saturating_sub(1);
            self.note(piece, attempts, Duration::ZERO).await;
        }
        None
    }

    /// Takes up what the memory knows of the work.
    async fn recall(&self, piece: &mut Piece) -> Result<Option<Next>, DedupeError> {
        let work = &mut piece.work;
        let progress = match work.record.recall(work.head.id.as_str()).await? {
            Recall::Done => return Ok(Some(Next::Conclude(Verdict::Idle))),
            Recall::Open(progress) => progress,
        };
        if progress == Progress::default() {
            return Ok(None);
        }
        work.marks.recall(&progress.parts);
        work.attempt = work.attempt.max(progress.attempts.saturating_add(1));
        let known = [
            piece.trail.first_ms,
            (progress.first_ms > 0).then_some(progress.first_ms),
        ];
        piece.trail.first_ms = known.into_iter().flatten().min();
        (piece.trail.noted, piece.trail.begun) = (true, progress.begun);
        let rest = Duration::from_millis(progress.due_ms.saturating_sub(now_ms()));
        if rest.is_zero() {
            return Ok(None);
        }
        Ok(Some(Next::Later(rest.min(
            self.settings.backoff.longest().max(TIMED_OUT_PAUSE),
        ))))
    }

    /// Runs the job; `None` when its partition was taken away before the job ended.
    async fn run(&self, work: &Work, lease: &Lease) -> Option<Verdict> {
        let traced = self.metrics.traces().begin(&work.head);
        let verdict = self
            .run_guarded(work, lease, traced.as_ref().map(Attempt::context))
            .await;
        if let (Some(traced), Some(verdict)) = (traced, &verdict) {
            traced.end(
                J::POOL,
                &work.head,
                work.attempt,
                verdict.kind().as_str(),
                verdict.reason(),
            );
        }
        verdict
    }

    async fn run_guarded(
        &self,
        work: &Work,
        lease: &Lease,
        context: Option<Context>,
    ) -> Option<Verdict> {
        let job = Context::around(context, self.job.run(work));
        let guarded = AssertUnwindSafe(job).catch_unwind();
        let longest = longest(&work.target, &self.settings);
        let ended = tokio::select! {
            ended = timeout(longest, guarded) => ended,
            () = lease.was_cut() => return None,
        };
        Some(match ended {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_panic)) => {
                tracing::error!(pool = %J::POOL, update = work.head.id.in_log(), "a job panicked; its update goes to the dead letters");
                Verdict::dead(
                    "the job panicked on this update; the log of the worker has the place",
                )
            }
            Err(_elapsed) => {
                let reason = format!("took longer than {} s", longest.as_secs());
                match work.target.breakers.is_empty() {
                    true => Verdict::retry(reason),
                    false => Verdict::Trouble(Trouble::timed_out(reason)),
                }
            }
        })
    }

    async fn remember(&self, mut piece: Box<Piece>) -> End<Box<Piece>> {
        if !J::REMEMBERS {
            return self.settle(&piece).await;
        }
        if let Err(error) = piece.work.record.finish(piece.work.head.id.as_str()).await {
            tracing::warn!(pool = %J::POOL, %error, "an effect took place and is not remembered yet; trying again");
            // The effect is marked whole, so that the next attempt only remembers it.
            piece.work.marks.set(Step::All);
            let waits = self.waits(&piece);
            return End::Again {
                data: piece,
                waits,
                wait: STORE_RETRY,
                durable: false,
            };
        }
        piece.trail.noted = false;
        self.settle(&piece).await
    }

    /// Puts a failed attempt off; the count and the wait outlive this process.
    async fn put_off(
        &self,
        mut piece: Box<Piece>,
        reason: &str,
        after: Option<Duration>,
    ) -> End<Box<Piece>> {
        let attempts = piece.work.attempt;
        let wait = self.settings.backoff.wait(attempts, after, rand::random());
        tracing::info!(
            pool = %J::POOL, tenant = %piece.work.head.tenant, update = piece.work.head.id.in_log(), attempt = attempts,
            wait_ms = wait.as_millis(), reason, "will be tried again"
        );
        let is_stale = !piece.work.marks.is_stored();
        let is_noted = self.note_end(&mut piece, attempts, wait).await;
        piece.work.attempt = attempts.saturating_add(1);
        if !is_noted && is_stale {
            return self.note_later(piece);
        }
        let waits = self.waits(&piece);
        End::Again {
            data: piece,
            waits,
            wait,
            durable: true,
        }
    }

    /// Lets work wait that was not tried.
    async fn hold(&self, mut piece: Box<Piece>, reason: &str, after: Duration) -> End<Box<Piece>> {
        let wait = self.settings.backoff.spread(after, rand::random());
        let is_first = piece.trail.first_ms.is_none();
        let is_stale = !piece.work.marks.is_stored();
        if is_first || piece.trail.begun > 0 || is_stale {
            tracing::debug!(
                pool = %J::POOL, tenant = %piece.work.head.tenant, update = piece.work.head.id.in_log(),
                wait_ms = wait.as_millis(), reason, "waits without an attempt"
            );
            let attempts = piece.work.attempt.saturating_sub(1);
            if !self.note_end(&mut piece, attempts, wait).await && is_stale {
                return self.note_later(piece);
            }
        }
        let waits = self.waits(&piece);
        End::Again {
            data: piece,
            waits,
            wait,
            durable: true,
        }
    }

    /// Lets work wait for its target. That costs a write only where a successor must know more than when it began.
    async fn leave(&self, mut piece: Box<Piece>, trouble: Trouble) -> End<Box<Piece>> {
        let pause = trouble_pause(piece.trail.troubles, &trouble, rand::random());
        let timed_out = trouble.kind == TroubleKind::TimedOut;
        let least = if timed_out {
            TIMED_OUT_PAUSE
        } else {
            Duration::ZERO
        };
        if piece.trail.troubles == 0 {
            tracing::info!(
                pool = %J::POOL, tenant = %piece.work.head.tenant, update = piece.work.head.id.in_log(),
                target = piece.work.target.downstream, reason = trouble.reason, "waits for its target"
            );
        }
        piece.trail.troubles = piece.trail.troubles.saturating_add(1);
        piece.trail.wait();
        let is_stale = !piece.work.marks.is_stored();
        if timed_out || piece.trail.begun > 0 || is_stale {
            let attempts = piece.work.attempt.saturating_sub(1);
            if !self.note_end(&mut piece, attempts, least).await && is_stale {
                return self.note_later(piece);
            }
        }
        let (waits, signal, blames_update) =
            (self.waits(&piece), Signal::from(&trouble), trouble.had_it());
        End::Trouble {
            data: piece,
            waits,
            breaker: trouble.breaker,
            signal,
            timed_out,
            least,
            pause,
            blames_update,
        }
    }

    fn again(&self, piece: Box<Piece>, wait: Duration) -> Ended<Box<Piece>> {
        let (waits, durable) = (self.waits(&piece), piece.is_durable());
        Ended {
            end: End::Again {
                data: piece,
                waits,
                wait,
                durable,
            },
            heard: Heard::Nothing,
        }
    }

    /// What is known of a piece's waits, for wherever it waits.
    pub fn waits(&self, piece: &Piece) -> Waits {
        waits(
            piece.trail.since_ms(),
            piece.work.attempt.saturating_sub(1),
            self.settings.give_up_after,
        )
    }

    /// Notes how an attempt ended in the process that began it.
    async fn note_end(&self, piece: &mut Piece, attempts: u32, wait: Duration) -> bool {
        piece.trail.begun = 0;
        self.note(piece, attempts, wait).await
    }

    /// Keeps a piece in hand whose record says something that is not true any more, such as that a request is on its
    /// way: whoever went by the record alone would do wrong.
    fn note_later(&self, mut piece: Box<Piece>) -> End<Box<Piece>> {
        piece.trail.must_note = true;
        self.again(piece, STORE_RETRY).end
    }

    /// Notes how far a piece got; false when that is not remembered.
    async fn note(&self, piece: &mut Piece, attempts: u32, wait: Duration) -> bool {
        let now = now_ms();
        let begins = wait.is_zero() && piece.trail.first_ms.is_none();
        let first_ms = if begins { 0 } else { piece.trail.wait() };
        let due_ms = now.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let work = &piece.work;
        let progress = Progress {
            parts: work.marks.all(),
            attempts,
            first_ms,
            due_ms,
            begun: piece.trail.begun,
        };
        piece.trail.noted = true;
        if let Err(error) = work.record.note(work.head.id.as_str(), progress).await {
            tracing::warn!(pool = %J::POOL, %error, "an attempt is not remembered yet; a successor would count it anew");
            return false;
        }
        work.marks.is_stored_now();
        true
    }

    async fn give_up(&self, mut piece: Box<Piece>, reason: &str) -> End<Box<Piece>> {
        let work = &piece.work;
        tracing::warn!(
            pool = %J::POOL, tenant = %work.head.tenant, update = work.head.id.in_log(), attempts = work.attempt, reason,
            "went to the dead letters"
        );
        let origin = (piece.arrival.stream, piece.arrival.lost());
        match dead::bury(&self.log, J::POOL, origin, work, reason).await {
            Ok(()) => {
                self.metrics
                    .buried(J::POOL, &work.head.tenant, DeadClass::of(reason));
                self.remember(piece).await
            }
            Err(error) => {
                tracing::warn!(pool = %J::POOL, %error, "a dead letter is not stored yet; trying again");
                piece.trail.given_up = Some(reason.to_owned());
                let waits = self.waits(&piece);
                End::Again {
                    data: piece,
                    waits,
                    wait: STORE_RETRY,
                    durable: true,
                }
            }
        }
    }

    async fn settle(&self, piece: &Piece) -> End<Box<Piece>> {
        self.metrics.finished(J::POOL, 1);
        if piece.trail.noted
            && let Err(error) = piece.work.record.forget(piece.work.head.id.as_str()).await
        {
            tracing::debug!(pool = %J::POOL, %error, "the note of a finished update stays until newer ones push it out");
        }
        End::Settled
    }
}

/// How long a piece waits after a trouble while its target is asked freely; `random` is uniform in 0..1.
fn trouble_pause(troubles: u32, trouble: &Trouble, random: f64) -> Duration {
    let is_its_own = troubles >= TROUBLES_BRISK && trouble.had_it();
    let longest = if is_its_own {
        TROUBLE_PAUSE_MAX
    } else {
        TROUBLE_PAUSE_BRISK
    };
    let doubled = TROUBLE_PAUSE
        .saturating_mul(1 << troubles.min(10))
        .min(longest);
    doubled
        .mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
        .max(trouble.after.unwrap_or_default())
}

/// What is known of waits that began at a time, when they may last so long.
pub fn waits(first_ms: Option<u64>, attempts: u32, give_up_after: Duration) -> Waits {
    let overdue_at = first_ms.map(|first| {
        let waited = Duration::from_millis(now_ms().saturating_sub(first));
        Instant::now() + give_up_after.saturating_sub(waited)
    });
    Waits {
        first_ms,
        attempts,
        overdue_at,
    }
}

/// Longest time of one attempt.
fn longest(target: &Target, settings: &PoolSettings) -> Duration {
    target.timeout.map_or(settings.attempt_timeout, |timeout| {
        timeout + AROUND_A_REQUEST
    })
}

/// Where a piece is remembered: in its conversation's record for the target. One that has none yet begins with what an
/// earlier version remembered of the conversation for all targets.
fn memory<J: Job>(lane_name: &str, work: &Work) -> Memory {
    let head: &Head = &work.head;
    let phone = head.phone.as_ref().map_or("", PhoneNumberId::as_str);
    let of_conversation = format!(
        "{}.{lane_name}",
        session_key::of(J::POOL, &head.tenant, phone, &head.conversation)
    );
    let target = &work.target.name;
    if target.is_empty() {
        return Memory {
            key: of_conversation,
            before: None,
        };
    }
    let key = format!("{of_conversation}.{target}");
    Memory {
        key,
        before: Some((of_conversation, target.clone())),
    }
}
