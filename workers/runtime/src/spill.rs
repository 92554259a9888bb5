//! Spill queues in the SPILL stream: what the machine asks of them, done. A full or failing SPILL moves nobody: what
//! should move stays in memory and unacknowledged until it is stored.

mod copy;
mod references;
mod store;

pub use copy::{Note, Reference};
pub use references::References;
pub use store::{SpillEntry, Store, StoreError, original};

use super::intake::{Arrival, Original};
use ackline_engine::state::Copy;
use ackline_shared::subjects::{self, Partition, Pool, SpillQueue};
use async_nats::jetstream::Context;
use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Spill queues read at once.
const LOADS_MAX: usize = 8;
/// Payloads of one read that are fetched at once from where they stayed.
const FETCHES_MAX: usize = 8;
/// Pause after SPILL could not be read or written.
const STORE_RETRY: Duration = Duration::from_millis(500);

/// SPILL for one pool in this process, and what it is doing.
#[derive(Debug)]
pub struct Spill {
    pool: Pool,
    store: Store,
    turns: Arc<Semaphore>,
    /// Bytes read and not finished.
    bytes: Arc<Semaphore>,
    bytes_max: usize,
    tasks: JoinSet<Event>,
}

/// Something that was asked for is done, or not.
#[derive(Debug)]
pub enum Event {
    /// A partition's spill queues were counted for one reading of it.
    Counted(Partition, u64, Vec<(SpillQueue, u64)>),
    /// All of the pool's were counted.
    Recounted(Vec<(SpillQueue, u64)>),
    /// One was read for one reading of its partition.
    Loaded(Arc<SpillQueue>, u64, Loaded),
    Stored(Vec<Copy<Arc<Arrival>>>),
    /// The front of one was taken out, or not.
    Removed(Arc<SpillQueue>, u64, bool),
    /// A task of ours broke.
    Broken,
}

#[derive(Debug)]
pub enum Loaded {
    /// These entries, and how many come after them.
    Entries(Vec<Loading>, u64),
    /// Nothing, and the stream has this many.
    Nothing(u64),
    Failed,
}

/// An entry that was read.
#[derive(Debug)]
pub struct Loading {
    pub sequence: u64,
    /// The update as its own stream had it.
    pub original: Original,
    /// What is known of its waits.
    pub note: Note,
    /// Why it cannot be worked on, where its payload is gone.
    pub defect: Option<String>,
    /// Its share of the bytes read ahead.
    pub permit: OwnedSemaphorePermit,
}

impl Spill {
    /// Does nothing yet; what is read ahead is bounded in bytes.
    pub fn new(pool: Pool, context: Context, bytes_max: usize) -> Self {
        let bytes_max = bytes_max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            pool,
            store: Store::new(context),
            turns: Arc::new(Semaphore::new(LOADS_MAX)),
            bytes: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
            tasks: JoinSet::new(),
        }
    }

    /// Waits for the next event; cancelling it loses none.
    pub async fn next(&mut self) -> Event {
        match self.tasks.join_next().await {
            Some(event) => event.unwrap_or(Event::Broken),
            None => std::future::pending().await,
        }
    }

    /// Counts the spill queues of a partition, however long that takes.
    pub fn look_up(&mut self, partition: Partition, session: u64) {
        let (store, pool) = (self.store.clone(), self.pool);
        self.tasks.spawn(async move {
            loop {
                match store.count(&subjects::spill_filter(pool, Some(partition))).await {
                    Ok(counts) => return Event::Counted(partition, session, queues_of(counts)),
                    Err(error) => {
                        tracing::warn!(%pool, %partition, %error, "a partition waits for its spill queues");
                        sleep(STORE_RETRY).await;
                    }
                }
            }
        });
    }

    /// Counts all spill queues of the pool.
    pub fn look_again(&mut self) {
        let (store, pool) = (self.store.clone(), self.pool);
        self.tasks.spawn(async move {
            let counts = store
                .count(&subjects::spill_filter(pool, None))
                .await
                .unwrap_or_default();
            Event::Recounted(queues_of(counts))
        });
    }

    /// Reads one from a sequence on.
    pub fn load(&mut self, queue: Arc<SpillQueue>, session: u64, from: u64, max: usize) {
        let (store, pool) = (self.store.clone(), self.pool);
        let (turns, bytes) = (self.turns.clone(), (self.bytes.clone(), self.bytes_max));
        self.tasks.spawn(async move {
            let _turn = turns.acquire_owned().await;
            let loaded = match load(&store, &queue.subject(pool), bytes, from, max).await {
                Ok(loaded) => loaded,
                Err(error) => {
                    tracing::warn!(%pool, tenant = %queue.tenant, %error, "a spill queue waits");
                    Loaded::Failed
                }
            };
            Event::Loaded(queue, session, loaded)
        });
    }

    /// Stores a batch, however long that takes.
    pub fn store(&mut self, batch: Vec<Copy<Arc<Arrival>>>) {
        let (store, pool) = (self.store.clone(), self.pool);
        self.tasks.spawn(async move {
            let entries: Vec<SpillEntry> = batch.iter().map(|copy| copy::write(pool, copy)).collect();
            while let Err(error) = store.append(&entries).await {
                tracing::warn!(%pool, %error, "what should move out of the others' way stays in it");
                sleep(STORE_RETRY).await;
            }
            Event::Stored(batch)
        });
    }

    /// Takes the front of one out, up to a sequence.
    pub fn remove(&mut self, queue: Arc<SpillQueue>, up_to: u64) {
        let (store, pool) = (self.store.clone(), self.pool);
        self.tasks.spawn(async move {
            let removed = store.remove(&queue.subject(pool), up_to).await;
            if let Err(error) = &removed {
                tracing::warn!(%pool, tenant = %queue.tenant, %error, "finished updates stay in a spill queue for now");
                sleep(STORE_RETRY).await;
            }
            Event::Removed(queue, up_to, removed.is_ok())
        });
    }
}

async fn load(
    store: &Store,
    subject: &str,
    (bytes, bytes_max): (Arc<Semaphore>, usize),
    from: u64,
    max: usize,
) -> Result<Loaded, StoreError> {
    let (messages, left) = store.load(subject, from, max).await?;
    if messages.is_empty() {
        // A follower may lag behind; the stream's leader knows.
        let counts = store.count(subject).await?;
        return Ok(Loaded::Nothing(
            counts.iter().map(|(_, count)| *count).sum(),
        ));
    }
    let total = messages.len();
    let mut admitted = Vec::with_capacity(total);
    for message in messages {
        let reference = copy::reference(&message.headers);
        let size = reference
            .as_ref()
            .map_or(message.payload.len(), |reference| reference.length)
            .clamp(1, bytes_max);
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        // Where others hold all bytes, what was read so far goes on: their work gives the rest back.
        let permit = match admitted.is_empty() {
            true => bytes.clone().acquire_many_owned(size).await.ok(),
            false => bytes.clone().try_acquire_many_owned(size).ok(),
        };
        let Some(permit) = permit else { break };
        admitted.push((message, reference, permit));
    }
    let entries: Vec<Loading> = stream::iter(admitted)
        .map(|(message, reference, permit)| complete(store, message, reference, permit))
        .buffered(FETCHES_MAX)
        .try_collect()
        .await?;
    let dropped = u64::try_from(total - entries.len()).unwrap_or(u64::MAX);
    Ok(Loaded::Entries(entries, left.saturating_add(dropped)))
}

/// Reads an entry, with the payload that it may refer to.
async fn complete(
    store: &Store,
    message: StreamMessage,
    reference: Option<Reference>,
    permit: OwnedSemaphorePermit,
) -> Result<Loading, StoreError> {
    let (sequence, note) = (message.sequence, copy::note(&message.headers));
    let (mut defect, mut referred) = (None, None);
    if let Some(reference) = reference {
        let found = store.original(&reference).await?;
        if found.is_none() {
            defect = Some(format!(
                "it waited so long that its payload is gone from {}",
                reference.stream
            ));
        }
        let payload = found.map_or_else(Bytes::new, |found| found.payload);
        referred = Some((reference.length, payload));
    }
    Ok(Loading {
        sequence,
        original: copy::read(message, referred),
        note,
        defect,
        permit,
    })
}

/// The spill queues among the subjects that the stream counts.
fn queues_of(counts: Vec<(String, u64)>) -> Vec<(SpillQueue, u64)> {
    counts
        .into_iter()
        .filter_map(|(subject, count)| Some((SpillQueue::parse(&subject)?.1, count)))
        .collect()
}
