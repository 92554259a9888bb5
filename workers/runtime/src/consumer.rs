//! Opening durable consumers: each is made where it is missing and set back to its acknowledged floor.
//!
//! One in memory costs nats-server no file, and is gone when the server ends; it begins again at the floor that was
//! noted of it (`floors.rs`).

use super::floors::FloorStore;
use super::settings::PoolSettings;
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use std::fmt::Display;

/// Why a consumer cannot be opened or read.
#[derive(Debug, thiserror::Error)]
#[error("the consumer {consumer} cannot be used: {reason}")]
pub struct ConsumerFault {
    consumer: String,
    reason: String,
}

impl ConsumerFault {
    pub(super) fn new(consumer: &str, reason: &dyn Display) -> Self {
        Self {
            consumer: consumer.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// Which consumer, of which stream, of what.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    pub stream: &'static str,
    pub name: &'a str,
    pub filters: Vec<String>,
    pub settings: &'a PoolSettings,
}

/// A consumer that is ready to be read from its floor on.
#[derive(Debug)]
pub struct Opened {
    pub consumer: PullConsumer,
    /// The last sequence that may have been delivered before.
    pub delivered: u64,
}

impl Wanted<'_> {
    fn config(&self, memory_storage: bool) -> pull::Config {
        pull::Config {
            durable_name: Some(self.name.to_owned()),
            filter_subjects: self.filters.clone(),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.settings.ack_wait,
            max_ack_pending: i64::try_from(self.settings.window).unwrap_or(i64::MAX),
            max_deliver: -1,
            memory_storage,
            ..pull::Config::default()
        }
    }

    fn failed(&self, reason: &dyn Display) -> ConsumerFault {
        ConsumerFault::new(self.name, reason)
    }

    async fn make(
        &self,
        context: &Context,
        memory_storage: bool,
    ) -> Result<PullConsumer, ConsumerFault> {
        let config = self.config(memory_storage);
        let made = context.create_consumer_on_stream(config, self.stream).await;
        made.map_err(|error| self.failed(&error))
    }
}

/// Opens a consumer whose state nats-server keeps in a file.
pub async fn open_on_disk(context: &Context, wanted: &Wanted<'_>) -> Result<Opened, ConsumerFault> {
    let consumer = wanted.make(context, false).await?;
    set_back(consumer, wanted).await
}

/// Opens a consumer whose state nats-server keeps in its memory.
pub async fn open_in_memory(
    context: &Context,
    floors: &FloorStore,
    wanted: &Wanted<'_>,
) -> Result<Opened, ConsumerFault> {
    let consumer = match wanted.make(context, true).await {
        Ok(consumer) => consumer,
        Err(error) => match take_from_disk(context, floors, wanted).await? {
            true => wanted.make(context, true).await?,
            false => return Err(error),
        },
    };
    let mut opened = set_back(consumer, wanted).await?;
    if opened.delivered > 0 {
        return Ok(opened);
    }
    // It delivered nothing since it was made.
    let noted = floors.read(wanted.stream).await;
    let noted = noted.map_err(|error| wanted.failed(&error))?;
    if let Some(floor) = noted.floors.of(wanted.name) {
        let reset = opened.consumer.reset(Some(floor + 1)).await;
        reset.map_err(|error| wanted.failed(&error))?;
        opened.delivered = noted.last;
    }
    Ok(opened)
}

/// Takes a consumer away that an earlier version kept on disk, once its floor is noted; false where there is none.
async fn take_from_disk(
    context: &Context,
    floors: &FloorStore,
    wanted: &Wanted<'_>,
) -> Result<bool, ConsumerFault> {
    let stream = context.get_stream_no_info(wanted.stream).await;
    let stream = stream.map_err(|error| wanted.failed(&error))?;
    let Ok(info) = stream.consumer_info(wanted.name).await else {
        return Ok(false);
    };
    if info.config.memory_storage {
        return Ok(false);
    }
    let floor = info.ack_floor.stream_sequence;
    let noted = floors.raise(wanted.stream, wanted.name, floor).await;
    noted.map_err(|error| wanted.failed(&error))?;
    let deleted = stream.delete_consumer(wanted.name).await;
    deleted.map_err(|error| wanted.failed(&error))?;
    Ok(true)
}

/// Sets a consumer back to its floor, when it delivered more than that.
async fn set_back(
    mut consumer: PullConsumer,
    wanted: &Wanted<'_>,
) -> Result<Opened, ConsumerFault> {
    // The answer to creating shows a restarted server's consumer as it was recovered, not what it has
    // delivered since: whether to set it back has to be asked.
    let info = consumer.info().await;
    let info = info.map_err(|error| wanted.failed(&error))?;
    let (delivered, floor) = (
        info.delivered.stream_sequence,
        info.ack_floor.stream_sequence,
    );
    if delivered > floor {
        let reset = consumer.reset(None).await;
        reset.map_err(|error| wanted.failed(&error))?;
    }
    Ok(Opened {
        consumer,
        delivered,
    })
}
