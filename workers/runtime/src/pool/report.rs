//! What a pool tells once a second beside its counts: what waits, what is stuck, and how far the drains of tenants are.

use super::PoolRunner;
use crate::activity::{Frontiers, PoolReport};
use crate::intake::Arrival;
use crate::job::Job;
use crate::status::held::{SpillCounts, Turned};
use crate::status::{Backlog, Stuck};
use crate::tuning::{Mode, Tuning};
use ackline_engine::state;
use ackline_shared::clock::now_ms;
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::Partition;
use std::collections::{BTreeMap, HashMap};
use tokio::time::Instant;

/// How far the reading of each partition and lane is: the session and the sequence.
pub(super) type Frontier = BTreeMap<(Partition, usize), (u64, u64)>;

impl<J: Job> PoolRunner<J> {
    /// Shows what operators turned of tenants.
    pub(super) fn report_turned(&self) {
        let table = self.tuning.table();
        let turned = table
            .tenants(J::POOL)
            .map(|(tenant, entry)| (tenant.clone(), Turned::from(entry)));
        let turned: HashMap<TenantId, Turned> =
            turned.filter(|(_, turned)| !turned.is_usual()).collect();
        self.attempts.metrics.activity(J::POOL).turned(turned);
    }

    /// Notes that a message of the present reading was read.
    pub(super) fn advance(&mut self, arrival: &Arrival) {
        self.attempts.metrics.read(J::POOL, &arrival.head);
        let (place, session) = (arrival.place(), arrival.reading.session);
        let reached = self
            .frontier
            .entry((place.partition, arrival.lane))
            .or_default();
        *reached = (*reached).max((session, place.sequence));
    }

    /// Tells what waits and what is stuck, and of drained tenants what is left.
    pub(super) fn report(&mut self) {
        let drained = drained::<J>(&self.tuning);
        let left = drained.into_iter().map(|(tenant, until_ms)| {
            let left = self.left_of(&tenant, until_ms);
            (tenant, left)
        });
        let (now, now_ms) = (Instant::now(), now_ms());
        let (mut lines, mut backlogs) = (HashMap::new(), HashMap::new());
        for (tenant, of) in self.machine.backlog() {
            let oldest_waiting_ms = of
                .oldest_waiting_ms
                .map(|first| now_ms.saturating_sub(first));
            let backlog = Backlog {
                ready: of.ready,
                waiting: of.waiting,
                oldest_ready_ms: None,
                oldest_waiting_ms,
            };
            lines.insert(
                tenant.clone(),
                SpillCounts {
                    moved: of.ready,
                    parked: of.spilled_waiting,
                },
            );
            backlogs.insert(tenant, backlog);
        }
        let stuck = self.machine.stuck(now);
        let reported = PoolReport {
            left: left.collect(),
            lines,
            backlogs,
            stuck: stuck.iter().map(stuck_report).collect(),
            frontiers: self.frontiers(),
        };
        self.attempts.metrics.activity(J::POOL).report(reported);
        self.mend(&stuck);
        self.report_breakers(now);
    }

    /// Reads anew what does not go on, and says where.
    fn mend(&mut self, stuck: &[state::Stuck]) {
        for state::Stuck {
            partition,
            lane,
            tenant,
            late,
            what,
        } in stuck
        {
            tracing::error!(
                pool = %J::POOL, %partition, lane, %tenant, late_s = late.as_secs(), what,
                "stuck; the partition is read anew"
            );
            self.partitions.read_anew(*partition);
        }
    }

    /// Shows of which targets the circuit breaker is open.
    fn report_breakers(&mut self, now: Instant) {
        for (name, pause) in self.machine.take_breaker_changes() {
            self.breakers.changed(&name, pause);
        }
        self.breakers
            .publish(J::POOL, self.machine.open_breakers(now));
    }

    /// Updates of a tenant received until a time that were read and are not finished; `None` until its spill queues are
    /// known. What is in memory and not newer counts, whatever happens to it.
    fn left_of(&self, tenant: &TenantId, until_ms: u64) -> Option<u64> {
        let is_newer = |arrival: &Arrival| {
            arrival.head.tenant == *tenant && arrival.head.received_ms > until_ms
        };
        let newer = self
            .machine
            .resting()
            .filter(|arrival| is_newer(arrival))
            .count();
        let in_queues = self.machine.unfinished_of(tenant, until_ms)?;
        let held = self
            .attempts
            .metrics
            .activity(J::POOL)
            .load_of(tenant)
            .held();
        Some(
            held.saturating_sub(u64::try_from(newer).unwrap_or(u64::MAX))
                .saturating_add(in_queues),
        )
    }

    fn frontiers(&mut self) -> Frontiers {
        let read: HashMap<Partition, u64> = self
            .partitions
            .readings()
            .iter()
            .map(|reading| (reading.lease.partition(), reading.session))
            .collect();
        self.frontier
            .retain(|(partition, _), (session, _)| read.get(partition) == Some(session));
        let named = |((partition, lane), (_, sequence)): (&(Partition, usize), &(u64, u64))| {
            Some((
                (self.lane_names.get(*lane).copied()?, *partition),
                *sequence,
            ))
        };
        self.frontier.iter().filter_map(named).collect()
    }
}

/// The tenants that are drained, each with the time until which its updates are worked on.
fn drained<J: Job>(tuning: &Tuning) -> Vec<(TenantId, u64)> {
    let table = tuning.table();
    let drained = table
        .tenants(J::POOL)
        .filter(|(_, entry)| entry.value.mode == Some(Mode::Drain));
    drained
        .map(|(tenant, entry)| (tenant.clone(), entry.at_ms))
        .collect()
}

fn stuck_report(stuck: &state::Stuck) -> Stuck {
    Stuck {
        partition: stuck.partition.0,
        lane: stuck.lane.clone(),
        tenant: stuck.tenant.clone(),
        since_ms: u64::try_from(stuck.late.as_millis()).unwrap_or(u64::MAX),
        what: stuck.what.to_owned(),
    }
}
