//! Coming in: partitions that are read or not any more, and what is read of them.

use super::queues::Kind;
use super::{Arrived, Copy, Held, Machine, Piece, Place, Reading, Stand, Target, Waits};
use ackline_shared::subjects::{Partition, SpillQueue};
use std::collections::{BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use tokio::time::Instant;

impl<U: Clone, P> Machine<U, P> {
    /// A partition is read from now on; its spill queues are looked up before anything of it is worked on.
    pub fn opened(&mut self, partition: Partition, session: u64) {
        if self.session_of(partition) == Some(session) {
            return;
        }
        self.interrupted(partition);
        self.owned.insert(partition);
        self.readings.insert(
            partition,
            Reading {
                session,
                unsorted: Some(VecDeque::new()),
            },
        );
        self.actions
            .push_back(super::Action::LookUp(partition, session));
    }

    /// A partition is somebody else's, or about to be: only what runs goes on, and only until it ends.
    pub fn lost(&mut self, partition: Partition) {
        self.owned.remove(&partition);
        self.interrupted(partition);
        self.forget_resting(partition, false);
    }

    /// A partition is not read any more: what runs goes on, the rest is forgotten, to be read again in order.
    pub fn interrupted(&mut self, partition: Partition) {
        if self.readings.remove(&partition).is_some() {
            self.forget_resting(partition, true);
        }
    }

    fn forget_resting(&mut self, partition: Partition, spares_kept: bool) {
        let mut gone = BTreeSet::new();
        for (id, piece) in &self.pieces {
            let is_here = self.partition_of(piece.held) == Some(partition);
            let is_kept = spares_kept && piece.keeps && piece.stand != Stand::Moving;
            if is_here && piece.stand != Stand::Running && !is_kept {
                gone.insert(id);
            }
        }
        self.scheduler.retain(|id| !gone.contains(id));
        self.breakers.forget_waiting(|id| gone.contains(&id));
        let mut touched = BTreeSet::new();
        for id in gone {
            touched.extend(self.unclaim(id));
            if let Some(piece) = self.drop_piece(id)
                && let Some(held) = self.held.get_mut(piece.held)
            {
                held.open -= 1;
            }
        }
        // What goes on does so for itself alone: the same message is read again, and its pieces stand behind, or go
        // behind what waits in a spill queue.
        for (_, piece) in &mut self.pieces {
            let is_here = self
                .held
                .get(piece.held)
                .is_some_and(|held| held.place.partition == partition);
            if is_here
                && std::mem::take(&mut piece.is_direct)
                && let Some(order) = self.orders.get_mut(&piece.order)
            {
                order.direct -= 1;
            }
        }
        let here = self
            .held
            .iter()
            .filter(|(_, held)| held.place.partition == partition);
        for id in here.map(|(id, _)| id).collect::<Vec<_>>() {
            self.unindex(id);
            if self.held.get(id).is_some_and(|held| held.open == 0) {
                self.forget_held(id);
            }
        }
        self.unwritten
            .retain(|copy| copy.queue.partition != partition);
        let queues: Vec<Arc<SpillQueue>> = self
            .queues
            .keys()
            .filter(|queue| queue.partition == partition)
            .cloned()
            .collect();
        for queue in queues {
            touched.extend(self.forget_queue(&queue));
        }
        touched
            .into_iter()
            .for_each(|breaker| self.look_at_breaker(breaker));
    }

    /// Takes in an update that was read from its window.
    pub fn arrived(&mut self, session: u64, arrived: Arrived<U, P>, now: Instant) {
        let partition = arrived.place.partition;
        if self.scheduler.queued() == 0 {
            self.moved_at = now;
        }
        let Some(reading) = self
            .readings
            .get_mut(&partition)
            .filter(|known| known.session == session)
        else {
            return;
        };
        match &mut reading.unsorted {
            Some(unsorted) => unsorted.push_back(arrived),
            None => self.admit(session, arrived, now),
        }
    }

    /// The spill queues of a partition were counted, for one reading of it.
    pub fn counted(
        &mut self,
        partition: Partition,
        session: u64,
        counts: Vec<(SpillQueue, u64)>,
        now: Instant,
    ) {
        let Some(reading) = self
            .readings
            .get_mut(&partition)
            .filter(|known| known.session == session)
        else {
            return;
        };
        let Some(unsorted) = reading.unsorted.take() else {
            return;
        };
        // One that holds whole updates of a conversation stands before its tenant's.
        let (legacy, others): (Vec<_>, Vec<_>) = counts
            .into_iter()
            .partition(|(queue, _)| Kind::of(queue) == Kind::Legacy);
        for (queue, count) in legacy.into_iter().chain(others) {
            let queue = Arc::new(queue);
            // A batch that was on its way may have told of it already, but not of all of it.
            self.enter(&queue).count(count);
            self.tend(&queue, now);
        }
        unsorted
            .into_iter()
            .for_each(|arrived| self.admit(session, arrived, now));
    }

    fn admit(&mut self, session: u64, arrived: Arrived<U, P>, now: Instant) {
        let key = (arrived.place, None);
        if let Some(held) = self.places.get(&key).and_then(|id| self.held.get_mut(*id)) {
            (held.data, held.original) = (arrived.data, true);
            return;
        }
        let id = self.hold(session, &arrived);
        if let Some(held) = self.held.get_mut(id) {
            held.original = true;
        }
        let queue = self.queue_of(id, None);
        if self.has_unread(&queue) || self.has_legacy(&queue) {
            self.move_whole(id, Arc::new(queue), now);
            return;
        }
        if let Some(held) = self.held.get_mut(id) {
            held.counted = true;
            let window = (held.place.partition, held.lane);
            self.window_shares
                .enter(window, &held.tenant, held.place.sequence, held.bytes);
        }
        self.split(id, arrived.pieces, Waits::default(), now);
    }

    /// Takes an update into the table, without its pieces.
    pub(super) fn hold(&mut self, session: u64, arrived: &Arrived<U, P>) -> usize {
        let Arrived {
            place,
            lane,
            conversation,
            bytes,
            ..
        } = *arrived;
        let key = (place, arrived.only.clone());
        let id = self.held.insert(Held {
            place,
            only: arrived.only.clone(),
            lane,
            tenant: arrived.tenant.clone(),
            conversation,
            bytes,
            data: arrived.data.clone(),
            session,
            entries: Vec::new(),
            original: false,
            counted: false,
            open: 0,
            moved: false,
            started: false,
            has_placeholder: false,
        });
        self.places.insert(key, id);
        id
    }

    /// Makes an update's pieces and lets each wait for its turn, or go behind what waits already.
    pub(super) fn split(
        &mut self,
        id: usize,
        pieces: Vec<(Arc<Target>, P)>,
        waits: Waits,
        now: Instant,
    ) {
        if let Some(held) = self.held.get_mut(id) {
            held.open += pieces.len();
        }
        if self.held.get(id).is_some_and(|held| held.open == 0) {
            self.finish(id, now);
            return;
        }
        for (target, data) in pieces {
            self.enqueue(id, target, data, waits, now);
        }
    }

    fn enqueue(&mut self, id: usize, target: Arc<Target>, data: P, waits: Waits, now: Instant) {
        let Some(held) = self.held.get(id) else {
            return;
        };
        let (lane, tenant, is_direct) = (held.lane, held.tenant.clone(), held.only.is_none());
        let partition = held.place.partition;
        let order =
            self.hasher
                .hash_one((partition, lane, &tenant, held.conversation, &target.name));
        let behind = match self.orders.get(&order) {
            Some(order) if order.direct > 0 => None,
            _ => self.queue_ahead(id, &target),
        };
        let stand = Stand::Queued;
        let piece = self.pieces.insert(Piece {
            held: id,
            target,
            order,
            stand,
            slot: None,
            data: Some(data),
            waits,
            since: now,
            leaves: Vec::new(),
            is_direct,
            reserved: false,
            probes: 0,
            keeps: false,
        });
        let known = self.orders.entry(order).or_default();
        known.pieces += 1;
        known.direct += usize::from(is_direct);
        if let Some(queue) = behind {
            self.append(queue, piece, now);
            return;
        }
        let place = self.scheduler.place(lane, &tenant, order);
        self.scheduler.push(place, 1, piece);
    }

    /// The spill queue that a piece of an update goes behind, if there is one.
    fn queue_ahead(&self, id: usize, target: &Target) -> Option<Arc<SpillQueue>> {
        if self.queues.is_empty() {
            return None;
        }
        let from = self
            .held
            .get(id)
            .filter(|held| held.only.is_some())
            .and_then(|held| held.entries.first());
        let from = from.map(|(queue, _)| Kind::of(queue));
        let own = self.own_queue(id, target);
        if from.is_none()
            && self
                .queues
                .get(&own)
                .is_some_and(|queue| queue.has_unfinished())
        {
            return Some(Arc::new(own));
        }
        if from == Some(Kind::Target) {
            return None;
        }
        let shared = self.target_queue(id, target);
        self.has_unread(&shared).then(|| Arc::new(shared))
    }

    /// Takes in what was read of a spill queue, for one reading of its partition: entries by their sequences there, and
    /// how many come after them.
    pub fn loaded(
        &mut self,
        queue: &Arc<SpillQueue>,
        session: u64,
        entries: Vec<(u64, Arrived<U, P>)>,
        left: u64,
        now: Instant,
    ) {
        if self.session_of(queue.partition) != Some(session) {
            return;
        }
        let Some(known) = self.queues.get_mut(queue) else {
            return;
        };
        if known.passes_over() {
            self.tend(queue, now);
            self.probe_failed_to_come(queue, now);
            return;
        }
        let is_new: Vec<bool> = entries
            .iter()
            .map(|(sequence, _)| !known.knows(*sequence))
            .collect();
        known.loaded(entries.iter().map(|(sequence, _)| *sequence), left);
        if let Some((_, last)) = entries.last() {
            known.read_until(last.received_ms);
        }
        for ((sequence, arrived), is_new) in entries.into_iter().zip(is_new) {
            if is_new {
                self.take_entry(queue, session, sequence, arrived, now);
            }
        }
        self.tend(queue, now);
    }

    fn take_entry(
        &mut self,
        queue: &Arc<SpillQueue>,
        session: u64,
        sequence: u64,
        arrived: Arrived<U, P>,
        now: Instant,
    ) {
        let key = (arrived.place, arrived.only.clone());
        let known = self
            .places
            .get(&key)
            .copied()
            .filter(|id| !self.is_moving(*id));
        if let Some(held) = known.and_then(|id| self.held.get_mut(id)) {
            held.entries.push((queue.clone(), sequence));
            return;
        }
        let id = self.hold(session, &arrived);
        if let Some(held) = self.held.get_mut(id) {
            held.entries.push((queue.clone(), sequence));
        }
        if Kind::of(queue) == Kind::Target
            && let Some((target, _)) = arrived.pieces.first()
        {
            self.learn_target(queue, target.clone(), arrived.waits.overdue_at);
        }
        self.split(id, arrived.pieces, arrived.waits, now);
    }

    /// Whether all that is left of an update is on its way into a spill queue.
    fn is_moving(&self, id: usize) -> bool {
        let mut pieces = self.pieces.iter().filter(|(_, piece)| piece.held == id);
        let is_whole = self.held.get(id).is_some_and(|held| held.open == 0);
        is_whole || pieces.all(|(_, piece)| piece.stand == Stand::Moving)
    }

    pub(super) fn copy_of(
        &self,
        id: usize,
        queue: Arc<SpillQueue>,
        piece: Option<usize>,
    ) -> Option<Copy<U>> {
        let held = self.held.get(id)?;
        let of = piece.and_then(|piece| self.pieces.get(piece));
        Some(Copy {
            queue,
            data: held.data.clone(),
            target: of.map(|piece| piece.target.clone()),
            waits: of.map(|piece| piece.waits).unwrap_or_default(),
            session: held.session,
            place: held.place,
            is_placeholder: false,
            held: id,
            piece,
        })
    }

    /// Where an update stands, for whoever asks by its number.
    pub(super) fn place_of(&self, id: usize) -> Option<Place> {
        self.held.get(id).map(|held| held.place)
    }
}
