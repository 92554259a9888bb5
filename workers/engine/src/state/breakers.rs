//! What has to work before a request is made: how much of it at once, and whether the circuit breaker is open. Pure.

use super::circuit::{Change, Circuit, Policy, Signal, Ticket};
use super::{BreakerSpec, Target};
use ackline_shared::subjects::SpillQueue;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Breakers that nothing waits for and that are remembered for their trouble alone.
const REMEMBERED_MAX: usize = 4096;
/// Longest that a piece which is to find out may take to come to its turn.
const PROBE_WAIT: Duration = Duration::from_secs(10);
/// Requests over which time-outs are told from answers.
const RECENT: u32 = 16;
/// Fewest requests of which that is said.
const RECENT_MIN: u32 = 4;

/// Everything that something waits for, asks, or that failed lately.
#[derive(Debug)]
pub(super) struct Breakers {
    policy: Policy,
    breakers: HashMap<Arc<str>, Breaker>,
    changes: Vec<(Arc<str>, Option<Duration>)>,
}

#[derive(Debug, Default)]
struct Breaker {
    limit: usize,
    running: usize,
    circuit: Circuit,
    /// Pieces in memory that wait for it, the oldest first.
    waiting: VecDeque<usize>,
    /// Spill queues whose pieces wait for it.
    queues: VecDeque<Arc<SpillQueue>>,
    prober: Option<(Prober, Instant)>,
    /// Of the last requests, a bit each: whether they timed out.
    timed_out: u32,
    requests: u32,
}

/// Who finds out whether it works again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Prober {
    Piece(usize),
    Queue(Arc<SpillQueue>),
}

/// That a piece was let through a breaker.
#[derive(Debug, Clone)]
pub(super) struct Leave {
    pub(super) breaker: Arc<str>,
    ticket: Ticket,
}

/// Why a piece is not let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shut {
    /// Its requests at once are used up.
    Full(Arc<str>),
    /// The circuit breaker is open.
    Open(Arc<str>),
}

/// A circuit breaker that is open, or something that times out half of the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerReport {
    pub name: String,
    /// For how long it has not worked; none while it is asked freely.
    pub since: Option<Duration>,
    /// Until it is asked again.
    pub next: Duration,
    /// Whether half of its last requests timed out.
    pub is_slow: bool,
}

impl Breakers {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            breakers: HashMap::new(),
            changes: Vec::new(),
        }
    }

    /// Lets a piece through all breakers of its target, or says which is shut.
    pub(super) fn pass(
        &mut self,
        piece: usize,
        queue: Option<&Arc<SpillQueue>>,
        target: &Target,
        reserved: bool,
        now: Instant,
    ) -> Result<Vec<Leave>, Shut> {
        for spec in &target.breakers {
            let Some(breaker) = self.breakers.get(&spec.name) else {
                continue;
            };
            if !breaker.circuit.is_closed() && !breaker.may_probe(piece, queue, now) {
                return Err(Shut::Open(spec.name.clone()));
            }
            if breaker.circuit.is_closed() && !reserved && breaker.running >= spec.limit.max(1) {
                return Err(Shut::Full(spec.name.clone()));
            }
        }
        let mut leaves = Vec::with_capacity(target.breakers.len());
        for spec in &target.breakers {
            let policy = self.policy;
            let breaker = self.enter(spec);
            let is_probe = !breaker.circuit.is_closed();
            let Ok(ticket) = breaker.circuit.ask(&policy, now) else {
                continue;
            };
            if is_probe {
                breaker.prober = Some((Prober::Piece(piece), now + policy.probe_timeout));
            }
            if !reserved {
                breaker.running += 1;
            }
            leaves.push(Leave {
                breaker: spec.name.clone(),
                ticket,
            });
        }
        Ok(leaves)
    }

    /// Takes in what a request said of a breaker.
    pub(super) fn report(
        &mut self,
        piece: usize,
        leave: &Leave,
        signal: Signal,
        timed_out: bool,
        now: Instant,
    ) {
        let Some(breaker) = self.breakers.get_mut(&leave.breaker) else {
            return;
        };
        breaker.running = breaker.running.saturating_sub(1);
        if breaker
            .prober
            .as_ref()
            .is_some_and(|(prober, _)| *prober == Prober::Piece(piece))
        {
            breaker.prober = None;
        }
        if signal != Signal::Unknown {
            breaker.requests = (breaker.requests + 1).min(RECENT);
            breaker.timed_out =
                (breaker.timed_out << 1 | u32::from(timed_out)) & ((1 << RECENT) - 1);
        }
        match breaker
            .circuit
            .report(&self.policy, leave.ticket, signal, now)
        {
            Some(Change::Opened(pause)) => self.changes.push((leave.breaker.clone(), Some(pause))),
            Some(Change::Closed) => self.changes.push((leave.breaker.clone(), None)),
            None => {}
        }
    }

    /// Gives room back that was kept for a piece which does not come.
    pub(super) fn unreserve(&mut self, target: &Target) {
        for spec in &target.breakers {
            if let Some(breaker) = self.breakers.get_mut(&spec.name) {
                breaker.running = breaker.running.saturating_sub(1);
            }
        }
    }

    /// Keeps room at all breakers of a target for a piece that is about to come.
    pub(super) fn reserve(&mut self, target: &Target) {
        for spec in &target.breakers {
            self.enter(spec).running += 1;
        }
    }

    /// Who finds out does not come.
    pub(super) fn give_up_probe(&mut self, name: &str, prober: &Prober) {
        if let Some(breaker) = self.breakers.get_mut(name)
            && breaker
                .prober
                .as_ref()
                .is_some_and(|(known, _)| known == prober)
        {
            breaker.prober = None;
        }
    }

    /// Lets a piece wait in memory.
    pub(super) fn wait(&mut self, name: &Arc<str>, piece: usize) {
        if let Some(breaker) = self.breakers.get_mut(name) {
            breaker.waiting.push_back(piece);
        }
    }

    /// The next piece in memory that may be asked for, when there is room.
    pub(super) fn next_waiting(&mut self, name: &str) -> Option<usize> {
        let breaker = self.breakers.get_mut(name)?;
        let has_room = !breaker.circuit.is_closed() || breaker.running < breaker.limit.max(1);
        if has_room {
            breaker.waiting.pop_front()
        } else {
            None
        }
    }

    /// The first breaker of a target whose requests at once are used up.
    pub(super) fn full(&self, target: &Target) -> Option<Arc<str>> {
        let is_full = |spec: &&BreakerSpec| {
            self.breakers
                .get(&spec.name)
                .is_some_and(|breaker| breaker.running >= spec.limit.max(1))
        };
        target
            .breakers
            .iter()
            .find(is_full)
            .map(|spec| spec.name.clone())
    }

    /// Everything in memory that waits for a breaker.
    pub(super) fn take_waiting(&mut self, name: &str) -> Vec<usize> {
        self.breakers
            .get_mut(name)
            .map(|breaker| breaker.waiting.drain(..).collect())
            .unwrap_or_default()
    }

    /// Takes pieces out of whatever breaker they wait for.
    pub(super) fn forget_waiting(&mut self, gone: impl Fn(usize) -> bool) {
        for breaker in self.breakers.values_mut() {
            breaker.waiting.retain(|piece| !gone(*piece));
        }
    }

    /// Tells whether a breaker is asked freely; one that is not known is.
    pub(super) fn is_closed(&self, name: &str) -> bool {
        self.breakers
            .get(name)
            .is_none_or(|breaker| breaker.circuit.is_closed())
    }

    /// Whether every breaker of a target is asked freely.
    pub(super) fn all_closed(&self, target: &Target) -> bool {
        target
            .breakers
            .iter()
            .all(|spec| self.is_closed(&spec.name))
    }

    /// Whether one request may find out about a breaker now.
    pub(super) fn is_due(&self, name: &str, now: Instant) -> bool {
        self.breakers.get(name).is_some_and(|breaker| {
            !breaker.circuit.is_closed()
                && breaker.running < breaker.limit.max(1)
                && breaker.circuit.held(now).is_none()
                && breaker
                    .prober
                    .as_ref()
                    .is_none_or(|(_, until)| *until <= now)
        })
    }

    /// When something is to be looked at: the pause ends, or who finds out has not come.
    pub(super) fn due(&self, name: &str, now: Instant) -> Option<Instant> {
        let breaker = self
            .breakers
            .get(name)
            .filter(|breaker| !breaker.circuit.is_closed())?;
        let pause = breaker.circuit.held(now).map(|wait| now + wait);
        let prober = breaker.prober.as_ref().map(|(_, until)| *until);
        pause.max(prober)
    }

    /// Since when a circuit breaker has been open.
    pub(super) fn open_since(&self, name: &str) -> Option<Instant> {
        self.breakers
            .get(name)
            .and_then(|breaker| breaker.circuit.open_since())
    }

    /// Notes who is to find out.
    pub(super) fn let_probe(&mut self, name: &str, prober: Prober, now: Instant) {
        if let Some(breaker) = self.breakers.get_mut(name) {
            breaker.prober = Some((prober, now + PROBE_WAIT));
        }
    }

    /// Notes that a spill queue waits for the breakers of a target.
    pub(super) fn register(&mut self, queue: &Arc<SpillQueue>, target: &Target) {
        for spec in &target.breakers {
            let breaker = self.enter(spec);
            if !breaker.queues.contains(queue) {
                breaker.queues.push_back(queue.clone());
            }
        }
    }

    /// A spill queue waits no more.
    pub(super) fn unregister(&mut self, queue: &Arc<SpillQueue>, target: &Target) {
        for spec in &target.breakers {
            if let Some(breaker) = self.breakers.get_mut(&spec.name) {
                breaker.queues.retain(|known| known != queue);
                if breaker
                    .prober
                    .as_ref()
                    .is_some_and(|(known, _)| *known == Prober::Queue(queue.clone()))
                {
                    breaker.prober = None;
                }
            }
        }
    }

    /// The spill queues that wait for a breaker, each time beginning with another.
    pub(super) fn queues(&mut self, name: &str) -> Vec<Arc<SpillQueue>> {
        let Some(breaker) = self.breakers.get_mut(name) else {
            return Vec::new();
        };
        let queues = breaker.queues.iter().cloned().collect();
        if !breaker.queues.is_empty() {
            breaker.queues.rotate_left(1);
        }
        queues
    }

    /// Whether anything in memory waits for a breaker.
    pub(super) fn has_waiting(&self, name: &str) -> bool {
        self.breakers
            .get(name)
            .is_some_and(|breaker| !breaker.waiting.is_empty())
    }

    /// The spill queues that wait for a breaker.
    pub(super) fn queues_of(&self, name: &str) -> impl Iterator<Item = &Arc<SpillQueue>> {
        self.breakers
            .get(name)
            .into_iter()
            .flat_map(|breaker| &breaker.queues)
    }

    /// Whether somebody is to find out and has not told yet.
    pub(super) fn has_prober(&self, name: &str, now: Instant) -> bool {
        let prober = self
            .breakers
            .get(name)
            .and_then(|breaker| breaker.prober.as_ref());
        prober.is_some_and(|(_, until)| *until > now)
    }

    /// Forgets a breaker that a new one would not differ from.
    pub(super) fn forget_idle(&mut self, name: &str) {
        if self.breakers.get(name).is_some_and(Breaker::is_forgettable) {
            self.breakers.remove(name);
        }
    }

    /// What opened (with its first pause) and closed since this was last asked.
    pub(super) fn take_changes(&mut self) -> Vec<(Arc<str>, Option<Duration>)> {
        std::mem::take(&mut self.changes)
    }

    /// Every open circuit breaker, and what is slow.
    pub(super) fn open(&self, now: Instant) -> Vec<BreakerReport> {
        let shown = self
            .breakers
            .iter()
            .filter(|(_, breaker)| !breaker.circuit.is_closed() || breaker.is_slow());
        let shown = shown.map(|(name, breaker)| BreakerReport {
            name: name.to_string(),
            since: breaker
                .circuit
                .open_since()
                .map(|since| now.saturating_duration_since(since)),
            next: breaker.circuit.held(now).unwrap_or_default(),
            is_slow: breaker.is_slow(),
        });
        shown.collect()
    }

    /// How many requests to a breaker are being made.
    #[cfg(test)]
    pub(super) fn running(&self, name: &str) -> usize {
        self.breakers.get(name).map_or(0, |breaker| breaker.running)
    }

    fn enter(&mut self, spec: &BreakerSpec) -> &mut Breaker {
        if self.breakers.len() >= REMEMBERED_MAX && !self.breakers.contains_key(&spec.name) {
            let unneeded = self
                .breakers
                .iter()
                .find(|(_, breaker)| breaker.is_unneeded())
                .map(|(name, _)| name.clone());
            if let Some(name) = unneeded {
                self.breakers.remove(&name);
            }
        }
        let breaker = self.breakers.entry(spec.name.clone()).or_default();
        breaker.limit = spec.limit;
        breaker
    }
}

impl Breaker {
    fn may_probe(&self, piece: usize, queue: Option<&Arc<SpillQueue>>, now: Instant) -> bool {
        let is_named = match &self.prober {
            None => true,
            Some((Prober::Piece(known), _)) => *known == piece,
            Some((Prober::Queue(known), until)) => *until <= now || queue == Some(known),
        };
        is_named && self.running < self.limit.max(1) && self.circuit.held(now).is_none()
    }

    /// Whether half of the last requests timed out.
    fn is_slow(&self) -> bool {
        self.requests >= RECENT_MIN && self.timed_out.count_ones() * 2 >= self.requests
    }

    fn is_unneeded(&self) -> bool {
        self.running == 0 && self.waiting.is_empty() && self.queues.is_empty()
    }

    fn is_forgettable(&self) -> bool {
        self.is_unneeded() && self.circuit.is_forgettable() && self.timed_out == 0
    }
}
