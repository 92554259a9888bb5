//! What a pool remembers of a conversation: the updates it has finished, and how far it got with those it has not.
//!
//! One record per pool, lane and conversation in the `sessions` bucket, written under its revision and with its
//! owner's epoch: a process that lost the partition cannot overwrite what its successor wrote, nor write anew
//! what is gone. The record is bounded; before it forgets finished updates they are written down elsewhere
//! (`core/older.rs`), for a takeover reads all of a window again, what is finished in it included, and Meta repeats a
//! delivery for days.

use super::log::Log;
use super::older::{Older, OlderError};
use super::platform::Platform;
use ackline_engine::finished::Finished;
use ackline_engine::step::Step;
use ackline_ownership::lease::Lease;
use ackline_shared::stored::{self, Stored};
use async_nats::jetstream::kv::Store;
use lru::LruCache;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

const OPEN_MAX: usize = 16;
const CACHED_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(32_767);

/// What is known of one update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recall {
    Done,
    /// It has not; this is known of the attempts so far.
    Open(Progress),
}

/// How far an unfinished update got; survives restarts and takeovers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub attempts: u32,
    /// When it first failed or had to wait, in unix milliseconds; 0 when it did not yet.
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub first_ms: u64,
    /// When it may be tried again, in unix milliseconds.
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub due_ms: u64,
    /// Attempts begun of which no end is known.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub begun: u32,
}

/// The memory could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the conversation's record cannot be {verb}: {reason}")]
pub struct DedupeError {
    verb: &'static str,
    reason: String,
}

impl From<OlderError> for DedupeError {
    fn from(error: OlderError) -> Self {
        Self {
            verb: error.verb,
            reason: error.reason,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The epoch of the owner that wrote it.
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    epoch: u64,
    #[serde(default, skip_serializing_if = "Finished::is_empty")]
    finished: Finished,
    /// How many blocks of finished updates there are elsewhere.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    older: u32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    open: BTreeMap<String, Progress>,
}

impl Stored for Record {}

impl Record {
    /// What a record for all targets says of one of them.
    fn of_target(self, target: &str) -> Self {
        let Self {
            epoch: _,
            mut finished,
            older: _,
            open,
        } = self;
        let mut left = BTreeMap::new();
        for (id, progress) in open {
            let took = |part: &str| part == target || part.strip_prefix("posted:") == Some(target);
            if progress.parts.iter().any(|part| took(part)) {
                finished.add(&id);
            } else {
                let doubt = Step::begun(format!("posting:{target}"));
                let parts = progress
                    .parts
                    .into_iter()
                    .filter(|part| Step::from(part.as_str()) == doubt)
                    .collect();
                left.insert(id, Progress { parts, ..progress });
            }
        }
        Self {
            epoch: 0,
            finished,
            older: 0,
            open: left,
        }
    }
}

/// The memory of a pool; cheap to clone. Only a partition's owner uses it, one job per key at a time.
#[derive(Debug, Clone)]
pub struct DedupeStore {
    log: Log,
    store: Store,
    older: Older,
    cache: Arc<Mutex<LruCache<String, Cached>>>,
}

/// A record as it was last read or written under one epoch; under another one it says nothing.
#[derive(Debug, Clone)]
struct Cached {
    epoch: u64,
    revision: u64,
    record: Record,
}

impl DedupeStore {
    /// Opens the memory of a pool.
    pub fn new(platform: &Platform) -> Self {
        Self {
            log: platform.log.clone(),
            store: platform.buckets.sessions.clone(),
            older: platform.older.clone(),
            cache: Arc::new(Mutex::new(LruCache::new(CACHED_MAX))),
        }
    }

    /// The memory of one conversation, written to only while the lease lasts.
    pub fn record(&self, memory: impl Into<Memory>, lease: Option<Lease>) -> ConversationRecord {
        ConversationRecord {
            memory: Some((self.clone(), memory.into())),
            lease,
        }
    }

    /// A record and its revision, which is 0 where there is none.
    async fn read(&self, key: &str) -> Result<(u64, Record), DedupeError> {
        let failed = |reason: String| DedupeError {
            verb: "read",
            reason,
        };
        let entry = self
            .store
            .entry(key)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let Some(entry) = entry else {
            return Ok((0, Record::default()));
        };
        if entry.value.is_empty() {
            return Ok((entry.revision, Record::default()));
        }
        // What a newer version wrote is not written over: the update waits for a process that knows it.
        stored::check::<Record>(&entry.value).map_err(|newer| failed(newer.to_string()))?;
        let record = stored::decode(&entry.value).unwrap_or_else(|error| {
            // Reading it again would give the same: the conversation would stand still for good.
            tracing::warn!(key, %error, "a conversation's record cannot be read and starts anew");
            Record::default()
        });
        Ok((entry.revision, record))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<String, Cached>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone)]
pub struct Memory {
    pub key: String,
    /// The record it begins with when there is none, and the target whose part of that counts: earlier versions kept
    /// one record for all targets of a conversation.
    pub before: Option<(String, String)>,
}

impl From<String> for Memory {
    fn from(key: String) -> Self {
        Self { key, before: None }
    }
}

/// The memory of one conversation, or none at all, and the right to write to it.
#[derive(Debug, Clone, Default)]
pub struct ConversationRecord {
    memory: Option<(DedupeStore, Memory)>,
    lease: Option<Lease>,
}

impl ConversationRecord {
    /// Goes on under another right.
    pub fn hold_under(&mut self, lease: Lease) {
        self.lease = Some(lease);
    }

    /// The epoch to write under; higher ones win. 0 where nothing is owned.
    pub fn epoch(&self) -> u64 {
        self.lease.as_ref().map_or(0, Lease::epoch)
    }

    /// Whether the partition is still this process's own, as far as it knows.
    pub fn is_current(&self) -> bool {
        self.lease.as_ref().is_none_or(Lease::is_current)
    }

    /// Tells what is known of an update.
    pub async fn recall(&self, id: &str) -> Result<Recall, DedupeError> {
        let Some((dedupe, memory)) = &self.memory else {
            return Ok(Recall::Open(Progress::default()));
        };
        let (_, record) = self.load(dedupe, memory).await?;
        if record.finished.has(id) || dedupe.older.has(&memory.key, record.older, id).await? {
            return Ok(Recall::Done);
        }
        Ok(Recall::Open(
            record.open.get(id).cloned().unwrap_or_default(),
        ))
    }

    /// Remembers which parts of an unfinished update have taken effect.
    pub async fn keep(&self, id: &str, parts: Vec<String>) -> Result<(), DedupeError> {
        self.change(id, |progress| progress.parts = parts).await
    }

    /// Remembers how far an unfinished update got.
    pub async fn note(&self, id: &str, progress: Progress) -> Result<(), DedupeError> {
        self.change(id, |known| *known = progress).await
    }

    /// Forgets an update that ended without an effect worth remembering.
    pub async fn forget(&self, id: &str) -> Result<(), DedupeError> {
        let Some((dedupe, memory)) = &self.memory else {
            return Ok(());
        };
        let (revision, mut record) = self.load(dedupe, memory).await?;
        if record.open.remove(id).is_none() {
            return Ok(());
        }
        self.save(dedupe, &memory.key, revision, record).await
    }

    /// Remembers that an update has taken effect.
    pub async fn finish(&self, id: &str) -> Result<(), DedupeError> {
        let Some((dedupe, memory)) = &self.memory else {
            return Ok(());
        };
        let (revision, mut record) = self.load(dedupe, memory).await?;
        record.open.remove(id);
        record.finished.add(id);
        if let Some(block) = record.finished.full_block() {
            // A repeat of this finds the block already there.
            dedupe
                .older
                .append(&memory.key, record.older, block)
                .await?;
            record.finished.drop_block();
            record.older = record.older.saturating_add(1);
        }
        self.save(dedupe, &memory.key, revision, record).await
    }

    async fn change(
        &self,
        id: &str,
        adjust: impl FnOnce(&mut Progress),
    ) -> Result<(), DedupeError> {
        let Some((dedupe, memory)) = &self.memory else {
            return Ok(());
        };
        let (revision, mut record) = self.load(dedupe, memory).await?;
        let mut progress = record.open.get(id).cloned().unwrap_or_default();
        let before = progress.clone();
        adjust(&mut progress);
        if progress == before {
            return Ok(());
        }
        record.open.insert(id.to_owned(), progress);
        while record.open.len() > OPEN_MAX {
            record.open.pop_first();
        }
        self.save(dedupe, &memory.key, revision, record).await
    }

    async fn load(
        &self,
        dedupe: &DedupeStore,
        memory: &Memory,
    ) -> Result<(u64, Record), DedupeError> {
        let (epoch, key) = (self.epoch(), &memory.key);
        if let Some(cached) = dedupe.lock().get(key)
            && cached.epoch == epoch
        {
            return Ok((cached.revision, cached.record.clone()));
        }
        let (revision, mut record) = dedupe.read(key).await?;
        if record.epoch > epoch && self.lease.is_some() {
            return Err(DedupeError {
                verb: "read",
                reason: OVERTAKEN.to_owned(),
            });
        }
        if revision == 0
            && let Some((before, target)) = &memory.before
        {
            record = dedupe.read(before).await?.1.of_target(target);
        }
        dedupe.lock().put(
            key.clone(),
            Cached {
                epoch,
                revision,
                record: record.clone(),
            },
        );
        Ok((revision, record))
    }

    /// Writes under the revision read; a failure forgets the cached record so that the next attempt reads anew.
    async fn save(
        &self,
        dedupe: &DedupeStore,
        key: &str,
        revision: u64,
        record: Record,
    ) -> Result<(), DedupeError> {
        let failed = |reason: String| DedupeError {
            verb: "written",
            reason,
        };
        if !self.is_current() {
            dedupe.lock().pop(key);
            return Err(failed(OVERTAKEN.to_owned()));
        }
        let epoch = self.epoch();
        let record = Record { epoch, ..record };
        match dedupe
            .log
            .put_session(key, stored::encode(&record).into(), revision)
            .await
        {
            Ok(revision) => {
                dedupe.lock().put(
                    key.to_owned(),
                    Cached {
                        epoch,
                        revision,
                        record,
                    },
                );
                Ok(())
            }
            Err(error) => {
                dedupe.lock().pop(key);
                Err(failed(error.to_string()))
            }
        }
    }
}

const OVERTAKEN: &str = "its partition is not this process's own any more";

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero_u32(number: &u32) -> bool {
    *number == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero_u64(number: &u64) -> bool {
    *number == 0
}
