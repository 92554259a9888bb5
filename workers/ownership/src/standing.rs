//! Where each pool of this process stands, for whoever asks whether the process is ready.

use ackline_shared::subjects::Pool;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Where a pool stands in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It does not know yet which processes there are.
    Starting,
    /// Other processes own all of it; this one takes over what they leave.
    StandingBy,
    /// This process claims its partitions and opens their consumers.
    Opening,
    /// This process works on its partitions.
    Working,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::StandingBy => "standing by",
            Self::Opening => "opening",
            Self::Working => "working",
        }
    }

    /// Whether the pool is where it should be for now.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::StandingBy | Self::Working)
    }
}

/// The states of all pools of a process; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Standing(Arc<Mutex<BTreeMap<Pool, State>>>);

impl Standing {
    /// Notes where a pool stands.
    pub fn set(&self, pool: Pool, state: State) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(pool, state);
    }

    pub fn all(&self) -> BTreeMap<Pool, State> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
