//! What is told of where everything stands.

use super::queues::Kind;
use super::{BreakerReport, Machine, Stand};
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::Partition;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Lateness from which something is stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(30);
pub const STUCK_MAX: usize = 8;

/// What of a tenant is out of the way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Updates in spill queues that can be worked on.
    pub ready: u64,
    /// Pieces that wait for a target or a time of their own, in memory and in spill queues.
    pub waiting: u64,
    /// How many of these are in spill queues.
    pub spilled_waiting: u64,
    /// When the oldest of them first had to wait, in unix milliseconds, as far as is known.
    pub oldest_waiting_ms: Option<u64>,
}

/// Something that is past its time and does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    pub partition: Partition,
    pub lane: String,
    pub tenant: TenantId,
    /// By how much it is late.
    pub late: Duration,
    pub what: &'static str,
}

impl<U: Clone, P> Machine<U, P> {
    /// What waits out of the way, by tenant, as far as is known.
    pub fn backlog(&self) -> HashMap<TenantId, Backlog> {
        let mut backlog: HashMap<TenantId, Backlog> = HashMap::new();
        for (name, queue) in &self.queues {
            if queue.unread() == 0 {
                continue;
            }
            let of_tenant = backlog.entry(name.tenant.clone()).or_default();
            match Kind::of(name) {
                Kind::Tenant => of_tenant.ready += queue.unread(),
                Kind::Target
                    if queue
                        .target
                        .as_ref()
                        .is_none_or(|target| self.breakers.all_closed(target)) =>
                {
                    of_tenant.ready += queue.unread();
                }
                Kind::Target | Kind::Own | Kind::Legacy => {
                    of_tenant.waiting += queue.unread();
                    of_tenant.spilled_waiting += queue.unread();
                }
            }
        }
        for (_, piece) in &self.pieces {
            if matches!(piece.stand, Stand::Waiting(_) | Stand::AtBreaker)
                && let Some(held) = self.held.get(piece.held)
            {
                let of_tenant = backlog.entry(held.tenant.clone()).or_default();
                of_tenant.waiting += 1;
                let first = piece.waits.first_ms;
                of_tenant.oldest_waiting_ms =
                    of_tenant.oldest_waiting_ms.into_iter().chain(first).min();
            }
        }
        backlog
    }

    /// How many of a tenant's updates in spill queues may have been received until a time; `None` while those of a
    /// partition are not looked up.
    pub fn unfinished_of(&self, tenant: &TenantId, until_ms: u64) -> Option<u64> {
        if self
            .readings
            .values()
            .any(|reading| reading.unsorted.is_some())
        {
            return None;
        }
        let of_tenant = self
            .queues
            .iter()
            .filter(|(name, _)| name.tenant == *tenant);
        Some(
            of_tenant
                .map(|(_, queue)| queue.unread_until(until_ms))
                .sum(),
        )
    }

    /// Targets whose circuit breaker is open, or that are slow.
    pub fn open_breakers(&self, now: Instant) -> Vec<BreakerReport> {
        self.breakers.open(now)
    }

    /// Targets whose circuit breaker opened (with the first pause) or closed again since this was last asked.
    pub fn take_breaker_changes(&mut self) -> Vec<(Arc<str>, Option<Duration>)> {
        self.breakers.take_changes()
    }

    /// What should have gone on long ago, a bounded number of it.
    pub fn stuck(&self, now: Instant) -> Vec<Stuck> {
        let is_late = |due: Instant| due + STUCK_AFTER < now;
        let mut stuck = Vec::new();
        for (_, piece) in &self.pieces {
            let Some(held) = self.held.get(piece.held) else {
                continue;
            };
            let found = match piece.stand {
                Stand::Waiting(until) if is_late(until) => {
                    Some((until, "an update is past its time"))
                }
                Stand::AtBreaker
                    if is_late(self.moved_at) && !self.has_wake(&piece.target, now) =>
                {
                    Some((
                        self.moved_at,
                        "an update waits for a target that nobody asks",
                    ))
                }
                Stand::Queued if is_late(self.moved_at) && self.scheduler.running() == 0 => {
                    let is_paused =
                        self.setup.rules.paused || self.setup.rules.share(&held.tenant).paused;
                    (!is_paused).then_some((
                        self.moved_at,
                        "an update is not started although nothing runs",
                    ))
                }
                _ => None,
            };
            if let Some((due, what)) = found {
                let late = now.saturating_duration_since(due);
                let lane = self.setup.lanes.get(held.lane).cloned().unwrap_or_default();
                stuck.push(Stuck {
                    partition: held.place.partition,
                    lane,
                    tenant: held.tenant.clone(),
                    late,
                    what,
                });
            }
            if stuck.len() >= STUCK_MAX {
                return stuck;
            }
        }
        for (name, queue) in &self.queues {
            let due = queue.idle_since(now).filter(|since| is_late(*since));
            let is_shut = queue
                .target
                .as_ref()
                .is_some_and(|target| !self.breakers.all_closed(target));
            let waits_for_breaker = is_shut
                && queue
                    .target
                    .as_ref()
                    .is_some_and(|target| self.has_wake(target, now));
            let is_behind = Kind::of(name) == Kind::Tenant && self.has_legacy(name);
            if let (Some(since), false) = (due, waits_for_breaker || is_behind) {
                let what = "a spill queue is not read on";
                let late = now.saturating_duration_since(since);
                let (partition, lane) = (name.partition, name.lane.clone());
                stuck.push(Stuck {
                    partition,
                    lane,
                    tenant: name.tenant.clone(),
                    late,
                    what,
                });
            }
            if stuck.len() >= STUCK_MAX {
                break;
            }
        }
        stuck
    }

    /// Whether the breakers of a target will be looked at again by themselves.
    fn has_wake(&self, target: &super::Target, now: Instant) -> bool {
        target.breakers.iter().any(|spec| {
            self.breakers.has_prober(&spec.name, now)
                || self
                    .breakers
                    .due(&spec.name, now)
                    .is_some_and(|due| due + STUCK_AFTER > now)
        })
    }
}

#[cfg(test)]
impl<U: Clone, P> Machine<U, P> {
    /// What of a partition is in hand and would not be found by anybody else, by sequence and target.
    pub(super) fn unremembered(
        &self,
        partition: Partition,
        is_it: impl Fn(&P) -> bool,
    ) -> Vec<(u64, String)> {
        let resting = self
            .pieces
            .iter()
            .filter(|(_, piece)| piece.data.as_ref().is_some_and(&is_it));
        let named = resting.filter_map(|(_, piece)| {
            let held = self
                .held
                .get(piece.held)
                .filter(|held| held.place.partition == partition)?;
            Some((held.place.sequence, piece.target.name.clone()))
        });
        named.collect()
    }
}
