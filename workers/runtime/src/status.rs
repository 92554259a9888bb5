//! What a workers process tells about itself once a second: a bounded snapshot, the same for every reader.
//!
//! Snapshots travel over core NATS and are kept by nobody: one that is lost is replaced a second later. The
//! names of pools are texts here, so that processes of different versions understand each other.

mod backlog;
pub mod dead;
pub mod held;
mod stuck;

pub use backlog::Backlog;
pub use stuck::{STUCK_AFTER, STUCK_MAX, Stuck};

use ackline_engine::latency::Latencies;
use ackline_shared::ids::TenantId;
use dead::OpenDead;
use held::{Drain, OpenBreaker, SpillCounts, Turned};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// Seconds of history a snapshot carries.
pub const HISTORY: usize = 60;

/// What one process says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub instance: String,
    pub version: String,
    /// When it was started, in unix milliseconds.
    pub started_ms: u64,
    /// When this was written, in unix milliseconds.
    pub at_ms: u64,
    /// The pools that it runs.
    pub pools: Vec<PoolStatus>,
    /// The partitions nobody owned when it last looked, by pool and lane; told by whoever looks.
    #[serde(default)]
    pub unowned: Vec<UnownedLag>,
    /// The open dead letters of every pool; told by whoever looks.
    #[serde(default)]
    pub dead: Option<Vec<OpenDead>>,
}

/// A pool in one process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    pub pool: String,
    pub state: String,
    /// How many partitions the pool's work is spread over.
    pub partitions: u16,
    /// Those that this process owns.
    pub owned: Vec<u16>,
    /// How often a partition came or went since the start.
    pub owner_changes: u64,
    /// Jobs it may run at once.
    pub concurrency: u64,
    /// Those that are allowed now, while that is found by trying.
    #[serde(default)]
    pub adaptive: Option<u64>,
    pub paused: bool,
    pub load: Load,
    /// What came and went per second, over the last seconds.
    pub rates: Rates,
    /// Time of one attempt, over the last half minute.
    pub service: Latencies,
    /// Age of updates when their first attempt started, over the last half minute.
    pub wait: Latencies,
    /// What is not finished in the streams, by lane.
    pub lanes: Vec<LaneLag>,
    /// The tenants that are held, and those with most to do.
    pub tenants: Vec<TenantStatus>,
    /// Updates finished in each of the last seconds, the latest last.
    pub history: Vec<u32>,
    /// What waits in spill queues.
    #[serde(default)]
    pub lines: SpillCounts,
    /// What waits; absent where only lines and memory are counted.
    #[serde(default)]
    pub backlog: Option<Backlog>,
    /// What is past its due time by far.
    #[serde(default)]
    pub stuck: Vec<Stuck>,
    /// The downstreams whose circuit breaker is open, those that have not worked for longest first.
    #[serde(default)]
    pub breakers: Vec<OpenBreaker>,
    #[serde(default)]
    pub breakers_open: u64,
    /// Downstreams of whose last requests half timed out, a bounded number of them.
    #[serde(default)]
    pub slow: Vec<String>,
    /// How many tenants are paused, drained or discarded.
    #[serde(default)]
    pub tenants_held: u64,
    /// Updates that this process gave up in the last hour.
    #[serde(default)]
    pub dead_hour: u64,
    /// What is wrong with what it writes to.
    #[serde(default)]
    pub fault: Option<String>,
}

impl PoolStatus {
    /// What waits, also of a process that does not tell it apart.
    pub fn backlog(&self) -> Backlog {
        self.backlog
            .unwrap_or_else(|| counted(&self.lines, &self.load))
    }
}

/// A tenant's line can be worked on; a conversation's waits, and so does what waits in memory.
fn counted(lines: &SpillCounts, load: &Load) -> Backlog {
    let waiting = lines.parked.saturating_add(load.waiting);
    Backlog {
        ready: lines.moved,
        waiting,
        ..Backlog::default()
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    pub queued: u64,
    pub running: u64,
    pub waiting: u64,
}

impl Load {
    pub fn held(&self) -> u64 {
        self.queued + self.running + self.waiting
    }

    pub fn add(&mut self, other: &Self) {
        self.queued += other.queued;
        self.running += other.running;
        self.waiting += other.waiting;
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    pub read: f64,
    pub finished: f64,
    pub retried: f64,
    pub dead: f64,
    /// Updates among the finished that asked nothing of the pool.
    #[serde(default)]
    pub idle: f64,
    /// What among the read Meta sent; the rest is what we wrote down ourselves.
    #[serde(default)]
    pub webhooks: f64,
}

impl Rates {
    pub fn add(&mut self, other: &Self) {
        self.read += other.read;
        self.finished += other.finished;
        self.retried += other.retried;
        self.dead += other.dead;
        self.idle += other.idle;
        self.webhooks += other.webhooks;
    }
}

/// What of a lane is not finished.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneLag {
    pub lane: String,
    pub unread: u64,
    /// Messages read and not acknowledged.
    pub in_work: u64,
    /// Age of the oldest that is not acknowledged, in milliseconds; 0 when there is none.
    pub oldest_ms: u64,
    /// The partition where that one is.
    pub partition: Option<u16>,
}

impl LaneLag {
    pub fn messages(&self) -> u64 {
        self.unread + self.in_work
    }

    /// Adds another's of the same lane.
    pub fn add(&mut self, other: &Self) {
        self.unread += other.unread;
        self.in_work += other.in_work;
        if other.oldest_ms > self.oldest_ms {
            self.oldest_ms = other.oldest_ms;
            self.partition = other.partition;
        }
    }
}

/// What of a lane waits in partitions that nobody owned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnownedLag {
    pub pool: String,
    pub partitions: Vec<u16>,
    pub lag: LaneLag,
    /// What waits in spill queues of them.
    #[serde(default)]
    pub backlog: Backlog,
}

impl UnownedLag {
    pub fn messages(&self) -> u64 {
        self.lag.messages().saturating_add(self.backlog.total())
    }
}

/// A tenant in one pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TenantStatus {
    pub tenant: TenantId,
    pub rate: f64,
    /// What is held of it.
    pub load: Load,
    /// What of it waits in spill queues.
    #[serde(default)]
    pub lines: SpillCounts,
    /// What of it waits; absent where only lines and memory are counted.
    #[serde(default)]
    pub backlog: Option<Backlog>,
    /// What an operator turned of it.
    #[serde(default)]
    pub turned: Option<Turned>,
    /// How far its drain is, while it is drained.
    #[serde(default)]
    pub drain: Option<Drain>,
    /// Updates of it that were given up in the last hour.
    #[serde(default)]
    pub dead_hour: u64,
}

impl TenantStatus {
    /// A tenant of which nothing is told.
    pub fn of(tenant: TenantId) -> Self {
        Self {
            tenant,
            rate: 0.0,
            load: Load::default(),
            lines: SpillCounts::default(),
            backlog: None,
            turned: None,
            drain: None,
            dead_hour: 0,
        }
    }

    /// What tenants are listed by: what comes in a second, what waits, and what was given up lately.
    pub fn weight(&self) -> f64 {
        let all = self.unfinished().saturating_add(self.dead_hour);
        self.rate + u32::try_from(all).map_or(f64::MAX, f64::from)
    }

    /// What waits, also of a process that does not tell it apart.
    pub fn backlog(&self) -> Backlog {
        self.backlog
            .unwrap_or_else(|| counted(&self.lines, &self.load))
    }

    /// Everything of it that was read and is not finished, in memory and in spill queues.
    pub fn unfinished(&self) -> u64 {
        self.load
            .queued
            .saturating_add(self.load.running)
            .saturating_add(self.backlog().total())
    }

    /// Whether it is paused, drained or discarded.
    pub fn is_held(&self) -> bool {
        self.turned.as_ref().is_some_and(Turned::is_held)
    }

    /// The order in which tenants are listed: first those that are held, then those with most to do.
    pub fn order(&self, other: &Self) -> Ordering {
        other
            .is_held()
            .cmp(&self.is_held())
            .then_with(|| other.weight().total_cmp(&self.weight()))
    }
}
