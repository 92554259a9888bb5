//! A pool in this process: work on the partitions it holds, until the signal.
//!
//! One loop owns the scheduler, the holdings and everything that waits; attempts run as tasks and report back.
//! Work that is read but not started when a partition is given up is simply left unacknowledged: whoever owns
//! the partition next sets its consumers back and finds it.

mod tell;

use super::adaptive::{Adaptive, Ended};
use super::attempt::{Attempts, Outcome};
use super::holdings::{Holdings, Turn};
use super::intake::{self, Arrival, Place};
use super::job::Job;
use super::membership::Membership;
use super::metrics::Metrics;
use super::ring::Ring;
use super::scheduler::{Scheduler, Slot};
use super::settings::PoolSettings;
use super::spill::{self, Origin, Spill};
use super::standing::Standing;
use super::tuning::{Handling, Tuning};
use crate::platform::Platform;
use ackline_shared::ids::TenantId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tell::Frontier;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// Arrivals between the readers and the scheduler; readers wait when it is full.
const ARRIVALS_MAX: usize = 1024;
/// Arrivals taken over in one go.
const ARRIVALS_AT_ONCE: usize = 128;
/// Acknowledgements of updates that needed no attempt, between the loop and the task that sends them.
const ACKS_MAX: usize = 4096;
/// Longest a pool waits for the live settings before it takes up work.
const TUNING_WAIT: Duration = Duration::from_secs(15);
/// Pause after a pool broke, before it begins anew.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);
/// How often the holdings are looked after when nothing happens.
const PULSE: Duration = Duration::from_millis(200);
/// How often it is looked whether a tenant is in the others' way.
const SWEEP: Duration = Duration::from_millis(50);
/// How often it is told what waits in lines and how far drains are.
const TELL: Duration = Duration::from_secs(1);
/// Pause before work is asked for again whose partition is being opened again.
const LATER: Duration = Duration::from_millis(100);
/// Time beyond the drain for the releases to be recorded.
const RELEASE_WAIT: Duration = Duration::from_secs(3);

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
    /// The process among the others.
    pub membership: Membership,
    /// The signal to end.
    pub shutdown: Shutdown,
}

/// Runs a pool until the signal, on whatever share of its partitions falls to this process.
pub async fn run<J: Job>(job: J, settings: PoolSettings, mut host: Host) {
    let settings = Arc::new(settings);
    if !host.platform.tuning.loaded(TUNING_WAIT).await {
        tracing::warn!(pool = %J::POOL, "the live settings are not read yet; the configured ones hold until they are");
    }
    let attempts = Attempts {
        job: Arc::new(job),
        log: host.platform.log.clone(),
        ring: Ring::new(host.platform.buckets.sessions.clone()),
        settings: settings.clone(),
        metrics: host.metrics.clone(),
    };
    while let Err(Broken) = Desk::open(attempts.clone(), &host).work(&mut host.shutdown).await {
        tracing::error!(pool = %J::POOL, "one of the pool's own tasks broke; it begins anew");
        tokio::time::sleep(REOPEN_PAUSE).await;
    }
    host.metrics.owns(J::POOL, BTreeSet::new());
}

/// Waits for the signal to end; a vanished sender is one too.
pub async fn ended(shutdown: &mut Shutdown) {
    let _signal_or_gone = shutdown.wait_for(|ended| *ended).await;
}

/// A task of the pool ended that should not have; beginning anew loses nothing.
struct Broken;

/// An attempt that ended: whose turn it was, where the update stands, in which line it stood, what came of it, and
/// how it went where the jobs at once follow that.
type Concluded = (Slot, Place, Option<Origin>, Outcome, Option<(TenantId, Ended)>);

/// Everything of one pool in this process.
struct Desk<J> {
    attempts: Attempts<J>,
    lane_names: Vec<&'static str>,
    holdings: Holdings,
    scheduler: Scheduler<Box<Arrival>>,
    /// Finds the jobs at once, where they are not fixed.
    adaptive: Option<Adaptive>,
    waiting: BTreeMap<(Instant, u64), (Slot, Box<Arrival>)>,
    waited: u64,
    /// Heads of conversations that wait until the live settings change.
    kept: Vec<(Slot, Box<Arrival>)>,
    tuning: Tuning,
    /// To the task that acknowledges what needed no attempt.
    acks: mpsc::Sender<Box<Arrival>>,
    running: JoinSet<Concluded>,
    spill: Spill,
    arrivals: mpsc::Receiver<Arrival>,
    standing: Standing,
    frontier: Frontier,
}

impl<J: Job> Desk<J> {
    fn open(attempts: Attempts<J>, host: &Host) -> Self {
        let lanes = J::lanes();
        let tuning = host.platform.tuning.clone();
        let rules = tuning.table().rules(J::POOL, &attempts.settings, &lanes);
        let lane_names = lanes.iter().map(|lane| lane.name).collect();
        let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let seat = host.membership.sit(J::POOL, attempts.log.partitions());
        let (log, metrics) = (attempts.log.clone(), attempts.metrics.clone());
        let (acks, unsent) = mpsc::channel(ACKS_MAX);
        let spill = Spill::new(J::POOL, &lanes, log.context().clone(), &attempts.settings);
        // It ends by itself once everything was sent.
        tokio::spawn(acknowledge_all(unsent));
        let mut desk = Self {
            lane_names,
            holdings: Holdings::new(seat, log, attempts.settings.clone(), lanes, metrics, sender),
            scheduler: Scheduler::new(rules),
            adaptive: None,
            waiting: BTreeMap::new(),
            waited: 0,
            kept: Vec::new(),
            tuning,
            acks,
            running: JoinSet::new(),
            spill,
            arrivals,
            standing: host.standing.clone(),
            frontier: Frontier::new(),
            attempts,
        };
        desk.retune();
        desk
    }

    async fn work(mut self, shutdown: &mut Shutdown) -> Result<(), Broken> {
        let mut pulse = interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tell = interval(TELL);
        tell.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut fresh = Vec::with_capacity(ARRIVALS_AT_ONCE);
        let mut closed_by: Option<Instant> = None;
        loop {
            if self.holdings.take_gave_up() {
                self.attempts.metrics.activity(J::POOL).reads_anew();
                self.spill.follow(self.holdings.readings());
                self.drop_given_up();
            }
            self.start_ready();
            for place in self.spill.take_let_go() {
                self.holdings.stop(&place, false);
            }
            if closed_by.is_some_and(|by| self.holdings.is_empty() || by <= Instant::now()) {
                return Ok(());
            }
            let next_wait = self.waiting.first_key_value().map(|((due, _), _)| *due);
            tokio::select! {
                () = ended(shutdown), if closed_by.is_none() => {
                    closed_by = Some(Instant::now() + self.attempts.settings.drain_timeout + RELEASE_WAIT);
                    self.holdings.close();
                }
                _ = pulse.tick() => {
                    self.holdings.tend();
                    self.standing.set(J::POOL, self.holdings.state());
                    self.spill.look_again();
                }
                event = self.holdings.next() => {
                    if !self.holdings.take(event) {
                        return Err(Broken);
                    }
                    self.spill.follow(self.holdings.readings());
                    self.standing.set(J::POOL, self.holdings.state());
                }
                Some(finished) = self.running.join_next() => match finished {
                    Ok((slot, place, origin, outcome, ended)) => {
                        self.adapt(ended);
                        self.conclude(slot, place, origin, outcome);
                    }
                    Err(_) => return Err(Broken),
                },
                1.. = self.arrivals.recv_many(&mut fresh, ARRIVALS_AT_ONCE) => {
                    fresh.drain(..).for_each(|arrival| self.admit(arrival));
                }
                _ = sweep.tick() => self.sweep(),
                _ = tell.tick() => self.tell(),
                event = self.spill.next() => if !self.turn_out(event) { return Err(Broken) },
                () = self.tuning.changed() => self.retune(),
                () = sleep_until(next_wait.unwrap_or_else(far_away)), if next_wait.is_some() => self.wake(),
            }
        }
    }

    fn admit(&mut self, arrival: Arrival) {
        let place = arrival.place();
        if self.spill.has_copy(&place) && self.holdings.is_present(&arrival) {
            self.advance(&arrival);
            // Left unacknowledged it would hold its place in the window until it is offered again.
            let _offered_again_when_full = self.acks.try_send(Box::new(arrival));
            return;
        }
        if !self.holdings.is_new(&arrival) {
            return;
        }
        self.advance(&arrival);
        let Some(mut arrival) = self.pass_idle(Box::new(arrival)) else { return };
        arrival.presence = self.attempts.metrics.entered(J::POOL, &arrival.work.head.tenant);
        self.holdings.admit(place);
        if let Some(arrival) = self.spill.admit(arrival) {
            self.schedule(arrival);
        }
    }

    fn schedule(&mut self, arrival: Box<Arrival>) {
        let head = &arrival.work.head;
        let place = self.scheduler.place(arrival.lane, &head.tenant, (&head.phone, &head.conversation));
        self.scheduler.push(place, 1, arrival);
    }

    /// Moves tenants out of the others' way that cannot use what they hold.
    fn sweep(&mut self) {
        let has_room = !self.scheduler.is_full();
        let scheduler = &self.scheduler;
        let in_the_way = self.spill.sweep(|tenant| has_room || scheduler.is_capped(tenant));
        for (window, tenant) in in_the_way {
            let (partition, lane) = window;
            let queued = self.scheduler.extract(|arrival| {
                let is_of_window = arrival.lane == lane && arrival.place().partition == partition;
                is_of_window
                    && arrival.work.head.tenant == tenant
                    && arrival.seat.is_some()
                    && !arrival.trail.is_begun()
            });
            self.spill.move_out(window, &tenant, queued);
        }
    }

    /// Takes in what happened to the lines; false when a task of theirs broke.
    fn turn_out(&mut self, event: spill::Event) -> bool {
        let turnout = self.spill.take(event);
        for arrival in turnout.ready {
            let place = arrival.place();
            if let Some(origin) = &arrival.origin {
                if !self.holdings.is_new(&arrival) {
                    self.spill.not_taken(place, origin.clone());
                    continue;
                }
                self.holdings.admit(place);
            }
            self.schedule(arrival);
        }
        !turnout.broken
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
        let tenant = head.tenant.clone();
        match self.acks.try_send(arrival) {
            Ok(()) => {
                self.attempts.metrics.passed(J::POOL, &tenant);
                None
            }
            Err(TrySendError::Full(arrival) | TrySendError::Closed(arrival)) => Some(arrival),
        }
    }

    fn start_ready(&mut self) {
        while let Some((slot, arrival)) = self.scheduler.take() {
            let Some(mut arrival) = self.spill.divert(arrival) else {
                self.scheduler.finish(slot);
                continue;
            };
            let head = &arrival.work.head;
            let handling = self.tuning.table().handling(J::POOL, &head.tenant, head.received_ms);
            if handling == Handling::Keep {
                self.scheduler.hold(&slot);
                self.kept.push((slot, arrival));
                continue;
            }
            match self.holdings.start(&mut arrival) {
                Turn::Now => {}
                Turn::Later => {
                    self.put_off(slot, arrival, LATER);
                    continue;
                }
                Turn::Never => {
                    self.scheduler.finish(slot);
                    continue;
                }
            }
            let lane_name = self.lane_names.get(arrival.lane).copied().unwrap_or_default();
            let attempts = self.attempts.clone();
            let tenant = self.adaptive.is_some().then(|| arrival.work.head.tenant.clone());
            self.running.spawn(async move {
                let (place, origin) = (arrival.place(), arrival.origin.clone());
                let (outcome, ended) = match handling {
                    Handling::Discard(by) => (attempts.discard(arrival, &by).await, None),
                    Handling::Work | Handling::Keep => attempts.make(lane_name, arrival).await,
                };
                (slot, place, origin, outcome, tenant.zip(ended))
            });
        }
    }

    /// Obeys the live settings as they are now.
    fn retune(&mut self) {
        let (table, lanes) = (self.tuning.table(), J::lanes());
        let effective = table.effective(J::POOL, &self.attempts.settings, &lanes);
        self.scheduler.set_rules(table.rules(J::POOL, &self.attempts.settings, &lanes));
        self.attempts.metrics.limited(J::POOL, effective.concurrency, effective.paused);
        let found = self.adaptive.take();
        self.adaptive = effective.adaptive.map(|range| {
            let mut adaptive = found.unwrap_or_else(|| Adaptive::new(range, Instant::now()));
            adaptive.set_range(range);
            adaptive
        });
        self.obey_adaptive();
        self.tell_turned();
        for (slot, arrival) in self.kept.drain(..) {
            self.scheduler.resume(slot, arrival);
        }
    }

    /// Lets the jobs at once follow how an attempt went; it still counts among the running.
    fn adapt(&mut self, ended: Option<(TenantId, Ended)>) {
        if let (Some(adaptive), Some((tenant, ended))) = (&mut self.adaptive, ended) {
            let before = adaptive.limit();
            adaptive.observe(&tenant, ended, self.scheduler.running(), Instant::now());
            if adaptive.limit() != before {
                self.obey_adaptive();
            }
        }
    }

    fn obey_adaptive(&mut self) {
        let limit = self.adaptive.as_ref().map(Adaptive::limit);
        if let Some(limit) = limit {
            self.scheduler.set_permits(limit);
        }
        self.attempts.metrics.adapted(J::POOL, limit);
    }

    fn conclude(&mut self, slot: Slot, place: Place, origin: Option<Origin>, outcome: Outcome) {
        let wants_another = matches!(outcome, Outcome::Again(..));
        let goes_on = self.holdings.stop(&place, wants_another);
        match outcome {
            Outcome::Again(arrival, wait) if goes_on => match self.spill.park(arrival, wait) {
                Some(arrival) => self.put_off(slot, arrival, wait),
                None => {
                    self.holdings.stop(&place, false);
                    self.scheduler.finish(slot);
                }
            },
            Outcome::Again(..) => self.scheduler.finish(slot),
            Outcome::Finished => {
                if let Some(origin) = origin {
                    self.spill.finished(&origin);
                }
                self.spill.finished_at(&place);
                self.scheduler.finish(slot);
            }
        }
    }

    fn put_off(&mut self, slot: Slot, mut arrival: Box<Arrival>, wait: Duration) {
        arrival.presence.wait();
        self.scheduler.hold(&slot);
        self.waited += 1;
        self.waiting.insert((Instant::now() + wait, self.waited), (slot, arrival));
    }

    /// Drops what was read of partitions that are somebody else's by now, or will be read again.
    fn drop_given_up(&mut self) {
        let holdings = &self.holdings;
        self.scheduler.retain(|arrival| !holdings.is_given_up(arrival));
        let waiting = self.waiting.extract_if(.., |_, (_, arrival)| holdings.is_given_up(arrival));
        let kept = self.kept.extract_if(.., |(_, arrival)| holdings.is_given_up(arrival));
        for (slot, _) in waiting.map(|(_, held)| held).chain(kept) {
            self.scheduler.let_go(slot);
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

fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}
