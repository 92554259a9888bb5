//! Opening durable consumers: each is made where it is missing and set back to its acknowledged floor.
//!
//! One in memory costs nats-server no file, and is gone when the server ends; it begins again at the floor that was
//! noted of it (`floors.rs`).

use super::direct;
use super::floors::FloorStore;
use super::settings::PoolSettings;
use ackline_shared::clock::now_ms;
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, Info, PullConsumer, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use std::fmt::Display;
use std::time::Duration;

/// How far a consumer goes back that is asked for more than before: longer than it takes every process to hear of what
/// was declared, and to ask.
const PASSED_OVER: Duration = Duration::from_secs(10);

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

    /// Whether it passed over something until now that is wanted.
    fn asks_for_more_than(&self, info: &Info) -> bool {
        let had = filters(info);
        !self.filters.iter().all(|filter| had.contains(filter))
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

/// What a consumer reads.
pub fn filters(info: &Info) -> Vec<String> {
    let config = &info.config;
    let single = (!config.filter_subject.is_empty()).then(|| config.filter_subject.clone());
    let several = config.filter_subjects.iter().cloned();
    let filters: Vec<String> = single.into_iter().chain(several).collect();
    match filters.is_empty() {
        true => vec![">".to_owned()],
        false => filters,
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
    let before = existing(context, wanted).await?;
    if let Some(info) = before.as_ref().filter(|info| !info.config.memory_storage) {
        take_from_disk(context, floors, wanted, info).await?;
    }
    let consumer = wanted.make(context, true).await?;
    let mut opened = set_back(consumer, wanted).await?;
    let start = match &before {
        // It delivered nothing since it was made.
        _ if opened.delivered == 0 => {
            let noted = floors.read(wanted.stream).await;
            let noted = noted.map_err(|error| wanted.failed(&error))?;
            let floor = noted.floors.of(wanted.name);
            opened.delivered = floor.map_or(0, |_| noted.last);
            floor.map(|floor| floor + 1)
        }
        Some(info) if wanted.asks_for_more_than(info) => rewound(context, wanted, info).await?,
        _ => None,
    };
    if let Some(start) = start {
        let reset = opened.consumer.reset(Some(start)).await;
        reset.map_err(|error| wanted.failed(&error))?;
    }
    Ok(opened)
}

async fn existing(context: &Context, wanted: &Wanted<'_>) -> Result<Option<Info>, ConsumerFault> {
    let stream = context.get_stream_no_info(wanted.stream).await;
    let stream = stream.map_err(|error| wanted.failed(&error))?;
    match stream.consumer_info(wanted.name).await {
        Ok(info) => Ok(Some(info)),
        Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => Ok(None),
        Err(error) => Err(wanted.failed(&error)),
    }
}

/// Takes a consumer away that an earlier version kept on disk, once its floor is noted.
async fn take_from_disk(
    context: &Context,
    floors: &FloorStore,
    wanted: &Wanted<'_>,
    info: &Info,
) -> Result<(), ConsumerFault> {
    let floor = info.ack_floor.stream_sequence;
    let noted = floors.raise(wanted.stream, wanted.name, floor).await;
    noted.map_err(|error| wanted.failed(&error))?;
    let stream = context.get_stream_no_info(wanted.stream).await;
    let stream = stream.map_err(|error| wanted.failed(&error))?;
    let deleted = stream.delete_consumer(wanted.name).await;
    deleted.map(drop).map_err(|error| wanted.failed(&error))
}

/// Where a consumer is to begin that passed over what it is asked for now: whoever was declared a moment ago gets what
/// came since. What others had of it already is met by the memory of their pool.
async fn rewound(
    context: &Context,
    wanted: &Wanted<'_>,
    info: &Info,
) -> Result<Option<u64>, ConsumerFault> {
    let moment = u64::try_from(PASSED_OVER.as_millis()).unwrap_or_default();
    let since = now_ms().saturating_sub(moment);
    let first = direct::first_since(context, wanted.stream, since).await;
    let first = first.map_err(|error| wanted.failed(&error))?;
    Ok(first.map(|first| first.min(info.ack_floor.stream_sequence + 1)))
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
