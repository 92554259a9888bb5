//! What of a pool's work is not done as usual: tenants that somebody turned, updates in spill queues, open circuit breakers.
//!
//! Everything here travels in snapshots, so what is absent has a default and nothing is a fixed set of words.

use crate::tuning::{Mode, Stamped, TenantTuning};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Downstreams of a pool that a process names; the rest is counted.
pub const BREAKERS_MAX: usize = 20;
/// Tenants of a pool told to do less that a process names; the rest is counted.
pub const HELD_MAX: usize = 20;
/// Time within which what was received is stored, unless the edge spooled it.
pub const STORED_WITHIN: Duration = Duration::from_secs(3);
/// Updates in spill queues that are not read back yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpillCounts {
    /// Of tenants that held more than their share of a window.
    pub moved: u64,
    /// Of conversations whose first update waits long for its next attempt.
    pub parked: u64,
}

impl SpillCounts {
    pub fn total(&self) -> u64 {
        self.moved.saturating_add(self.parked)
    }

    pub fn add(&mut self, other: &Self) {
        self.moved = self.moved.saturating_add(other.moved);
        self.parked = self.parked.saturating_add(other.parked);
    }
}

/// What an operator turned of a tenant in a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Turned {
    pub paused: bool,
    /// What was received before the change is worked on, what came later is kept.
    pub draining: bool,
    /// Everything goes to the dead letters.
    pub discarding: bool,
    /// Its share of turns, where it is not everybody's.
    pub weight: Option<u32>,
    /// Its jobs at once in each process, where it is not everybody's.
    pub in_flight_max: Option<u32>,
    pub by: String,
    pub at_ms: u64,
}

impl Turned {
    /// Whether something of it is not worked on as usual.
    pub fn is_held(&self) -> bool {
        self.paused || self.draining || self.discarding
    }

    /// Whether everything is as for every tenant.
    pub fn is_usual(&self) -> bool {
        !self.is_held() && self.weight.is_none() && self.in_flight_max.is_none()
    }
}

impl From<&Stamped<TenantTuning>> for Turned {
    fn from(entry: &Stamped<TenantTuning>) -> Self {
        let TenantTuning {
            weight,
            in_flight_max,
            paused,
            mode,
        } = entry.value;
        Self {
            paused,
            draining: mode == Some(Mode::Drain),
            discarding: mode == Some(Mode::Discard),
            weight,
            in_flight_max,
            by: entry.by.clone(),
            at_ms: entry.at_ms,
        }
    }
}

/// How far a drain is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drain {
    /// Updates received before it began that were read and are not finished.
    pub left: u64,
    /// Whether everything that was received before it began has been read.
    pub is_read: bool,
}

impl Drain {
    /// Whether nothing is left that was received before it began.
    pub fn is_done(&self) -> bool {
        self.is_read && self.left == 0
    }

    /// Adds what another process says of its partitions.
    pub fn add(&mut self, other: &Self) {
        self.left = self.left.saturating_add(other.left);
        self.is_read &= other.is_read;
    }
}

/// A downstream that does not work: its circuit breaker is open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OpenBreaker {
    /// Its name, such as `relay.<tenant>.<id>`, `number.<phone_number_id>` or `graph`.
    pub downstream: String,
    /// For how long it has not worked, in milliseconds.
    pub open_ms: u64,
    /// Until one request finds out, in milliseconds; 0 when the next one does.
    pub next_ms: u64,
}

impl OpenBreaker {
    /// Whether all of its pool's work goes through it.
    pub fn is_everybodys(&self) -> bool {
        !self.downstream.contains('.')
    }

    /// For how long it has not worked.
    pub fn open(&self) -> Duration {
        Duration::from_millis(self.open_ms)
    }
}
