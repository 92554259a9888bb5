//! What an installation still has to do: tells what is stuck from what is gone.

use super::stream::{Seen, read};
use ackline_shared::subjects::{
    OUTBOUND, OUTBOUND_SUBJECTS, Pool, SPILL, SPILL_SUBJECTS, UPDATES, UPDATES_SUBJECTS,
};
use anyhow::{Context, Result};
use async_nats::jetstream;
use futures_util::TryStreamExt;
use std::collections::{HashMap, HashSet};

/// A look at what is not acknowledged, and at the spill queues.
#[derive(Debug)]
pub struct Held {
    /// Partitions of pools in which something is not acknowledged.
    busy: HashSet<(Pool, u16)>,
    in_queues: HashSet<u32>,
    /// The partition of each update, and of the command it led to.
    updates: HashMap<u32, u16>,
    commands: HashMap<u32, u16>,
}

impl Held {
    pub async fn look(context: &jetstream::Context) -> Result<Self> {
        let mut busy = HashSet::new();
        for stream in [UPDATES, OUTBOUND] {
            let stream = context.get_stream(stream).await?;
            let consumers: Vec<_> = stream
                .consumers()
                .try_collect()
                .await
                .context("listing consumers")?;
            let open = consumers
                .iter()
                .filter(|consumer| consumer.num_pending + consumer.num_ack_pending as u64 > 0);
            busy.extend(open.filter_map(|consumer| owner(&consumer.name)));
        }
        let partitions = |seen: Vec<Seen>| {
            seen.into_iter()
                .map(|seen| (seen.serial, seen.partition))
                .collect()
        };
        let lines = read(context, SPILL, SPILL_SUBJECTS[0]).await?;
        Ok(Self {
            busy,
            in_queues: lines.iter().map(|seen| seen.serial).collect(),
            updates: partitions(read(context, UPDATES, UPDATES_SUBJECTS[0]).await?),
            commands: partitions(read(context, OUTBOUND, OUTBOUND_SUBJECTS[0]).await?),
        })
    }

    /// Whether a pool, or for replies the flows before it, may still have an update.
    pub fn has(&self, pool: Pool, serial: u32) -> bool {
        let (update, command) = (self.updates.get(&serial), self.commands.get(&serial));
        let place = match (pool, command) {
            (Pool::Replies, Some(&partition)) => Some((Pool::Replies, partition)),
            (Pool::Replies, None) => update.map(|&partition| (Pool::Flows, partition)),
            (pool, _) => update.map(|&partition| (pool, partition)),
        };
        self.in_queues.contains(&serial) || place.is_some_and(|place| self.busy.contains(&place))
    }
}

/// The pool and the partition of a consumer, by its name.
fn owner(name: &str) -> Option<(Pool, u16)> {
    let mut parts = name.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
