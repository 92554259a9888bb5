//! What a pool tells once a second beside its counts: what waits, what is stuck, and how far the drains of tenants are.

use super::Desk;
use crate::core::activity::{Backlog, Frontiers, STUCK_AFTER, STUCK_MAX, Stuck, Telling};
use crate::core::intake::Arrival;
use crate::core::job::Job;
use crate::core::log::now_ms;
use crate::core::status::notable::Turned;
use crate::core::tuning::{Mode, Tuning};
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::Partition;
use std::collections::{BTreeMap, HashMap};
use tokio::time::Instant;

/// How far the reading of each partition and lane is: the session and the sequence.
pub(super) type Frontier = BTreeMap<(Partition, usize), (u64, u64)>;

impl<J: Job> Desk<J> {
    /// Shows what operators turned of tenants.
    pub(super) fn tell_turned(&self) {
        let table = self.tuning.table();
        let turned = table.tenants(J::POOL).map(|(tenant, entry)| (tenant.clone(), Turned::from(entry)));
        let turned: HashMap<TenantId, Turned> = turned.filter(|(_, turned)| !turned.is_usual()).collect();
        self.attempts.metrics.activity(J::POOL).turned(turned);
    }

    /// Notes that a message of the present reading was read.
    pub(super) fn advance(&mut self, arrival: &Arrival) {
        self.attempts.metrics.read(J::POOL, &arrival.work.head);
        let (place, session) = (arrival.place(), arrival.reading.session);
        let reached = self.frontier.entry((place.partition, arrival.lane)).or_default();
        *reached = (*reached).max((session, place.sequence));
    }

    /// Tells what waits and what is stuck, and of drained tenants what is left.
    pub(super) fn tell(&mut self) {
        let drained = drained::<J>(&self.tuning);
        let left = drained.into_iter().map(|(tenant, until_ms)| {
            let left = self.left_of(&tenant, until_ms);
            (tenant, left)
        });
        let left = left.collect();
        let told = Telling {
            left,
            lines: self.spill.lines(),
            backlogs: self.backlogs(),
            stuck: self.stuck(),
            frontiers: self.frontiers(),
        };
        self.attempts.metrics.activity(J::POOL).tell(told);
    }

    /// What waits, by tenant: a tenant's line can be worked on, a conversation's waits as its first update does.
    fn backlogs(&self) -> HashMap<TenantId, Backlog> {
        let now = now_ms();
        let mut backlogs: HashMap<TenantId, Backlog> = HashMap::new();
        for (tenant, lines) in self.spill.lines() {
            let of_lines = Backlog { ready: lines.moved, waiting: lines.parked, ..Backlog::default() };
            backlogs.entry(tenant).or_default().add(&of_lines);
        }
        for (_, arrival) in self.waiting.values() {
            let head = &arrival.work.head;
            backlogs.entry(head.tenant.clone()).or_default().wait(now.saturating_sub(head.received_ms));
        }
        backlogs
    }

    /// What waits in memory although its time came long ago.
    fn stuck(&self) -> Vec<Stuck> {
        let now = Instant::now();
        let late = |(due, _): &(Instant, u64)| now.saturating_duration_since(*due);
        let stuck = self.waiting.iter().take_while(|(at, _)| late(at) > STUCK_AFTER);
        let told = stuck.take(STUCK_MAX).map(|(at, (_, arrival))| Stuck {
            partition: arrival.place().partition.0,
            lane: self.lane_names.get(arrival.lane).copied().unwrap_or_default().to_owned(),
            tenant: arrival.work.head.tenant.clone(),
            since_ms: u64::try_from(late(at).as_millis()).unwrap_or(u64::MAX),
            what: "an update is not tried again".to_owned(),
        });
        told.collect()
    }

    /// Updates of a tenant received until a time that were read and are not finished; `None` until its lines are
    /// known. What is in memory and not newer counts, whatever happens to it.
    fn left_of(&self, tenant: &TenantId, until_ms: u64) -> Option<u64> {
        let is_newer = |arrival: &Arrival| {
            arrival.work.head.tenant == *tenant && arrival.work.head.received_ms > until_ms
        };
        let newer = self.scheduler.items().filter(|arrival| is_newer(arrival)).count()
            + self.waiting.values().filter(|(_, arrival)| is_newer(arrival)).count()
            + self.kept.iter().filter(|(_, arrival)| is_newer(arrival)).count();
        let in_lines = self.spill.unfinished_of(tenant, until_ms)?;
        let held = self.attempts.metrics.activity(J::POOL).load_of(tenant).held();
        Some(held.saturating_sub(u64::try_from(newer).unwrap_or(u64::MAX)).saturating_add(in_lines))
    }

    fn frontiers(&mut self) -> Frontiers {
        let read: HashMap<Partition, u64> = self
            .holdings
            .readings()
            .iter()
            .map(|reading| (reading.tenure.partition(), reading.session))
            .collect();
        self.frontier.retain(|(partition, _), (session, _)| read.get(partition) == Some(session));
        let named = |((partition, lane), (_, sequence)): (&(Partition, usize), &(u64, u64))| {
            Some(((self.lane_names.get(*lane).copied()?, *partition), *sequence))
        };
        self.frontier.iter().filter_map(named).collect()
    }
}

/// The tenants that are drained, each with the time until which its updates are worked on.
fn drained<J: Job>(tuning: &Tuning) -> Vec<(TenantId, u64)> {
    let table = tuning.table();
    let drained = table.tenants(J::POOL).filter(|(_, entry)| entry.value.mode == Some(Mode::Drain));
    drained.map(|(tenant, entry)| (tenant.clone(), entry.at_ms)).collect()
}
