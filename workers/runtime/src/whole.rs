//! Payloads that do not fit their dead letters, kept whole beside them.
//!
//! A dead letter has more headers than what it is about, so one may be larger than nats-server takes. It holds the beginning
//! then, and the object store the whole for as long. Where that could not be kept, the message it came from still has it,
//! until that is removed.

use super::log::Log;
use ackline_shared::subjects::{DEAD, OBJECTS_DEAD};
use async_nats::connection::State;
use async_nats::jetstream::object_store::{Config, ObjectMetadata, ObjectStore};
use async_nats::jetstream::stream::StorageType;
use bytes::Bytes;
use tokio::io::AsyncReadExt;

/// The store gets one part in this many of what DEAD gets.
const FRACTION: i64 = 8;
const BYTES_MIN: i64 = 16 << 20;
const CHUNK_BYTES: usize = 128 << 10;
/// No message of ours is longer.
const LENGTH_MAX: u64 = 64 << 20;

/// A payload of which a dead letter has only the beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// The dead letter's message id, under which it is kept.
    pub name: String,
    pub length: u64,
}

/// Keeps a payload; keeping it again changes nothing. An error means that NATS is away, and nothing else is worth waiting for.
pub async fn keep(log: &Log, name: &str, payload: &Bytes) -> Result<(), async_nats::Error> {
    let Err(error) = put(log, name, payload).await else {
        return Ok(());
    };
    if is_away(log) {
        return Err(error);
    }
    tracing::error!(%error, "a dead letter is stored without its whole payload, which stays in its stream for as long as that keeps it");
    Ok(())
}

async fn put(log: &Log, name: &str, payload: &Bytes) -> Result<(), async_nats::Error> {
    let store = open(log).await?;
    if let Ok(object) = store.info(name).await
        && object.size == payload.len()
        && !object.deleted
    {
        return Ok(());
    }
    let chunk = CHUNK_BYTES.min(log.message_bytes_max() / 2).max(1);
    let object = ObjectMetadata {
        name: name.to_owned(),
        chunk_size: Some(chunk),
        ..ObjectMetadata::default()
    };
    store.put(object, &mut payload.as_ref()).await?;
    Ok(())
}

async fn open(log: &Log) -> Result<ObjectStore, async_nats::Error> {
    let context = log.context();
    if let Ok(store) = context.get_object_store(OBJECTS_DEAD).await {
        return Ok(store);
    }
    let dead = context.get_stream(DEAD).await?;
    let like = &dead.cached_info().config;
    let config = Config {
        bucket: OBJECTS_DEAD.to_owned(),
        max_age: like.max_age,
        max_bytes: if like.max_bytes > 0 {
            (like.max_bytes / FRACTION).max(BYTES_MIN)
        } else {
            -1
        },
        storage: StorageType::File,
        num_replicas: like.num_replicas,
        ..Config::default()
    };
    Ok(context.create_object_store(config).await?)
}

/// Brings a payload back, from the store or else from the message it came from; `None` when neither has it.
pub async fn fetch(
    log: &Log,
    whole: &Whole,
    origin: Option<(&str, u64)>,
) -> Result<Option<Bytes>, async_nats::Error> {
    let kept = match read(log, whole).await {
        Some(payload) => Some(payload),
        None => match origin {
            Some((stream, sequence)) => original(log, stream, sequence).await,
            None => None,
        },
    };
    let kept = kept.filter(|payload| u64::try_from(payload.len()) == Ok(whole.length));
    if kept.is_none() && is_away(log) {
        return Err("NATS is away".into());
    }
    Ok(kept)
}

async fn read(log: &Log, whole: &Whole) -> Option<Bytes> {
    let store = log.context().get_object_store(OBJECTS_DEAD).await.ok()?;
    let object = store.get(&whole.name).await.ok()?;
    let mut payload = Vec::new();
    object
        .take(whole.length.min(LENGTH_MAX))
        .read_to_end(&mut payload)
        .await
        .ok()?;
    Some(payload.into())
}

async fn original(log: &Log, stream: &str, sequence: u64) -> Option<Bytes> {
    let stream = log.context().get_stream_no_info(stream).await.ok()?;
    Some(stream.direct_get(sequence).await.ok()?.payload)
}

fn is_away(log: &Log) -> bool {
    log.context().client().connection_state() != State::Connected
}
