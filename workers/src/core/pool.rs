//! A pool in this process: wait for the lease, work while it is ours, hand over.
//!
//! While the lease is held, one loop owns the scheduler and everything that waits; attempts run as tasks and
//! report back. Work that is read but not started when the pool ends is simply left unacknowledged: whoever
//! owns the pool next sets the consumers back and finds it.

use super::attempt::{Attempts, Outcome};
use super::intake::{self, Arrival, IntakeError, Source};
use super::job::Job;
use super::lease::{Held, Lease};
use super::log::Log;
use super::metrics::Metrics;
use super::ring::Ring;
use super::scheduler::{Scheduler, Slot};
use super::settings::PoolSettings;
use super::standing::{Standing, State};
use super::tuning::{Handling, Tuning};
use crate::platform::Platform;
use ackline_shared::subjects::Pool;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

/// Arrivals between the readers and the scheduler; readers wait when it is full.
const ARRIVALS_MAX: usize = 1024;
/// Arrivals taken over in one go.
const ARRIVALS_AT_ONCE: usize = 128;
/// Acknowledgements of updates that needed no attempt, between the loop and the task that sends them.
const ACKS_MAX: usize = 4096;
/// Longest a pool waits for the live settings before it takes up work.
const TUNING_WAIT: Duration = Duration::from_secs(15);
/// Pause after a pool broke, before it is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

/// The signal to end: true once.
pub type Shutdown = watch::Receiver<bool>;

/// What a pool needs of the process it runs in.
#[derive(Debug, Clone)]
pub struct Host {
    /// The log, the configuration and the buckets.
    pub platform: Platform,
    /// What is counted.
    pub metrics: Metrics,
    /// Where the pools of the process stand.
    pub standing: Standing,
    /// The process's own name, written into leases.
    pub instance: String,
    /// The signal to end.
    pub shutdown: Shutdown,
}

impl Host {
    /// The lease of a pool for this process.
    pub fn lease(&self, pool: Pool, settings: &PoolSettings) -> Lease {
        Lease::new(self.platform.buckets.leases.clone(), pool.as_str(), &self.instance, settings.lease_ttl)
    }

    /// Waits for a lease; `None` when the signal came first.
    pub async fn wait_for(&mut self, pool: Pool, lease: &Lease) -> Option<Held> {
        let asking = async {
            loop {
                if let Some(held) = lease.ask().await {
                    return held;
                }
                self.standing.set(pool, State::StandingBy);
                tokio::time::sleep(lease.interval()).await;
            }
        };
        let held = tokio::select! {
            held = asking => held,
            () = ended(&mut self.shutdown) => return None,
        };
        tracing::info!(%pool, epoch = held.epoch(), "this process owns the pool");
        self.standing.set(pool, State::Opening);
        self.metrics.owned(pool, true);
        Some(held)
    }

    /// Notes that the pool is not owned any more.
    pub fn give_up(&self, pool: Pool, reason: &Ended) {
        tracing::info!(%pool, %reason, "this process gave the pool up");
        self.metrics.owned(pool, false);
        self.standing.set(pool, State::Starting);
    }
}

/// Runs a pool until the signal, taking it over whenever its lease is free.
pub async fn run<J: Job>(job: J, settings: PoolSettings, mut host: Host) {
    let job = Arc::new(job);
    let settings = Arc::new(settings);
    if !host.platform.tuning.loaded(TUNING_WAIT).await {
        tracing::warn!(pool = %J::POOL, "the live settings are not read yet; the configured ones hold until they are");
    }
    let lease = host.lease(J::POOL, &settings);
    while let Some(held) = host.wait_for(J::POOL, &lease).await {
        let attempts = Attempts {
            job: job.clone(),
            log: host.platform.log.clone(),
            ring: Ring::new(host.platform.buckets.sessions.clone()),
            settings: settings.clone(),
            metrics: host.metrics.clone(),
        };
        let ended = own(&attempts, &lease, held, &mut host).await;
        host.metrics.load(J::POOL, 0, 0, 0);
        host.give_up(J::POOL, &ended);
        tokio::time::sleep(REOPEN_PAUSE).await;
    }
}

/// Waits for the signal to end; a vanished sender is one too.
pub async fn ended(shutdown: &mut Shutdown) {
    let _signal_or_gone = shutdown.wait_for(|ended| *ended).await;
}

/// Why a pool stopped being worked on by this process.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The process is to end.
    #[error("the process ends")]
    Shutdown,
    /// The lease could not be renewed.
    #[error("the lease is lost")]
    LeaseLost,
    /// The connection to NATS was lost and is back; messages may have been lost on the way to us.
    #[error("the connection to NATS was renewed")]
    Reconnected,
    /// A task of the pool ended that should not have; opening the pool anew loses nothing.
    #[error("one of the pool's own tasks broke")]
    Broken,
    /// A consumer failed.
    #[error("{0}")]
    Intake(#[from] IntakeError),
}

async fn own<J: Job>(attempts: &Attempts<J>, lease: &Lease, mut held: Held, host: &mut Host) -> Ended {
    let opening = intake::open::<J>(attempts.log.context(), &attempts.settings, attempts.log.partitions());
    let sources = match keep_lease_while(opening, lease, &mut held).await {
        Some(Ok(sources)) => sources,
        Some(Err(error)) => return error.into(),
        None => return Ended::LeaseLost,
    };
    let mut desk = Desk::open(attempts.clone(), sources, host.platform.tuning.clone());
    host.standing.set(J::POOL, State::Working);
    let ended = desk.work(lease, &mut held, &mut host.shutdown).await;
    desk.close().await;
    if !matches!(ended, Ended::LeaseLost) {
        lease.release(held).await;
    }
    ended
}

/// Awaits something long while the lease is renewed; `None` when the lease got lost.
pub async fn keep_lease_while<T>(work: impl Future<Output = T>, lease: &Lease, held: &mut Held) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let mut renewal = interval(lease.interval());
    loop {
        tokio::select! {
            done = &mut work => return Some(done),
            _ = renewal.tick() => if !lease.renew(held).await { return None },
        }
    }
}

/// Everything of one pool while it is owned.
struct Desk<J> {
    attempts: Attempts<J>,
    lane_names: Vec<&'static str>,
    scheduler: Scheduler<Box<Arrival>>,
    /// Messages read and not finished, so that one offered again by NATS is not taken twice.
    held: HashSet<(&'static str, u64)>,
    waiting: BTreeMap<(Instant, u64), (Slot, Box<Arrival>)>,
    waited: u64,
    /// Heads of conversations that wait until the live settings change.
    kept: Vec<(Slot, Box<Arrival>)>,
    tuning: Tuning,
    /// To the task that acknowledges what needed no attempt.
    acks: mpsc::Sender<Box<Arrival>>,
    acknowledger: JoinHandle<()>,
    running: JoinSet<(Slot, (&'static str, u64), Outcome)>,
    readers: JoinSet<Result<(), IntakeError>>,
    arrivals: mpsc::Receiver<Arrival>,
    connects: u64,
}

impl<J: Job> Desk<J> {
    fn open(attempts: Attempts<J>, sources: Vec<Source>, tuning: Tuning) -> Self {
        let lanes = J::lanes();
        let rules = tuning.table().rules(J::POOL, &attempts.settings, &lanes);
        let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let bytes = Arc::new(Semaphore::new(attempts.settings.window_bytes_max.min(Semaphore::MAX_PERMITS)));
        let mut readers = JoinSet::new();
        for source in sources {
            readers.spawn(intake::read(source, bytes.clone(), sender.clone()));
        }
        let (acks, unsent) = mpsc::channel(ACKS_MAX);
        Self {
            lane_names: lanes.iter().map(|lane| lane.name).collect(),
            scheduler: Scheduler::new(rules),
            held: HashSet::new(),
            waiting: BTreeMap::new(),
            waited: 0,
            kept: Vec::new(),
            tuning,
            acks,
            acknowledger: tokio::spawn(acknowledge_all(unsent)),
            running: JoinSet::new(),
            readers,
            arrivals,
            connects: connects(&attempts.log),
            attempts,
        }
    }

    async fn work(&mut self, lease: &Lease, held: &mut Held, shutdown: &mut Shutdown) -> Ended {
        let mut renewal = interval(lease.interval());
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut fresh = Vec::with_capacity(ARRIVALS_AT_ONCE);
        loop {
            self.start_ready();
            let next_wait = self.waiting.first_key_value().map(|((due, _), _)| *due);
            tokio::select! {
                () = ended(shutdown) => return Ended::Shutdown,
                _ = renewal.tick() => {
                    if !lease.renew(held).await {
                        return Ended::LeaseLost;
                    }
                    if connects(&self.attempts.log) != self.connects {
                        return Ended::Reconnected;
                    }
                    let load = (self.scheduler.queued(), self.running.len(), self.waiting.len());
                    self.attempts.metrics.load(J::POOL, load.0, load.1, load.2);
                }
                Some(finished) = self.running.join_next() => match finished {
                    Ok((slot, place, outcome)) => self.conclude(slot, place, outcome),
                    Err(_) => return Ended::Broken,
                },
                1.. = self.arrivals.recv_many(&mut fresh, ARRIVALS_AT_ONCE) => {
                    fresh.drain(..).for_each(|arrival| self.admit(arrival));
                }
                () = self.tuning.changed() => self.retune(),
                Some(ended) = self.readers.join_next() => return match ended {
                    Ok(Err(error)) => error.into(),
                    Ok(Ok(())) | Err(_) => Ended::Broken,
                },
                () = sleep_until(next_wait.unwrap_or_else(far_away)), if next_wait.is_some() => self.wake(),
            }
        }
    }

    /// Lets running attempts finish within the deadline, then cancels them.
    async fn close(mut self) {
        self.readers.abort_all();
        drop(self.acks);
        let finish = async {
            while self.running.join_next().await.is_some() {}
            (&mut self.acknowledger).await
        };
        if timeout(self.attempts.settings.drain_timeout, finish).await.is_err() {
            self.acknowledger.abort();
            tracing::warn!(pool = %J::POOL, "running jobs did not finish in time and will be done again");
        }
    }

    fn admit(&mut self, arrival: Arrival) {
        let place = (arrival.stream, arrival.work.sequence);
        if self.held.contains(&place) {
            return;
        }
        let Some(arrival) = self.pass_idle(Box::new(arrival)) else { return };
        self.held.insert(place);
        let head = &arrival.work.head;
        let place = self.scheduler.place(arrival.lane, &head.tenant, (&head.phone, &head.conversation));
        self.scheduler.push(place, 1, arrival);
    }

    /// Acknowledges an update that asks nothing of this pool, without a turn, a place or a task: it has no effect,
    /// so its order does not matter. Gives it back when it does ask something, or has to wait.
    fn pass_idle(&mut self, arrival: Box<Arrival>) -> Option<Box<Arrival>> {
        let head = &arrival.work.head;
        let table = self.tuning.table();
        if !self.attempts.is_idle(&arrival)
            || table.is_paused(J::POOL, &head.tenant)
            || table.handling(J::POOL, &head.tenant, head.received_ms) != Handling::Work
        {
            return Some(arrival);
        }
        match self.acks.try_send(arrival) {
            Ok(()) => {
                self.attempts.metrics.attempted(J::POOL, "idle", Duration::ZERO);
                None
            }
            Err(TrySendError::Full(arrival) | TrySendError::Closed(arrival)) => Some(arrival),
        }
    }

    fn start_ready(&mut self) {
        while let Some((slot, arrival)) = self.scheduler.take() {
            let head = &arrival.work.head;
            let handling = self.tuning.table().handling(J::POOL, &head.tenant, head.received_ms);
            if handling == Handling::Keep {
                self.scheduler.hold(&slot);
                self.kept.push((slot, arrival));
                continue;
            }
            let lane_name = self.lane_names.get(arrival.lane).copied().unwrap_or_default();
            let attempts = self.attempts.clone();
            self.running.spawn(async move {
                let place = (arrival.stream, arrival.work.sequence);
                let outcome = match handling {
                    Handling::Discard(by) => attempts.discard(arrival, &by).await,
                    Handling::Work | Handling::Keep => attempts.make(lane_name, arrival).await,
                };
                (slot, place, outcome)
            });
        }
    }

    /// Obeys the live settings as they are now.
    fn retune(&mut self) {
        let rules = self.tuning.table().rules(J::POOL, &self.attempts.settings, &J::lanes());
        self.scheduler.set_rules(rules);
        for (slot, arrival) in self.kept.drain(..) {
            self.scheduler.resume(slot, arrival);
        }
    }

    fn conclude(&mut self, slot: Slot, place: (&'static str, u64), outcome: Outcome) {
        match outcome {
            Outcome::Finished => {
                self.held.remove(&place);
                self.scheduler.finish(slot);
            }
            Outcome::Again(arrival, wait) => {
                self.scheduler.hold(&slot);
                self.waited += 1;
                self.waiting.insert((Instant::now() + wait, self.waited), (slot, arrival));
            }
        }
    }

    fn wake(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.waiting.first_entry()
            && entry.key().0 <= now
        {
            let (slot, arrival) = entry.remove();
            self.scheduler.resume(slot, arrival);
        }
    }
}

/// Acknowledges what needed no attempt until nothing more can come.
async fn acknowledge_all(mut unsent: mpsc::Receiver<Box<Arrival>>) {
    while let Some(arrival) = unsent.recv().await {
        intake::acknowledge(&arrival.message).await;
    }
}

/// How often this process has connected to NATS so far.
pub fn connects(log: &Log) -> u64 {
    log.context().client().statistics().connects.load(Ordering::Relaxed)
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}
