//! What runs next, and what comes of it.

use super::breakers::Shut;
use super::queues::Kind;
use super::{Leave, Machine, Piece, Place, Prober, Signal, Stand, Target, Waits, Wake};
use ackline_shared::subjects::SpillQueue;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Pause before a tenant that is kept may be the one that finds out about a target again.
const KEPT_PAUSE: Duration = Duration::from_secs(1);

/// Pause before work is asked for again whose partition is being opened again.
const UNREAD_PAUSE: Duration = Duration::from_millis(100);

/// Whether a tenant's work may be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum May {
    Run,
    /// Not until the rules change.
    Keep,
    /// It is to go to the dead letters without an attempt; who said so.
    Discard(String),
}

/// A piece that is to be worked on now.
#[derive(Debug)]
pub struct Started<U, P> {
    pub piece: usize,
    pub place: Place,
    pub update: U,
    pub target: Arc<Target>,
    pub data: P,
    /// What is known of its waits.
    pub waits: Waits,
    pub discarded_by: Option<String>,
}

/// What came of an attempt.
#[derive(Debug)]
pub struct Ended<P> {
    pub end: End<P>,
    /// What was heard of the target apart from that.
    pub heard: Heard,
}

/// What was heard of a target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Heard {
    /// It was not asked, or not awaited.
    #[default]
    Nothing,
    /// It answered, whatever it said of the update.
    Answer,
    /// It is in trouble, and the update is not tried again.
    Trouble,
}

/// How a piece goes on after an attempt.
#[derive(Debug)]
pub enum End<P> {
    /// Not at all: it took effect, asked nothing or was buried, and that is remembered.
    Settled,
    /// After a time of its own.
    Again {
        data: P,
        /// What is known of its waits now.
        waits: Waits,
        wait: Duration,
        /// Whether that is remembered, so that the wait may be spent in a spill queue.
        durable: bool,
    },
    Trouble {
        data: P,
        /// What is known of its waits now.
        waits: Waits,
        /// Which of the target's breakers is to blame.
        breaker: usize,
        /// What the request said of it.
        signal: Signal,
        /// Whether it was a time-out.
        timed_out: bool,
        /// The least that this piece waits, whoever else succeeds.
        least: Duration,
        /// How long it waits while the breaker is asked freely.
        pause: Duration,
        /// Whether the update itself may be what the target cannot take, for it had it before the trouble.
        blames_update: bool,
    },
}

/// Requests in a row with which one piece may find out that its target does not work, while others wait for it, too.
const PROBES_MAX: u32 = 3;
/// How long such a piece then stands back.
const STANDS_BACK: Duration = Duration::from_secs(60);

impl<U: Clone, P> Machine<U, P> {
    /// The next piece to work on.
    pub fn start(&mut self, now: Instant, mut may: impl FnMut(&U) -> May) -> Option<Started<U, P>> {
        loop {
            let (slot, id) = self.scheduler.take()?;
            let Some(piece) = self.pieces.get_mut(id) else {
                self.scheduler.finish(slot);
                continue;
            };
            piece.slot = Some(slot);
            let (held, order) = (piece.held, piece.order);
            if let Some(order) = self.orders.get_mut(&order) {
                order.holder = Some(id);
            }
            self.note_wait(id);
            if !self.is_read(id) {
                self.stop(id);
                self.wait_alone(id, UNREAD_PAUSE, false, now);
                continue;
            }
            let may = self
                .held
                .get(held)
                .map_or(May::Keep, |held| may(&held.data));
            match may {
                May::Keep => self.keep(id, now),
                May::Discard(by) => return self.run(id, Vec::new(), Some(by), now),
                May::Run => {
                    if let Some(leaves) = self.pass(id, now) {
                        return self.run(id, leaves, None, now);
                    }
                }
            }
        }
    }

    /// Lets a piece through its breakers, or puts it where it waits for them.
    fn pass(&mut self, id: usize, now: Instant) -> Option<Vec<Leave>> {
        let queue = self.target_queue_of(id);
        let piece = self.pieces.get(id)?;
        // What took effect is only remembered, and what waited too long is only given up: nobody is asked.
        if piece.keeps || piece.waits.overdue_at.is_some_and(|at| at <= now) {
            return Some(Vec::new());
        }
        let target = piece.target.clone();
        match self
            .breakers
            .pass(id, queue.as_ref(), &target, piece.reserved, now)
        {
            Ok(leaves) => {
                if let Some(piece) = self.pieces.get_mut(id) {
                    piece.reserved = false;
                }
                return Some(leaves);
            }
            Err(Shut::Full(breaker)) => self.wait_at(id, &breaker),
            Err(Shut::Open(breaker)) => {
                let is_long = self
                    .breakers
                    .open_since(&breaker)
                    .is_some_and(|at| at + self.setup.park_after <= now);
                if queue.is_some() || is_long {
                    self.stop(id);
                    self.park_at_target(id, now);
                } else {
                    self.wait_at(id, &breaker);
                    let parks = self
                        .breakers
                        .open_since(&breaker)
                        .map(|at| at + self.setup.park_after);
                    self.wakes
                        .extend(parks.map(|at| (at, Wake::Breaker(breaker.clone()))));
                }
                self.look_at_breaker_later(breaker, now);
            }
        }
        None
    }

    fn run(
        &mut self,
        id: usize,
        leaves: Vec<Leave>,
        discarded_by: Option<String>,
        now: Instant,
    ) -> Option<Started<U, P>> {
        // One that asks nobody finds nothing out, and is in nobody's place.
        if leaves.is_empty() {
            self.unclaim(id)
                .into_iter()
                .for_each(|breaker| self.look_at_breaker_later(breaker, now));
        }
        self.moved_at = now;
        let piece = self.pieces.get_mut(id)?;
        (piece.stand, piece.leaves) = (Stand::Running, leaves);
        let (data, target, waits) = (piece.data.take()?, piece.target.clone(), piece.waits);
        let held = self.held.get_mut(piece.held)?;
        held.started = true;
        let (place, update) = (held.place, held.data.clone());
        Some(Started {
            piece: id,
            place,
            update,
            target,
            data,
            waits,
            discarded_by,
        })
    }

    /// A piece holds its conversation and no place among the running.
    fn stop(&mut self, id: usize) {
        if let Some(slot) = self.pieces.get(id).and_then(|piece| piece.slot.as_ref()) {
            self.scheduler.hold(slot);
        }
    }

    fn wait_at(&mut self, id: usize, breaker: &Arc<str>) {
        self.stop(id);
        if let Some(piece) = self.pieces.get_mut(id) {
            piece.stand = Stand::AtBreaker;
        }
        self.breakers.wait(breaker, id);
    }

    fn keep(&mut self, id: usize, now: Instant) {
        self.stop(id);
        if let Some(piece) = self.pieces.get_mut(id) {
            piece.stand = Stand::Kept;
        }
        for breaker in self.unclaim(id) {
            self.wakes
                .insert((now + KEPT_PAUSE, Wake::Breaker(breaker)));
        }
    }

    /// Takes back whatever a piece was given at its breakers without having been started; gives the breakers concerned.
    pub(super) fn unclaim(&mut self, id: usize) -> Vec<Arc<str>> {
        let queue = self.target_queue_of(id);
        let Some(piece) = self.pieces.get_mut(id) else {
            return Vec::new();
        };
        let target = piece.target.clone();
        if std::mem::take(&mut piece.reserved) {
            self.breakers.unreserve(&target);
        }
        for spec in &target.breakers {
            self.breakers.give_up_probe(&spec.name, &Prober::Piece(id));
            if let Some(queue) = &queue {
                self.breakers
                    .give_up_probe(&spec.name, &Prober::Queue(queue.clone()));
            }
        }
        target
            .breakers
            .iter()
            .map(|spec| spec.name.clone())
            .collect()
    }

    /// The target's spill queue that a piece was read from.
    pub(super) fn target_queue_of(&self, id: usize) -> Option<Arc<SpillQueue>> {
        let held = self.held.get(self.pieces.get(id)?.held)?;
        let mut queues = held.entries.iter().map(|(queue, _)| queue);
        queues
            .find(|queue| Kind::of(queue) == Kind::Target && held.only.is_some())
            .cloned()
    }

    /// Takes in what came of an attempt.
    pub fn ended(&mut self, id: usize, ended: Ended<P>, now: Instant) {
        self.moved_at = now;
        let Some(Piece {
            stand: Stand::Running,
            ..
        }) = self.pieces.get(id)
        else {
            return;
        };
        self.stop(id);
        let breakers = self.report_breakers(id, &ended, now);
        let (is_read, is_owned) = (self.is_read(id), self.is_owned(id));
        match ended.end {
            End::Settled => self.settle(id, false, now),
            // It is read again, here or elsewhere.
            End::Again { durable, .. } if !is_read && (durable || !is_owned) => {
                self.forget_piece(id, now)
            }
            End::Trouble { .. } if !is_read => self.forget_piece(id, now),
            End::Again {
                data,
                waits,
                wait,
                durable,
            } => {
                self.put_back(id, data, waits, durable, now);
                self.wait_alone(id, wait, durable, now);
            }
            End::Trouble {
                data,
                waits,
                breaker,
                least,
                pause,
                blames_update,
                ..
            } => {
                self.put_back(id, data, waits, true, now);
                let name = self.breaker_name(id, breaker);
                let shut = name.filter(|name| !self.breakers.is_closed(name));
                let wait = match shut {
                    None => least.max(pause),
                    Some(name) if blames_update && self.stands_in_the_way(id, &name) => {
                        STANDS_BACK.max(least)
                    }
                    Some(_) => least,
                };
                if wait.is_zero() {
                    self.resume(id);
                } else {
                    self.wait_alone(id, wait, false, now);
                }
            }
        }
        breakers
            .into_iter()
            .for_each(|breaker| self.look_at_breaker_later(breaker, now));
    }

    /// Tells every breaker that a piece passed what its request said; gives the breakers.
    fn report_breakers(&mut self, id: usize, ended: &Ended<P>, now: Instant) -> Vec<Arc<str>> {
        let Some(piece) = self.pieces.get_mut(id) else {
            return Vec::new();
        };
        let leaves = std::mem::take(&mut piece.leaves);
        for (index, leave) in leaves.iter().enumerate() {
            let (signal, timed_out) = match &ended.end {
                End::Trouble {
                    breaker,
                    signal,
                    timed_out,
                    ..
                } if *breaker == index => (*signal, *timed_out),
                _ if ended.heard == Heard::Answer => (Signal::Alive, false),
                _ if ended.heard == Heard::Trouble && index == 0 => (Signal::Failed, false),
                _ => (Signal::Unknown, false),
            };
            self.breakers.report(id, leave, signal, timed_out, now);
        }
        leaves.into_iter().map(|leave| leave.breaker).collect()
    }

    fn breaker_name(&self, id: usize, index: usize) -> Option<Arc<str>> {
        self.pieces
            .get(id)?
            .target
            .breakers
            .get(index)
            .map(|spec| spec.name.clone())
    }

    /// Whether a piece is of the present reading of its partition, or outlives the one before.
    fn is_read(&self, id: usize) -> bool {
        let Some(piece) = self.pieces.get(id) else {
            return false;
        };
        let Some(held) = self.held.get(piece.held) else {
            return false;
        };
        let session = self.session_of(held.place.partition);
        session == Some(held.session) || (piece.keeps && session.is_some())
    }

    /// Whether a piece has found out often enough that its breaker is shut, and should let another one try.
    fn stands_in_the_way(&mut self, id: usize, breaker: &str) -> bool {
        let Some(piece) = self.pieces.get_mut(id) else {
            return false;
        };
        piece.probes += 1;
        piece.probes >= PROBES_MAX && self.has_others_waiting(id, breaker)
    }

    fn has_others_waiting(&self, id: usize, breaker: &str) -> bool {
        let own = self.target_queue_of(id);
        self.breakers.has_waiting(breaker)
            || self.breakers.queues_of(breaker).any(|queue| {
                let entries = self.queues.get(queue).map_or(0, |known| known.unread());
                entries > 0 || own.as_ref().is_some_and(|own| own != queue)
            })
    }

    fn is_owned(&self, id: usize) -> bool {
        let partition = self
            .pieces
            .get(id)
            .and_then(|piece| self.partition_of(piece.held));
        partition.is_some_and(|partition| self.owned.contains(&partition))
    }

    fn forget_piece(&mut self, id: usize, now: Instant) {
        let Some(piece) = self.drop_piece(id) else {
            return;
        };
        let Some(held) = self.held.get_mut(piece.held) else {
            return;
        };
        held.open -= 1;
        // It must not be acknowledged: this piece of it is not done.
        held.original = false;
        held.entries.clear();
        if held.open == 0 {
            self.finish(piece.held, now);
        }
    }

    fn put_back(&mut self, id: usize, data: P, waits: Waits, durable: bool, now: Instant) {
        if let Some(piece) = self.pieces.get_mut(id) {
            (piece.data, piece.waits, piece.keeps) = (Some(data), waits, !durable);
            if let Some(order) = self
                .orders
                .get_mut(&piece.order)
                .filter(|_| waits.first_ms.is_some())
            {
                order.waits_since.get_or_insert(now);
            }
        }
    }

    fn wait_alone(&mut self, id: usize, wait: Duration, durable: bool, now: Instant) {
        if durable && wait >= self.setup.park_after && self.park_alone(id, now + wait, now) {
            return;
        }
        let until = now + wait;
        if let Some(piece) = self.pieces.get_mut(id) {
            piece.stand = Stand::Waiting(until);
            self.wakes.insert((until, Wake::Piece(id)));
        }
    }

    /// Looks soon at a breaker where something changed.
    pub(super) fn look_at_breaker_later(&mut self, breaker: Arc<str>, now: Instant) {
        self.wakes.insert((now, Wake::Breaker(breaker)));
    }

    /// Looks at a breaker with the next wake.
    pub(super) fn look_at_breaker(&mut self, breaker: Arc<str>) {
        let moved_at = self.moved_at;
        self.wakes.insert((moved_at, Wake::Breaker(breaker)));
    }

    /// Does what there is to do for a breaker: let waiting work go when it works, find out when it is time, park.
    pub(super) fn tend_breaker(&mut self, name: &Arc<str>, now: Instant) {
        if self.breakers.is_closed(name) {
            while let Some(id) = self.breakers.next_waiting(name) {
                self.call(id, true);
            }
            for queue in self.breakers.queues(name) {
                self.tend(&queue, now);
            }
            self.breakers.forget_idle(name);
            return;
        }
        if self.breakers.is_due(name, now) {
            self.find_prober(name, now);
        }
        if self
            .breakers
            .open_since(name)
            .is_some_and(|at| at + self.setup.park_after <= now)
        {
            for id in self.breakers.take_waiting(name) {
                self.park_at_target(id, now);
            }
        }
        if let Some(due) = self.breakers.due(name, now).filter(|due| *due > now) {
            self.wakes.insert((due, Wake::Breaker(name.clone())));
        }
    }

    /// Lets a piece that waits at a breaker take its turn.
    fn call(&mut self, id: usize, reserve: bool) {
        let Some(piece) = self
            .pieces
            .get_mut(id)
            .filter(|piece| piece.stand == Stand::AtBreaker)
        else {
            return;
        };
        if reserve {
            let target = piece.target.clone();
            if let Some(full) = self.breakers.full(&target) {
                self.breakers.wait(&full, id);
                return;
            }
            piece.reserved = true;
            self.breakers.reserve(&target);
        }
        self.resume(id);
    }

    /// Chooses who finds out whether a breaker works: what waits in memory first, then a spill queue.
    fn find_prober(&mut self, name: &Arc<str>, now: Instant) {
        if let Some(id) = self.breakers.next_waiting(name) {
            self.breakers.let_probe(name, Prober::Piece(id), now);
            self.call(id, false);
            return;
        }
        for queue in self.breakers.queues(name) {
            let target = self
                .queues
                .get(&queue)
                .and_then(|queue| queue.target.clone());
            let others = target
                .iter()
                .flat_map(|target| &target.breakers)
                .filter(|spec| spec.name != *name);
            let others_may = others.into_iter().all(|spec| {
                self.breakers.is_closed(&spec.name) || self.breakers.is_due(&spec.name, now)
            });
            if others_may && self.load_head(&queue) {
                for spec in target.iter().flat_map(|target| &target.breakers) {
                    self.breakers
                        .let_probe(&spec.name, Prober::Queue(queue.clone()), now);
                }
                return;
            }
        }
    }
}
