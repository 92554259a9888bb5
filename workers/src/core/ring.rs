//! What a pool remembers of a conversation: the updates it has finished, and the finished parts of those it has not.
//!
//! One record per pool, lane and conversation in the `sessions` bucket, written under its revision: a process
//! that lost its lease cannot overwrite what its successor wrote. The record is bounded; the oldest finished
//! id makes room for the newest.

use async_nats::jetstream::kv::Store;
use lru::LruCache;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

const DONE_MAX: usize = 64;
const OPEN_MAX: usize = 16;
const CACHED_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(32_767);

/// What is known of one update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recall {
    /// It has taken effect.
    Done,
    /// It has not; these parts of it have.
    Open(Vec<String>),
}

/// The memory could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the conversation's record cannot be {verb}: {reason}")]
pub struct RingError {
    verb: &'static str,
    reason: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    #[serde(default)]
    done: VecDeque<String>,
    #[serde(default)]
    open: BTreeMap<String, Vec<String>>,
}

/// The memory of one pool; cheap to clone. Only the lease's holder uses it, one job per key at a time.
#[derive(Debug, Clone)]
pub struct Ring {
    store: Store,
    cache: Arc<Mutex<LruCache<String, (u64, Record)>>>,
}

impl Ring {
    /// Opens the memory of a pool that has just been taken over.
    pub fn new(store: Store) -> Self {
        Self { store, cache: Arc::new(Mutex::new(LruCache::new(CACHED_MAX))) }
    }

    /// Tells what is known of an update.
    pub async fn recall(&self, key: &str, id: &str) -> Result<Recall, RingError> {
        let (_, record) = self.load(key).await?;
        if record.done.iter().any(|done| done == id) {
            return Ok(Recall::Done);
        }
        Ok(Recall::Open(record.open.get(id).cloned().unwrap_or_default()))
    }

    /// Remembers which parts of an unfinished update have taken effect.
    pub async fn keep(&self, key: &str, id: &str, parts: Vec<String>) -> Result<(), RingError> {
        let (revision, mut record) = self.load(key).await?;
        if record.open.get(id).map_or(parts.is_empty(), |kept| *kept == parts) {
            return Ok(());
        }
        record.open.insert(id.to_owned(), parts);
        while record.open.len() > OPEN_MAX {
            record.open.pop_first();
        }
        self.save(key, revision, record).await
    }

    /// Remembers that an update has taken effect.
    pub async fn finish(&self, key: &str, id: &str) -> Result<(), RingError> {
        let (revision, mut record) = self.load(key).await?;
        record.open.remove(id);
        record.done.push_back(id.to_owned());
        while record.done.len() > DONE_MAX {
            record.done.pop_front();
        }
        self.save(key, revision, record).await
    }

    /// The memory of one conversation.
    pub fn keeper(&self, key: String) -> Keeper {
        Keeper(Some((self.clone(), key)))
    }

    async fn load(&self, key: &str) -> Result<(u64, Record), RingError> {
        if let Some(cached) = self.lock().get(key) {
            return Ok(cached.clone());
        }
        let failed = |reason: String| RingError { verb: "read", reason };
        let loaded = match self.store.entry(key).await.map_err(|error| failed(error.to_string()))? {
            Some(entry) if !entry.value.is_empty() => (
                entry.revision,
                serde_json::from_slice(&entry.value).map_err(|error| failed(error.to_string()))?,
            ),
            Some(entry) => (entry.revision, Record::default()),
            None => (0, Record::default()),
        };
        self.lock().put(key.to_owned(), loaded.clone());
        Ok(loaded)
    }

    /// Writes under the revision read; a failure forgets the cached record so that the next attempt reads anew.
    async fn save(&self, key: &str, revision: u64, record: Record) -> Result<(), RingError> {
        let failed = |reason: String| RingError { verb: "written", reason };
        let bytes = serde_json::to_vec(&record).map_err(|error| failed(error.to_string()))?;
        match self.store.update(key, bytes.into(), revision).await {
            Ok(revision) => {
                self.lock().put(key.to_owned(), (revision, record));
                Ok(())
            }
            Err(error) => {
                self.lock().pop(key);
                Err(failed(error.to_string()))
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<String, (u64, Record)>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The memory of one conversation, or none at all.
#[derive(Debug, Clone, Default)]
pub struct Keeper(Option<(Ring, String)>);

impl Keeper {
    /// Tells what is known of an update.
    pub async fn recall(&self, id: &str) -> Result<Recall, RingError> {
        match &self.0 {
            Some((ring, key)) => ring.recall(key, id).await,
            None => Ok(Recall::Open(Vec::new())),
        }
    }

    /// Remembers which parts of an unfinished update have taken effect.
    pub async fn keep(&self, id: &str, parts: Vec<String>) -> Result<(), RingError> {
        match &self.0 {
            Some((ring, key)) => ring.keep(key, id, parts).await,
            None => Ok(()),
        }
    }

    /// Remembers that an update has taken effect.
    pub async fn finish(&self, id: &str) -> Result<(), RingError> {
        match &self.0 {
            Some((ring, key)) => ring.finish(key, id).await,
            None => Ok(()),
        }
    }
}
