//! Which piece of work runs next: a pure queue, no clock and no I/O.
//!
//! Invariants: work of one conversation comes out one at a time and in the order it went in; tenants with work
//! take turns in proportion to their weights, so a long queue delays only its own tenant; no tenant has more than
//! its cap running and the pool no more than its permits; lanes share turns by weight, and a lane with work is
//! never passed over for good. Every operation takes constant time, and what is idle takes no memory. Nothing here
//! knows what the work is.
//!
//! A tenant that comes with a single piece and nothing at work goes before those that have a backlog, a bounded
//! number of times in a row, and while such tenants come some permits are kept free for them: whoever writes now
//! and then finds no queue, however long the others' are. Apart from what is kept free so, nothing eligible waits
//! while a permit is free.

mod arena;
mod rules;
#[cfg(test)]
mod tests;

pub use rules::{Rules, Share, WEIGHT_DEFAULT, WEIGHT_MAX, kept_free};

use ackline_shared::ids::TenantId;
use arena::{Arena, Chain, Conversation, Key, Tenant};
use std::collections::VecDeque;
use std::hash::Hash;

/// How often in a row tenants that come with a single piece go before those with a backlog.
const FIRST_IN_A_ROW: u32 = 8;
/// Rounds of all permits without such a tenant, until those with a backlog get the permits that are kept free, too.
const ROUNDS_KEPT: usize = 64;

/// The place of running or held work: its conversation stands still until the slot is given back.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    conversation: usize,
}

/// Where a piece of work belongs; to be used at once.
#[derive(Debug)]
#[must_use = "a place without work is never given back"]
pub struct QueuePlace {
    conversation: usize,
    tenant: usize,
}

/// The queue of a pool.
#[derive(Debug)]
pub struct Scheduler<T> {
    rules: Rules,
    lanes: Vec<Lane>,
    arena: Arena<T>,
    queued: usize,
    running: usize,
    /// How often something was started since a tenant came with a single piece.
    since_first: usize,
}

/// Tenants with a ready conversation, each in one of the queues and there once. One that may not run now is dropped
/// when it comes to the front.
#[derive(Debug)]
struct Lane {
    weight: i64,
    credit: i64,
    /// Those that came with a single piece and nothing at work.
    first: VecDeque<usize>,
    turn: VecDeque<usize>,
    /// How often the first went before the others since one of these had a turn.
    preferred: u32,
}

/// Which of a lane's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    First,
    Turn,
}

impl<T> Scheduler<T> {
    /// Makes an empty queue with one lane per weight in the rules.
    pub fn new(rules: Rules) -> Self {
        let lanes = rules
            .lane_weights
            .iter()
            .map(|weight| Lane::new(*weight))
            .collect();
        Self {
            rules,
            lanes,
            arena: Arena::default(),
            queued: 0,
            running: 0,
            since_first: usize::MAX,
        }
    }

    /// How much work is queued and not running.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// How much of it is one tenant's.
    pub fn queued_of(&self, tenant: &TenantId) -> usize {
        self.arena
            .tenant_named(tenant)
            .map_or(0, |tenant| tenant.queued)
    }

    /// Everything queued, in no order; running and held work is elsewhere.
    pub fn items(&self) -> impl Iterator<Item = &T> {
        self.arena.items()
    }

    /// How much work is running.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Changes the rules at once; what is queued keeps its order, what is running goes on.
    pub fn set_rules(&mut self, rules: Rules) {
        for (lane, weight) in self.lanes.iter_mut().zip(&rules.lane_weights) {
            if lane.weight != i64::from((*weight).max(1)) {
                let (first, turn) = (
                    std::mem::take(&mut lane.first),
                    std::mem::take(&mut lane.turn),
                );
                *lane = Lane {
                    first,
                    turn,
                    ..Lane::new(*weight)
                };
            }
        }
        self.rules = rules;
        for id in self.arena.tenants() {
            if let Some(tenant) = self.arena.tenant_mut(id) {
                tenant.share = self.rules.share(&tenant.name);
            }
            self.offer_turns(id);
        }
    }

    /// Changes how much may run at once, and nothing else of the rules.
    pub fn set_permits(&mut self, permits: usize) {
        self.rules.permits = permits;
    }

    /// Finds where work belongs that [`Self::push`] then adds; splitting the two lets the caller name the place by
    /// parts of the work itself. Two conversations of a tenant that share a hash merely wait for each other.
    pub fn place(&mut self, lane: usize, tenant: &TenantId, conversation: impl Hash) -> QueuePlace {
        let lane = lane.min(self.lanes.len().saturating_sub(1));
        let tenant = self
            .arena
            .enter_tenant(tenant, self.lanes.len(), &self.rules);
        let key = Key {
            tenant,
            lane,
            hash: self.arena.hash(conversation),
        };
        QueuePlace {
            conversation: self.arena.enter_conversation(key),
            tenant,
        }
    }

    /// Adds work behind everything of its conversation. The cost is what it takes of its tenant's turn: 1 for an
    /// ordinary piece.
    pub fn push(&mut self, place: QueuePlace, cost: u32, item: T) {
        self.arena.append(place.conversation, cost, item);
        self.count_queued(place.tenant, 1);
        self.make_ready(place.conversation);
    }

    /// Takes the next work; its conversation stands still until the slot is given back by [`Self::finish`], or by
    /// [`Self::hold`] and then [`Self::resume`] or [`Self::let_go`].
    pub fn take(&mut self) -> Option<(Slot, T)> {
        if self.rules.paused || self.running >= self.rules.permits {
            return None;
        }
        let has_turns = self.has_turns();
        let lane = self.choose_lane(has_turns)?;
        let (queue, tenant_id) = self.choose_tenant(lane, has_turns)?;
        let conversation = self.arena.pop_ready(tenant_id, lane)?;
        let (cost, item) = self.arena.pop(conversation)?;
        if let Some(conversation) = self.arena.conversation_mut(conversation) {
            conversation.busy = true;
        }
        self.count_queued(tenant_id, -1);
        self.count_running(tenant_id, 1);
        self.spend(lane, queue, tenant_id, cost);
        self.since_first = if queue == Queue::First {
            0
        } else {
            self.since_first.saturating_add(1)
        };
        Some((Slot { conversation }, item))
    }

    /// The work of the slot is done; the conversation's next may run.
    pub fn finish(&mut self, slot: Slot) {
        self.hold(&slot);
        self.let_go(slot);
    }

    /// The work of the slot waits for a retry: it holds its conversation, but no place among the running.
    pub fn hold(&mut self, slot: &Slot) {
        let Some(tenant) = self.arena.tenant_of(slot.conversation) else {
            return;
        };
        self.count_running(tenant, -1);
        self.offer_turns(tenant);
    }

    /// The wait of held work is over: it runs again before anything else of its conversation.
    pub fn resume(&mut self, slot: Slot, item: T) {
        let Some(tenant) = self.arena.tenant_of(slot.conversation) else {
            return;
        };
        self.arena.prepend(slot.conversation, item);
        self.count_queued(tenant, 1);
        self.let_go(slot);
    }

    /// Held work went elsewhere: the conversation's next may run.
    pub fn let_go(&mut self, slot: Slot) {
        if let Some(conversation) = self.arena.conversation_mut(slot.conversation) {
            conversation.busy = false;
        }
        self.make_ready(slot.conversation);
    }

    /// Whether no more work could start, whoever has some.
    pub fn is_full(&self) -> bool {
        self.rules.paused || self.running >= self.rules.permits
    }

    /// Whether no more work of a tenant could start, although there may be room.
    pub fn is_capped(&self, tenant: &TenantId) -> bool {
        self.arena
            .tenant_named(tenant)
            .is_some_and(|tenant| !tenant.may_run(&self.rules))
    }

    /// Drops queued work that is not to be kept; running and held work stays. Takes time for all that is queued.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        drop(self.extract(|item| !keep(item)));
    }

    /// Takes queued work out that is to go elsewhere, in the order of each conversation; running and held work
    /// stays. Takes time for all that is queued.
    pub fn extract(&mut self, mut takes: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for lane in &mut self.lanes {
            lane.first.clear();
            lane.turn.clear();
        }
        self.arena.unready_all();
        for id in self.arena.conversations() {
            let Some(tenant) = self.arena.tenant_of(id) else {
                continue;
            };
            let mut left = Chain::default();
            while let Some(node) = self.arena.detach(id) {
                if self.arena.item(node).is_some_and(&mut takes) {
                    taken.extend(self.arena.take(node));
                    self.count_queued(tenant, -1);
                } else {
                    self.arena.link(&mut left, node);
                }
            }
            if let Some(conversation) = self.arena.conversation_mut(id) {
                conversation.items = left;
            }
            self.make_ready(id);
        }
        taken
    }

    /// Puts a conversation that may go on among its tenant's ready ones, or forgets it when nothing is left of it.
    fn make_ready(&mut self, id: usize) {
        let Some(Conversation {
            key,
            items,
            busy: false,
            ready: false,
            ..
        }) = self.arena.conversation(id)
        else {
            return;
        };
        let (tenant, lane) = (key.tenant, key.lane);
        if items.is_empty() {
            self.arena.leave_conversation(id);
        } else {
            self.arena.push_ready(id);
            self.offer_turn(lane, tenant);
        }
    }

    fn offer_turns(&mut self, tenant: usize) {
        for lane in 0..self.lanes.len() {
            self.offer_turn(lane, tenant);
        }
    }

    /// Puts the tenant into one of the lane's queues when it may run something and is not there yet.
    fn offer_turn(&mut self, lane_index: usize, id: usize) {
        let Some(tenant) = self.arena.tenant_mut(id) else {
            return;
        };
        let may_run = tenant.may_run(&self.rules);
        let queue = if tenant.running == 0 && tenant.queued <= 1 {
            Queue::First
        } else {
            Queue::Turn
        };
        let (Some(member), Some(lane)) = (
            tenant.lanes.get_mut(lane_index),
            self.lanes.get_mut(lane_index),
        ) else {
            return;
        };
        if may_run && !member.in_turn && !member.ready.is_empty() {
            member.in_turn = true;
            lane.queue(queue).push_back(id);
        }
    }

    /// Whether those that take turns may start something: not what is kept free for whoever comes first.
    fn has_turns(&self) -> bool {
        let none_came = self.since_first >= self.rules.permits.saturating_mul(ROUNDS_KEPT);
        let kept = if none_came {
            0
        } else {
            kept_free(self.rules.permits)
        };
        self.running < self.rules.permits.saturating_sub(kept)
    }

    /// Smooth weighted round robin over the lanes that have something to start.
    fn choose_lane(&mut self, has_turns: bool) -> Option<usize> {
        for lane in 0..self.lanes.len() {
            self.drop_stale(lane, Queue::First);
            self.drop_stale(lane, Queue::Turn);
        }
        let can_start =
            |lane: &Lane| !lane.first.is_empty() || (has_turns && !lane.turn.is_empty());
        let total: i64 = self
            .lanes
            .iter()
            .filter(|lane| can_start(lane))
            .map(|lane| lane.weight)
            .sum();
        let mut best: Option<(i64, usize)> = None;
        for (index, lane) in self
            .lanes
            .iter_mut()
            .enumerate()
            .filter(|(_, lane)| can_start(lane))
        {
            lane.credit += lane.weight;
            if best.is_none_or(|(credit, _)| lane.credit > credit) {
                best = Some((lane.credit, index));
            }
        }
        let (_, index) = best?;
        if let Some(lane) = self.lanes.get_mut(index) {
            lane.credit -= total;
        }
        Some(index)
    }

    /// Drops from the front those that may not run now, for instance because another lane filled their cap.
    fn drop_stale(&mut self, lane: usize, queue: Queue) {
        while let Some(front) = self
            .lanes
            .get_mut(lane)
            .and_then(|lane| lane.queue(queue).front().copied())
        {
            if self
                .arena
                .tenant_mut(front)
                .is_some_and(|tenant| tenant.may_run(&self.rules))
            {
                return;
            }
            self.end_turn(lane, queue);
        }
    }

    /// Deficit round robin: who comes to the front gets credit by weight, and stays there while it lasts.
    fn choose_tenant(&mut self, lane: usize, has_turns: bool) -> Option<(Queue, usize)> {
        loop {
            let queue = self.lanes.get(lane)?.next_queue(has_turns)?;
            let front = self.lanes.get_mut(lane)?.queue(queue).front().copied()?;
            let tenant = self.arena.tenant_mut(front)?;
            let (may_run, weight) = (tenant.may_run(&self.rules), tenant.share.weight.max(1));
            let member = tenant.lanes.get_mut(lane)?;
            if !may_run {
                self.end_turn(lane, queue);
                continue;
            }
            if member.credit <= 0 {
                member.credit += i64::from(weight);
            }
            if member.credit > 0 {
                return Some((queue, front));
            }
            // Whoever owes turns waits among those that take them.
            self.lanes.get_mut(lane)?.pass_on(queue);
        }
    }

    /// Takes the cost of what was started from the credit of the front, and passes the turn on when it is spent.
    fn spend(&mut self, lane: usize, queue: Queue, id: usize, cost: u32) {
        let Some(tenant) = self.arena.tenant_mut(id) else {
            return;
        };
        let may_run = tenant.may_run(&self.rules);
        let Some(member) = tenant.lanes.get_mut(lane) else {
            return;
        };
        member.credit -= i64::from(cost.clamp(1, rules::COST_MAX)) * i64::from(WEIGHT_DEFAULT);
        let (has_more, has_credit) = (may_run && !member.ready.is_empty(), member.credit > 0);
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.preferred = if queue == Queue::First {
                lane.preferred.saturating_add(1)
            } else {
                0
            };
        }
        if !has_more {
            self.end_turn(lane, queue);
        } else if (queue == Queue::First || !has_credit)
            && let Some(lane) = self.lanes.get_mut(lane)
        {
            lane.pass_on(queue);
        }
    }

    /// Takes the front out of its queue. Credit it did not use is forfeited, a debt stays.
    fn end_turn(&mut self, lane_index: usize, queue: Queue) {
        let Some(front) = self
            .lanes
            .get_mut(lane_index)
            .and_then(|lane| lane.queue(queue).pop_front())
        else {
            return;
        };
        if let Some(member) = self
            .arena
            .tenant_mut(front)
            .and_then(|tenant| tenant.lanes.get_mut(lane_index))
        {
            member.in_turn = false;
            member.credit = member.credit.min(0);
        }
    }

    fn count_queued(&mut self, tenant: usize, by: isize) {
        self.queued = self.queued.saturating_add_signed(by);
        if let Some(tenant) = self.arena.tenant_mut(tenant) {
            tenant.queued = tenant.queued.saturating_add_signed(by);
        }
    }

    fn count_running(&mut self, tenant: usize, by: isize) {
        self.running = self.running.saturating_add_signed(by);
        if let Some(tenant) = self.arena.tenant_mut(tenant) {
            tenant.running = tenant.running.saturating_add_signed(by);
        }
    }
}

impl Lane {
    fn new(weight: u32) -> Self {
        Self {
            weight: i64::from(weight.max(1)),
            credit: 0,
            first: VecDeque::new(),
            turn: VecDeque::new(),
            preferred: 0,
        }
    }

    fn queue(&mut self, queue: Queue) -> &mut VecDeque<usize> {
        match queue {
            Queue::First => &mut self.first,
            Queue::Turn => &mut self.turn,
        }
    }

    /// The queue whose front is next, if one may start something.
    fn next_queue(&self, has_turns: bool) -> Option<Queue> {
        let turn = (has_turns && !self.turn.is_empty()).then_some(Queue::Turn);
        match turn {
            Some(turn) if self.first.is_empty() || self.preferred >= FIRST_IN_A_ROW => Some(turn),
            _ if !self.first.is_empty() => Some(Queue::First),
            _ => None,
        }
    }

    /// Puts the front behind all that take turns.
    fn pass_on(&mut self, queue: Queue) {
        if let Some(front) = self.queue(queue).pop_front() {
            self.turn.push_back(front);
        }
    }
}

impl Tenant {
    fn may_run(&self, rules: &Rules) -> bool {
        !self.share.paused && self.running < self.share.cap.unwrap_or(rules.tenant_cap).max(1)
    }
}
