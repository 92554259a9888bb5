//! Reading and writing lines, within bounds of reads at once and bytes held.

use super::STORE_RETRY;
use super::copy;
use super::event::{Event, Item, Loaded};
use super::store::{Entry, Store};
use ackline_shared::subjects::{Pool, SpillLine};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::time::sleep;

/// What lines are read and written with.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    pub(super) pool: Pool,
    pub(super) store: Store,
    /// Reads at once.
    pub(super) turns: Arc<Semaphore>,
    /// Bytes read and not finished.
    pub(super) bytes: Arc<Semaphore>,
}

impl Shelf {
    /// Reads a line from a place on; its messages wait for their share of bytes.
    pub(super) async fn load(self, line: Arc<SpillLine>, session: u64, from: u64, max: usize) -> Event {
        let _turn = self.turns.acquire().await;
        let subject = line.subject(self.pool);
        let messages = match self.store.load(&subject, from, max).await {
            Ok(messages) => messages,
            Err(error) => return Event::Loaded(line, session, Err(error)),
        };
        if messages.is_empty() {
            // A follower may lag behind; the stream's leader knows.
            let counted = self.store.count(&subject).await;
            let counted = counted.map(|counts| Loaded::Nothing(counts.iter().map(|(_, count)| *count).sum()));
            return Event::Loaded(line, session, counted);
        }
        let mut loaded = Vec::with_capacity(messages.len());
        for message in messages {
            let size = u32::try_from(message.payload.len().max(1)).unwrap_or(u32::MAX);
            match self.bytes.clone().acquire_many_owned(size).await {
                Ok(permit) => loaded.push((message, permit)),
                Err(_) => return Event::Broken,
            }
        }
        Event::Loaded(line, session, Ok(Loaded::Messages(loaded)))
    }
}

/// What is stored of a batch; a copy of what the stream no longer has is of nothing that could come again.
pub(super) async fn entries_of(store: &Store, pool: Pool, batch: &[(Arc<SpillLine>, Item)]) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(batch.len());
    for (line, item) in batch {
        match item {
            Item::Moved(arrival) => entries.push(copy::write(pool, line, arrival)),
            Item::Twin { stream, sequence, .. } => {
                let original = loop {
                    match store.original(stream, *sequence).await {
                        Ok(original) => break original,
                        Err(error) => {
                            tracing::warn!(%pool, %error, "what should move out of the others' way stays in it");
                            sleep(STORE_RETRY).await;
                        }
                    }
                };
                entries.extend(original.map(|original| copy::of(pool, line, stream, original)));
            }
        }
    }
    entries
}

/// The lines among the subjects that the stream counts.
pub(super) fn lines_of(counts: Vec<(String, u64)>) -> Vec<(SpillLine, u64)> {
    counts.into_iter().filter_map(|(subject, count)| Some((SpillLine::parse(&subject)?.1, count))).collect()
}
