//! Up to where each consumer has acknowledged everything, noted for the day when nats-server forgets it.
//!
//! Consumers of pools live in the memory of nats-server: a file of each, written anew after every acknowledgement, was
//! more than half of what the server did for a conversation. One process notes the floors of all of them every few
//! seconds, and a consumer that has to be made again begins at its floor. What was finished after the note comes again,
//! and the memory of its pool meets it. A floor may be too low and never too high, so it is only ever raised, and one
//! that was noted of another stream of the same name says nothing.

use ackline_shared::stored::{self, Stored};
use async_nats::jetstream::Context;
use async_nats::jetstream::kv::{Store, UpdateErrorKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Display;

/// How often a write is tried again that lost against another one.
const ATTEMPTS_MAX: u32 = 8;

/// The floors of the consumers of one stream, by their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floors {
    /// When the stream was made, in unix nanoseconds.
    stream_made_ns: i64,
    floors: BTreeMap<String, u64>,
}

impl Stored for Floors {}

impl Floors {
    /// None yet, of a stream that was made then.
    pub fn new(stream_made_ns: i64) -> Self {
        Self {
            stream_made_ns,
            floors: BTreeMap::new(),
        }
    }

    pub fn of(&self, consumer: &str) -> Option<u64> {
        self.floors.get(consumer).copied()
    }

    /// Every consumer that something was noted of, with its floor.
    pub fn all(&self) -> impl Iterator<Item = (&str, u64)> {
        self.floors
            .iter()
            .map(|(name, floor)| (name.as_str(), *floor))
    }

    /// Notes a floor, unless it is known to be higher; tells whether that is news.
    pub fn raise(&mut self, consumer: &str, floor: u64) -> bool {
        if floor == 0 || self.of(consumer).is_some_and(|known| known >= floor) {
            return false;
        }
        self.floors.insert(consumer.to_owned(), floor);
        true
    }
}

/// What was noted of a stream, and what the stream is like.
#[derive(Debug, Clone)]
pub struct Noted {
    pub floors: Floors,
    /// The last sequence of the stream.
    pub last: u64,
    revision: u64,
}

/// The floors could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the noted floors of {stream} cannot be {verb}: {reason}")]
pub struct FloorError {
    stream: String,
    verb: &'static str,
    reason: String,
}

impl FloorError {
    fn new(stream: &str, verb: &'static str, reason: &dyn Display) -> Self {
        Self {
            stream: stream.to_owned(),
            verb,
            reason: reason.to_string(),
        }
    }
}

/// The floors of all streams; cheap to clone.
#[derive(Debug, Clone)]
pub struct FloorStore {
    context: Context,
    store: Store,
}

impl FloorStore {
    pub fn new(context: Context, store: Store) -> Self {
        Self { context, store }
    }

    /// What was noted of a stream as it is now.
    pub async fn read(&self, stream: &str) -> Result<Noted, FloorError> {
        let failed = |reason: &dyn Display| FloorError::new(stream, "read", reason);
        let entry = self.store.entry(stream).await;
        let entry = entry.map_err(|error| failed(&error))?;
        // The stream is asked after the note: what it held then, it still does.
        let found = self.context.get_stream(stream).await;
        let found = found.map_err(|error| failed(&error))?;
        let (made_ns, last) = {
            let info = found.cached_info();
            let made_ns = i64::try_from(info.created.unix_timestamp_nanos()).unwrap_or_default();
            (made_ns, info.state.last_sequence)
        };
        let revision = entry.as_ref().map_or(0, |entry| entry.revision);
        let value = entry.map(|entry| entry.value).unwrap_or_default();
        if !value.is_empty() {
            stored::check::<Floors>(&value).map_err(|newer| failed(&newer))?;
        }
        let known = stored::decode::<Floors>(&value).ok();
        let floors = known
            .filter(|known| known.stream_made_ns == made_ns)
            .filter(|known| known.all().all(|(_, floor)| floor <= last))
            .unwrap_or_else(|| Floors::new(made_ns));
        Ok(Noted {
            floors,
            last,
            revision,
        })
    }

    /// Notes floors of consumers of one stream; those that are known to be higher stay.
    pub async fn raise(&self, stream: &str, floors: &[(&str, u64)]) -> Result<(), FloorError> {
        let mut attempt = 1;
        loop {
            let mut noted = self.read(stream).await?;
            let raised = floors
                .iter()
                .map(|(name, floor)| noted.floors.raise(name, *floor));
            // Each of them is to be raised.
            if raised.filter(|is_news| *is_news).count() == 0 {
                return Ok(());
            }
            let value = stored::encode(&noted.floors).into();
            match self.store.update(stream, value, noted.revision).await {
                Ok(_) => return Ok(()),
                Err(error)
                    if error.kind() == UpdateErrorKind::WrongLastRevision
                        && attempt < ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(FloorError::new(stream, "written", &error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_is_only_raised() {
        let mut floors = Floors::new(1);
        assert!(!floors.raise("a", 0) && floors.of("a").is_none());
        assert!(floors.raise("a", 7));
        assert!(!floors.raise("a", 7) && !floors.raise("a", 3));
        assert!(floors.raise("a", 8) && floors.raise("b", 2));
        assert_eq!(floors.all().collect::<Vec<_>>(), [("a", 8), ("b", 2)]);
    }
}
