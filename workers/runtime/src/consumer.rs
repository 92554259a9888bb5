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
    /// Whether there is more of the kind, which nobody asks for.
    pub is_narrow: bool,
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
    let mut before = existing(context, wanted).await?;
    if let Some(on_disk) = before.take_if(|info| !info.config.memory_storage) {
        take_from_disk(context, floors, wanted, &on_disk).await?;
    }
    let consumer = wanted.make(context, true).await?;
    let mut opened = set_back(consumer, wanted).await?;
    // One that delivered nothing since it was made may have been forgotten, and not be where it was.
    let noted = match opened.delivered {
        0 => Some(floors.read(wanted.stream).await),
        _ => None,
    };
    let noted = noted.transpose().map_err(|error| wanted.failed(&error))?;
    let floor = noted
        .as_ref()
        .and_then(|noted| noted.floors.of(wanted.name));
    let passed_over = match &before {
        Some(info) => wanted.asks_for_more_than(info),
        None => wanted.is_narrow && floor.is_some(),
    };
    let mut start = floor.map(|floor| floor + 1);
    if passed_over {
        let unfinished = match &before {
            Some(info) => unfinished(context, wanted, info, floor).await?,
            None => start,
        };
        let lately = lately(context, wanted).await?;
        start = lately.into_iter().chain(unfinished).min().or(start);
    }
    if let (Some(noted), Some(_)) = (&noted, floor) {
        opened.delivered = noted.last;
    }
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
    let noted = floors.raise(wanted.stream, &[(wanted.name, floor)]).await;
    noted.map_err(|error| wanted.failed(&error))?;
    let stream = context.get_stream_no_info(wanted.stream).await;
    let stream = stream.map_err(|error| wanted.failed(&error))?;
    let deleted = stream.delete_consumer(wanted.name).await;
    deleted.map(drop).map_err(|error| wanted.failed(&error))
}

/// The first that was stored since a moment ago. A consumer passes over what it is not asked for; whoever was declared
/// meanwhile gets what came since, and what others had of it already is met by the memory of their pool.
async fn lately(context: &Context, wanted: &Wanted<'_>) -> Result<Option<u64>, ConsumerFault> {
    let moment = u64::try_from(PASSED_OVER.as_millis()).unwrap_or_default();
    let since = now_ms().saturating_sub(moment);
    let first = direct::first_since(context, wanted.stream, since).await;
    first.map_err(|error| wanted.failed(&error))
}

/// The first that a consumer still has to deliver or to hear of, by what it was asked for until now.
async fn unfinished(
    context: &Context,
    wanted: &Wanted<'_>,
    info: &Info,
    floor: Option<u64>,
) -> Result<Option<u64>, ConsumerFault> {
    if info.num_pending == 0 && info.num_ack_pending == 0 {
        return Ok(None);
    }
    let from = info.ack_floor.stream_sequence.max(floor.unwrap_or(0)) + 1;
    let mut first: Option<u64> = None;
    for filter in filters(info) {
        let next = direct::next_of(context, wanted.stream, &filter, from, 1).await;
        let (next, _) = next.map_err(|error| wanted.failed(&error))?;
        let sequences = next.first().map(|message| message.sequence);
        first = first.into_iter().chain(sequences).min();
    }
    Ok(first)
}

/// Sets a consumer back to its floor, when it delivered something that it has not heard of.
async fn set_back(
    mut consumer: PullConsumer,
    wanted: &Wanted<'_>,
) -> Result<Opened, ConsumerFault> {
    // The answer to creating shows a restarted server's consumer as it was recovered, not what it has
    // delivered since: whether to set it back has to be asked.
    let info = consumer.info().await;
    let info = info.map_err(|error| wanted.failed(&error))?;
    // What it only passed over counts as delivered, too.
    let delivered = info.delivered.stream_sequence;
    if info.num_ack_pending > 0 {
        let reset = consumer.reset(None).await;
        reset.map_err(|error| wanted.failed(&error))?;
    }
    Ok(Opened {
        consumer,
        delivered,
    })
}
