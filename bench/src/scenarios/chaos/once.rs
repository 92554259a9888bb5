//! Whether an update took effect twice in the session of its conversation, though what it sent was stored once.
//!
//! The flow sends one message for each update, and a session counts what its flow sent, over all its runs.

use super::super::workers::Update;
use super::super::workers::stream::Seen;
use ackline_shared::subjects::BUCKET_SESSIONS;
use anyhow::{Context, Result};
use async_nats::jetstream;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// Where a session counts what it sent.
const SENDS: &str = "/counters/sends";

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Once {
    pub updates: usize,
    pub counted: u64,
    /// What they counted beyond the messages given, conversation by conversation.
    pub twice: u64,
}

impl Once {
    pub const HEAD: [&'static str; 3] = ["updates", "counted", "took effect twice"];

    /// Reads the session of every conversation that got one of the updates; `update_of` tells what a serial number was.
    pub async fn count(
        context: &jetstream::Context,
        given: &[Seen],
        update_of: impl Fn(u32) -> Update,
    ) -> Result<Self> {
        let mut sessions: HashMap<String, HashSet<u32>> = HashMap::new();
        for seen in given {
            sessions
                .entry(update_of(seen.serial).session()?)
                .or_default()
                .insert(seen.serial);
        }
        let store = context
            .get_key_value(BUCKET_SESSIONS)
            .await
            .context("opening the sessions")?;
        let mut once = Self::default();
        for (key, serials) in sessions {
            let record = store.get(key).await.context("reading a session")?;
            once.compare(
                serials.len(),
                record.map_or(Ok(0), |record| sends(&record))?,
            );
        }
        Ok(once)
    }

    /// Holds what a session counted against what its conversation was given.
    fn compare(&mut self, given: usize, counted: u64) {
        self.updates += given;
        self.counted += counted;
        self.twice += counted.saturating_sub(given as u64);
    }

    pub fn add(&mut self, other: &Self) {
        self.updates += other.updates;
        self.counted += other.counted;
        self.twice += other.twice;
    }

    /// Whether nothing took effect twice, and there was a count to tell by.
    pub fn is_clean(&self) -> bool {
        self.twice == 0 && self.counted > 0
    }

    /// The figures, in the order of [`Once::HEAD`].
    pub fn row(&self) -> Vec<String> {
        vec![
            self.updates.to_string(),
            self.counted.to_string(),
            self.twice.to_string(),
        ]
    }
}

fn sends(record: &[u8]) -> Result<u64> {
    let session: Value = serde_json::from_slice(record).context("reading a session")?;
    session
        .pointer(SENDS)
        .and_then(Value::as_u64)
        .context("a session does not say what it sent")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_conversation_counted_twice_is_not_made_up_for_by_what_another_lacks() {
        let mut once = Once::default();
        assert!(!once.is_clean(), "nothing was counted");
        once.compare(5, 4);
        assert!(once.is_clean());
        once.compare(5, 6);
        assert_eq!(
            once,
            Once {
                updates: 10,
                counted: 10,
                twice: 1
            }
        );
        assert!(!once.is_clean());
    }

    #[test]
    fn a_session_says_what_it_sent() {
        assert_eq!(
            sends(br#"{"schema":1,"counters":{"steps":4,"sends":2}}"#).unwrap(),
            2
        );
        assert!(sends(br#"{"schema":1}"#).is_err());
    }
}
