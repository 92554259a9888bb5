//! What each pool of this process holds and does right now, counted where it happens and read once a second.
//!
//! Memory is bounded: what is held of a tenant is forgotten with its last update, and of all tenants that
//! ever came only the busiest are remembered.

mod given_up;
mod notices;

pub use notices::{Frontiers, PoolReport};

use super::status::held::{HELD_MAX, Turned};
use super::status::{
    Backlog, HISTORY, LaneLag, Load, PoolStatus, Rates, STUCK_AFTER, STUCK_MAX, Stuck, TenantStatus,
};
use ackline_engine::latency::Recent;
use ackline_engine::toplist::TopList;
use ackline_engine::verdict::VerdictKind;
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::{Partition, Pool};
use given_up::GivenUp;
use notices::Notices;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Tenants whose rates are followed for each one that is shown.
const FOLLOWED_PER_SHOWN: usize = 6;
/// Seconds over which rates are taken.
const RATE_SECONDS: usize = 5;
/// Seconds after which the older half of the latencies is forgotten.
const LATENCY_SECONDS: u64 = 15;

/// The activity of one pool; cheap to clone.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pool: Pool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    partitions: u16,
    owned: BTreeSet<Partition>,
    owner_changes: u64,
    concurrency: u64,
    adaptive: Option<u64>,
    paused: bool,
    load: Load,
    tenants: HashMap<TenantId, Load>,
    busiest: TopList<TenantId>,
    shown: usize,
    /// Counts since the last second began.
    second: Counts,
    /// The last whole seconds, the latest last.
    seconds: VecDeque<Counts>,
    ticks: u64,
    service: Recent,
    wait: Recent,
    lag: BTreeMap<(&'static str, Partition), LaneLag>,
    notices: Notices,
    given_up: GivenUp,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    read: u32,
    webhooks: u32,
    finished: u32,
    retried: u32,
    dead: u32,
    idle: u32,
}

/// Where an update stands within a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UpdateState {
    Queued,
    Running,
    Waiting,
}

/// An update's being in a pool, from its being read until it is dropped, however that comes about.
#[derive(Debug, Default)]
pub struct Presence(Option<(Activity, TenantId, UpdateState)>);

impl Presence {
    pub fn run(&mut self) {
        self.go(UpdateState::Running);
    }

    /// It waits for a retry.
    pub fn wait(&mut self) {
        self.go(UpdateState::Waiting);
    }

    fn go(&mut self, to: UpdateState) {
        if let Some((activity, tenant, place)) = &mut self.0 {
            activity.lock().shift(tenant, Some(*place), Some(to));
            *place = to;
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Some((activity, tenant, place)) = self.0.take() {
            activity.lock().shift(&tenant, Some(place), None);
        }
    }
}

impl Activity {
    /// Makes the activity of a pool that shows its `shown` busiest tenants.
    pub fn new(pool: Pool, shown: usize) -> Self {
        let inner = Inner {
            partitions: 0,
            owned: BTreeSet::new(),
            owner_changes: 0,
            concurrency: 0,
            adaptive: None,
            paused: false,
            load: Load::default(),
            tenants: HashMap::new(),
            busiest: TopList::new(shown * FOLLOWED_PER_SHOWN),
            shown,
            second: Counts::default(),
            seconds: VecDeque::new(),
            ticks: 0,
            service: Recent::default(),
            wait: Recent::default(),
            lag: BTreeMap::new(),
            notices: Notices::default(),
            given_up: GivenUp::default(),
        };
        Self(Arc::new(Shared {
            pool,
            inner: Mutex::new(inner),
        }))
    }

    pub fn pool(&self) -> Pool {
        self.0.pool
    }

    pub fn enter(&self, tenant: &TenantId) -> Presence {
        let mut inner = self.lock();
        inner.second.read += 1;
        inner.busiest.hit(tenant);
        inner.shift(tenant, None, Some(UpdateState::Queued));
        Presence(Some((self.clone(), tenant.clone(), UpdateState::Queued)))
    }

    /// Meta sent what was read.
    pub fn webhook(&self) {
        self.lock().second.webhooks += 1;
    }

    /// An update was read, asked nothing of the pool and was let pass.
    pub fn passed(&self, tenant: &TenantId) {
        let mut inner = self.lock();
        inner.second.read += 1;
        inner.second.idle += 1;
        inner.second.finished = inner.second.finished.saturating_add(1);
        inner.busiest.hit(tenant);
    }

    /// An update's first attempt starts.
    pub fn started(&self, age: Duration) {
        self.lock().wait.record(age);
    }

    /// An attempt ended with this verdict; one that asked nothing took no time worth counting.
    pub fn attempted(&self, verdict: VerdictKind, took: Duration) {
        let mut inner = self.lock();
        match verdict {
            VerdictKind::Idle => inner.second.idle += 1,
            VerdictKind::Discarded | VerdictKind::Wait => {}
            VerdictKind::Done | VerdictKind::Retry | VerdictKind::Dead => {
                inner.service.record(took)
            }
        }
        if verdict == VerdictKind::Retry {
            inner.second.retried += 1;
        }
    }

    /// An update of a tenant went to the dead letters.
    pub fn buried(&self, tenant: &TenantId) {
        let mut inner = self.lock();
        inner.second.dead += 1;
        inner.given_up.note(tenant);
    }

    /// Updates left the pool for good.
    pub fn finished(&self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mut inner = self.lock();
        inner.second.finished = inner.second.finished.saturating_add(count);
    }

    /// The pool's work is spread over this many partitions.
    pub fn spread(&self, partitions: u16) {
        self.lock().partitions = partitions;
    }

    /// These are the partitions owned from now on.
    pub fn owns(&self, owned: BTreeSet<Partition>) {
        let mut inner = self.lock();
        let changed = inner.owned.symmetric_difference(&owned).count();
        inner.owner_changes += u64::try_from(changed).unwrap_or_default();
        inner
            .lag
            .retain(|(_, partition), _| owned.contains(partition));
        if changed > 0 {
            inner.notices.read_anew();
        }
        inner.owned = owned;
    }

    /// These limits are in force from now on.
    pub fn limited(&self, concurrency: usize, paused: bool) {
        let mut inner = self.lock();
        inner.concurrency = u64::try_from(concurrency).unwrap_or(u64::MAX);
        inner.paused = paused;
    }

    /// So many jobs at once are allowed from now on, while that is found by trying.
    pub fn adapted(&self, limit: Option<usize>) {
        self.lock().adaptive = limit.map(|limit| u64::try_from(limit).unwrap_or(u64::MAX));
    }

    /// This is what operators turned of tenants from now on.
    pub fn turned(&self, turned: HashMap<TenantId, Turned>) {
        self.lock().notices.turn(turned);
    }

    /// This is what waits, what is stuck, and what is left of drained tenants.
    pub fn report(&self, reported: PoolReport) {
        self.lock().notices.report(reported, Instant::now());
    }

    /// What is past its due time by more than [`STUCK_AFTER`].
    pub fn stuck(&self) -> Vec<Stuck> {
        self.lock().stuck()
    }

    /// Reading was interrupted: what was read and not started comes again.
    pub fn reads_anew(&self) {
        self.lock().notices.read_anew();
    }

    /// How far reading is, while a tenant is drained; the number tells one reading from the next.
    pub fn reading(&self) -> Option<(u64, Frontiers)> {
        self.lock().notices.reading()
    }

    /// Everything that these partitions had stored until a time was read.
    pub fn has_read(&self, reading: u64, owned: &BTreeSet<Partition>, until_ms: u64) {
        let mut inner = self.lock();
        if inner.owned == *owned {
            inner.notices.has_read(reading, until_ms);
        }
    }

    /// What is held of a tenant.
    pub fn load_of(&self, tenant: &TenantId) -> Load {
        self.lock().tenants.get(tenant).copied().unwrap_or_default()
    }

    /// What of a lane in one partition is not finished.
    pub fn lags(&self, lane: &'static str, partition: Partition, lag: LaneLag) {
        let mut inner = self.lock();
        if inner.owned.contains(&partition) {
            inner.lag.insert((lane, partition), lag);
        }
    }

    /// Whether it is known what of a lane in one partition is not finished.
    pub fn knows_lag(&self, lane: &'static str, partition: Partition) -> bool {
        self.lock().lag.contains_key(&(lane, partition))
    }

    pub fn owned(&self) -> BTreeSet<Partition> {
        self.lock().owned.clone()
    }

    /// Ends a second: rates are taken over whole seconds, and what is old fades.
    pub fn tick(&self) {
        let mut inner = self.lock();
        let second = std::mem::take(&mut inner.second);
        inner.seconds.push_back(second);
        if inner.seconds.len() > HISTORY {
            inner.seconds.pop_front();
        }
        inner.busiest.fade();
        inner.given_up.tick();
        inner.ticks += 1;
        if inner.ticks.is_multiple_of(LATENCY_SECONDS) {
            inner.service.rotate();
            inner.wait.rotate();
        }
    }

    /// What is told about the pool.
    pub fn status(&self, state: &str) -> PoolStatus {
        let inner = self.lock();
        PoolStatus {
            pool: self.0.pool.as_str().to_owned(),
            state: state.to_owned(),
            partitions: inner.partitions,
            owned: inner.owned.iter().map(|partition| partition.0).collect(),
            owner_changes: inner.owner_changes,
            concurrency: inner.concurrency,
            adaptive: inner.adaptive,
            paused: inner.paused,
            load: inner.load,
            rates: inner.rates(),
            service: inner.service.all(),
            wait: inner.wait.all(),
            lanes: inner.lanes(),
            tenants: inner.first_tenants(),
            history: inner.seconds.iter().map(|second| second.finished).collect(),
            lines: inner.notices.lines(),
            backlog: Some(inner.backlog()),
            stuck: inner.stuck(),
            tenants_held: u64::try_from(inner.notices.held().len()).unwrap_or(u64::MAX),
            dead_hour: inner.given_up.count(),
            ..PoolStatus::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn shift(&mut self, tenant: &TenantId, from: Option<UpdateState>, to: Option<UpdateState>) {
        let mut load = self.tenants.get(tenant).copied().unwrap_or_default();
        for load in [&mut load, &mut self.load] {
            if let Some(place) = from {
                let count = place.of(load);
                *count = count.saturating_sub(1);
            }
            if let Some(place) = to {
                *place.of(load) += 1;
            }
        }
        if load.held() == 0 {
            self.tenants.remove(tenant);
        } else if let Some(known) = self.tenants.get_mut(tenant) {
            *known = load;
        } else {
            self.tenants.insert(tenant.clone(), load);
        }
    }

    /// What waits; what waits in memory is known at once, the rest is told once a second.
    fn backlog(&self) -> Backlog {
        let backlog = self.notices.backlog();
        Backlog {
            waiting: backlog.waiting.max(self.load.waiting),
            ..backlog
        }
    }

    fn stuck(&self) -> Vec<Stuck> {
        let silence = self
            .notices
            .silence(Instant::now())
            .filter(|silence| *silence > STUCK_AFTER);
        let silent = silence
            .zip(self.owned.first())
            .map(|(silence, partition)| Stuck::silent(*partition, silence));
        silent
            .into_iter()
            .chain(self.notices.stuck().iter().cloned())
            .take(STUCK_MAX)
            .collect()
    }

    fn rates(&self) -> Rates {
        let latest = || self.seconds.iter().rev().take(RATE_SECONDS);
        let seconds = u32::try_from(latest().count().max(1)).map_or(1.0, f64::from);
        let rate = |of: fn(&Counts) -> u32| {
            latest().map(|second| f64::from(of(second))).sum::<f64>() / seconds
        };
        Rates {
            read: rate(|second| second.read),
            webhooks: rate(|second| second.webhooks),
            finished: rate(|second| second.finished),
            retried: rate(|second| second.retried),
            dead: rate(|second| second.dead),
            idle: rate(|second| second.idle),
        }
    }

    fn lanes(&self) -> Vec<LaneLag> {
        let mut lanes: BTreeMap<&str, LaneLag> = BTreeMap::new();
        for ((lane, _), lag) in &self.lag {
            lanes
                .entry(lane)
                .or_insert_with(|| LaneLag {
                    lane: (*lane).to_owned(),
                    ..LaneLag::default()
                })
                .add(lag);
        }
        lanes.into_values().collect()
    }

    /// Those that are held; of the others those with the highest rates, of whom most is held, waits in spill queues or was
    /// given up.
    fn first_tenants(&self) -> Vec<TenantStatus> {
        let held_back = self.notices.held().into_iter().take(HELD_MAX).cloned();
        let mut names: BTreeSet<TenantId> = held_back.collect();
        let busiest = self
            .busiest
            .first(self.shown)
            .into_iter()
            .filter(|(_, rate)| *rate > 0.05);
        names.extend(busiest.map(|(name, _)| name));
        let held = self.tenants.iter().map(|(name, load)| (name, load.held()));
        names.extend(largest(held.collect(), self.shown));
        names.extend(largest(
            self.notices.spilled_of_tenants().collect(),
            self.shown,
        ));
        names.extend(largest(
            self.notices.backlogs_of_tenants().collect(),
            self.shown,
        ));
        names.extend(largest(
            self.given_up.tenants().into_iter().collect(),
            self.shown,
        ));
        let status = |tenant: TenantId| {
            let mut status = TenantStatus {
                rate: self.busiest.rate(&tenant),
                load: self.tenants.get(&tenant).copied().unwrap_or_default(),
                dead_hour: self.given_up.of(&tenant),
                ..TenantStatus::of(tenant)
            };
            self.notices.add_to(&mut status);
            status
        };
        let mut tenants: Vec<_> = names.into_iter().map(status).collect();
        tenants.sort_by(TenantStatus::order);
        let held_back = tenants
            .iter()
            .filter(|tenant| tenant.is_held())
            .take(HELD_MAX)
            .count();
        tenants.truncate(held_back + self.shown);
        tenants
    }
}

/// The names with the largest counts, in no order.
fn largest(mut counts: Vec<(&TenantId, u64)>, count: usize) -> Vec<TenantId> {
    let first = counts.len().min(count);
    if first > 0 {
        counts.select_nth_unstable_by(first - 1, |(name, one), (other, two)| {
            two.cmp(one).then_with(|| name.cmp(other))
        });
    }
    counts
        .into_iter()
        .take(first)
        .map(|(name, _)| name.clone())
        .collect()
}

impl UpdateState {
    fn of(self, load: &mut Load) -> &mut u64 {
        match self {
            Self::Queued => &mut load.queued,
            Self::Running => &mut load.running,
            Self::Waiting => &mut load.waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    #[test]
    fn an_update_is_counted_where_it_stands_and_nowhere_once_dropped() {
        let activity = Activity::new(Pool::Relay, 3);
        let mut presence = activity.enter(&tenant("acme"));
        assert_eq!(
            activity.status("").load,
            Load {
                queued: 1,
                running: 0,
                waiting: 0
            }
        );
        presence.run();
        assert_eq!(
            activity.status("").load,
            Load {
                queued: 0,
                running: 1,
                waiting: 0
            }
        );
        presence.wait();
        assert_eq!(
            activity.status("").tenants[0].load,
            Load {
                queued: 0,
                running: 0,
                waiting: 1
            }
        );
        drop(presence);
        assert_eq!(activity.status("").load, Load::default());
        assert!(activity.lock().tenants.is_empty());
    }

    #[test]
    fn rates_are_of_whole_seconds_and_tenants_are_few() {
        let activity = Activity::new(Pool::Relay, 3);
        let held: Vec<_> = (0..100)
            .map(|n| activity.enter(&tenant(&format!("t{}", n % 20))))
            .collect();
        let noisy: Vec<_> = (0..50).map(|_| activity.enter(&tenant("noisy"))).collect();
        activity.finished(30);
        activity.attempted(VerdictKind::Retry, Duration::from_millis(5));
        activity.attempted(VerdictKind::Dead, Duration::from_millis(5));
        activity.attempted(VerdictKind::Wait, Duration::from_secs(5));
        activity.tick();
        let status = activity.status("working");
        assert_eq!(
            (
                status.rates.read,
                status.rates.finished,
                status.rates.retried
            ),
            (150.0, 30.0, 1.0)
        );
        assert_eq!(status.service.count(), 2, "who waits asks nobody");
        assert_eq!(status.tenants.len(), 3);
        assert_eq!(
            (
                status.tenants[0].tenant.as_str(),
                status.tenants[0].load.queued
            ),
            ("noisy", 50)
        );
        assert_eq!(status.history, [30]);
        drop((held, noisy));
    }

    #[test]
    fn what_waits_in_memory_is_told_at_once_and_the_rest_by_the_pool() {
        let activity = Activity::new(Pool::Relay, 3);
        let mut presence = activity.enter(&tenant("acme"));
        presence.wait();
        let waiting = |count| Backlog {
            waiting: count,
            ..Backlog::default()
        };
        assert_eq!(activity.status("").backlog, Some(waiting(1)));
        let reported = Backlog {
            ready: 9,
            waiting: 5,
            oldest_ready_ms: Some(3),
            oldest_waiting_ms: Some(70),
        };
        let backlogs = HashMap::from([(tenant("acme"), reported), (tenant("parked"), waiting(7))]);
        activity.report(PoolReport {
            backlogs,
            ..PoolReport::default()
        });
        let status = activity.status("");
        assert_eq!(
            status.backlog,
            Some(Backlog {
                waiting: 12,
                ..reported
            })
        );
        let of = |name: &str| {
            status
                .tenants
                .iter()
                .find(|one| one.tenant == tenant(name))
                .unwrap()
                .backlog()
        };
        assert_eq!((of("acme"), of("parked")), (reported, waiting(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_stuck_is_named_up_to_a_bound_and_a_pool_that_falls_silent_is_stuck() {
        let activity = Activity::new(Pool::Relay, 3);
        activity.owns([Partition(2)].into());
        let stuck = |n| Stuck {
            partition: n,
            lane: "msg".into(),
            tenant: tenant("acme"),
            since_ms: 31_000,
            what: "an update is not tried again".into(),
        };
        activity.report(PoolReport {
            stuck: (0..20).map(stuck).collect(),
            ..PoolReport::default()
        });
        assert_eq!(activity.stuck(), (0..8).map(stuck).collect::<Vec<_>>());
        activity.report(PoolReport::default());
        tokio::time::advance(STUCK_AFTER).await;
        assert_eq!(activity.stuck(), []);
        tokio::time::advance(Duration::from_secs(1)).await;
        let silent = activity.status("").stuck;
        assert_eq!(
            (silent.len(), silent[0].partition, silent[0].since_ms),
            (1, 2, 31_000)
        );
        activity.owns([].into());
        assert_eq!(
            activity.stuck(),
            [],
            "a pool without partitions has nothing to do"
        );
    }

    #[test]
    fn whoever_had_something_given_up_is_shown_though_nothing_of_it_is_left() {
        let activity = Activity::new(Pool::Relay, 2);
        let _held: Vec<_> = (0..9)
            .map(|n| activity.enter(&tenant(&format!("t{}", n % 3))))
            .collect();
        (0..40).for_each(|_| activity.buried(&tenant("gone")));
        activity.tick();
        let status = activity.status("working");
        assert_eq!((status.dead_hour, status.rates.dead), (40, 40.0));
        assert_eq!(
            (
                status.tenants[0].tenant.as_str(),
                status.tenants[0].dead_hour
            ),
            ("gone", 40)
        );
    }

    #[test]
    fn lag_of_a_partition_that_went_away_is_forgotten() {
        let activity = Activity::new(Pool::Relay, 3);
        activity.owns([Partition(1), Partition(2)].into());
        let lag = |partition, oldest_ms| LaneLag {
            lane: "msg".into(),
            unread: 5,
            in_work: 1,
            oldest_ms,
            partition: Some(partition),
        };
        activity.lags("msg", Partition(1), lag(1, 500));
        activity.lags("msg", Partition(2), lag(2, 900));
        activity.lags("msg", Partition(3), lag(3, 9000));
        let lanes = activity.status("").lanes;
        assert_eq!(
            (
                lanes.len(),
                lanes[0].messages(),
                lanes[0].oldest_ms,
                lanes[0].partition
            ),
            (1, 12, 900, Some(2))
        );
        activity.owns([Partition(1)].into());
        assert_eq!(activity.status("").lanes[0].messages(), 6);
        assert_eq!(activity.status("").owner_changes, 3);
    }
}
