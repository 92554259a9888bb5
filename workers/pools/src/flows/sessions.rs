//! The sessions of conversations: read from the store at most once while they are in use, and written by compare and
//! set.
//!
//! What this process wrote last is remembered. That may be outdated: the API writes owners into the same records, and
//! another process may have had the conversation. So nothing is decided for good by it but with a write, which the store
//! refuses when it is outdated; whoever would not write looks again.

use ackline_engine::owner::Owner;
use ackline_flow::session::{Kept, Moved, Session, SessionError};
use ackline_runtime::group_commit::WriteError;
use ackline_runtime::log::Log;
use ackline_runtime::platform::Platform;
use async_nats::jetstream::kv::Store;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Conversations of which it is remembered that nothing is kept under an earlier id.
const ALONE_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(32_767);
/// Bytes of the sessions remembered, as they are stored.
const BYTES_MAX: usize = 32 << 20;

/// A session as it stands in the store, or may stand there.
#[derive(Debug, Clone)]
pub struct StoredSession {
    /// What to write it back under.
    pub revision: u64,
    pub session: Option<Session>,
    pub owner: Option<Owner>,
    /// Where the conversation goes on.
    pub moved: Option<Moved>,
    /// Whether the store was asked.
    pub is_read: bool,
}

const NONE: StoredSession = StoredSession {
    revision: 0,
    session: None,
    owner: None,
    moved: None,
    is_read: true,
};

/// Why a session was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum SessionStoreError {
    #[error("the session was not read: {0}")]
    Unread(String),
    /// A newer version wrote it, and it is not written over.
    #[error(transparent)]
    Newer(SessionError),
    /// Something else was written meanwhile.
    #[error("the session was written by somebody else meanwhile")]
    Overtaken,
    #[error("the session was not written: {0}")]
    Unwritten(String),
}

/// The sessions of all conversations.
#[derive(Debug)]
pub struct Sessions {
    log: Log,
    store: Store,
    recent: Mutex<Recent>,
    alone: Mutex<LruCache<String, ()>>,
}

#[derive(Debug)]
struct Recent {
    sessions: LruCache<String, (usize, StoredSession)>,
    bytes: usize,
}

impl Sessions {
    pub fn new(platform: &Platform) -> Self {
        let recent = Recent {
            sessions: LruCache::unbounded(),
            bytes: 0,
        };
        Self {
            log: platform.log.clone(),
            store: platform.buckets.sessions.clone(),
            recent: Mutex::new(recent),
            alone: Mutex::new(LruCache::new(ALONE_MAX)),
        }
    }

    /// Whether it was looked whether anything is kept of a conversation under an earlier id, and nothing was.
    pub fn is_alone(&self, key: &str) -> bool {
        let mut alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        alone.get(key).is_some()
    }

    pub fn note_alone(&self, key: &str) {
        let mut alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        alone.put(key.to_owned(), ());
    }

    /// What was written last, without asking.
    pub fn remembered(&self, key: &str) -> Option<StoredSession> {
        let mut recent = self.lock();
        let known = recent.sessions.get(key);
        known.map(|(_, known)| known.clone())
    }

    /// What is stored.
    pub async fn read(&self, key: &str) -> Result<StoredSession, SessionStoreError> {
        self.lock().forget(key);
        let entry = self.store.entry(key).await;
        let entry = entry.map_err(|error| SessionStoreError::Unread(error.to_string()))?;
        let Some(entry) = entry else {
            return Ok(NONE);
        };
        let kept = match Kept::from_json(&entry.value) {
            Ok(kept) => kept,
            Err(error @ SessionError::Schema(_)) => return Err(SessionStoreError::Newer(error)),
            Err(error) => {
                tracing::warn!(%error, "a conversation starts anew");
                Kept {
                    session: None,
                    owner: None,
                    moved: None,
                }
            }
        };
        Ok(StoredSession {
            revision: entry.revision,
            session: kept.session,
            owner: kept.owner,
            moved: kept.moved,
            is_read: true,
        })
    }

    /// Writes a session over what stood there under a revision.
    pub async fn write(
        &self,
        key: &str,
        revision: u64,
        session: &Session,
    ) -> Result<(), SessionStoreError> {
        let json = session.to_json();
        let bytes = json.len() + key.len();
        match self.log.put_session(key, json.into(), revision).await {
            Ok(revision) => {
                let written = StoredSession {
                    revision,
                    session: Some(session.clone()),
                    owner: session.owner().cloned(),
                    moved: None,
                    is_read: false,
                };
                self.lock().keep(key, bytes, written);
                Ok(())
            }
            Err(error) => {
                self.lock().forget(key);
                Err(match error {
                    WriteError::Overtaken => SessionStoreError::Overtaken,
                    WriteError::Failed(reason) => SessionStoreError::Unwritten(reason),
                })
            }
        }
    }

    /// Forgets a session that somebody else may have written.
    pub fn forget(&self, key: &str) {
        self.lock().forget(key);
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    /// Remembers a session, at the cost of those that were not in use for longest.
    fn keep(&mut self, key: &str, bytes: usize, session: StoredSession) {
        self.forget(key);
        self.bytes += bytes;
        self.sessions.put(key.to_owned(), (bytes, session));
        while self.bytes > BYTES_MAX {
            let Some((_, (bytes, _))) = self.sessions.pop_lru() else {
                return;
            };
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    fn forget(&mut self, key: &str) {
        if let Some((bytes, _)) = self.sessions.pop(key) {
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_in_bytes() {
        let mut recent = Recent {
            sessions: LruCache::unbounded(),
            bytes: 0,
        };
        for key in ["a", "b", "c", "c"] {
            recent.keep(key, BYTES_MAX / 2, NONE);
        }
        let keys: Vec<&str> = recent
            .sessions
            .iter()
            .map(|(key, _)| key.as_str())
            .collect();
        assert_eq!((keys, recent.bytes), (vec!["c", "b"], BYTES_MAX));
        recent.keep("large", BYTES_MAX + 1, NONE);
        assert_eq!((recent.sessions.len(), recent.bytes), (0, 0));
    }
}
