//! The finished updates that a conversation's record has no room for: marks of them, in blocks, until Meta repeats
//! nothing of their time any more.
//!
//! A record keeps the newest marks. Before it forgets a block of them, the block is appended to the conversation's
//! subject in the stream FINISHED, six bytes an update; the record says how many blocks there are. So whether an update
//! was finished does not depend on how much was said since. Nothing of it is asked for the many conversations that
//! never had a block; those of the others are held in memory, within a bound, and read again where that was too small.

use super::direct;
use ackline_engine::finished::{BLOCK_BYTES, MARK_BYTES, Mark, mark};
use ackline_shared::ids::short_hash;
use ackline_shared::subjects::{self, FINISHED, header};
use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use lru::LruCache;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Marks in memory, of all conversations of the process; six bytes each.
const MARKS_MAX: usize = 4 << 20;
/// What a block begins with: the version of its shape.
const VERSION: u8 = 1;
const READ_MAX: usize = 512;

/// The blocks of every conversation; cheap to clone.
#[derive(Debug, Clone)]
pub struct Older {
    context: Context,
    cache: Arc<Mutex<Cache>>,
}

#[derive(Debug)]
struct Cache {
    sets: LruCache<String, Set>,
    marks: usize,
}

/// The marks of one conversation, sorted, as they were when it had so many blocks.
#[derive(Debug)]
struct Set {
    blocks: u32,
    marks: Vec<Mark>,
}

/// The blocks could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the older finished updates cannot be {verb}: {reason}")]
pub struct OlderError {
    pub verb: &'static str,
    pub reason: String,
}

impl Older {
    pub fn new(context: Context) -> Self {
        let cache = Cache {
            sets: LruCache::unbounded(),
            marks: 0,
        };
        Self {
            context,
            cache: Arc::new(Mutex::new(cache)),
        }
    }

    /// Whether an update is in one of the blocks that a conversation's record says it has.
    pub async fn has(&self, key: &str, blocks: u32, id: &str) -> Result<bool, OlderError> {
        if blocks == 0 {
            return Ok(false);
        }
        let mark = mark(id);
        if let Some(set) = self.lock().sets.get(key).filter(|set| set.blocks == blocks) {
            return Ok(set.marks.binary_search(&mark).is_ok());
        }
        let marks = self.read(key).await?;
        let found = marks.binary_search(&mark).is_ok();
        self.lock().keep(key, Set { blocks, marks });
        Ok(found)
    }

    /// Appends a block of a conversation that has so many; doing it again stores nothing twice.
    pub async fn append(&self, key: &str, blocks: u32, block: &[u8]) -> Result<(), OlderError> {
        let failed = |reason: String| OlderError {
            verb: "written",
            reason,
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::MSG_ID, format!("{key}:{}", short_hash(block)));
        let mut payload = Vec::with_capacity(block.len() + 1);
        payload.push(VERSION);
        payload.extend_from_slice(block);
        let receipt = self
            .context
            .publish_with_headers(subjects::finished(key), headers, payload.into())
            .await;
        receipt
            .map_err(|error| failed(error.to_string()))?
            .await
            .map_err(|error| failed(error.to_string()))?;
        let mut cache = self.lock();
        if let Some(mut set) = cache.take(key).filter(|set| set.blocks == blocks) {
            set.marks.extend(marks(block));
            set.marks.sort_unstable();
            set.blocks = blocks.saturating_add(1);
            cache.keep(key, set);
        }
        Ok(())
    }

    async fn read(&self, key: &str) -> Result<Vec<Mark>, OlderError> {
        let failed = |reason: String| OlderError {
            verb: "read",
            reason,
        };
        let subject = subjects::finished(key);
        let (mut found, mut from) = (Vec::new(), 0);
        loop {
            let read = direct::next_of(&self.context, FINISHED, &subject, from, READ_MAX).await;
            let (blocks, left) = read.map_err(|error| failed(error.to_string()))?;
            for block in &blocks {
                match block.payload.split_first() {
                    Some((&VERSION, block)) => found.extend(marks(block)),
                    // What a newer version knows to be finished must not take effect again here.
                    version => {
                        let version = version.map_or(0, |(version, _)| *version);
                        return Err(failed(format!(
                            "a block has version {version}; upgrade the workers"
                        )));
                    }
                }
                from = block.sequence + 1;
            }
            if left == 0 || blocks.is_empty() {
                found.sort_unstable();
                found.dedup();
                found.shrink_to_fit();
                return Ok(found);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    /// Holds a conversation's marks, at the cost of those that were not asked for longest.
    fn keep(&mut self, key: &str, set: Set) {
        self.take(key);
        self.marks += set.marks.len();
        self.sets.put(key.to_owned(), set);
        while self.marks > MARKS_MAX && self.sets.len() > 1 {
            let Some((_, oldest)) = self.sets.pop_lru() else {
                return;
            };
            self.marks = self.marks.saturating_sub(oldest.marks.len());
        }
    }

    fn take(&mut self, key: &str) -> Option<Set> {
        let set = self.sets.pop(key)?;
        self.marks = self.marks.saturating_sub(set.marks.len());
        Some(set)
    }
}

fn marks(block: &[u8]) -> impl Iterator<Item = Mark> {
    block
        .chunks_exact(MARK_BYTES)
        .filter_map(|mark| mark.first_chunk().copied())
}

/// A block fits every message size that a server can be given.
const _: () = assert!(BLOCK_BYTES < 4096);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_by_the_marks_in_it() {
        let mut cache = Cache {
            sets: LruCache::unbounded(),
            marks: 0,
        };
        let set = || Set {
            blocks: 1,
            marks: vec![[0; MARK_BYTES]; MARKS_MAX / 2],
        };
        for key in ["a", "b", "c", "c"] {
            cache.keep(key, set());
        }
        let keys: Vec<&str> = cache.sets.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!((keys, cache.marks), (vec!["c", "b"], MARKS_MAX));
    }
}
