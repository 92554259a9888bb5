//! Which piece of work runs next: a pure queue, no clock and no I/O.
//!
//! Invariants: work of one conversation comes out one at a time and in the order it went in; tenants with
//! work take turns, so a long queue delays only its own tenant; no tenant has more than its cap running;
//! lanes share turns by weight, and a lane with work is never passed over for good. Nothing here knows what
//! the work is.

use ackline_shared::ids::TenantId;
use std::collections::{HashMap, VecDeque};

/// One conversation's queue: whose it is and its key within the lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Index of the lane.
    pub lane: usize,
    /// Whose work it is.
    pub tenant: TenantId,
    /// What orders the work within the tenant.
    pub conversation: String,
}

/// The queue of a pool.
#[derive(Debug)]
pub struct Scheduler<T> {
    lanes: Vec<Lane<T>>,
    running: HashMap<TenantId, usize>,
    tenant_cap: usize,
    queued: usize,
}

#[derive(Debug)]
struct Lane<T> {
    weight: i64,
    credit: i64,
    tenants: HashMap<TenantId, Tenant<T>>,
    /// Tenants with a ready conversation and room under their cap, each once.
    turn: VecDeque<TenantId>,
}

#[derive(Debug)]
struct Tenant<T> {
    conversations: HashMap<String, Conversation<T>>,
    ready: VecDeque<String>,
    has_turn: bool,
}

#[derive(Debug)]
struct Conversation<T> {
    queue: VecDeque<T>,
    /// Something of it is running or waiting for a retry.
    busy: bool,
}

impl<T> Scheduler<T> {
    /// Makes an empty queue with one lane per weight.
    pub fn new(weights: &[u32], tenant_cap: usize) -> Self {
        let lane = |weight: &u32| Lane {
            weight: i64::from((*weight).max(1)),
            credit: 0,
            tenants: HashMap::new(),
            turn: VecDeque::new(),
        };
        Self {
            lanes: weights.iter().map(lane).collect(),
            running: HashMap::new(),
            tenant_cap: tenant_cap.max(1),
            queued: 0,
        }
    }

    /// How much work is queued and not running.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Adds work behind everything of its conversation.
    pub fn push(&mut self, slot: &Slot, item: T) {
        let Some(lane) = self.lanes.get_mut(slot.lane) else { return };
        self.queued += 1;
        let tenant = lane.tenants.entry(slot.tenant.clone()).or_insert_with(Tenant::new);
        let conversation =
            tenant.conversations.entry(slot.conversation.clone()).or_insert_with(Conversation::new);
        conversation.queue.push_back(item);
        if !conversation.busy && conversation.queue.len() == 1 {
            tenant.ready.push_back(slot.conversation.clone());
        }
        self.offer_turn(slot.lane, &slot.tenant);
    }

    /// Takes the next work; its conversation is busy until [`Self::finish`] or [`Self::resume`].
    pub fn take(&mut self) -> Option<(Slot, T)> {
        let lane_index = self.choose_lane()?;
        let lane = self.lanes.get_mut(lane_index)?;
        let tenant_id = lane.turn.pop_front()?;
        let tenant = lane.tenants.get_mut(&tenant_id)?;
        tenant.has_turn = false;
        let key = tenant.ready.pop_front()?;
        let conversation = tenant.conversations.get_mut(&key)?;
        let item = conversation.queue.pop_front()?;
        conversation.busy = true;
        self.queued -= 1;
        *self.running.entry(tenant_id.clone()).or_default() += 1;
        self.offer_turn(lane_index, &tenant_id);
        Some((Slot { lane: lane_index, tenant: tenant_id, conversation: key }, item))
    }

    /// The work of the slot is done; the conversation's next may run.
    pub fn finish(&mut self, slot: &Slot) {
        self.release(&slot.tenant);
        self.unblock(slot);
    }

    /// The work of the slot waits for a retry: it holds its conversation, but no place among the running.
    pub fn hold(&mut self, slot: &Slot) {
        self.release(&slot.tenant);
    }

    /// The wait is over: the work runs again before anything else of its conversation.
    pub fn resume(&mut self, slot: &Slot, item: T) {
        let Some(lane) = self.lanes.get_mut(slot.lane) else { return };
        if let Some(tenant) = lane.tenants.get_mut(&slot.tenant)
            && let Some(conversation) = tenant.conversations.get_mut(&slot.conversation)
        {
            conversation.queue.push_front(item);
            self.queued += 1;
            self.unblock(slot);
        }
    }

    fn release(&mut self, tenant: &TenantId) {
        if let Some(running) = self.running.get_mut(tenant) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(tenant);
            }
        }
        for lane in 0..self.lanes.len() {
            self.offer_turn(lane, tenant);
        }
    }

    fn unblock(&mut self, slot: &Slot) {
        let Some(lane) = self.lanes.get_mut(slot.lane) else { return };
        let Some(tenant) = lane.tenants.get_mut(&slot.tenant) else { return };
        let Some(conversation) = tenant.conversations.get_mut(&slot.conversation) else { return };
        conversation.busy = false;
        if conversation.queue.is_empty() {
            tenant.conversations.remove(&slot.conversation);
        } else {
            tenant.ready.push_back(slot.conversation.clone());
        }
        if tenant.conversations.is_empty() {
            lane.tenants.remove(&slot.tenant);
        }
        self.offer_turn(slot.lane, &slot.tenant);
    }

    /// Puts the tenant into the lane's turn when it may run something and is not there yet.
    fn offer_turn(&mut self, lane: usize, tenant_id: &TenantId) {
        let has_room = self.running.get(tenant_id).copied().unwrap_or(0) < self.tenant_cap;
        let Some(lane) = self.lanes.get_mut(lane) else { return };
        let Some(tenant) = lane.tenants.get_mut(tenant_id) else { return };
        if has_room && !tenant.has_turn && !tenant.ready.is_empty() {
            tenant.has_turn = true;
            lane.turn.push_back(tenant_id.clone());
        }
    }

    /// Smooth weighted round robin over the lanes that have a turn to give.
    fn choose_lane(&mut self) -> Option<usize> {
        self.drop_stale_turns();
        let total: i64 = self.lanes.iter().filter(|lane| !lane.turn.is_empty()).map(|lane| lane.weight).sum();
        let mut best: Option<(i64, usize)> = None;
        for (index, lane) in self.lanes.iter_mut().enumerate().filter(|(_, lane)| !lane.turn.is_empty()) {
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

    /// A tenant may have reached its cap through another lane since it got its turn.
    fn drop_stale_turns(&mut self) {
        let (running, cap) = (&self.running, self.tenant_cap);
        for lane in &mut self.lanes {
            while let Some(front) = lane.turn.front() {
                if running.get(front).copied().unwrap_or(0) < cap {
                    break;
                }
                if let Some(tenant) = lane.turn.pop_front().and_then(|id| lane.tenants.get_mut(&id)) {
                    tenant.has_turn = false;
                }
            }
        }
    }
}

impl<T> Tenant<T> {
    fn new() -> Self {
        Self { conversations: HashMap::new(), ready: VecDeque::new(), has_turn: false }
    }
}

impl<T> Conversation<T> {
    fn new() -> Self {
        Self { queue: VecDeque::new(), busy: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn slot(lane: usize, tenant: &str, conversation: &str) -> Slot {
        Slot { lane, tenant: TenantId::new(tenant).unwrap(), conversation: conversation.to_owned() }
    }

    #[test]
    fn a_long_queue_delays_only_its_own_tenant() {
        let mut scheduler = Scheduler::new(&[1], 100);
        for n in 0..1000 {
            scheduler.push(&slot(0, "noisy", &n.to_string()), n);
        }
        scheduler.push(&slot(0, "quiet", "c"), 1000);
        let first_three: Vec<_> =
            (0..3).filter_map(|_| scheduler.take()).map(|(slot, _)| slot.tenant).collect();
        assert!(first_three.iter().any(|tenant| tenant.as_str() == "quiet"), "{first_three:?}");
    }

    #[test]
    fn lanes_share_turns_by_weight_and_none_starves() {
        let mut scheduler = Scheduler::new(&[4, 1], 1000);
        for n in 0..100 {
            scheduler.push(&slot(0, "a", &n.to_string()), 0);
            scheduler.push(&slot(1, "a", &n.to_string()), 1);
        }
        let lanes: Vec<_> = (0..50).filter_map(|_| scheduler.take()).map(|(slot, _)| slot.lane).collect();
        assert_eq!(lanes.iter().filter(|lane| **lane == 1).count(), 10);
    }

    #[test]
    fn work_waiting_for_a_retry_holds_its_conversation_and_nobody_else() {
        let mut scheduler = Scheduler::new(&[1], 1);
        scheduler.push(&slot(0, "a", "x"), 1);
        scheduler.push(&slot(0, "a", "x"), 2);
        scheduler.push(&slot(0, "a", "y"), 3);
        let (held, item) = scheduler.take().unwrap();
        assert_eq!(item, 1);
        assert!(scheduler.take().is_none(), "the cap is one");
        scheduler.hold(&held);
        let (other, item) = scheduler.take().unwrap();
        assert_eq!(item, 3);
        scheduler.finish(&other);
        assert!(scheduler.take().is_none(), "x is held");
        scheduler.resume(&held, 1);
        let (again, item) = scheduler.take().unwrap();
        assert_eq!((&again, item), (&held, 1));
        scheduler.finish(&again);
        assert_eq!(scheduler.take().map(|(_, item)| item), Some(2));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize, u8, u8),
        Next,
        Finish(usize),
        Hold(usize),
        Resume(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..2_usize, 0..4_u8, 0..3_u8).prop_map(|(lane, tenant, conv)| Step::Push(lane, tenant, conv)),
            4 => Just(Step::Next),
            2 => (0..8_usize).prop_map(Step::Finish),
            1 => (0..8_usize).prop_map(Step::Hold),
            1 => (0..8_usize).prop_map(Step::Resume),
        ]
    }

    proptest! {
        /// Any history keeps order, caps and exclusivity, and draining gives out everything exactly once.
        #[test]
        fn order_caps_and_conservation_hold(steps in proptest::collection::vec(step(), 1..200)) {
            const CAP: usize = 2;
            let mut scheduler = Scheduler::new(&[3, 1], CAP);
            let mut running: Vec<(Slot, u32)> = Vec::new();
            let mut held: Vec<(Slot, u32)> = Vec::new();
            let mut given: HashMap<Slot, Vec<u32>> = HashMap::new();
            let mut pushed = 0_u32;
            for step in steps {
                match step {
                    Step::Push(lane, tenant, conv) => {
                        scheduler.push(&slot(lane, &format!("t{tenant}"), &conv.to_string()), pushed);
                        pushed += 1;
                    }
                    Step::Next => if let Some((slot, item)) = scheduler.take() {
                        prop_assert!(!running.iter().chain(&held).any(|(other, _)| *other == slot));
                        let log = given.entry(slot.clone()).or_default();
                        if log.last() != Some(&item) { log.push(item); }
                        running.push((slot, item));
                    },
                    Step::Finish(n) if !running.is_empty() => {
                        let (slot, _) = running.swap_remove(n % running.len());
                        scheduler.finish(&slot);
                    }
                    Step::Hold(n) if !running.is_empty() => {
                        let (slot, item) = running.swap_remove(n % running.len());
                        scheduler.hold(&slot);
                        held.push((slot, item));
                    }
                    Step::Resume(n) if !held.is_empty() => {
                        let (slot, item) = held.swap_remove(n % held.len());
                        scheduler.resume(&slot, item);
                    }
                    _ => {}
                }
                let mut per_tenant: HashMap<&TenantId, usize> = HashMap::new();
                for (slot, _) in &running { *per_tenant.entry(&slot.tenant).or_default() += 1; }
                prop_assert!(per_tenant.values().all(|count| *count <= CAP));
            }
            for (slot, item) in held.drain(..) { scheduler.resume(&slot, item); }
            for (slot, _) in running.drain(..) { scheduler.finish(&slot); }
            while let Some((slot, item)) = scheduler.take() {
                let log = given.entry(slot.clone()).or_default();
                if log.last() != Some(&item) { log.push(item); }
                scheduler.finish(&slot);
            }
            prop_assert_eq!(scheduler.queued(), 0);
            let all: Vec<u32> = given.values().flatten().copied().collect();
            prop_assert_eq!(all.len(), pushed as usize);
            prop_assert_eq!(all.iter().collect::<HashSet<_>>().len(), pushed as usize);
            prop_assert!(given.values().all(|log| log.is_sorted()));
        }
    }
}
