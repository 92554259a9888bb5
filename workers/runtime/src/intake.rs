//! Reading: durable consumers per lane and partition, and the messages they deliver.
//!
//! A consumer is set back to its acknowledged floor whenever its pool changes hands or the connection was
//! lost, because plain redelivery would bring older messages behind newer ones. What is read ahead is bounded
//! in messages by the consumer and in bytes by a semaphore whose permit travels with the message.

use super::asked::{self, Audience};
use super::consumer::{self, ConsumerFault, Opened, Wanted};
use super::dedupe::ConversationRecord;
use super::floors::FloorStore;
use super::job::{Answered, LaneSource, Marks, Work};
use super::log::Log;
use super::settings::PoolSettings;
use ackline_engine::pull::{End, Pace, Pull};
use ackline_engine::state::{Place, Target};
use ackline_ownership::lease::Lease;
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{ConversationKey, TenantId, UpdateId};
use ackline_shared::subjects::{self, Partition, Pool, Subject};
use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{FromConsumer, PullConsumer, pull};
use async_nats::jetstream::{AckKind, Context, Message};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

/// Longest wait for the answer whether something went elsewhere; nothing is read meanwhile.
const DOUBT_WAIT: Duration = Duration::from_secs(1);

/// An update that was read, on its way through a pool.
#[derive(Debug)]
pub struct Arrival {
    pub lane: usize,
    /// What is known without reading the payload.
    pub head: Arc<Head>,
    pub payload: Bytes,
    /// Its sequence in its stream.
    pub sequence: u64,
    /// What is wrong with it, when it cannot be worked on.
    pub defect: Option<String>,
    /// The stream it came from.
    pub stream: &'static str,
    /// What carried it here, for the acknowledgement.
    pub message: Carrier,
    /// Whether somebody else may have worked on it before.
    pub again: bool,
    /// Its share of the bytes read ahead, where those are counted one by one.
    pub permit: Option<OwnedSemaphorePermit>,
    /// Under which right it was read.
    pub reading: Reading,
}

impl Arrival {
    pub fn place(&self) -> Place {
        Place {
            partition: self.reading.lease.partition(),
            stream: self.stream,
            sequence: self.sequence,
        }
    }

    /// How long its payload was, when that is gone.
    pub fn lost(&self) -> Option<usize> {
        match &self.message {
            Carrier::Message(_) => None,
            Carrier::Copy(original) => original
                .referred
                .filter(|length| *length != self.payload.len()),
        }
    }

    /// The work on it for one target.
    pub fn work(&self, target: Arc<Target>) -> Work {
        Work {
            marks: Marks::of_replay(&self.head),
            head: self.head.clone(),
            payload: self.payload.clone(),
            sequence: self.sequence,
            target,
            attempt: 1,
            last_attempt: false,
            overdue: false,
            record: ConversationRecord::default(),
            answered: Answered::default(),
        }
    }
}

/// One uninterrupted reading of a partition by its owner; after an interruption older messages come again.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The right to the partition.
    pub lease: Lease,
    /// Tells one reading from the next.
    pub session: u64,
}

/// What carried an arrival here.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are messages, and it lies in a box already"
)]
pub enum Carrier {
    /// A message of its own stream.
    Message(Message),
    /// A copy in a spill queue, which is taken out of it in another way.
    Copy(Original),
}

/// An update as its own stream had it.
#[derive(Debug)]
pub struct Original {
    pub subject: String,
    pub headers: HeaderMap,
    pub payload: Bytes,
    pub sequence: u64,
    /// How long its payload is, where its copy only refers to that; where the stream does not have it any more, the
    /// payload here is empty.
    pub referred: Option<usize>,
}

impl Carrier {
    /// The subject in its own stream.
    pub fn subject(&self) -> &str {
        match self {
            Self::Message(message) => &message.subject,
            Self::Copy(original) => &original.subject,
        }
    }

    /// The headers in its own stream.
    pub fn headers(&self) -> Option<&HeaderMap> {
        match self {
            Self::Message(message) => message.headers.as_ref(),
            Self::Copy(original) => Some(&original.headers),
        }
    }

    /// When its own stream stored it; not known of a copy.
    pub fn stored_at(&self) -> Option<SystemTime> {
        match self {
            Self::Message(message) => message.info().ok().map(|info| info.published.into()),
            Self::Copy(_) => None,
        }
    }

    fn payload(&self) -> Bytes {
        match self {
            Self::Message(message) => message.payload.clone(),
            Self::Copy(original) => original.payload.clone(),
        }
    }

    fn sequence(&self) -> u64 {
        match self {
            Self::Message(message) => message
                .info()
                .map(|info| info.stream_sequence)
                .unwrap_or_default(),
            Self::Copy(original) => original.sequence,
        }
    }
}

impl From<Original> for Carrier {
    fn from(original: Original) -> Self {
        Self::Copy(original)
    }
}

impl From<Message> for Carrier {
    fn from(message: Message) -> Self {
        Self::Message(message)
    }
}

#[derive(Debug)]
pub struct Source {
    lane: usize,
    stream: &'static str,
    name: String,
    consumer: PullConsumer,
    /// The same on the connection for long messages.
    bulk: PullConsumer,
    /// The last sequence it had delivered before it was opened.
    delivered: u64,
    /// The number of the next delivery, when nobody else reads.
    next: u64,
}

/// Opens the consumers of all lanes of one partition, each set back to its acknowledged floor.
pub async fn open(
    log: &Log,
    floors: &FloorStore,
    settings: &PoolSettings,
    pool: Pool,
    lanes: &[LaneSource],
    (partition, audience): (Partition, &Audience),
) -> Result<Vec<Source>, ConsumerFault> {
    let opening = lanes.iter().enumerate().map(async |(lane, source)| {
        let opened = open_lane(
            log.context(),
            floors,
            settings,
            pool,
            source,
            (partition, audience),
        )
        .await?;
        let info = opened.consumer.cached_info();
        let config = pull::Config::try_from_consumer_config(info.config.clone());
        let config = config.map_err(|error| ConsumerFault::new(&info.name, &error))?;
        Ok(Source {
            lane,
            bulk: PullConsumer::new(config, info.clone(), log.bulk().clone()),
            stream: source.stream,
            name: subjects::consumer(pool, partition, source.name),
            next: opened.consumer.cached_info().delivered.consumer_sequence + 1,
            consumer: opened.consumer,
            delivered: opened.delivered,
        })
    });
    try_join_all(opening).await
}

/// Opens the consumer of one lane of one partition.
pub async fn open_lane(
    context: &Context,
    floors: &FloorStore,
    settings: &PoolSettings,
    pool: Pool,
    lane: &LaneSource,
    (partition, audience): (Partition, &Audience),
) -> Result<Opened, ConsumerFault> {
    let mut filters = (lane.filters)(partition);
    let replays = filters
        .iter()
        .filter_map(|filter| subjects::replay_filter(pool, filter))
        .collect::<Vec<_>>();
    filters.extend(replays);
    let wanted = Wanted {
        stream: lane.stream,
        name: &subjects::consumer(pool, partition, lane.name),
        filters: asked::narrow(filters, audience),
        is_narrow: audience.is_some(),
        settings,
    };
    consumer::open_in_memory(context, floors, &wanted).await
}

/// Reads a source into the channel until the channel closes, the right to it is in doubt, or the consumer breaks.
///
/// A request of a process that was stopped, or cut off, may swallow what its successor is to read: one message, when
/// it stays open for long, and otherwise nothing, for none is made without a current lease. Deliveries are numbered
/// without gaps, so a missing one went elsewhere, and reading begins anew before anything behind it is taken; when
/// nothing more comes that would show it, the consumer is asked, as long as somebody else's requests are open.
pub async fn read(
    source: Source,
    reading: Reading,
    bytes: Arc<Semaphore>,
    arrivals: mpsc::Sender<Arrival>,
) -> Result<(), ConsumerFault> {
    let failed = |reason: String| ConsumerFault::new(&source.name, &reason);
    let (mut expected, mut unsent, mut pace) = (source.next, VecDeque::new(), Pace::default());
    while reading.lease.is_current() {
        let Pull {
            messages,
            bytes: most,
            life,
        } = pace.next(reading.lease.request_life());
        let consumer = match most {
            Some(_) => &source.consumer,
            None => &source.bulk,
        };
        let (mut batch, first) = (
            consumer.batch().max_messages(messages).expires(life),
            expected,
        );
        if let Some(most) = most {
            batch = batch.max_bytes(most);
        }
        let mut batch = batch
            .messages()
            .await
            .map_err(|error| failed(error.to_string()))?
            .fuse();
        let (mut is_open, mut is_next_too_long) = (true, false);
        // What has come is taken from the client at once, whatever there is room for: it waits for nobody.
        while is_open || !unsent.is_empty() {
            tokio::select! {
                biased;
                next = batch.next(), if is_open => match next {
                    Some(Ok(message)) => {
                        expected = follow(expected, &message).map_err(&failed)?;
                        unsent.push_back(message);
                    }
                    Some(Err(error)) if says_too_long(&error.to_string()) => is_next_too_long = true,
                    Some(Err(error)) => return Err(failed(error.to_string())),
                    None => is_open = false,
                },
                room = room_for(unsent.front(), &bytes, &arrivals) => {
                    let Some((permit, room)) = room else { return Ok(()) };
                    let Some(message) = unsent.pop_front() else { continue };
                    let mut arrival =
                        arrive(source.lane, source.stream, message, Some(permit), reading.clone());
                    arrival.again = arrival.sequence <= source.delivered;
                    room.send(arrival);
                }
            }
        }
        pace.ended(match (expected > first, is_next_too_long) {
            (true, _) => End::Brought,
            (false, true) => End::TooLong,
            (false, false) => End::Empty,
        });
        // A server too busy to answer is asked again after the next request.
        if pace.is_doubted()
            && let Ok(Ok(info)) = timeout(DOUBT_WAIT, source.consumer.get_info()).await
        {
            let last = info.delivered.consumer_sequence;
            if last >= expected {
                return Err(failed(format!("delivery {last} went elsewhere")));
            }
            pace.learned(info.num_waiting);
        }
    }
    Err(failed(
        "this process may not be its owner any more".to_owned(),
    ))
}

/// Whether a request ended because the next message is longer than what may still come by it.
fn says_too_long(error: &str) -> bool {
    error.contains("Exceeds MaxBytes")
}

/// The number of the delivery after this one, unless one before it is missing.
fn follow(expected: u64, message: &Message) -> Result<u64, String> {
    let number = message
        .info()
        .map(|info| info.consumer_sequence)
        .map_err(|error| error.to_string())?;
    if number == expected {
        Ok(number + 1)
    } else {
        Err(format!("delivery {number} came for {expected}"))
    }
}

/// Waits until there is room for a message, if there is one; `None` when there never will be.
async fn room_for<'a>(
    message: Option<&Message>,
    bytes: &Arc<Semaphore>,
    arrivals: &'a mpsc::Sender<Arrival>,
) -> Option<(OwnedSemaphorePermit, mpsc::Permit<'a, Arrival>)> {
    let Some(message) = message else {
        return std::future::pending().await;
    };
    let size = u32::try_from(message.payload.len().max(1)).unwrap_or(u32::MAX);
    let permit = bytes.clone().acquire_many_owned(size).await.ok()?;
    Some((permit, arrivals.reserve().await.ok()?))
}

/// Turns a message into work; one that cannot be read becomes work with a defect, never an error.
pub fn arrive(
    lane: usize,
    stream: &'static str,
    message: impl Into<Carrier>,
    permit: Option<OwnedSemaphorePermit>,
    reading: Reading,
) -> Arrival {
    let message = message.into();
    let sequence = message.sequence();
    let no_headers = HeaderMap::new();
    let read = Head::read(message.subject(), message.headers().unwrap_or(&no_headers));
    let (head, defect) = match read {
        Ok(head) => (head, None),
        Err(error) => (
            stand_in(message.subject(), stream, sequence),
            Some(error.to_string()),
        ),
    };
    let (head, payload, again) = (Arc::new(head), message.payload(), false);
    Arrival {
        lane,
        head,
        payload,
        sequence,
        defect,
        stream,
        message,
        again,
        permit,
        reading,
    }
}

/// Acknowledges a message; a lost acknowledgement only brings the message again.
pub async fn acknowledge(message: &Carrier) {
    let Carrier::Message(message) = message else {
        return;
    };
    if let Err(error) = message.ack_with(AckKind::Ack).await {
        tracing::debug!(%error, "an acknowledgement was not sent; the message will come again");
    }
}

fn stand_in(subject: &str, stream: &str, sequence: u64) -> Head {
    let tenant =
        Subject::parse(subject).map_or_else(TenantId::unrouted, |subject| subject.tenant().clone());
    Head {
        id: UpdateId::new(&format!("{stream}:{sequence}")),
        tenant,
        partition: Partition(0),
        family: Family::Record,
        kind: "unreadable".to_owned(),
        app: None,
        phone: None,
        conversation: ConversationKey::none(),
        received_ms: 0,
        signature: None,
        traceparent: None,
        field: None,
        replay: None,
    }
}
