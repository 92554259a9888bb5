//! What of a pool waits, split by whether anybody could work on it now.

use serde::{Deserialize, Serialize};

/// Updates of a pool, or of one tenant in it, that wait beside its streams or in memory.
///
/// What can be worked on and is still in the streams, or read and queued, is not part of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Backlog {
    /// In spill queues, not read yet, and nothing keeps anybody from working on them.
    pub ready: u64,
    /// Waiting for a target, or for their own time, in memory or in spill queues.
    pub waiting: u64,
    /// Age of the oldest that is ready, in milliseconds; none where there is none, or nobody knows.
    pub oldest_ready_ms: Option<u64>,
    /// Age of the oldest that waits, in milliseconds; none where there is none, or nobody knows.
    pub oldest_waiting_ms: Option<u64>,
}

impl Backlog {
    pub fn add(&mut self, other: &Self) {
        self.ready = self.ready.saturating_add(other.ready);
        self.waiting = self.waiting.saturating_add(other.waiting);
        self.oldest_ready_ms = self.oldest_ready_ms.max(other.oldest_ready_ms);
        self.oldest_waiting_ms = self.oldest_waiting_ms.max(other.oldest_waiting_ms);
    }

    /// Counts one more that waits, of this age in milliseconds.
    pub fn wait(&mut self, age_ms: u64) {
        self.waiting = self.waiting.saturating_add(1);
        self.oldest_waiting_ms = self.oldest_waiting_ms.max(Some(age_ms));
    }

    pub fn total(&self) -> u64 {
        self.ready.saturating_add(self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_the_oldest_is_the_oldest_of_all() {
        let mut sum = Backlog {
            ready: 1,
            oldest_ready_ms: Some(5),
            ..Backlog::default()
        };
        sum.wait(70);
        sum.add(&Backlog {
            ready: 2,
            waiting: 3,
            oldest_ready_ms: None,
            oldest_waiting_ms: Some(90),
        });
        let expected = Backlog {
            ready: 3,
            waiting: 4,
            oldest_ready_ms: Some(5),
            oldest_waiting_ms: Some(90),
        };
        assert_eq!((sum, sum.total()), (expected, 7));
    }
}
