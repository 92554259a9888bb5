//! Building the read model again from what the log still holds, ordered from outside and done by the pool's owner.
//!
//! A request is one record. The process that owns the pool moves the file away, takes the consumer away so that the next
//! one begins at the start of the stream, and notes that it did. Each step may be repeated: a crash between two of them
//! does the earlier ones again, and folding the log twice changes nothing.

use super::store::Journal;
use ackline_runtime::upkeep::{connects, reconnected};
use ackline_shared::clock::now_ms;
use ackline_shared::ids::hex;
use ackline_shared::shutdown::{Shutdown, ended};
use ackline_shared::stored::{self, Stored};
use ackline_shared::subjects::journal_key;
use async_nats::Client;
use async_nats::jetstream::kv::{Operation, Store};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// A request to build the read model again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuild {
    /// Its id, also in the name that the old file gets.
    pub id: String,
    pub by: String,
    pub at_ms: u64,
    /// When the new file was begun, in unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_ms: Option<u64>,
    /// Where the old file is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<String>,
    /// Why it could not be begun the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Stored for Rebuild {}

impl Rebuild {
    pub fn new(by: String) -> Self {
        let id = hex(&rand::random::<[u8; 4]>());
        Self {
            id,
            by,
            at_ms: now_ms(),
            begun_ms: None,
            moved_to: None,
            problem: None,
        }
    }
}

/// The bucket cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the request to rebuild the journal cannot be read or written: {0}")]
pub struct RebuildError(String);

impl RebuildError {
    fn new(error: impl ToString) -> Self {
        Self(error.to_string())
    }
}

/// The request, as it is stored, and the one that waits to be carried out here.
#[derive(Debug, Clone)]
pub struct Rebuilds {
    store: Store,
    wanted: watch::Sender<Option<Rebuild>>,
}

impl Rebuilds {
    pub fn new(store: Store) -> Self {
        Self {
            store,
            wanted: watch::channel(None).0,
        }
    }

    pub async fn last(&self) -> Result<Option<Rebuild>, RebuildError> {
        let found = self
            .store
            .get(journal_key::REBUILD)
            .await
            .map_err(RebuildError::new)?;
        Ok(found.and_then(|bytes| stored::decode(&bytes).ok()))
    }

    /// Stores a request, or writes how it stands.
    pub async fn write(&self, rebuild: &Rebuild) -> Result<(), RebuildError> {
        let put = self
            .store
            .put(journal_key::REBUILD, stored::encode(rebuild).into())
            .await;
        put.map(drop).map_err(RebuildError::new)
    }

    /// Hears of requests until the signal.
    pub async fn follow(self, client: Client, mut shutdown: Shutdown) {
        let hearing = async {
            loop {
                let connected = connects(&client);
                if let Ok(mut watch) = self.store.watch_with_history(journal_key::REBUILD).await {
                    loop {
                        let next = tokio::select! {
                            next = watch.next() => next,
                            () = reconnected(&client, connected) => break,
                        };
                        let Some(Ok(entry)) = next else { break };
                        let request = stored::decode::<Rebuild>(&entry.value).ok();
                        let request = request.filter(|_| entry.operation == Operation::Put);
                        self.wanted
                            .send_replace(request.filter(|request| request.begun_ms.is_none()));
                    }
                }
                sleep(REOPEN_PAUSE).await;
            }
        };
        tokio::select! {
            () = ended(&mut shutdown) => {}
            () = hearing => {}
        }
    }

    /// Waits until there is a request that nobody has begun.
    pub async fn wanted(&self) {
        let mut wanted = self.wanted.subscribe();
        if wanted.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Begins a new file for the request; what went wrong stands in it.
    pub async fn begin(&self, journal: &Journal) -> Result<(), String> {
        let Some(mut request) = self.wanted.borrow().clone() else {
            return Ok(());
        };
        let begun = journal.begin_anew(&request.id).await;
        match &begun {
            Ok(old_file) => request.moved_to = Some(old_file.display().to_string()),
            Err(error) => request.problem = Some(error.to_string()),
        }
        self.wanted.send_replace(Some(request.clone()));
        if let Err(error) = begun {
            self.write(&request)
                .await
                .map_err(|error| error.to_string())?;
            return Err(error.to_string());
        }
        tracing::warn!(
            request = request.id,
            by = request.by,
            moved_to = request.moved_to,
            "the read model is built again from the log"
        );
        Ok(())
    }

    /// Notes that the new file was begun and everything is read again.
    pub async fn begun(&self) -> Result<(), String> {
        let Some(mut request) = self.wanted.borrow().clone() else {
            return Ok(());
        };
        (request.begun_ms, request.problem) = (Some(now_ms()), None);
        self.write(&request)
            .await
            .map_err(|error| error.to_string())?;
        self.wanted.send_replace(None);
        Ok(())
    }
}
