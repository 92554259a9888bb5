//! The registry's source of whoever uses async-nats: a watch of the whole bucket.

use super::{Registry, RegistryWriter};
use async_nats::Client;
use async_nats::jetstream::kv::{Operation, Store};
use futures_util::StreamExt;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// How often the number of connections is compared.
const CONNECTION_CHECK: Duration = Duration::from_millis(200);
const REOPEN_DELAY: Duration = Duration::from_millis(500);
/// A bucket without keys sends nothing; after this long silence the table counts as loaded, and empty. In the middle of a
/// table it is read anew.
const FIRST_ENTRY_WAIT: Duration = Duration::from_secs(5);

impl Registry {
    /// Starts watching the bucket; the task ends when every handle is gone.
    pub fn watch(store: Store, client: Client) -> Self {
        let (registry, writer) = Self::writable();
        tokio::spawn(run(store, client, writer));
        registry
    }
}

async fn run(store: Store, client: Client, mut writer: RegistryWriter) {
    while !writer.is_unread() {
        if let Err(error) = follow(&store, &client, &mut writer).await {
            tracing::warn!(%error, "the watch of the configuration broke; opening it again");
        }
        tokio::time::sleep(REOPEN_DELAY).await;
    }
}

/// Reads the whole table anew, then follows changes; returns when the watch breaks, the connection was renewed or nobody
/// listens. Behind a new connection the bucket may be another one, of which a watch would miss the beginning.
async fn follow(
    store: &Store,
    client: &Client,
    writer: &mut RegistryWriter,
) -> Result<(), async_nats::Error> {
    let connects = || client.statistics().connects.load(Ordering::Relaxed);
    let connected = connects();
    let mut check = interval(CONNECTION_CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = store.watch_many_with_history([">"]).await?;
    writer.begin();
    loop {
        let next = if writer.is_whole() {
            tokio::select! {
                next = watch.next() => next,
                _ = check.tick() => {
                    if connects() != connected {
                        return Ok(());
                    }
                    continue;
                }
                () = writer.unread() => return Ok(()),
            }
        } else {
            match tokio::time::timeout(FIRST_ENTRY_WAIT, watch.next()).await {
                Ok(next) => next,
                Err(_) if writer.is_empty() => {
                    writer.complete();
                    continue;
                }
                Err(_) => return Err("the server fell silent in the middle of the table".into()),
            }
        };
        let Some(entry) = next.transpose()? else {
            return Ok(());
        };
        writer.reach(entry.revision);
        writer.take(
            &entry.key,
            (entry.operation == Operation::Put).then_some(&entry.value[..]),
        );
        if entry.delta == 0 {
            writer.complete();
        }
    }
}
