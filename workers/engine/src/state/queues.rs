//! Spill queues as the machine knows them: which there are, what of them is read, and when.
//!
//! There are four kinds. A tenant's holds whole updates of a tenant larger than its share. A target's holds pieces
//! that wait for a target in trouble. A conversation's holds pieces of one conversation at one target whose head waits
//! for a time of its own. Earlier versions wrote whole updates of a conversation; those stand before the tenant's.

use super::queue::{Queue, Reach};
use super::{Action, Machine, Prober, Target, Wake};
use ackline_shared::ids::short_hash;
use ackline_shared::subjects::{Partition, SpillQueue};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How far a tenant's or a target's spill queue is read ahead.
const WIDE: Reach = Reach {
    entries: 64,
    together: 32,
    removals: 64,
};
/// A conversation's is worked off one by one.
const NARROW: Reach = Reach {
    entries: 1,
    together: 1,
    removals: 1,
};
/// Pause after one could not be read.
const RETRY: Duration = Duration::from_millis(500);

/// What a spill queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whole updates of a tenant.
    Tenant,
    /// Pieces that wait for a target.
    Target,
    /// Pieces of one conversation at one target.
    Own,
    /// Whole updates of one conversation.
    Legacy,
}

impl Kind {
    pub(super) fn of(queue: &SpillQueue) -> Self {
        match queue.conversation.as_deref() {
            None => Self::Tenant,
            Some(token) if token.starts_with("t-") => Self::Target,
            Some(token) if token.starts_with("o-") => Self::Own,
            Some(_) => Self::Legacy,
        }
    }

    /// The last part of a spill queue's name.
    pub(super) fn token(self, of: &str) -> String {
        let tag = if self == Self::Target { "t" } else { "o" };
        format!("{tag}-{}", short_hash(of.as_bytes()))
    }

    fn reach(self) -> Reach {
        match self {
            Self::Tenant | Self::Target => WIDE,
            Self::Own | Self::Legacy => NARROW,
        }
    }
}

/// Names what is ordered in one place for all processes, so that a successor finds the same spill queue.
fn own_name(conversation: u64, target: &Target) -> String {
    format!("{conversation:016x}/{}", target.name)
}

impl<U: Clone, P> Machine<U, P> {
    /// The stream was counted again: what is not known of is taken up.
    pub fn recounted_all(&mut self, counts: Vec<(SpillQueue, u64)>, now: Instant) {
        for (queue, count) in counts {
            let is_reported = self
                .readings
                .get(&queue.partition)
                .is_some_and(|known| known.unsorted.is_none());
            if !is_reported {
                continue;
            }
            let queue = Arc::new(queue);
            let was_unread = self.has_unread(&queue);
            match self.queues.get_mut(&queue) {
                Some(known) => known.check(count),
                None => self.enter(&queue).count(count),
            }
            if !was_unread && self.has_unread(&queue) {
                self.make_way(&queue, now);
            }
            self.tend(&queue, now);
        }
    }

    /// A read found nothing, and the stream has this many entries.
    pub fn recounted(&mut self, queue: &Arc<SpillQueue>, session: u64, count: u64, now: Instant) {
        if self.session_of(queue.partition) == Some(session)
            && let Some(known) = self.queues.get_mut(queue)
        {
            known.recounted(count, now + RETRY);
            self.probe_failed_to_come(queue, now);
            self.tend(queue, now);
        }
    }

    pub fn not_loaded(&mut self, queue: &Arc<SpillQueue>, session: u64, now: Instant) {
        if self.session_of(queue.partition) == Some(session)
            && let Some(known) = self.queues.get_mut(queue)
        {
            known.not_loaded(now + RETRY);
            self.probe_failed_to_come(queue, now);
            self.tend(queue, now);
        }
    }

    pub fn removed(&mut self, queue: &Arc<SpillQueue>, up_to: u64, is_done: bool, now: Instant) {
        if let Some(known) = self.queues.get_mut(queue) {
            known.removed(up_to, is_done);
            self.tend(queue, now);
        }
    }

    pub(super) fn queue_of(&self, id: usize, token: Option<String>) -> SpillQueue {
        let held = self.held.get(id);
        let lane = held
            .and_then(|held| self.setup.lanes.get(held.lane))
            .cloned()
            .unwrap_or_default();
        let partition = held.map_or(Partition(0), |held| held.place.partition);
        let tenant = held.map(|held| held.tenant.clone());
        let tenant = tenant.unwrap_or_else(ackline_shared::ids::TenantId::unrouted);
        SpillQueue {
            partition,
            lane,
            tenant,
            conversation: token,
        }
    }

    pub(super) fn own_queue(&self, id: usize, target: &Target) -> SpillQueue {
        let conversation = self.held.get(id).map_or(0, |held| held.conversation);
        self.queue_of(id, Some(Kind::Own.token(&own_name(conversation, target))))
    }

    pub(super) fn target_queue(&self, id: usize, target: &Target) -> SpillQueue {
        self.queue_of(id, Some(Kind::Target.token(&target.downstream)))
    }

    pub(super) fn has_unread(&self, queue: &SpillQueue) -> bool {
        self.queues.get(queue).is_some_and(Queue::has_unread)
    }

    /// Whether whole updates of one of the tenant's conversations wait as earlier versions wrote them.
    pub(super) fn has_legacy(&self, tenants: &SpillQueue) -> bool {
        self.legacy.get(tenants).is_some_and(|count| *count > 0)
    }

    /// The state of a spill queue, which begins empty.
    pub(super) fn enter(&mut self, queue: &Arc<SpillQueue>) -> &mut Queue {
        if !self.queues.contains_key(queue) {
            let of_tenant = SpillQueue {
                conversation: None,
                ..(**queue).clone()
            };
            match Kind::of(queue) {
                Kind::Own => *self.own_queues.entry(of_tenant).or_default() += 1,
                Kind::Legacy => *self.legacy.entry(of_tenant).or_default() += 1,
                Kind::Tenant | Kind::Target => {}
            }
        }
        self.queues.entry(queue.clone()).or_default()
    }

    /// What a target's spill queue waits for is known from its entries.
    pub(super) fn learn_target(
        &mut self,
        queue: &Arc<SpillQueue>,
        target: Arc<Target>,
        overdue_at: Option<Instant>,
    ) {
        let Some(known) = self.queues.get_mut(queue) else {
            return;
        };
        known.overdue_at = overdue_at;
        if let Some(before) = known.target.replace(target.clone())
            && before != target
        {
            self.breakers.unregister(queue, &before);
        }
        self.breakers.register(queue, &target);
    }

    /// Does what there is to do for a spill queue: read on, take out, wake it later, or forget it.
    pub(super) fn tend(&mut self, name: &Arc<SpillQueue>, now: Instant) {
        let kind = Kind::of(name);
        let is_behind = kind == Kind::Tenant && self.has_legacy(name);
        let Some(queue) = self.queues.get_mut(name) else {
            return;
        };
        let is_shut = queue
            .target
            .as_ref()
            .is_some_and(|target| !self.breakers.all_closed(target));
        let load = match queue.overdue_at {
            _ if is_behind => None,
            _ if !is_shut => queue.load(kind.reach(), now),
            // Only its head is looked at, to be given up.
            Some(overdue_at) if overdue_at <= now && queue.is_resting() => {
                queue.load_head().map(|from| (from, 1))
            }
            _ => None,
        };
        if load.is_some() && is_shut {
            queue.overdue_at = None;
        }
        let is_unasked = is_shut && load.is_none() && queue.is_readable();
        let target = queue.target.clone().filter(|_| is_unasked);
        let removal = queue.remove(kind.reach());
        let wake = if is_shut {
            queue.overdue_at.filter(|_| queue.has_unread())
        } else {
            queue.due()
        };
        let is_over = queue.is_over();
        // Nobody may have been there to find out when it was time.
        for spec in target.iter().flat_map(|target| &target.breakers) {
            if self.breakers.is_due(&spec.name, now) {
                self.wakes.insert((now, Wake::Breaker(spec.name.clone())));
            }
        }
        if let Some((from, max)) = load {
            let session = self.session_of(name.partition).unwrap_or_default();
            self.actions
                .push_back(Action::Load(name.clone(), session, from, max));
        }
        if let Some(up_to) = removal {
            self.actions.push_back(Action::Remove(name.clone(), up_to));
        }
        if let Some(due) = wake.filter(|due| *due > now) {
            self.wakes.insert((due, Wake::Queue(name.clone())));
        }
        if is_over {
            for breaker in self.forget_queue(name) {
                self.look_at_breaker(breaker);
            }
            if kind == Kind::Legacy {
                self.tend(
                    &Arc::new(SpillQueue {
                        conversation: None,
                        ..(**name).clone()
                    }),
                    now,
                );
            }
        }
    }

    /// Reads the head of a spill queue, so that it finds out whether its target works again.
    pub(super) fn load_head(&mut self, name: &Arc<SpillQueue>) -> bool {
        let Some(from) = self.queues.get_mut(name).and_then(Queue::load_head) else {
            return false;
        };
        let session = self.session_of(name.partition).unwrap_or_default();
        self.actions
            .push_back(Action::Load(name.clone(), session, from, 1));
        true
    }

    /// Forgets a spill queue; gives the breakers that it waited for.
    pub(super) fn forget_queue(&mut self, name: &Arc<SpillQueue>) -> Vec<Arc<str>> {
        let Some(queue) = self.queues.remove(name) else {
            return Vec::new();
        };
        let of_tenant = SpillQueue {
            conversation: None,
            ..(**name).clone()
        };
        let counts = match Kind::of(name) {
            Kind::Own => Some(&mut self.own_queues),
            Kind::Legacy => Some(&mut self.legacy),
            Kind::Tenant | Kind::Target => None,
        };
        if let Some(counts) = counts
            && let Some(count) = counts.get_mut(&of_tenant)
        {
            *count -= 1;
            if *count == 0 {
                counts.remove(&of_tenant);
            }
        }
        let Some(target) = queue.target else {
            return Vec::new();
        };
        self.breakers.unregister(name, &target);
        target
            .breakers
            .iter()
            .map(|spec| spec.name.clone())
            .collect()
    }

    /// The head that was to find out is not there: another one is.
    pub(super) fn probe_failed_to_come(&mut self, queue: &Arc<SpillQueue>, now: Instant) {
        let target = self
            .queues
            .get(queue)
            .and_then(|known| known.target.clone());
        for spec in target.iter().flat_map(|target| &target.breakers) {
            self.breakers
                .give_up_probe(&spec.name, &Prober::Queue(queue.clone()));
            self.wakes
                .insert((now + RETRY, Wake::Breaker(spec.name.clone())));
        }
    }
}
