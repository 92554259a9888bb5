//! What the `config` bucket holds now, with the revision of every key.

use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::config_key;
use ackline_shared::vault::{Sealed, VaultError, VaultKey};
use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::kv::{Operation, Store};
use async_nats::jetstream::{Context, ErrorCode};
use bytes::Bytes;
use futures_util::StreamExt;
use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;
use tokio::time::timeout;

const ENTRY_WAIT: Duration = Duration::from_secs(5);

/// What is stored cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("what is stored cannot be read from NATS: {0}; is JetStream enabled and healthy?")]
pub struct ReadError(String);

/// Opens a bucket without creating it; `None` when it does not exist.
pub async fn open(context: &Context, bucket: &str) -> Result<Option<Store>, ReadError> {
    let error = match context.get_key_value(bucket).await {
        Ok(store) => return Ok(Some(store)),
        Err(error) => error,
    };
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<GetStreamError>());
    match cause.map(GetStreamError::kind) {
        Some(GetStreamErrorKind::JetStream(cause))
            if cause.error_code() == ErrorCode::STREAM_NOT_FOUND =>
        {
            Ok(None)
        }
        _ => Err(ReadError(error.to_string())),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// The revision to expect when writing it.
    pub revision: u64,
    pub value: Bytes,
}

#[derive(Debug, Clone, Default)]
pub struct Stored(pub BTreeMap<String, StoredEntry>);

impl Stored {
    pub async fn load(store: &Store) -> Result<Self, ReadError> {
        let failed = |error: &dyn std::fmt::Display| ReadError(error.to_string());
        let mut entries = BTreeMap::new();
        // A watch of a bucket without entries says nothing, so that case is told apart first. The handle's own
        // status may be from before the latest writes.
        let info = store
            .stream
            .get_info()
            .await
            .map_err(|error| failed(&error))?;
        if info.state.messages == 0 {
            return Ok(Self(entries));
        }
        let mut watch = store
            .watch_with_history(">")
            .await
            .map_err(|error| failed(&error))?;
        loop {
            let next = timeout(ENTRY_WAIT, watch.next())
                .await
                .map_err(|_| failed(&"no answer in time"))?;
            let entry = next
                .ok_or_else(|| failed(&"it ended early"))?
                .map_err(|error| failed(&error))?;
            let last = entry.delta == 0;
            match entry.operation {
                Operation::Put => {
                    entries.insert(
                        entry.key,
                        StoredEntry {
                            revision: entry.revision,
                            value: entry.value,
                        },
                    );
                }
                _ => {
                    entries.remove(&entry.key);
                }
            }
            if last {
                return Ok(Self(entries));
            }
        }
    }

    /// The data key of a scope; `None` when there is none yet.
    pub fn data_key(&self, master: &VaultKey, scope: &str) -> Option<Result<VaultKey, VaultError>> {
        let entry = self.0.get(&config_key::data_key(scope))?;
        let opened = serde_json::from_slice::<Sealed>(&entry.value)
            .map_err(|_| VaultError::Open {
                scope: scope.to_owned(),
            })
            .and_then(|sealed| VaultKey::open_under(master, scope, &sealed));
        Some(opened)
    }

    /// The same as the programs hold it, and the keys that they cannot read.
    pub fn snapshot(&self) -> (Snapshot, Vec<String>) {
        let mut snapshot = Snapshot::default();
        let unreadable = self
            .0
            .iter()
            .filter(|(key, entry)| snapshot.fold(key, Some(&entry.value)).is_err());
        let unreadable = unreadable.map(|(key, _)| key.clone()).collect();
        (snapshot, unreadable)
    }
}
