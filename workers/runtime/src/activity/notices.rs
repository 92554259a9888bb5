//! What of a pool stands beside its usual work: tenants that somebody turned, what waits, what is stuck, and how far
//! drains are.
//!
//! A drain is over for this process when everything stored until shortly after it began was read, and nothing of it
//! is unfinished. How far reading is counts only for one uninterrupted reading: after an interruption older messages
//! come again.

use crate::status::TenantStatus;
use crate::status::held::{Drain, STORED_WITHIN, SpillCounts, Turned};
use crate::status::{Backlog, STUCK_MAX, Stuck};
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::Partition;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// The sequence of the last message read, by lane and partition.
pub type Frontiers = HashMap<(&'static str, Partition), u64>;

/// What a pool tells once a second of what waits, what is stuck, and of the tenants that are drained.
#[derive(Debug, Default)]
pub struct PoolReport {
    /// What waits in spill queues, by tenant.
    pub lines: HashMap<TenantId, SpillCounts>,
    /// What can be worked on and is in spill queues, and what waits for a target or its time, by tenant.
    pub backlogs: HashMap<TenantId, Backlog>,
    /// What is past its due time by more than [`super::STUCK_AFTER`]; of many, the first.
    pub stuck: Vec<Stuck>,
    /// Updates of drained tenants that are read, are older than the drain, and are not finished; none where that
    /// cannot be told yet.
    pub left: HashMap<TenantId, Option<u64>>,
    pub frontiers: Frontiers,
}

#[derive(Debug, Default)]
pub(super) struct Notices {
    turned: HashMap<TenantId, Turned>,
    reported: PoolReport,
    reported_at: Option<Instant>,
    reading: u64,
    /// Everything stored until then was read, in unix milliseconds.
    read_until_ms: u64,
}

impl Notices {
    pub(super) fn turn(&mut self, turned: HashMap<TenantId, Turned>) {
        self.turned = turned;
    }

    pub(super) fn report(&mut self, mut reported: PoolReport, now: Instant) {
        reported.stuck.truncate(STUCK_MAX);
        (self.reported, self.reported_at) = (reported, Some(now));
    }

    /// For how long a pool that tells of itself has told nothing.
    pub(super) fn silence(&self, now: Instant) -> Option<Duration> {
        self.reported_at.map(|at| now.saturating_duration_since(at))
    }

    pub(super) fn stuck(&self) -> &[Stuck] {
        &self.reported.stuck
    }

    pub(super) fn backlog(&self) -> Backlog {
        let mut sum = Backlog::default();
        self.reported
            .backlogs
            .values()
            .for_each(|backlog| sum.add(backlog));
        sum
    }

    pub(super) fn backlogs_of_tenants(&self) -> impl Iterator<Item = (&TenantId, u64)> {
        self.reported
            .backlogs
            .iter()
            .map(|(tenant, backlog)| (tenant, backlog.total()))
    }

    pub(super) fn read_anew(&mut self) {
        self.reading += 1;
        self.read_until_ms = 0;
        self.reported.left.clear();
        self.reported.frontiers.clear();
    }

    /// Which reading it is and how far, while somebody wants to know.
    pub(super) fn reading(&self) -> Option<(u64, Frontiers)> {
        let is_drained = self.turned.values().any(|turned| turned.draining);
        is_drained.then(|| (self.reading, self.reported.frontiers.clone()))
    }

    pub(super) fn has_read(&mut self, reading: u64, until_ms: u64) {
        if reading == self.reading {
            self.read_until_ms = self.read_until_ms.max(until_ms);
        }
    }

    pub(super) fn lines(&self) -> SpillCounts {
        let mut sum = SpillCounts::default();
        self.reported
            .lines
            .values()
            .for_each(|lines| sum.add(lines));
        sum
    }

    pub(super) fn spilled_of_tenants(&self) -> impl Iterator<Item = (&TenantId, u64)> {
        self.reported
            .lines
            .iter()
            .map(|(tenant, lines)| (tenant, lines.total()))
    }

    /// The tenants that are held, those that are drained first.
    pub(super) fn held(&self) -> Vec<&TenantId> {
        let held = self.turned.iter().filter(|(_, turned)| turned.is_held());
        let mut held: Vec<_> = held
            .map(|(tenant, turned)| (!turned.draining, tenant))
            .collect();
        held.sort_unstable();
        held.into_iter().map(|(_, tenant)| tenant).collect()
    }

    /// Adds what is known of a tenant to its status.
    pub(super) fn add_to(&self, status: &mut TenantStatus) {
        status.lines = self
            .reported
            .lines
            .get(&status.tenant)
            .copied()
            .unwrap_or_default();
        let backlog = self
            .reported
            .backlogs
            .get(&status.tenant)
            .copied()
            .unwrap_or_default();
        status.backlog = Some(Backlog {
            waiting: backlog.waiting.max(status.load.waiting),
            ..backlog
        });
        status.turned = self.turned.get(&status.tenant).cloned();
        status.drain = status
            .turned
            .as_ref()
            .filter(|turned| turned.draining)
            .map(|turned| {
                let left = self.reported.left.get(&status.tenant).copied().flatten();
                let settled = u64::try_from(STORED_WITHIN.as_millis()).unwrap_or(u64::MAX);
                let is_read =
                    left.is_some() && self.read_until_ms > turned.at_ms.saturating_add(settled);
                Drain {
                    left: left.unwrap_or_default(),
                    is_read,
                }
            });
    }
}
