//! Where every update of a pool stands: one table, driven by events and a clock, actions out. It waits for nothing,
//! asks nobody and knows no pool by name.
//!
//! An update is worked on in pieces, one for each of its targets. Pieces of one conversation at one target run one
//! at a time and in stream order; nothing else waits for them. A piece stands in exactly one place ([`Stand`]), and
//! an update is acknowledged when none of its pieces is open: each took effect, was buried, or is stored in a spill
//! queue.
//!
//! Invariants:
//! - While a spill queue holds something unread, whoever comes later goes behind it; what is queued in memory when it
//!   comes to be moves into it first, but for what stands behind a piece that runs or waits.
//! - A target that is in trouble is asked by one piece at a time; all others wait, and a success lets all of them go.
//! - Every wait has a wake: [`Machine::next_wake`] names the time, or something is on its way that will be told.
//! - What is interrupted is forgotten unless it runs: the same messages are read again in order.

mod admit;
mod breakers;
mod circuit;
mod park;
mod queue;
mod queues;
mod seen;
mod start;
mod unwritten;
mod window_shares;

#[cfg(test)]
mod model;

pub use breakers::BreakerReport;
pub use circuit::{Policy, Signal};
pub use seen::{Backlog, STUCK_AFTER, STUCK_MAX, Stuck};
pub use start::{End, Ended, Heard, May, Started};
pub use window_shares::Bounds;

use super::scheduler::{Rules, Scheduler, Slot};
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::{Partition, SpillQueue};
use breakers::{Breakers, Leave, Prober};
use queue::Queue;
use slab::Slab;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use unwritten::Unwritten;
use window_shares::WindowShares;

/// Where a message stands; the same message offered again stands in the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub partition: Partition,
    pub stream: &'static str,
    pub sequence: u64,
}

/// What an update is worked on for: a relay, an endpoint, a CRM link, a number; nobody in particular for a pool that
/// has one target only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// Its name within the pool and tenant; empty when there is only one.
    pub name: String,
    /// What is behind it, as operators know it, such as `relay.acme.bot`; names its spill queue.
    pub downstream: String,
    /// What has to work before a request is made, in the order in which an attempt blames them.
    pub breakers: Vec<BreakerSpec>,
    /// Longest time of one request, where the target has one of its own.
    pub timeout: Option<Duration>,
}

/// Something that may be down or busy: a bot, an endpoint, an API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerSpec {
    /// Its name, such as `relay.acme.bot`.
    pub name: Arc<str>,
    /// Requests to it at once.
    pub limit: usize,
}

/// What is known of the waits of a piece; travels with its copy into a spill queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waits {
    /// When it first failed or had to wait, in unix milliseconds.
    pub first_ms: Option<u64>,
    /// Attempts that it used up.
    pub attempts: u32,
    /// When it has waited as long as it may.
    pub overdue_at: Option<Instant>,
}

/// An update that was read.
#[derive(Debug)]
pub struct Arrived<U, P> {
    pub place: Place,
    pub lane: usize,
    pub tenant: TenantId,
    /// A hash of its conversation.
    pub conversation: u64,
    /// When the edge had it, in unix milliseconds.
    pub received_ms: u64,
    pub bytes: usize,
    pub data: U,
    /// The one target it is for, when it was read from a spill queue of pieces.
    pub only: Option<String>,
    /// A piece for each of its targets.
    pub pieces: Vec<(Arc<Target>, P)>,
    /// What is known of its waits, when it was read from a spill queue.
    pub waits: Waits,
}

/// What is to be done; each is told of by the event that its words name.
#[derive(Debug)]
pub enum Action<U> {
    /// Count the spill queues of a partition; then [`Machine::counted`].
    LookUp(Partition, u64),
    /// Read a spill queue from a sequence on; then [`Machine::loaded`], [`Machine::recounted`] or [`Machine::not_loaded`].
    Load(Arc<SpillQueue>, u64, u64, usize),
    /// Take a spill queue's front out, up to a sequence; then [`Machine::removed`].
    Remove(Arc<SpillQueue>, u64),
    /// Store these in order; then [`Machine::stored`].
    Store(Vec<Copy<U>>),
    /// Acknowledge an update; true when it goes on in a spill queue.
    Acknowledge(U, bool),
}

/// What is stored in a spill queue.
#[derive(Debug, Clone)]
pub struct Copy<U> {
    pub queue: Arc<SpillQueue>,
    pub data: U,
    /// The one target it waits for; none for a whole update.
    pub target: Option<Arc<Target>>,
    /// What is known of its waits.
    pub waits: Waits,
    /// Under which reading it was moved.
    pub session: u64,
    place: Place,
    /// Whether its original stays where it is.
    is_placeholder: bool,
    held: usize,
    piece: Option<usize>,
}

/// How the machine is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The names of the lanes.
    pub lanes: Vec<String>,
    /// How much one tenant may hold.
    pub bounds: Bounds,
    /// Waits from this length on are spent in spill queues.
    pub park_after: Duration,
    /// When a target's circuit breaker opens, and for how long.
    pub policy: Policy,
    pub rules: Rules,
    pub give_up_after: Duration,
    /// What the time is at the beginning, in unix milliseconds.
    pub began_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// It waits for its turn.
    Queued,
    /// An attempt is being made.
    Running,
    /// It waits for a time of its own.
    Waiting(Instant),
    /// It waits for its target.
    AtBreaker,
    /// It waits until somebody turns its tenant.
    Kept,
    /// It is on its way into a spill queue.
    Moving,
}

/// One update at one target.
#[derive(Debug)]
struct Piece<P> {
    held: usize,
    target: Arc<Target>,
    /// What is ordered: a conversation at a target.
    order: u64,
    stand: Stand,
    /// Its place in the scheduler, while it holds its conversation.
    slot: Option<Slot>,
    /// The work; it is with the attempt while that is made.
    data: Option<P>,
    waits: Waits,
    /// Since when it is in hand.
    since: Instant,
    /// What it was let through with, while it runs.
    leaves: Vec<Leave>,
    /// Whether it stands in its conversation, where later ones go behind it: not once it moves, or was read from a spill
    /// queue of pieces.
    is_direct: bool,
    /// Whether a breaker keeps room for it.
    reserved: bool,
    /// Requests with which it found its target out.
    probes: u32,
    /// Whether something is known of it that nobody else would find, so that it outlives an interruption.
    keeps: bool,
}

#[derive(Debug)]
struct Held<U> {
    place: Place,
    only: Option<String>,
    lane: usize,
    tenant: TenantId,
    conversation: u64,
    bytes: usize,
    data: U,
    session: u64,
    /// Where it was read from, or copied to: entries that are finished with it.
    entries: Vec<(Arc<SpillQueue>, u64)>,
    /// Whether it was read from its window and is to be acknowledged.
    original: bool,
    /// Whether it counts in its window.
    counted: bool,
    /// Pieces that are not settled.
    open: usize,
    /// Whether a piece of it went on in a spill queue.
    moved: bool,
    /// Whether a piece of it was ever started.
    started: bool,
    /// Whether its tenant's spill queue has a copy of it.
    has_placeholder: bool,
}

/// A partition that is read.
#[derive(Debug)]
struct Reading<U, P> {
    session: u64,
    /// What waits until its spill queues are looked up; none once they are.
    unsorted: Option<VecDeque<Arrived<U, P>>>,
}

/// A conversation at a target.
#[derive(Debug, Default)]
struct Order {
    /// The piece that holds it: it runs or waits.
    holder: Option<usize>,
    /// Pieces in memory that were not read from a spill queue of pieces.
    direct: usize,
    pieces: usize,
    /// Since when one of them has had to wait: what stands behind it waits, too.
    waits_since: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    Piece(usize),
    Breaker(Arc<str>),
    Queue(Arc<SpillQueue>),
}

/// Where everything of one pool in this process stands; `U` is an update, `P` the work on one piece of it.
#[derive(Debug)]
pub struct Machine<U, P> {
    setup: Setup,
    hasher: RandomState,
    scheduler: Scheduler<usize>,
    held: Slab<Held<U>>,
    places: HashMap<(Place, Option<String>), usize>,
    pieces: Slab<Piece<P>>,
    orders: HashMap<u64, Order>,
    readings: BTreeMap<Partition, Reading<U, P>>,
    /// Partitions that are owned, read or about to be read again.
    owned: BTreeSet<Partition>,
    breakers: Breakers,
    queues: BTreeMap<Arc<SpillQueue>, Queue>,
    /// How many spill queues of single conversations there are, by tenant's spill queue; then those of earlier versions.
    own_queues: HashMap<SpillQueue, usize>,
    legacy: HashMap<SpillQueue, usize>,
    unwritten: Unwritten<Copy<U>>,
    wakes: BTreeSet<(Instant, Wake)>,
    window_shares: WindowShares,
    actions: VecDeque<Action<U>>,
    began: Instant,
    /// When something was last started or told.
    moved_at: Instant,
}

impl<U: Clone, P> Machine<U, P> {
    pub fn new(setup: Setup, now: Instant) -> Self {
        Self {
            hasher: RandomState::new(),
            scheduler: Scheduler::new(setup.rules.clone()),
            held: Slab::new(),
            places: HashMap::new(),
            pieces: Slab::new(),
            orders: HashMap::new(),
            readings: BTreeMap::new(),
            owned: BTreeSet::new(),
            breakers: Breakers::new(setup.policy),
            queues: BTreeMap::new(),
            own_queues: HashMap::new(),
            legacy: HashMap::new(),
            unwritten: Unwritten::new(now),
            wakes: BTreeSet::new(),
            window_shares: WindowShares::default(),
            actions: VecDeque::new(),
            began: now,
            moved_at: now,
            setup,
        }
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<Action<U>> {
        self.actions.pop_front()
    }

    /// When [`Self::wake`] is to be called next, if nothing happens before.
    pub fn next_wake(&self) -> Option<Instant> {
        self.wakes
            .first()
            .map(|(due, _)| *due)
            .into_iter()
            .chain(self.unwritten.due())
            .min()
    }

    /// Does what has become due.
    pub fn wake(&mut self, now: Instant) {
        while self.wakes.first().is_some_and(|(due, _)| *due <= now) {
            match self.wakes.pop_first() {
                Some((_, Wake::Piece(id))) => self.wake_piece(id, now),
                Some((_, Wake::Breaker(name))) => self.tend_breaker(&name, now),
                Some((_, Wake::Queue(queue))) => self.tend(&queue, now),
                None => {}
            }
        }
        self.write(now);
    }

    /// Obeys other rules; what was kept for its tenant's sake is asked about again.
    pub fn set_rules(&mut self, rules: Rules, now: Instant) {
        self.moved_at = now;
        self.setup.rules = rules.clone();
        self.scheduler.set_rules(rules);
        let kept: Vec<usize> = self
            .pieces
            .iter()
            .filter(|(_, piece)| piece.stand == Stand::Kept)
            .map(|(id, _)| id)
            .collect();
        kept.into_iter().for_each(|id| self.resume(id));
    }

    /// Changes how much may run at once, and nothing else of the rules.
    pub fn set_permits(&mut self, permits: usize) {
        self.scheduler.set_permits(permits);
    }

    /// Whether nothing is in hand.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// How many pieces are being worked on.
    pub fn running(&self) -> usize {
        self.scheduler.running()
    }

    /// Everything in hand, but for what runs.
    pub fn resting(&self) -> impl Iterator<Item = &U> {
        let resting = self
            .pieces
            .iter()
            .filter(|(_, piece)| piece.stand != Stand::Running);
        resting
            .filter_map(|(_, piece)| self.held.get(piece.held))
            .map(|held| &held.data)
    }

    fn partition_of(&self, held: usize) -> Option<Partition> {
        self.held.get(held).map(|held| held.place.partition)
    }

    fn session_of(&self, partition: Partition) -> Option<u64> {
        self.readings.get(&partition).map(|reading| reading.session)
    }

    /// The work of a held slot goes on.
    fn resume(&mut self, id: usize) {
        let Some(piece) = self.pieces.get_mut(id) else {
            return;
        };
        piece.stand = Stand::Queued;
        let order = piece.order;
        if let Some(slot) = piece.slot.take() {
            self.scheduler.resume(slot, id);
        }
        self.release_order(order, id);
    }

    fn release_order(&mut self, order: u64, id: usize) {
        if let Some(order) = self.orders.get_mut(&order)
            && order.holder == Some(id)
        {
            order.holder = None;
        }
    }

    /// Notes that a piece has waited behind another of its conversation, as if it had had to wait itself.
    fn note_wait(&mut self, id: usize) {
        let Some(piece) = self
            .pieces
            .get_mut(id)
            .filter(|piece| piece.waits.first_ms.is_none())
        else {
            return;
        };
        let before = self
            .orders
            .get(&piece.order)
            .and_then(|order| order.waits_since);
        if let Some(since) = before.map(|before| before.max(piece.since)) {
            let passed = since.saturating_duration_since(self.began).as_millis();
            let passed = u64::try_from(passed).unwrap_or(u64::MAX);
            piece.waits.first_ms = Some(self.setup.began_ms.saturating_add(passed));
            piece.waits.overdue_at = Some(since + self.setup.give_up_after);
        }
    }

    fn wake_piece(&mut self, id: usize, now: Instant) {
        if let Some(Piece {
            stand: Stand::Waiting(until),
            ..
        }) = self.pieces.get(id)
            && *until <= now
        {
            self.resume(id);
        }
    }

    /// Ends a piece: it took effect, was buried or forgotten, or goes on in a spill queue.
    fn settle(&mut self, id: usize, moved: bool, now: Instant) {
        let Some(piece) = self.drop_piece(id) else {
            return;
        };
        if let Some(held) = self.held.get_mut(piece.held) {
            held.open -= 1;
            held.moved |= moved;
            if held.open == 0 {
                self.finish(piece.held, now);
            }
        }
    }

    /// Takes a piece out of the table, whatever it was doing.
    fn drop_piece(&mut self, id: usize) -> Option<Piece<P>> {
        let mut piece = self.pieces.try_remove(id)?;
        if let Some(slot) = piece.slot.take() {
            self.scheduler.let_go(slot);
        }
        if let Some(order) = self.orders.get_mut(&piece.order) {
            order.pieces -= 1;
            order.direct -= usize::from(piece.is_direct);
            if order.holder == Some(id) {
                order.holder = None;
            }
            if order.pieces == 0 {
                self.orders.remove(&piece.order);
            }
        }
        Some(piece)
    }

    /// Ends an update none of whose pieces is open.
    fn finish(&mut self, id: usize, now: Instant) {
        let Some(held) = self.forget_held(id) else {
            return;
        };
        if held.original {
            self.actions
                .push_back(Action::Acknowledge(held.data, held.moved));
        }
        for (queue, sequence) in held.entries {
            if let Some(known) = self.queues.get_mut(&queue) {
                known.finished(sequence);
            }
            self.tend(&queue, now);
        }
    }

    /// Lets an update be read again as if it were not in hand.
    fn unindex(&mut self, id: usize) {
        let Some(held) = self.held.get_mut(id) else {
            return;
        };
        held.original = false;
        held.entries.clear();
        let key = (held.place, held.only.clone());
        if self.places.get(&key) == Some(&id) {
            self.places.remove(&key);
        }
    }

    fn forget_held(&mut self, id: usize) -> Option<Held<U>> {
        let held = self.held.try_remove(id)?;
        let key = (held.place, held.only.clone());
        if self.places.get(&key) == Some(&id) {
            self.places.remove(&key);
        }
        if held.counted {
            let window = (held.place.partition, held.lane);
            self.window_shares
                .leave(window, &held.tenant, held.place.sequence, held.bytes);
        }
        Some(held)
    }
}
