//! All processes together: the newest snapshot of each, and every pool summed over them.
//!
//! A process that has not been heard of for a few seconds is forgotten. Snapshots are taken as they come, from
//! older and newer versions too: pools this version does not know are left out.

use super::diagnosis::{Diagnosis, diagnose};
use crate::scaling::{Targets, wanted};
use ackline_engine::latency::Latencies;
use ackline_runtime::status::dead::OpenDead;
use ackline_runtime::status::held::{Drain, OpenBreaker, SpillCounts};
use ackline_runtime::status::{Backlog, STUCK_MAX, Stuck};
use ackline_runtime::status::{
    LaneLag, Load, PoolStatus, Rates, Snapshot, TenantStatus, UnownedLag,
};
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::Pool;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// How long a process counts as alive without a word.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);
const INSTANCES_MAX: usize = 512;
/// Tenants of a pool that are listed.
const TENANTS_MAX: usize = 100;
/// Downstreams of a pool that are listed.
const BREAKERS_MAX: usize = 50;

#[derive(Debug, Default)]
pub struct Fleet {
    heard: BTreeMap<String, (Instant, Snapshot)>,
}

/// One pool over all processes.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSum {
    pub pool: Pool,
    /// The processes that run it, with their state and how many partitions each owns.
    pub instances: Vec<(String, String, usize)>,
    /// Partitions of the pool; 0 when no process told.
    pub partitions: u16,
    pub unowned: u16,
    /// Jobs at once, over all processes that own something.
    pub concurrency: u64,
    /// Those of them that are allowed now, while some process finds that by trying.
    pub adaptive: Option<u64>,
    /// Whether it is paused everywhere.
    pub paused: bool,
    pub load: Load,
    pub rates: Rates,
    pub service: Latencies,
    /// Age of updates at their first attempt.
    pub wait: Latencies,
    /// What is not finished, by lane.
    pub lanes: Vec<LaneLag>,
    /// Who has most to do.
    pub tenants: Vec<TenantStatus>,
    /// Updates finished in each of the last seconds.
    pub history: Vec<u32>,
    /// Changes of ownership since the processes started.
    pub owner_changes: u64,
    /// What waits in spill queues.
    pub lines: SpillCounts,
    /// What waits, in spill queues and in memory.
    pub backlog: Backlog,
    /// What is past its due time by far; of many, the first.
    pub stuck: Vec<Stuck>,
    /// The open dead letters, as far as some process has counted them.
    pub dead: Option<OpenDead>,
    /// The downstreams whose circuit breaker is open, those that have not worked for longest first.
    pub breakers: Vec<OpenBreaker>,
    pub breakers_open: u64,
    /// The downstreams of whose last requests half timed out, by name.
    pub slow: Vec<String>,
    /// How many tenants are paused, drained or discarded.
    pub tenants_held: u64,
    /// Updates given up in the last hour, by processes that still run.
    pub dead_hour: u64,
}

impl PoolSum {
    /// Processes that own at least one partition.
    pub fn working(&self) -> usize {
        self.instances
            .iter()
            .filter(|(_, _, owned)| *owned > 0)
            .count()
    }

    /// Jobs at once that are allowed now.
    pub fn allowed(&self) -> u64 {
        self.adaptive.unwrap_or(self.concurrency)
    }

    /// Jobs that run, of those allowed now; `~` where that number is found by trying.
    pub fn jobs(&self) -> String {
        let mark = if self.adaptive.is_some() { "~" } else { "" };
        format!("{}/{}{mark}", self.load.running, self.allowed())
    }

    /// Messages not finished in the streams, also those that wait in memory.
    pub fn in_streams(&self) -> u64 {
        self.lanes.iter().map(LaneLag::messages).sum()
    }

    /// Updates that can be worked on and are not finished, in the streams and in spill queues.
    pub fn lag_messages(&self) -> u64 {
        self.in_streams()
            .saturating_sub(self.load.waiting)
            .saturating_add(self.backlog.ready)
    }

    /// Updates that wait for a target, or for their own time, in memory and in spill queues.
    pub fn waiting(&self) -> u64 {
        self.backlog.waiting
    }

    /// Everything that is not finished.
    pub fn unfinished(&self) -> u64 {
        self.lag_messages().saturating_add(self.waiting())
    }

    /// Updates in spill queues that can be worked on and are of no tenant that is held.
    pub fn ready(&self) -> u64 {
        let held = self.tenants.iter().filter(|tenant| tenant.is_held());
        self.backlog
            .ready
            .saturating_sub(held.map(|tenant| tenant.backlog().ready).sum())
    }

    pub fn unread(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.unread).sum()
    }

    /// Age of the oldest that can be worked on, as far as it is known.
    pub fn lag(&self) -> Duration {
        if self.streams_only_wait() {
            milliseconds(self.backlog.oldest_ready_ms)
        } else {
            self.oldest()
        }
    }

    /// Age of the oldest in the streams or ready in spill queues, whether it waits for something or not.
    pub fn oldest(&self) -> Duration {
        let in_streams = self.lanes.iter().map(|lane| lane.oldest_ms).max();
        milliseconds(in_streams.max(self.backlog.oldest_ready_ms))
    }

    /// Age of the oldest that waits for a target or its time, where it is known.
    pub fn oldest_waiting(&self) -> Option<Duration> {
        self.backlog.oldest_waiting_ms.map(Duration::from_millis)
    }

    /// Whether what is old in the streams waits for something: everything was read, and what does not wait gets on.
    fn streams_only_wait(&self) -> bool {
        self.load.waiting > 0
            && self.unread() == 0
            && self.load.queued <= self.concurrency
            && self.gets_on()
    }

    fn gets_on(&self) -> bool {
        self.load.running == 0 || self.rates.finished > 0.0
    }

    /// Whether what is old is of tenants that are paused, drained or discarded: everything was read, and of others no
    /// more is queued than may run at once, and that gets on.
    pub fn waits_only_for_held(&self) -> bool {
        let theirs = || {
            self.tenants
                .iter()
                .filter(|tenant| tenant.is_held())
                .map(|tenant| tenant.load)
        };
        let held: u64 = theirs().map(|load| load.held()).sum();
        let queued: u64 = theirs().map(|load| load.queued).sum();
        held > 0
            && self.unread() == 0
            && self.load.queued.saturating_sub(queued) <= self.concurrency
            && self.gets_on()
    }

    /// What to say about it.
    pub fn diagnosis(&self) -> Diagnosis {
        diagnose(self)
    }

    /// How many processes it needs.
    pub fn wanted(&self, targets: &Targets) -> u32 {
        wanted(self, targets)
    }
}

impl Fleet {
    /// Takes a process's word; a late one never replaces a newer one.
    pub fn hear(&mut self, snapshot: Snapshot, now: Instant) {
        self.forget(now);
        let known = self.heard.get(&snapshot.instance);
        if known.is_some_and(|(_, known)| known.at_ms > snapshot.at_ms) {
            return;
        }
        if known.is_some() || self.heard.len() < INSTANCES_MAX {
            self.heard
                .insert(snapshot.instance.clone(), (now, snapshot));
        }
    }

    /// Forgets whoever has been silent too long.
    pub fn forget(&mut self, now: Instant) {
        self.heard
            .retain(|_, (at, _)| now.saturating_duration_since(*at) < SILENCE_MAX);
    }

    pub fn instances(&self) -> impl Iterator<Item = &Snapshot> {
        self.heard.values().map(|(_, snapshot)| snapshot)
    }

    /// The partitions of a pool that somebody owns.
    pub fn owned(&self, pool: Pool) -> BTreeSet<u16> {
        self.statuses(pool)
            .flat_map(|(_, status)| status.owned.iter().copied())
            .collect()
    }

    /// Every pool that somebody runs or in which something waits, in their usual order.
    pub fn pools(&self) -> Vec<PoolSum> {
        Pool::ALL
            .into_iter()
            .filter_map(|pool| self.pool(pool))
            .collect()
    }

    /// One pool; `None` when nobody runs it and nobody saw something wait there.
    pub fn pool(&self, pool: Pool) -> Option<PoolSum> {
        let orphaned = self.orphaned(pool);
        if orphaned.is_empty() && self.statuses(pool).next().is_none() {
            return None;
        }
        let mut sum = PoolSum {
            pool,
            instances: Vec::new(),
            partitions: 0,
            unowned: 0,
            concurrency: 0,
            adaptive: None,
            paused: false,
            load: Load::default(),
            rates: Rates::default(),
            service: Latencies::default(),
            wait: Latencies::default(),
            lanes: Vec::new(),
            tenants: Vec::new(),
            history: Vec::new(),
            owner_changes: 0,
            lines: SpillCounts::default(),
            backlog: Backlog::default(),
            stuck: Vec::new(),
            dead: self.dead(pool),
            breakers: Vec::new(),
            breakers_open: 0,
            slow: Vec::new(),
            tenants_held: 0,
            dead_hour: 0,
        };
        let mut lanes: BTreeMap<String, LaneLag> = BTreeMap::new();
        let mut tenants: BTreeMap<TenantId, TenantStatus> = BTreeMap::new();
        for (instance, status) in self.statuses(pool) {
            sum.instances.push((
                instance.to_owned(),
                status.state.clone(),
                status.owned.len(),
            ));
            sum.partitions = sum.partitions.max(status.partitions);
            sum.paused |= status.paused;
            if !status.owned.is_empty() {
                let (allowed, found) =
                    (sum.allowed(), status.adaptive.unwrap_or(status.concurrency));
                sum.adaptive = sum.adaptive.or(status.adaptive).map(|_| allowed + found);
                sum.concurrency += status.concurrency;
            }
            sum.load.add(&status.load);
            sum.rates.add(&status.rates);
            sum.service.merge(&status.service);
            sum.wait.merge(&status.wait);
            sum.owner_changes += status.owner_changes;
            add_history(&mut sum.history, &status.history);
            sum.lines.add(&status.lines);
            sum.backlog.add(&status.backlog());
            sum.stuck.extend(status.stuck.iter().cloned());
            sum.tenants_held = sum.tenants_held.max(status.tenants_held);
            sum.dead_hour += status.dead_hour;
            sum.breakers_open = sum.breakers_open.max(status.breakers_open);
            add_breakers(&mut sum.breakers, &status.breakers);
            sum.slow.extend(status.slow.iter().cloned());
            status
                .lanes
                .iter()
                .for_each(|lag| add_lane(&mut lanes, lag));
            status
                .tenants
                .iter()
                .for_each(|tenant| add_tenant(&mut tenants, tenant));
        }
        for reported in orphaned {
            add_lane(&mut lanes, &reported.lag);
            sum.backlog.add(&reported.backlog);
        }
        sum.stuck
            .sort_by_key(|stuck| std::cmp::Reverse(stuck.since_ms));
        sum.stuck.truncate(STUCK_MAX);
        let owned = u16::try_from(self.owned(pool).len()).unwrap_or(u16::MAX);
        sum.unowned = sum.partitions.saturating_sub(owned);
        sum.lanes = lanes.into_values().collect();
        sum.breakers_open = sum
            .breakers_open
            .max(u64::try_from(sum.breakers.len()).unwrap_or(u64::MAX));
        sum.breakers.truncate(BREAKERS_MAX);
        sum.slow.sort_unstable();
        sum.slow.dedup();
        sum.slow.truncate(BREAKERS_MAX);
        tenants
            .values_mut()
            .for_each(|tenant| self.doubt_drain(tenant, &sum));
        sum.tenants = tenants.into_values().collect();
        sum.tenants.sort_by(TenantStatus::order);
        sum.tenants.truncate(TENANTS_MAX);
        Some(sum)
    }

    /// A drain is not over while a partition has no owner, or an owner has not heard of it.
    fn doubt_drain(&self, tenant: &mut TenantStatus, sum: &PoolSum) {
        let (Some(drain), Some(turned)) = (&mut tenant.drain, &tenant.turned) else {
            return;
        };
        let has_heard = |status: &PoolStatus| {
            let known = status
                .tenants
                .iter()
                .find(|known| known.tenant == tenant.tenant);
            known
                .and_then(|known| known.turned.as_ref())
                .is_some_and(|known| known.at_ms >= turned.at_ms)
        };
        let mut owners = self
            .statuses(sum.pool)
            .filter(|(_, status)| !status.owned.is_empty());
        drain.is_read &= sum.unowned == 0 && owners.all(|(_, status)| has_heard(status));
    }

    fn statuses(&self, pool: Pool) -> impl Iterator<Item = (&str, &PoolStatus)> {
        let of_pool = move |snapshot: &&Snapshot| {
            snapshot
                .pools
                .iter()
                .any(|status| status.pool == pool.as_str())
        };
        self.instances().filter(of_pool).flat_map(move |snapshot| {
            let statuses = snapshot
                .pools
                .iter()
                .filter(move |status| status.pool == pool.as_str());
            statuses.map(|status| (snapshot.instance.as_str(), status))
        })
    }

    /// What waits in partitions that really have no owner; every looker sees the same, so the largest word counts.
    fn orphaned(&self, pool: Pool) -> Vec<&UnownedLag> {
        let owned = self.owned(pool);
        let mut lanes: BTreeMap<&str, &UnownedLag> = BTreeMap::new();
        let reported = self.instances().flat_map(|snapshot| &snapshot.unowned);
        for reported in reported.filter(|reported| reported.pool == pool.as_str()) {
            if reported
                .partitions
                .iter()
                .any(|partition| owned.contains(partition))
            {
                continue;
            }
            let known = lanes.entry(&reported.lag.lane).or_insert(reported);
            if reported.messages() > known.messages() {
                *known = reported;
            }
        }
        lanes.into_values().collect()
    }

    /// The open dead letters of a pool, by whoever looked last.
    fn dead(&self, pool: Pool) -> Option<OpenDead> {
        let reported = self
            .instances()
            .filter_map(|snapshot| Some((snapshot.at_ms, snapshot.dead.as_ref()?)));
        let (_, latest) = reported.max_by_key(|(at_ms, _)| *at_ms)?;
        latest
            .iter()
            .find(|dead| dead.pool == pool.as_str())
            .cloned()
    }
}

fn milliseconds(ms: Option<u64>) -> Duration {
    Duration::from_millis(ms.unwrap_or_default())
}

fn add_lane(lanes: &mut BTreeMap<String, LaneLag>, lag: &LaneLag) {
    lanes
        .entry(lag.lane.clone())
        .or_insert_with(|| LaneLag {
            lane: lag.lane.clone(),
            ..LaneLag::default()
        })
        .add(lag);
}

fn add_tenant(tenants: &mut BTreeMap<TenantId, TenantStatus>, status: &TenantStatus) {
    let sum = tenants
        .entry(status.tenant.clone())
        .or_insert_with(|| TenantStatus::of(status.tenant.clone()));
    sum.rate += status.rate;
    sum.load.add(&status.load);
    sum.lines.add(&status.lines);
    sum.backlog.get_or_insert_default().add(&status.backlog());
    sum.dead_hour += status.dead_hour;
    if let Some(turned) = &status.turned
        && sum
            .turned
            .as_ref()
            .is_none_or(|known| known.at_ms < turned.at_ms)
    {
        sum.turned = Some(turned.clone());
    }
    if let Some(drain) = &status.drain {
        sum.drain
            .get_or_insert(Drain {
                left: 0,
                is_read: true,
            })
            .add(drain);
    }
}

/// Every process has breakers of its own: a downstream has not worked for as long as any of them says.
fn add_breakers(sum: &mut Vec<OpenBreaker>, others: &[OpenBreaker]) {
    for other in others {
        match sum
            .iter_mut()
            .find(|known| known.downstream == other.downstream)
        {
            Some(known) => {
                known.open_ms = known.open_ms.max(other.open_ms);
                known.next_ms = known.next_ms.min(other.next_ms);
            }
            None => sum.push(other.clone()),
        }
    }
    sum.sort_by_key(|breaker| std::cmp::Reverse(breaker.open_ms));
}

/// Adds histories from their latest second backwards.
fn add_history(sum: &mut Vec<u32>, other: &[u32]) {
    if other.len() > sum.len() {
        let missing = other.len() - sum.len();
        sum.splice(0..0, std::iter::repeat_n(0, missing));
    }
    for (mine, theirs) in sum.iter_mut().rev().zip(other.iter().rev()) {
        *mine = mine.saturating_add(*theirs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{snapshot, status};

    fn lag(unread: u64) -> LaneLag {
        LaneLag {
            lane: "msg".into(),
            unread,
            in_work: 0,
            oldest_ms: unread,
            partition: Some(1),
        }
    }

    #[test]
    fn processes_add_up_and_silent_ones_are_forgotten() {
        let (mut fleet, now) = (Fleet::default(), Instant::now());
        let mut one = status(Pool::Relay, [0, 1]);
        one.lanes = vec![lag(5)];
        one.history = vec![1, 2, 3];
        let mut two = status(Pool::Relay, [2]);
        two.lanes = vec![lag(7)];
        two.history = vec![10];
        fleet.hear(snapshot("a", 1, vec![one]), now);
        fleet.hear(
            snapshot("b", 1, vec![two, status(Pool::Crm, [])]),
            now + SILENCE_MAX / 2,
        );
        let sum = fleet.pool(Pool::Relay).unwrap();
        assert_eq!(
            (
                sum.working(),
                sum.unowned,
                sum.concurrency,
                sum.lag_messages()
            ),
            (2, 1, 16, 12)
        );
        assert_eq!(
            (sum.lag(), sum.history),
            (Duration::from_millis(7), vec![1, 2, 13])
        );
        assert_eq!(
            fleet.pools().iter().map(|sum| sum.pool).collect::<Vec<_>>(),
            [Pool::Relay, Pool::Crm]
        );
        fleet.forget(now + SILENCE_MAX);
        assert_eq!(fleet.pool(Pool::Relay).unwrap().lag_messages(), 7);
        assert_eq!(fleet.pool(Pool::Flows), None);
    }

    #[test]
    fn what_is_allowed_adds_up_where_it_is_found_by_trying_and_where_it_is_not() {
        let (mut fleet, now) = (Fleet::default(), Instant::now());
        fleet.hear(snapshot("a", 1, vec![status(Pool::Relay, [0])]), now);
        assert_eq!(fleet.pool(Pool::Relay).unwrap().jobs(), "0/8");
        let found = PoolStatus {
            adaptive: Some(3),
            ..status(Pool::Relay, [1])
        };
        fleet.hear(snapshot("b", 1, vec![found.clone()]), now);
        fleet.hear(
            snapshot(
                "c",
                1,
                vec![PoolStatus {
                    owned: vec![2],
                    ..found
                }],
            ),
            now,
        );
        let sum = fleet.pool(Pool::Relay).unwrap();
        assert_eq!(
            (sum.concurrency, sum.allowed(), sum.jobs().as_str()),
            (24, 14, "0/14~")
        );
    }

    #[test]
    fn what_can_be_worked_on_is_told_from_what_waits_also_of_older_processes() {
        let (mut fleet, now) = (Fleet::default(), Instant::now());
        let mut reported = status(Pool::Relay, [0]);
        // Ten are not finished in the stream, three of them wait in memory, and five more in spill queues.
        reported.lanes = vec![LaneLag {
            in_work: 10,
            oldest_ms: 60_000,
            ..lag(0)
        }];
        reported.load = Load {
            queued: 6,
            running: 1,
            waiting: 3,
        };
        reported.rates.finished = 1.0;
        let backlog = Backlog {
            ready: 20,
            waiting: 8,
            oldest_ready_ms: Some(4_000),
            ..Backlog::default()
        };
        reported.backlog = Some(backlog);
        fleet.hear(snapshot("a", 1, vec![reported.clone()]), now);
        let sum = fleet.pool(Pool::Relay).unwrap();
        assert_eq!(
            (sum.lag_messages(), sum.waiting(), sum.unfinished()),
            (27, 8, 35)
        );
        assert_eq!(
            sum.lag(),
            Duration::from_secs(4),
            "what is older in the stream waits"
        );
        let mut older =
            serde_json::to_value(snapshot("b", 1, vec![status(Pool::Relay, [1])])).unwrap();
        let pool = &mut older["pools"][0];
        pool["lines"] = serde_json::json!({"moved": 100, "parked": 50});
        for absent in ["backlog", "stuck", "dead_hour"] {
            pool.as_object_mut().unwrap().remove(absent);
        }
        fleet.hear(serde_json::from_value(older).unwrap(), now);
        let sum = fleet.pool(Pool::Relay).unwrap();
        assert_eq!(
            (sum.lag_messages(), sum.waiting(), sum.stuck),
            (127, 58, vec![])
        );
    }

    #[test]
    fn a_late_word_replaces_no_newer_one() {
        let (mut fleet, now) = (Fleet::default(), Instant::now());
        fleet.hear(snapshot("a", 2, vec![status(Pool::Relay, [0])]), now);
        fleet.hear(snapshot("a", 1, vec![]), now);
        assert!(fleet.pool(Pool::Relay).is_some());
    }

    #[test]
    fn what_waits_without_an_owner_is_told_once_and_only_while_there_is_none() {
        let (mut fleet, now) = (Fleet::default(), Instant::now());
        for name in ["a", "b"] {
            let mut looker = snapshot(name, 1, vec![]);
            let backlog = Backlog {
                ready: 4,
                waiting: 2,
                ..Backlog::default()
            };
            let unowned = UnownedLag {
                pool: "relay".into(),
                partitions: vec![0, 1],
                lag: lag(9),
                backlog,
            };
            looker.unowned = vec![unowned];
            fleet.hear(looker, now);
        }
        let sum = fleet.pool(Pool::Relay).unwrap();
        assert_eq!(
            (sum.lag_messages(), sum.waiting(), sum.working()),
            (13, 2, 0)
        );
        fleet.hear(snapshot("c", 1, vec![status(Pool::Relay, [0, 1])]), now);
        assert_eq!(fleet.pool(Pool::Relay).unwrap().lag_messages(), 0);
    }
}
