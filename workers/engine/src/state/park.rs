//! Going out of others' way: into spill queues, and back to where an entry is stored.

use super::queues::Kind;
use super::{Action, Copy, Machine, Stand, Target};
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::{Partition, SpillQueue};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use tokio::time::Instant;

/// Conversations of one tenant, in one lane and partition, that may wait in spill queues; further ones wait in memory.
const OWN_MAX: usize = 512;

impl<U: Clone, P> Machine<U, P> {
    /// Hands a piece to the writer; it is let go of once it is stored.
    pub(super) fn append(&mut self, queue: Arc<SpillQueue>, id: usize, now: Instant) {
        self.unclaim(id);
        self.note_wait(id);
        let Some(piece) = self.pieces.get_mut(id) else {
            return;
        };
        piece.stand = Stand::Moving;
        let (slot, order, held) = (piece.slot.take(), piece.order, piece.held);
        let was_direct = std::mem::take(&mut piece.is_direct);
        if let Some(order) = self.orders.get_mut(&order) {
            order.direct -= usize::from(was_direct);
        }
        if let Some(slot) = slot {
            self.scheduler.let_go(slot);
        }
        self.release_order(order, id);
        let (target, overdue_at) = (
            piece_target(self, id),
            self.pieces.get(id).and_then(|p| p.waits.overdue_at),
        );
        let bytes = self.held.get(held).map_or(0, |held| held.bytes);
        let Some(copy) = self.copy_of(held, queue.clone(), Some(id)) else {
            return;
        };
        self.enter(&queue).append();
        if let (Kind::Target, Some(target)) = (Kind::of(&queue), target)
            && self
                .queues
                .get(&queue)
                .is_some_and(|queue| queue.target.is_none())
        {
            self.learn_target(&queue, target, overdue_at);
        }
        self.unwritten.push(copy, bytes);
        self.write(now);
    }

    /// Hands a whole update to the writer.
    pub(super) fn move_whole(&mut self, id: usize, queue: Arc<SpillQueue>, now: Instant) {
        let Some(copy) = self.copy_of(id, queue.clone(), None) else {
            return;
        };
        let bytes = self.held.get(id).map_or(0, |held| held.bytes);
        self.enter(&queue).append();
        self.unwritten.push(copy, bytes);
        self.write(now);
    }

    /// Stores the next batch, unless one is on its way.
    pub(super) fn write(&mut self, now: Instant) {
        if let Some(batch) = self.unwritten.next(now) {
            self.actions.push_back(Action::Store(batch));
        }
    }

    /// A batch is stored: what it was made of goes on there.
    pub fn stored(&mut self, batch: Vec<Copy<U>>, now: Instant) {
        self.unwritten.stored(now);
        for copy in batch {
            // The partition may have been interrupted meanwhile, and the spill queue be counted without this one.
            if let Some(session) = self.session_of(copy.queue.partition) {
                let was_unread = self.has_unread(&copy.queue);
                let queue = self.enter(&copy.queue);
                if copy.session == session {
                    queue.not_appended();
                }
                queue.stored();
                if !was_unread {
                    self.make_way(&copy.queue, now);
                }
            }
            match copy.piece {
                Some(id) => {
                    let is_same = self.pieces.get(id).is_some_and(|piece| {
                        piece.stand == Stand::Moving
                            && piece.held == copy.held
                            && Some(&piece.target) == copy.target.as_ref()
                    });
                    if is_same && self.place_of(copy.held) == Some(copy.place) {
                        self.settle(id, true, now);
                    }
                }
                None if copy.is_placeholder => {}
                None => {
                    let is_whole = self.held.get(copy.held).is_some_and(|held| {
                        held.place == copy.place && held.open == 0 && held.only.is_none()
                    });
                    if is_whole {
                        if let Some(held) = self.held.get_mut(copy.held) {
                            held.moved = true;
                        }
                        self.finish(copy.held, now);
                    }
                }
            }
            self.tend(&copy.queue, now);
        }
        self.write(now);
    }

    /// Moves a piece, and everything else that waits in memory for the same target, into the target's spill queue.
    pub(super) fn park_at_target(&mut self, id: usize, now: Instant) {
        // Gathered with another one already.
        let Some(piece) = self
            .pieces
            .get(id)
            .filter(|piece| piece.stand != Stand::Moving)
        else {
            return;
        };
        let (held, target) = (piece.held, piece.target.clone());
        // What was read from there stands there before what came later.
        if let Some(queue) = self.target_queue_of(id) {
            self.rewind(&queue, &target, now);
            return;
        }
        let queue = Arc::new(self.target_queue(held, &target));
        let was_unread = self.has_unread(&queue);
        if was_unread {
            let followers = self.followers(id);
            self.append_all(&queue, [id].into_iter().chain(followers), now);
            return;
        }
        self.gather(&queue, &target, Some(id), now);
    }

    /// What is queued behind a piece in its conversation and was not read from a spill queue of pieces.
    fn followers(&self, id: usize) -> Vec<usize> {
        let Some(order) = self.pieces.get(id).map(|piece| piece.order) else {
            return Vec::new();
        };
        if self
            .orders
            .get(&order)
            .is_none_or(|order| order.pieces <= 1)
        {
            return Vec::new();
        }
        let of_order = self.pieces.iter().filter(|(other, piece)| {
            piece.order == order
                && *other != id
                && piece.stand == Stand::Queued
                && self.is_direct(piece.held)
        });
        of_order.map(|(other, _)| other).collect()
    }

    fn is_direct(&self, held: usize) -> bool {
        self.held.get(held).is_none_or(|held| held.only.is_none())
    }

    /// Moves all that waits in memory for a target into its spill queue, but what stands behind a piece that runs or
    /// waits for a time of its own.
    fn gather(
        &mut self,
        queue: &Arc<SpillQueue>,
        target: &Target,
        with: Option<usize>,
        now: Instant,
    ) {
        let mut moving = Vec::new();
        // One that took effect and is to be remembered stays, and so does what stands behind it.
        let kept: HashSet<u64> = self
            .pieces
            .iter()
            .filter(|(_, piece)| piece.keeps)
            .map(|(_, piece)| piece.order)
            .collect();
        for (id, piece) in &self.pieces {
            let Some(held) = self.held.get(piece.held) else {
                continue;
            };
            let is_of_queue = held.place.partition == queue.partition
                && held.tenant == queue.tenant
                && self.setup.lanes.get(held.lane) == Some(&queue.lane)
                && piece.target.downstream == target.downstream;
            let rests = match piece.stand {
                Stand::AtBreaker => true,
                Stand::Queued => {
                    let holder = self.orders.get(&piece.order).and_then(|order| order.holder);
                    holder.is_none_or(|holder| {
                        Some(holder) == with
                            || self
                                .pieces
                                .get(holder)
                                .is_some_and(|piece| piece.stand == Stand::AtBreaker)
                    })
                }
                _ => false,
            };
            let stays = kept.contains(&piece.order);
            if is_of_queue && held.only.is_none() && !stays && (rests || Some(id) == with) {
                moving.push(id);
            }
        }
        moving.extend(with.filter(|id| !moving.contains(id)));
        self.append_all(queue, moving, now);
    }

    fn append_all(
        &mut self,
        queue: &Arc<SpillQueue>,
        ids: impl IntoIterator<Item = usize>,
        now: Instant,
    ) {
        let mut ids: Vec<usize> = ids.into_iter().collect();
        let sequence = |id: &usize| {
            let held = self.pieces.get(*id).map(|piece| piece.held);
            held.and_then(|held| self.place_of(held))
                .map(|place| place.sequence)
        };
        ids.sort_by_key(sequence);
        let moving: HashSet<usize> = ids.iter().copied().collect();
        self.scheduler.retain(|id| !moving.contains(id));
        self.breakers.forget_waiting(|id| moving.contains(&id));
        ids.into_iter()
            .for_each(|id| self.append(queue.clone(), id, now));
    }

    /// Puts everything back that was read from a target's spill queue and does not run or wait for a time of its own.
    pub(super) fn rewind(&mut self, queue: &Arc<SpillQueue>, target: &Target, now: Instant) {
        let mut back = BTreeSet::new();
        for (id, piece) in &self.pieces {
            let Some(held) = self.held.get(piece.held) else {
                continue;
            };
            let is_from_queue =
                held.only.is_some() && held.entries.iter().any(|(of, _)| of == queue);
            let is_current = self
                .orders
                .get(&piece.order)
                .is_some_and(|order| order.holder == Some(id));
            let rests = matches!(piece.stand, Stand::Queued | Stand::AtBreaker) && !piece.keeps;
            if is_from_queue
                && !held.original
                && rests
                && (is_current || self.rests_behind(id, piece.order))
            {
                back.insert(id);
            }
        }
        self.scheduler.retain(|id| !back.contains(id));
        self.breakers.forget_waiting(|id| back.contains(&id));
        for id in back {
            self.unclaim(id);
            let Some(piece) = self.drop_piece(id) else {
                continue;
            };
            let Some(held) = self.forget_held(piece.held) else {
                continue;
            };
            for (of, sequence) in held.entries {
                if let Some(known) = self.queues.get_mut(&of) {
                    known.put_back(sequence, None);
                    if piece.waits.overdue_at.is_some() {
                        known.overdue_at = piece.waits.overdue_at;
                    }
                }
            }
        }
        self.gather(queue, target, None, now);
        self.tend(queue, now);
    }

    /// Whether nothing runs or waits before a queued piece in its conversation.
    fn rests_behind(&self, id: usize, order: u64) -> bool {
        let holder = self.orders.get(&order).and_then(|order| order.holder);
        holder.is_none_or(|holder| {
            holder == id
                || self
                    .pieces
                    .get(holder)
                    .is_some_and(|piece| matches!(piece.stand, Stand::Queued | Stand::AtBreaker))
        })
    }

    /// Lets a piece wait in a spill queue of its conversation, with all that stands behind it; false when it is to wait
    /// in memory.
    pub(super) fn park_alone(&mut self, id: usize, due: Instant, now: Instant) -> bool {
        let Some(piece) = self.pieces.get(id) else {
            return false;
        };
        let (held, target) = (piece.held, piece.target.clone());
        let queue = Arc::new(self.own_queue(held, &target));
        let entries = self
            .held
            .get(held)
            .map(|held| held.entries.clone())
            .unwrap_or_default();
        let is_piece = self.held.get(held).is_some_and(|held| held.only.is_some());
        if is_piece && entries.iter().any(|(of, _)| Kind::of(of) == Kind::Target) {
            return false;
        }
        let followers = self.followers(id);
        if is_piece
            && let Some((of, sequence)) = entries.iter().find(|(of, _)| *of == queue).cloned()
        {
            let stays = entries.len() > 1 || self.held.get(held).is_some_and(|held| held.original);
            if stays {
                return false;
            }
            self.append_all(&queue, followers, now);
            self.unclaim(id);
            self.drop_piece(id);
            self.forget_held(held);
            if let Some(known) = self.queues.get_mut(&of) {
                known.put_back(sequence, Some(due));
            }
            self.tend(&of, now);
            return true;
        }
        let of_tenant = SpillQueue {
            conversation: None,
            ..(*queue).clone()
        };
        if self
            .own_queues
            .get(&of_tenant)
            .is_some_and(|count| *count >= OWN_MAX)
        {
            return false;
        }
        self.append_all(&queue, [id].into_iter().chain(followers), now);
        if let Some(known) = self.queues.get_mut(&queue) {
            known.wait_until(due);
        }
        true
    }

    /// Moves tenants that are in others' way, and cannot use what they hold, into spill queues of their own.
    pub fn sweep(&mut self, now: Instant) {
        let has_room = !self.scheduler.is_full();
        let (scheduler, bounds) = (&self.scheduler, self.setup.bounds);
        let is_stuck = |tenant: &TenantId| has_room || scheduler.is_capped(tenant);
        for ((partition, lane), tenant) in self.window_shares.sweep(&bounds, is_stuck) {
            let updates = self.move_out(partition, lane, &tenant, now);
            if updates > 0 {
                tracing::info!(
                    %tenant, %partition, updates, "a tenant larger than its share moves out of the others' way"
                );
            }
        }
    }

    /// A tenant's spill queue holds something that was not known of: whoever comes now goes behind it, so that what is
    /// in memory moves into it first.
    pub(super) fn make_way(&mut self, queue: &SpillQueue, now: Instant) {
        let lane = self.setup.lanes.iter().position(|lane| *lane == queue.lane);
        if let Some(lane) = lane.filter(|_| Kind::of(queue) == Kind::Tenant) {
            self.move_out(queue.partition, lane, &queue.tenant, now);
        }
    }

    /// Moves everything that a tenant has queued of one window, and all that comes later, into its spill queue; gives how
    /// many updates.
    ///
    /// What of it has started stays, and leaves a copy in its place: should the process end, the original would be read
    /// again behind what was moved.
    fn move_out(
        &mut self,
        partition: Partition,
        lane: usize,
        tenant: &TenantId,
        now: Instant,
    ) -> usize {
        let session = self.session_of(partition);
        let of_window = self.held.iter().filter(|(_, held)| {
            let is_here =
                held.place.partition == partition && held.lane == lane && held.tenant == *tenant;
            is_here && held.counted && session == Some(held.session)
        });
        let mut ids: Vec<(u64, usize)> = of_window
            .map(|(id, held)| (held.place.sequence, id))
            .collect();
        ids.sort_unstable();
        let mut busy: HashSet<usize> = HashSet::new();
        for (_, piece) in &self.pieces {
            if piece.stand != Stand::Queued || piece.slot.is_some() || piece.reserved {
                busy.insert(piece.held);
            }
        }
        let can_move = |id: usize| {
            !busy.contains(&id)
                && self
                    .held
                    .get(id)
                    .is_some_and(|held| !held.started && held.entries.is_empty())
        };
        let mut orders: HashMap<usize, Vec<u64>> = HashMap::new();
        for (_, piece) in self
            .pieces
            .iter()
            .filter(|(_, piece)| piece.stand == Stand::Queued)
        {
            orders.entry(piece.held).or_default().push(piece.order);
        }
        // What stays keeps everything before it in its conversations.
        let (mut moving, mut pinned) = (HashSet::new(), HashSet::new());
        for (_, id) in ids.iter().rev() {
            let of_update = orders.get(id).map(Vec::as_slice).unwrap_or_default();
            if can_move(*id) && !of_update.iter().any(|order| pinned.contains(order)) {
                moving.insert(*id);
            } else {
                pinned.extend(of_update.iter().copied());
            }
        }
        let Some((_, first)) = ids.first().filter(|_| !moving.is_empty()) else {
            return 0;
        };
        let queue = Arc::new(self.queue_of(*first, None));
        let pieces: Vec<usize> = self
            .pieces
            .iter()
            .filter(|(_, piece)| moving.contains(&piece.held))
            .map(|(id, _)| id)
            .collect();
        let gone: HashSet<usize> = pieces.iter().copied().collect();
        self.scheduler.retain(|id| !gone.contains(id));
        for id in pieces {
            self.unclaim(id);
            if let Some(piece) = self.drop_piece(id)
                && let Some(held) = self.held.get_mut(piece.held)
            {
                held.open -= 1;
            }
        }
        for (_, id) in ids {
            if moving.contains(&id) {
                self.uncount(id);
                self.move_whole(id, queue.clone(), now);
            } else {
                self.leave_placeholder(id, &queue, now);
            }
        }
        moving.len()
    }

    fn uncount(&mut self, id: usize) {
        let Some(held) = self.held.get_mut(id) else {
            return;
        };
        if std::mem::take(&mut held.counted) {
            let window = (held.place.partition, held.lane);
            self.window_shares
                .leave(window, &held.tenant, held.place.sequence, held.bytes);
        }
    }

    fn leave_placeholder(&mut self, id: usize, queue: &Arc<SpillQueue>, now: Instant) {
        let Some(held) = self.held.get_mut(id) else {
            return;
        };
        if std::mem::replace(&mut held.has_placeholder, true) {
            return;
        }
        let bytes = held.bytes;
        let Some(mut copy) = self.copy_of(id, queue.clone(), None) else {
            return;
        };
        copy.is_placeholder = true;
        self.enter(queue).append();
        self.unwritten.push(copy, bytes);
        self.write(now);
    }
}

fn piece_target<U, P>(machine: &Machine<U, P>, id: usize) -> Option<Arc<Target>> {
    machine.pieces.get(id).map(|piece| piece.target.clone())
}
