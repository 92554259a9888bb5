//! How long conversations wait when a worker process is killed, with state of very many in the store.
//!
//! One process works in every partition; the moment it is killed another one is started. A partition is served when a
//! turn that came after the kill is answered.

use super::super::statistics::Samples;
use super::super::workers::feed::PARTITIONS;
use super::super::workers::{phone, tenant};
use super::graph::Graph;
use super::player::{NUMBERS, Played};
use super::stage::Stage;
use super::{Bench, Mode};
use ackline_shared::ids::{ConversationKey, TenantId};
use ackline_shared::partition;
use ackline_shared::subjects::{Pool, session_key};
use anyhow::{Context, Result, anyhow};
use async_nats::jetstream::context::PublishAckFuture;
use bytes::Bytes;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// The default of `pools.lease_ttl`: nobody may take over before.
const LEASE: Duration = Duration::from_secs(4);
/// Partitions of a tenant; the default.
const SHARDS: u8 = 4;
const RATE: f64 = 100.0;
const CALM: Duration = Duration::from_secs(3);
const LOAD_FOR: Duration = Duration::from_secs(20);
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
const IN_FLIGHT: usize = 1_024;
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(20);

/// What takeovers took.
#[derive(Debug, Default)]
pub struct Takeover {
    /// Conversations with state.
    pub conversations: u32,
    /// From the kill until every partition was served, beyond the lease; seconds.
    pub seconds: Samples,
    /// The same until the first was.
    pub first_seconds: Samples,
    /// Turns that were under way to the Graph API when the process was killed: they are never sent again.
    pub cut_off: u64,
}

/// Seeds the store and kills processes.
pub async fn measure(bench: &Bench<'_>, graph: &Arc<Graph>) -> Result<Takeover> {
    let mut took = Takeover {
        conversations: bench.options.pick(1_000_000, 10_000),
        ..Takeover::default()
    };
    let mut stage = Stage::start(&bench.root, Mode::Stored, graph).await?;
    let warm = stage.even(RATE, CALM).await?;
    let began = Instant::now();
    seed(&stage, &warm.played, took.conversations).await?;
    bench.say(&format!(
        "  state of {} conversations stored in {:.0} s",
        took.conversations,
        began.elapsed().as_secs_f64()
    ));
    for round in 0..bench.options.repeats(3) {
        let (victim, successor) = (round % 2, (round + 1) % 2);
        let (crew, player) = (&mut stage.crew, &mut stage.player);
        let kill = async {
            sleep(CALM).await;
            crew.kill(victim).await?;
            let killed = Instant::now();
            crew.hire(successor).await?;
            Ok::<_, anyhow::Error>(killed)
        };
        let (played, killed) = tokio::join!(player.even(RATE, LOAD_FOR), kill);
        let (played, killed) = (played?, killed?);
        player
            .answered(&played, Instant::now() + ANSWERED_WITHIN)
            .await;
        let served = player.served_after(&played, killed, partition_of);
        let beyond = |at: &Instant| {
            at.duration_since(killed)
                .saturating_sub(LEASE)
                .as_secs_f64()
        };
        let (first, last) = (served.values().min(), served.values().max());
        let (Some(first), Some(last), true) =
            (first, last, served.len() == usize::from(PARTITIONS))
        else {
            return Err(anyhow!(
                "{} of {PARTITIONS} partitions were served:\n{}",
                served.len(),
                stage.crew.log_tails()
            ));
        };
        took.first_seconds.push(beyond(first));
        took.seconds.push(beyond(last));
        bench.say(&format!(
            "  all partitions are served {:.2} s after the lease",
            beyond(last)
        ));
    }
    took.cut_off = stage.player.account().lost;
    Ok(took)
}

/// The partition of what a person writes.
fn partition_of(person: u32) -> Option<u16> {
    let (owner, conversation) = whose(person)?;
    Some(partition::of_conversation(&owner, &conversation, SHARDS, PARTITIONS).0)
}

/// The tenant and the conversation of a person.
fn whose(person: u32) -> Option<(TenantId, ConversationKey)> {
    let number = usize::try_from(person).ok()? % NUMBERS;
    let owner = TenantId::new(tenant(number)).ok()?;
    Some((owner, ConversationKey::user(&format!("US.{person:012}"))))
}

/// Where flows keep their state of a person's conversation.
fn key_of(person: u32) -> Result<String> {
    let (owner, conversation) = whose(person).context("a made-up id is refused")?;
    let number = usize::try_from(person)? % NUMBERS;
    Ok(session_key::of(
        Pool::Flows,
        &owner,
        &phone(number),
        &conversation,
    ))
}

/// Stores for so many people what flows stored for one of those who wrote.
async fn seed(stage: &Stage, played: &Played, conversations: u32) -> Result<()> {
    let context = stage.crew.context().await?;
    let sessions = context.get_key_value("sessions").await?;
    let person = played.people().next().context("nobody wrote")?;
    let state = sessions.get(key_of(person)?).await?;
    let mut state: Value = serde_json::from_slice(&state.context("flows kept no state")?)?;
    // What belongs to the partition it was written in.
    if let Some(state) = state.as_object_mut() {
        state.remove("fence");
    }
    let state = Bytes::from(state.to_string());
    let mut waiting: VecDeque<PublishAckFuture> = VecDeque::with_capacity(IN_FLIGHT);
    for person in 0..conversations {
        if waiting.len() == IN_FLIGHT {
            stored(waiting.pop_front()).await?;
        }
        let subject = format!("$KV.sessions.{}", key_of(person)?);
        waiting.push_back(context.publish(subject, state.clone()).await?);
    }
    while !waiting.is_empty() {
        stored(waiting.pop_front()).await?;
    }
    Ok(())
}

async fn stored(receipt: Option<PublishAckFuture>) -> Result<()> {
    if let Some(receipt) = receipt {
        timeout(ACKNOWLEDGED_WITHIN, receipt)
            .await
            .context("the broker did not answer")??;
    }
    Ok(())
}

/// By partition, when it was served first.
pub type Served = BTreeMap<u16, Instant>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_in_every_partition() {
        let partitions: std::collections::BTreeSet<_> = (0..500).filter_map(partition_of).collect();
        assert_eq!(partitions.len(), usize::from(PARTITIONS));
    }
}
