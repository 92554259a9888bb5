//! A pool in this process: work on the partitions it holds, until the signal.
//!
//! One loop feeds the machine, which decides where every update stands, and does what it asks for; attempts run as
//! tasks and report back. Work that is read but not started when a partition is given up is simply left
//! unacknowledged: whoever owns the partition next sets its consumers back and finds it.

mod read;
mod report;

use super::adaptive::{Adaptive, Ended};
use super::attempt::{Attempts, Piece};
use super::dedupe::DedupeStore;
use super::intake::{self, Arrival};
use super::job::Job;
use super::long_messages;
use super::metrics::Metrics;
use super::open_breakers::OpenBreakers;
use super::partitions::{OwnedPartitions, Reads};
use super::settings::PoolSettings;
use super::spill::{self, Spill};
use super::tuning::{Handling, Tuning};
use crate::platform::Platform;
use ackline_engine::state::{self, Action, Bounds, End, Machine, May, Setup, Started};
use ackline_ownership::membership::Membership;
use ackline_ownership::standing::Standing;
use ackline_shared::ids::TenantId;
use ackline_shared::shutdown::{Shutdown, ended};
use ackline_shared::subjects::Partition;
use report::Frontier;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// Arrivals between the readers and the machine; readers wait when it is full.
const ARRIVALS_MAX: usize = 1024;
/// Arrivals taken over in one go.
const ARRIVALS_AT_ONCE: usize = 128;
/// Acknowledgements between the loop and the task that sends them.
const ACKS_MAX: usize = 4096;
/// Longest a pool waits for the live settings before it takes up work.
const TUNING_WAIT: Duration = Duration::from_secs(15);
/// Pause after a pool broke, before it begins anew.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);
/// How often the owned partitions are looked after when nothing happens.
const PULSE: Duration = Duration::from_millis(200);
/// How often it is looked whether a tenant is in the others' way.
const SWEEP: Duration = Duration::from_millis(50);
/// How often it is told what waits and how far drains are.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How often all spill queues are counted again: what a predecessor moved in its last moments may have come late.
const RECOUNT: Duration = Duration::from_secs(30);
/// Pause before work is asked for again whose partition is being opened again.
const LATER: Duration = Duration::from_millis(100);
/// Time beyond the drain for the releases to be recorded.
const RELEASE_WAIT: Duration = Duration::from_secs(3);
/// Share of the pool's bytes that spill queues may be read ahead with.
const SPILL_BYTES_FRACTION: usize = 4;

/// What a pool needs of the process it runs in.
#[derive(Debug, Clone)]
pub struct Host {
    /// The log, the configuration and the buckets.
    pub platform: Platform,
    pub metrics: Metrics,
    /// Where the pools of the process stand.
    pub standing: Standing,
    /// The process among the others.
    pub membership: Membership,
    /// The targets whose circuit breaker is open.
    pub breakers: OpenBreakers,
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
        dedupe: DedupeStore::new(&host.platform),
        settings: settings.clone(),
        metrics: host.metrics.clone(),
    };
    while let Err(Broken) = PoolRunner::open(attempts.clone(), &host)
        .work(&mut host.shutdown)
        .await
    {
        tracing::error!(pool = %J::POOL, "one of the pool's own tasks broke; it begins anew");
        tokio::time::sleep(REOPEN_PAUSE).await;
    }
    host.metrics.owns(J::POOL, BTreeSet::new());
}

/// A task of the pool ended that should not have; beginning anew loses nothing.
struct Broken;

/// An attempt that ended: of which piece, partition and time of owning it, what came of it, and how it went where the
/// jobs at once follow that.
type Concluded = (
    usize,
    (Partition, u64),
    state::Ended<Box<Piece>>,
    Option<(TenantId, Ended)>,
);

/// Everything of one pool in this process.
struct PoolRunner<J> {
    attempts: Attempts<J>,
    lane_names: Vec<&'static str>,
    streams: Vec<&'static str>,
    partitions: OwnedPartitions,
    machine: Machine<Arc<Arrival>, Box<Piece>>,
    /// What the machine believes to be read: the session of each partition.
    read: BTreeMap<Partition, u64>,
    /// And to be kept, read or not: the time of owning each partition.
    kept: BTreeMap<Partition, u64>,
    /// Finds the jobs at once, where they are not fixed.
    adaptive: Option<Adaptive>,
    tuning: Tuning,
    /// To the task that acknowledges.
    acks: mpsc::Sender<Arc<Arrival>>,
    /// What could not be handed to it yet.
    unsent: VecDeque<Arc<Arrival>>,
    running: JoinSet<Concluded>,
    spill: Spill,
    recount: Instant,
    arrivals: mpsc::Receiver<Arrival>,
    standing: Standing,
    breakers: OpenBreakers,
    frontier: Frontier,
}

impl<J: Job> PoolRunner<J> {
    fn open(attempts: Attempts<J>, host: &Host) -> Self {
        let lanes = J::lanes();
        let tuning = host.platform.tuning.clone();
        let (settings, now) = (attempts.settings.clone(), Instant::now());
        let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let participant = host
            .membership
            .participate(J::POOL, attempts.log.partitions());
        let metrics = attempts.metrics.clone();
        let (acks, unsent) = mpsc::channel(ACKS_MAX);
        let bytes = settings.window_bytes_max / SPILL_BYTES_FRACTION;
        let spill = Spill::new(J::POOL, attempts.log.context().clone(), bytes);
        let lane_names = lanes.iter().map(|lane| lane.name).collect();
        let streams = lanes.iter().map(|lane| lane.stream).collect();
        let setup = Setup {
            lanes: lanes.iter().map(|lane| lane.name.to_owned()).collect(),
            bounds: Bounds {
                window: settings.window,
                bytes: settings.window_bytes_max,
                share: settings.spill_share,
            },
            park_after: settings.park_after,
            policy: settings.breaker,
            rules: tuning.table().rules(J::POOL, &settings, &lanes),
            give_up_after: settings.give_up_after,
            began_ms: ackline_shared::clock::now_ms(),
        };
        let askers = J::askers;
        let reads = Reads { lanes, askers };
        // It ends by itself once everything was sent.
        tokio::spawn(acknowledge_all(unsent));
        let mut runner = Self {
            lane_names,
            streams,
            partitions: OwnedPartitions::new(
                participant,
                &host.platform,
                settings,
                reads,
                metrics,
                sender,
            ),
            machine: Machine::new(setup, now),
            read: BTreeMap::new(),
            kept: BTreeMap::new(),
            adaptive: None,
            tuning,
            acks,
            unsent: VecDeque::new(),
            running: JoinSet::new(),
            spill,
            recount: now + RECOUNT,
            arrivals,
            standing: host.standing.clone(),
            breakers: host.breakers.clone(),
            frontier: Frontier::new(),
            attempts,
        };
        runner.retune();
        runner
    }

    async fn work(mut self, shutdown: &mut Shutdown) -> Result<(), Broken> {
        let mut pulse = interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut report = interval(REPORT_EVERY);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut fresh = Vec::with_capacity(ARRIVALS_AT_ONCE);
        let mut closed_by: Option<Instant> = None;
        loop {
            if self.partitions.take_touched() {
                self.follow_partitions();
            }
            self.go_on();
            if closed_by.is_some_and(|by| self.partitions.is_empty() || by <= Instant::now()) {
                return Ok(());
            }
            let next_wake = self.machine.next_wake();
            tokio::select! {
                () = ended(shutdown), if closed_by.is_none() => {
                    closed_by = Some(Instant::now() + self.attempts.settings.drain_timeout + RELEASE_WAIT);
                    self.partitions.close();
                }
                _ = pulse.tick() => {
                    self.partitions.tend();
                    self.standing.set(J::POOL, self.partitions.state());
                    self.look_again();
                }
                event = self.partitions.next() => {
                    if !self.partitions.take(event) {
                        return Err(Broken);
                    }
                    self.standing.set(J::POOL, self.partitions.state());
                }
                Some(finished) = self.running.join_next() => match finished {
                    Ok((piece, (partition, owned), ended, tried)) => {
                        self.adapt(tried);
                        self.partitions.stopped(partition, owned);
                        self.machine.ended(piece, ended, Instant::now());
                    }
                    Err(_) => return Err(Broken),
                },
                1.. = self.arrivals.recv_many(&mut fresh, ARRIVALS_AT_ONCE) => {
                    fresh.drain(..).for_each(|arrival| self.admit(arrival));
                }
                _ = sweep.tick(), if !self.machine.is_empty() => self.machine.sweep(Instant::now()),
                _ = report.tick() => self.report(),
                event = self.spill.next() => if !self.take(event) { return Err(Broken) },
                () = self.tuning.changed() => self.retune(),
                () = sleep_until(next_wake.unwrap_or_else(far_away)), if next_wake.is_some() => {}
                () = room(&self.acks), if !self.unsent.is_empty() => {}
            }
        }
    }

    /// Lets the machine know what is read and what is not.
    fn follow_partitions(&mut self) {
        let has_changed = self.partitions.take_changed();
        if has_changed {
            self.attempts.metrics.activity(J::POOL).reads_anew();
        }
        let readings: BTreeMap<Partition, u64> = self
            .partitions
            .readings()
            .iter()
            .map(|reading| (reading.lease.partition(), reading.session))
            .collect();
        if !has_changed && readings == self.read {
            return;
        }
        // One that was not read any more may be lost as well, and be held again by now.
        self.kept.retain(|partition, owned| {
            let is_kept = self.partitions.kept(*partition) == Some(*owned);
            if !is_kept {
                self.machine.lost(*partition);
            }
            is_kept
        });
        for partition in self.read.keys() {
            if !readings.contains_key(partition) {
                self.machine.interrupted(*partition);
            }
        }
        for (partition, session) in &readings {
            self.machine.opened(*partition, *session);
            let owned = self.partitions.kept(*partition);
            self.kept.extend(owned.map(|owned| (*partition, owned)));
        }
        self.read = readings;
    }

    /// Does what has become due, starts what may run, and does what the machine asks for.
    fn go_on(&mut self) {
        let now = Instant::now();
        if self.machine.next_wake().is_some_and(|due| due <= now) {
            self.machine.wake(now);
        }
        let table = self.tuning.table();
        let may = |arrival: &Arc<Arrival>| match table.handling(
            J::POOL,
            &arrival.head.tenant,
            arrival.head.received_ms,
        ) {
            Handling::Work => May::Run,
            Handling::Keep => May::Keep,
            Handling::Discard(by) => May::Discard(by),
        };
        while let Some(started) = self.machine.start(now, may) {
            self.spawn(started);
        }
        while let Some(action) = self.machine.next_action() {
            match action {
                Action::LookUp(partition, session) => self.spill.look_up(partition, session),
                Action::Load(queue, session, from, max) => {
                    self.spill.load(queue, session, from, max)
                }
                Action::Remove(queue, up_to) => self.spill.remove(queue, up_to),
                Action::Store(batch) => self.spill.store(batch),
                // A successor looks for what was moved when it begins, and would not find what is let go of later.
                Action::Acknowledge(arrival, true) if !arrival.reading.lease.may_let_go() => {}
                Action::Acknowledge(arrival, _) => self.unsent.push_back(arrival),
            }
        }
        while let Some(arrival) = self.unsent.pop_front() {
            if let Err(TrySendError::Full(arrival)) = self.acks.try_send(arrival) {
                self.unsent.push_front(arrival);
                break;
            }
        }
    }

    fn spawn(&mut self, started: Started<Arc<Arrival>, Box<Piece>>) {
        let Started {
            piece,
            place,
            update,
            mut data,
            waits,
            discarded_by,
            ..
        } = started;
        data.trail.stood_behind(waits.first_ms);
        let partition = place.partition;
        let Some(lease) = self.partitions.lease(partition) else {
            // It is interrupted in a moment, or given up.
            let waits = self.attempts.waits(&data);
            let durable = data.is_durable();
            let end = End::Again {
                data,
                waits,
                wait: LATER,
                durable,
            };
            self.machine.ended(
                piece,
                state::Ended {
                    end,
                    heard: state::Heard::Nothing,
                },
                Instant::now(),
            );
            return;
        };
        let owned = self.partitions.started(partition);
        let lane_name = self
            .lane_names
            .get(update.lane)
            .copied()
            .unwrap_or_default();
        let attempts = self.attempts.clone();
        let tenant = self.adaptive.is_some().then(|| update.head.tenant.clone());
        let is_long = long_messages::is_long(&update.payload);
        let attempt = async move {
            let (ended, tried) = match discarded_by {
                Some(by) => (attempts.discard(lease, data, &by).await, None),
                None => attempts.make(lane_name, lease, data).await,
            };
            (piece, (partition, owned), ended, tenant.zip(tried))
        };
        if is_long {
            self.running.spawn(long_messages::apart(attempt));
        } else {
            self.running.spawn(attempt);
        }
    }

    /// Takes in what became of what the machine asked for; false when a task of ours broke.
    fn take(&mut self, event: spill::Event) -> bool {
        let now = Instant::now();
        match event {
            spill::Event::Counted(partition, session, counts) => {
                self.machine.counted(partition, session, counts, now);
            }
            spill::Event::Recounted(counts) => self.machine.recounted_all(counts, now),
            spill::Event::Loaded(queue, session, loaded) => self.loaded(&queue, session, loaded),
            spill::Event::Stored(batch) => self.machine.stored(batch, now),
            spill::Event::Removed(queue, up_to, is_done) => {
                self.machine.removed(&queue, up_to, is_done, now)
            }
            spill::Event::Broken => return false,
        }
        true
    }

    fn look_again(&mut self) {
        let now = Instant::now();
        if self.recount <= now && !self.read.is_empty() {
            self.recount = now + RECOUNT;
            self.spill.look_again();
        }
    }

    /// Obeys the live settings as they are now.
    fn retune(&mut self) {
        let (table, lanes) = (self.tuning.table(), J::lanes());
        let effective = table.effective(J::POOL, &self.attempts.settings, &lanes);
        let rules = table.rules(J::POOL, &self.attempts.settings, &lanes);
        self.machine.set_rules(rules, Instant::now());
        self.attempts
            .metrics
            .limited(J::POOL, effective.concurrency, effective.paused);
        let found = self.adaptive.take();
        self.adaptive = effective.adaptive.map(|range| {
            let mut adaptive = found.unwrap_or_else(|| Adaptive::new(range, Instant::now()));
            adaptive.set_range(range);
            adaptive
        });
        self.obey_adaptive();
        self.report_turned();
    }

    /// Lets the jobs at once follow how an attempt went; it still counts among the running.
    fn adapt(&mut self, ended: Option<(TenantId, Ended)>) {
        if let (Some(adaptive), Some((tenant, ended))) = (&mut self.adaptive, ended) {
            let before = adaptive.limit();
            adaptive.observe(&tenant, ended, self.machine.running(), Instant::now());
            if adaptive.limit() != before {
                self.obey_adaptive();
            }
        }
    }

    fn obey_adaptive(&mut self) {
        let limit = self.adaptive.as_ref().map(Adaptive::limit);
        if let Some(limit) = limit {
            self.machine.set_permits(limit);
        }
        self.attempts.metrics.adapted(J::POOL, limit);
    }
}

/// Waits until an acknowledgement can be handed over.
async fn room(acks: &mpsc::Sender<Arc<Arrival>>) {
    let _room_or_gone = acks.reserve().await;
}

/// Acknowledges until nothing more can come.
async fn acknowledge_all(mut unsent: mpsc::Receiver<Arc<Arrival>>) {
    while let Some(arrival) = unsent.recv().await {
        intake::acknowledge(&arrival.message).await;
    }
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}
