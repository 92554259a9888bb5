//! Reading and changing the entries of the `tuning` bucket, and telling who changed what.
//!
//! A change is one compare-and-set of a value that carries its author, so change and audit cannot part. Setting
//! everything back writes an empty value instead of removing the key: the removal has an author too.

use super::Stamped;
use ackline_shared::ids::TenantId;
use ackline_shared::stored::{self, Newer};
use ackline_shared::subjects::{Pool, tuning_key};
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::kv::{Entry, Operation, Store, UpdateErrorKind};
use futures_util::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;
use tokio::time::timeout;

/// Most changes that are told at once.
pub const HISTORY_MAX: usize = 1000;
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Why an entry cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TuningError {
    /// Somebody else changed it first.
    #[error("{0} was changed by somebody else meanwhile; nothing was written")]
    Conflict(String),
    /// NATS cannot be reached or refuses.
    #[error("the tuning bucket cannot be used: {0}; is NATS up?")]
    Away(String),
    /// What is stored is not to be written over.
    #[error("what is stored under {key}: {newer}")]
    Newer { key: String, newer: Newer },
    /// What is stored is not ours.
    #[error("what is stored under {key} does not parse ({reason}); set it anew")]
    Unreadable {
        key: String,
        reason: String,
        revision: u64,
    },
}

/// One change, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    pub revision: u64,
    /// When, in unix milliseconds; 0 when the author did not say.
    pub at_ms: u64,
    /// Who; a change made past this program says `unknown`.
    pub by: String,
    pub pool: &'static str,
    /// The tenant, when it is about one.
    pub tenant: Option<TenantId>,
    /// What was set before; nothing for a first change, or when the history does not reach back that far.
    pub from: Option<Value>,
    pub to: Option<Value>,
}

/// The bucket, for whoever reads and changes single entries.
#[derive(Debug, Clone)]
pub struct TuningStore(Store);

impl TuningStore {
    pub fn new(store: Store) -> Self {
        Self(store)
    }

    /// Reads an entry with its revision; the revision is that of a removal when there is none, or 0.
    pub async fn read<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<(u64, Option<Stamped<T>>), TuningError> {
        let Some(entry) = self.entry(key).await? else {
            return Ok((0, None));
        };
        if entry.operation != Operation::Put {
            return Ok((entry.revision, None));
        }
        stored::check::<Stamped<T>>(&entry.value).map_err(|newer| newer_under(key, newer))?;
        let parsed = stored::decode(&entry.value);
        let parsed = parsed.map_err(|error| TuningError::Unreadable {
            key: key.to_owned(),
            reason: error.to_string(),
            revision: entry.revision,
        })?;
        Ok((entry.revision, Some(parsed)))
    }

    /// Writes an entry if it still has the revision; gives the new one. Settings that this version does not know stay.
    pub async fn write<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        value: &Stamped<T>,
        revision: u64,
    ) -> Result<u64, TuningError> {
        let entry = self.entry(key).await?;
        let before = entry.filter(|entry| entry.operation == Operation::Put);
        let written = match before {
            Some(before) => stored::encode_over(value, &before.value)
                .map_err(|newer| newer_under(key, newer))?,
            None => stored::encode(value),
        };
        self.update(key, written, revision).await
    }

    /// Sets everything back that an entry says, if it still has the revision; gives the new one.
    pub async fn reset<T: Serialize + DeserializeOwned + Default>(
        &self,
        key: &str,
        nothing: &Stamped<T>,
        revision: u64,
    ) -> Result<u64, TuningError> {
        self.update(key, stored::encode(nothing), revision).await
    }

    async fn entry(&self, key: &str) -> Result<Option<Entry>, TuningError> {
        timeout(ANSWER_WAIT, self.0.entry(key))
            .await
            .map_err(|_| away("no answer in time"))?
            .map_err(away)
    }

    async fn update(&self, key: &str, written: Vec<u8>, revision: u64) -> Result<u64, TuningError> {
        let written = timeout(ANSWER_WAIT, self.0.update(key, written.into(), revision)).await;
        written
            .map_err(|_| away("no answer in time"))?
            .map_err(|error| match error.kind() {
                UpdateErrorKind::WrongLastRevision => TuningError::Conflict(key.to_owned()),
                _ => away(error),
            })
    }

    /// What is turned of a pool's tenants now, as it is stored; what does not parse is left out.
    pub async fn tenants(&self, pool: Pool) -> Result<Vec<(TenantId, Value)>, TuningError> {
        let mut tenants = BTreeMap::new();
        for change in self
            .history(HISTORY_MAX)
            .await?
            .into_iter()
            .filter(|change| change.pool == pool.as_str())
        {
            if let (Some(tenant), Some(value)) = (change.tenant, change.to) {
                tenants.entry(tenant).or_insert(value);
            }
        }
        Ok(tenants.into_iter().collect())
    }

    /// The changes that the bucket still knows, newest first, at most `limit`.
    pub async fn history(&self, limit: usize) -> Result<Vec<Change>, TuningError> {
        timeout(ANSWER_WAIT * 2, self.changes(limit.min(HISTORY_MAX)))
            .await
            .map_err(|_| away("no answer in time"))?
    }

    async fn changes(&self, limit: usize) -> Result<Vec<Change>, TuningError> {
        let config = OrderedConfig::default();
        let mut consumer = self.0.stream.create_consumer(config).await.map_err(away)?;
        let mut left = consumer.info().await.map_err(away)?.num_pending;
        let mut messages = consumer.messages().await.map_err(away)?;
        let mut last: HashMap<String, Option<Value>> = HashMap::new();
        let mut changes = VecDeque::new();
        while left > 0 {
            let Some(message) = messages.next().await else {
                break;
            };
            let message = message.map_err(away)?;
            left -= 1;
            let revision = message.info().map_err(away)?.stream_sequence;
            let Some(key) = message.subject.strip_prefix(&self.0.prefix) else {
                continue;
            };
            let Some((pool, tenant)) = tuning_key::parse(key) else {
                continue;
            };
            let stamped = serde_json::from_slice::<Stamped<Value>>(&message.payload).ok();
            let (by, at_ms) = stamped
                .as_ref()
                .map_or(("unknown".to_owned(), 0), |stamped| {
                    (stamped.by.clone(), stamped.at_ms)
                });
            let to = stamped.map(|stamped| stamped.value);
            let from = last.insert(key.to_owned(), to.clone()).flatten();
            changes.push_front(Change {
                revision,
                at_ms,
                by,
                pool: pool.as_str(),
                tenant,
                from,
                to,
            });
            changes.truncate(limit);
        }
        Ok(changes.into())
    }
}

fn newer_under(key: &str, newer: Newer) -> TuningError {
    TuningError::Newer {
        key: key.to_owned(),
        newer,
    }
}

fn away(error: impl ToString) -> TuningError {
    TuningError::Away(error.to_string())
}
