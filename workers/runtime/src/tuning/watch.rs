//! The live handle: a watch of the `tuning` bucket folded into a [`Table`].
//!
//! Readers take the table and never wait. While NATS is away the last table stays; after every new connection the
//! whole bucket is read again, because a watch may take longer than a second to notice what it missed.

use super::Table;
use ackline_shared::subjects::Pool;
use arc_swap::{ArcSwap, Guard};
use async_nats::Client;
use async_nats::jetstream::kv::{Entry, Operation, Store, Watch};
use futures_util::StreamExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

const REOPEN_DELAY: Duration = Duration::from_millis(200);
/// How often the number of connections is compared.
const CONNECTION_CHECK: Duration = Duration::from_millis(200);
/// Longest the server may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// A handle on the live settings; cheap to clone.
#[derive(Debug, Clone)]
pub struct Tuning {
    current: Arc<ArcSwap<Table>>,
    loaded: watch::Receiver<bool>,
    version: watch::Receiver<u64>,
}

impl Tuning {
    /// Starts following the bucket; the task ends when every handle is gone.
    pub fn watch(store: Store, client: Client) -> Self {
        let current = Arc::new(ArcSwap::from_pointee(Table::default()));
        let (loaded_sender, loaded) = watch::channel(false);
        let (version_sender, version) = watch::channel(0);
        let follower = Follower {
            store,
            client,
            current: current.clone(),
            loaded: loaded_sender,
            version: version_sender,
        };
        tokio::spawn(follower.run());
        Self {
            current,
            loaded,
            version,
        }
    }

    pub fn table(&self) -> Guard<Arc<Table>> {
        self.current.load()
    }

    /// Waits until the bucket has been read once, or the deadline passes; tells which.
    pub async fn loaded(&self, deadline: Duration) -> bool {
        let mut loaded = self.loaded.clone();
        matches!(
            timeout(deadline, loaded.wait_for(|loaded| *loaded)).await,
            Ok(Ok(_))
        )
    }

    /// Waits while a pool is paused.
    pub async fn unpaused(&self, pool: Pool) {
        let mut watching = self.clone();
        while watching
            .table()
            .pool(pool)
            .is_some_and(|entry| entry.value.paused)
        {
            watching.changed().await;
        }
    }

    /// Waits for the next change this handle has not seen; never ends when there will be none.
    pub async fn changed(&mut self) {
        if self.version.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

struct Follower {
    store: Store,
    client: Client,
    current: Arc<ArcSwap<Table>>,
    loaded: watch::Sender<bool>,
    version: watch::Sender<u64>,
}

impl Follower {
    async fn run(self) {
        while !self.loaded.is_closed() {
            if let Err(error) = self.follow().await {
                tracing::warn!(%error, "the live settings cannot be read; trying again");
            }
            tokio::time::sleep(REOPEN_DELAY).await;
        }
    }

    /// Reads the whole bucket, then follows changes; returns when the watch breaks, the connection was renewed or
    /// nobody listens.
    async fn follow(&self) -> Result<(), async_nats::Error> {
        let connects = self.connects();
        let mut watch = timeout(ANSWER_WAIT, self.store.watch_many_with_history([">"])).await??;
        // An empty bucket sends nothing.
        let empty = timeout(ANSWER_WAIT, self.store.stream.get_info())
            .await??
            .state
            .messages
            == 0;
        let mut building = Table::default();
        if empty {
            self.publish(&building);
        } else {
            self.read_whole(&mut watch, &mut building).await?;
        }
        let mut check = interval(CONNECTION_CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                next = watch.next() => match next.transpose()? {
                    Some(entry) => {
                        fold(&mut building, &entry);
                        self.publish(&building);
                    }
                    None => return Ok(()),
                },
                _ = check.tick() => if self.connects() != connects { return Ok(()) },
                () = self.loaded.closed() => return Ok(()),
            }
        }
    }

    async fn read_whole(
        &self,
        watch: &mut Watch,
        building: &mut Table,
    ) -> Result<(), async_nats::Error> {
        while let Some(entry) = timeout(ANSWER_WAIT, watch.next()).await?.transpose()? {
            fold(building, &entry);
            if entry.delta == 0 {
                self.publish(building);
                return Ok(());
            }
        }
        Ok(())
    }

    fn connects(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    fn publish(&self, table: &Table) {
        self.current.store(Arc::new(table.clone()));
        self.version.send_modify(|version| *version += 1);
        self.loaded.send_replace(true);
    }
}

fn fold(table: &mut Table, entry: &Entry) {
    let value = (entry.operation == Operation::Put).then_some(&entry.value[..]);
    if let Err(error) = table.fold(&entry.key, value) {
        tracing::warn!(key = entry.key, %error, "this live setting does not parse and is left out");
    }
}
