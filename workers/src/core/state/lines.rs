//! Spill queues as the machine knows them: which there are, what of them is read, and when.
//!
//! There are four kinds. A tenant's holds whole updates of a tenant larger than its share. A target's holds pieces
//! that wait for a target in trouble. A conversation's holds pieces of one conversation at one target whose head waits
//! for a time of its own. Earlier versions wrote whole updates of a conversation; those stand before the tenant's.

use super::line::{Line, Reach};
use super::{Action, Machine, Prober, Target, Wake};
use ackline_shared::ids::short_hash;
use ackline_shared::subjects::{Partition, SpillLine};
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
    pub(super) fn of(line: &SpillLine) -> Self {
        match line.conversation.as_deref() {
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
    pub fn recounted_all(&mut self, counts: Vec<(SpillLine, u64)>, now: Instant) {
        for (line, count) in counts {
            let is_told = self
                .readings
                .get(&line.partition)
                .is_some_and(|known| known.unsorted.is_none());
            if !is_told {
                continue;
            }
            let line = Arc::new(line);
            let was_unread = self.has_unread(&line);
            match self.lines.get_mut(&line) {
                Some(known) => known.check(count),
                None => self.enter(&line).count(count),
            }
            if !was_unread && self.has_unread(&line) {
                self.make_way(&line, now);
            }
            self.tend(&line, now);
        }
    }

    /// A read found nothing, and the stream has this many entries.
    pub fn recounted(&mut self, line: &Arc<SpillLine>, session: u64, count: u64, now: Instant) {
        if self.session_of(line.partition) == Some(session)
            && let Some(known) = self.lines.get_mut(line)
        {
            known.recounted(count, now + RETRY);
            self.probe_failed_to_come(line, now);
            self.tend(line, now);
        }
    }

    /// A read failed.
    pub fn not_loaded(&mut self, line: &Arc<SpillLine>, session: u64, now: Instant) {
        if self.session_of(line.partition) == Some(session)
            && let Some(known) = self.lines.get_mut(line)
        {
            known.not_loaded(now + RETRY);
            self.probe_failed_to_come(line, now);
            self.tend(line, now);
        }
    }

    /// A removal ended.
    pub fn removed(&mut self, line: &Arc<SpillLine>, up_to: u64, is_done: bool, now: Instant) {
        if let Some(known) = self.lines.get_mut(line) {
            known.removed(up_to, is_done);
            self.tend(line, now);
        }
    }

    pub(super) fn line_of(&self, id: usize, token: Option<String>) -> SpillLine {
        let held = self.held.get(id);
        let lane = held
            .and_then(|held| self.setup.lanes.get(held.lane))
            .cloned()
            .unwrap_or_default();
        let partition = held.map_or(Partition(0), |held| held.place.partition);
        let tenant = held.map(|held| held.tenant.clone());
        let tenant = tenant.unwrap_or_else(ackline_shared::ids::TenantId::unrouted);
        SpillLine {
            partition,
            lane,
            tenant,
            conversation: token,
        }
    }

    pub(super) fn own_line(&self, id: usize, target: &Target) -> SpillLine {
        let conversation = self.held.get(id).map_or(0, |held| held.conversation);
        self.line_of(id, Some(Kind::Own.token(&own_name(conversation, target))))
    }

    pub(super) fn target_line(&self, id: usize, target: &Target) -> SpillLine {
        self.line_of(id, Some(Kind::Target.token(&target.downstream)))
    }

    pub(super) fn has_unread(&self, line: &SpillLine) -> bool {
        self.lines.get(line).is_some_and(Line::has_unread)
    }

    /// Whether whole updates of one of the tenant's conversations wait as earlier versions wrote them.
    pub(super) fn has_legacy(&self, tenants: &SpillLine) -> bool {
        self.legacy.get(tenants).is_some_and(|count| *count > 0)
    }

    /// The state of a spill queue, which begins empty.
    pub(super) fn enter(&mut self, line: &Arc<SpillLine>) -> &mut Line {
        if !self.lines.contains_key(line) {
            let of_tenant = SpillLine {
                conversation: None,
                ..(**line).clone()
            };
            match Kind::of(line) {
                Kind::Own => *self.own_lines.entry(of_tenant).or_default() += 1,
                Kind::Legacy => *self.legacy.entry(of_tenant).or_default() += 1,
                Kind::Tenant | Kind::Target => {}
            }
        }
        self.lines.entry(line.clone()).or_default()
    }

    /// What a target's spill queue waits for is known from its entries.
    pub(super) fn learn_target(
        &mut self,
        line: &Arc<SpillLine>,
        target: Arc<Target>,
        overdue_at: Option<Instant>,
    ) {
        let Some(known) = self.lines.get_mut(line) else {
            return;
        };
        known.overdue_at = overdue_at;
        if let Some(before) = known.target.replace(target.clone())
            && before != target
        {
            self.gates.unregister(line, &before);
        }
        self.gates.register(line, &target);
    }

    /// Does what there is to do for a spill queue: read on, take out, wake it later, or forget it.
    pub(super) fn tend(&mut self, name: &Arc<SpillLine>, now: Instant) {
        let kind = Kind::of(name);
        let is_behind = kind == Kind::Tenant && self.has_legacy(name);
        let Some(line) = self.lines.get_mut(name) else {
            return;
        };
        let is_shut = line
            .target
            .as_ref()
            .is_some_and(|target| !self.gates.all_closed(target));
        let load = match line.overdue_at {
            _ if is_behind => None,
            _ if !is_shut => line.load(kind.reach(), now),
            // Only its head is looked at, to be given up.
            Some(overdue_at) if overdue_at <= now && line.is_resting() => {
                line.load_head().map(|from| (from, 1))
            }
            _ => None,
        };
        if load.is_some() && is_shut {
            line.overdue_at = None;
        }
        let is_unasked = is_shut && load.is_none() && line.is_readable();
        let target = line.target.clone().filter(|_| is_unasked);
        let removal = line.remove(kind.reach());
        let wake = if is_shut {
            line.overdue_at.filter(|_| line.has_unread())
        } else {
            line.due()
        };
        let is_over = line.is_over();
        // Nobody may have been there to find out when it was time.
        for spec in target.iter().flat_map(|target| &target.gates) {
            if self.gates.is_due(&spec.name, now) {
                self.wakes.insert((now, Wake::Gate(spec.name.clone())));
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
            self.wakes.insert((due, Wake::Line(name.clone())));
        }
        if is_over {
            for gate in self.forget_line(name) {
                self.look_at_gate(gate);
            }
            if kind == Kind::Legacy {
                self.tend(
                    &Arc::new(SpillLine {
                        conversation: None,
                        ..(**name).clone()
                    }),
                    now,
                );
            }
        }
    }

    /// Reads the head of a spill queue, so that it finds out whether its target works again.
    pub(super) fn load_head(&mut self, name: &Arc<SpillLine>) -> bool {
        let Some(from) = self.lines.get_mut(name).and_then(Line::load_head) else {
            return false;
        };
        let session = self.session_of(name.partition).unwrap_or_default();
        self.actions
            .push_back(Action::Load(name.clone(), session, from, 1));
        true
    }

    /// Forgets a spill queue; gives the gates that it waited for.
    pub(super) fn forget_line(&mut self, name: &Arc<SpillLine>) -> Vec<Arc<str>> {
        let Some(line) = self.lines.remove(name) else {
            return Vec::new();
        };
        let of_tenant = SpillLine {
            conversation: None,
            ..(**name).clone()
        };
        let counts = match Kind::of(name) {
            Kind::Own => Some(&mut self.own_lines),
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
        let Some(target) = line.target else {
            return Vec::new();
        };
        self.gates.unregister(name, &target);
        target.gates.iter().map(|spec| spec.name.clone()).collect()
    }

    /// The head that was to find out is not there: another one is.
    pub(super) fn probe_failed_to_come(&mut self, line: &Arc<SpillLine>, now: Instant) {
        let target = self.lines.get(line).and_then(|known| known.target.clone());
        for spec in target.iter().flat_map(|target| &target.gates) {
            self.gates
                .give_up_probe(&spec.name, &Prober::Line(line.clone()));
            self.wakes
                .insert((now + RETRY, Wake::Gate(spec.name.clone())));
        }
    }
}
