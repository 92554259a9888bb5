//! Looks at consumers, one after the other at a bounded pace: how much is not finished, and since when.
//!
//! Each process looks at the partitions it owns. A process that answers for all of them, because it serves the
//! API or scales, also looks at those that nobody owns, and at their spill queues: otherwise work without workers
//! would be invisible.
//! A consumer with nothing left to finish is let be until its stream has grown: one question a stream tells that.

use super::board::Board;
use super::settled::Settled;
use ackline_runtime::consumer::filters;
use ackline_runtime::job::LaneSource;
use ackline_runtime::status::Backlog;
use ackline_runtime::status::{LaneLag, UnownedLag};
use ackline_shared::clock::now_ms;
use ackline_shared::shutdown::{Shutdown, ended};
use ackline_shared::subjects::{self, Partition, Pool, SpillQueue};
use async_nats::jetstream::context::{ConsumerInfoErrorKind, Context};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use futures_util::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

const PAUSE: Duration = Duration::from_millis(5);

/// The consumers of one lane of a pool.
#[derive(Debug, Clone, Copy)]
pub struct Watched {
    pub pool: Pool,
    pub lane: LaneSource,
    /// How many partitions it has.
    pub partitions: u16,
}

impl Watched {
    /// The consumers of a pool.
    pub fn of(pool: Pool, partitions: u16) -> impl Iterator<Item = Self> {
        pool.lanes().into_iter().map(move |lane| Self {
            pool,
            lane,
            partitions: pool.partitions(partitions),
        })
    }
}

#[derive(Debug)]
enum Seen {
    Lag(LaneLag),
    /// There is no such consumer: the pool never ran.
    Nothing,
}

/// Looks around until the signal.
pub async fn watch(
    context: Context,
    watched: Vec<Watched>,
    board: Board,
    interval: Duration,
    looks_at_unowned: bool,
    mut shutdown: Shutdown,
) {
    let mut settled = Settled::default();
    loop {
        let next = Instant::now() + interval;
        let round = async {
            settled.begin(connects(&context), ends(&context, &watched).await);
            for lane in &watched {
                look_at_owned(&context, lane, &board, &mut settled).await;
            }
            for pool in Pool::ALL {
                look_at_drained(&context, pool, &watched, &board).await;
            }
            if looks_at_unowned {
                board.report_unowned(
                    look_at_unowned(&context, &watched, &board, &mut settled).await,
                );
            }
            sleep_until(next).await;
        };
        tokio::select! {
            () = ended(&mut shutdown) => return,
            () = round => {}
        }
    }
}

/// How often this process has connected to NATS so far.
fn connects(context: &Context) -> u64 {
    context
        .client()
        .statistics()
        .connects
        .load(Ordering::Relaxed)
}

/// The last sequence of each stream; one that cannot be told is left out.
async fn ends(context: &Context, watched: &[Watched]) -> BTreeMap<&'static str, u64> {
    let names: BTreeSet<_> = watched.iter().map(|lane| lane.lane.stream).collect();
    let mut ends = BTreeMap::new();
    for name in names {
        let Ok(stream) = context.get_stream_no_info(name).await else {
            continue;
        };
        match stream.get_info().await {
            Ok(info) => {
                ends.insert(name, info.state.last_sequence);
            }
            Err(error) => {
                tracing::debug!(stream = name, %error, "where the stream ends cannot be told")
            }
        }
    }
    ends
}

async fn look_at_owned(context: &Context, lane: &Watched, board: &Board, settled: &mut Settled) {
    let activity = board.activity(lane.pool);
    for partition in activity.owned() {
        if settled.holds(lane, partition) && activity.knows_lag(lane.lane.name, partition) {
            continue;
        }
        match look(context, lane, partition).await {
            Ok(Seen::Lag(lag)) => {
                settled.note(lane, partition, lag.messages());
                activity.lags(lane.lane.name, partition, lag);
            }
            Ok(Seen::Nothing) => {}
            Err(error) => {
                tracing::debug!(pool = %lane.pool, %partition, %error, "a consumer cannot be looked at");
                return;
            }
        }
        sleep(PAUSE).await;
    }
}

/// Finds out until when everything that the pool's own partitions had stored was read, while a tenant is drained.
async fn look_at_drained(context: &Context, pool: Pool, watched: &[Watched], board: &Board) {
    let activity = board.activity(pool);
    let Some((reading, frontiers)) = activity.reading() else {
        return;
    };
    let (owned, mut until_ms) = (activity.owned(), now_ms());
    for lane in watched.iter().filter(|lane| lane.pool == pool) {
        for partition in &owned {
            let frontier = frontiers.get(&(lane.lane.name, *partition)).copied();
            match unread_since(context, lane, *partition, frontier).await {
                Ok(since_ms) => until_ms = until_ms.min(since_ms.unwrap_or(u64::MAX)),
                Err(error) => {
                    tracing::debug!(%pool, %partition, %error, "how far reading is cannot be told");
                    return;
                }
            }
            sleep(PAUSE).await;
        }
    }
    activity.has_read(reading, &owned, until_ms);
}

/// When the first message that was not read was stored; without a frontier only what is acknowledged counts as read.
async fn unread_since(
    context: &Context,
    lane: &Watched,
    partition: Partition,
    frontier: Option<u64>,
) -> Result<Option<u64>, async_nats::Error> {
    let stream = context.get_stream_no_info(lane.lane.stream).await?;
    let name = subjects::consumer(lane.pool, partition, lane.lane.name);
    let info = stream.consumer_info(name).await?;
    let read = frontier.unwrap_or(info.ack_floor.stream_sequence);
    let mut since = None;
    for filter in filters(&info) {
        match stream
            .direct_get_next_for_subject(filter, Some(read + 1))
            .await
        {
            Ok(message) => since = earlier(since, &message),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(since)
}

fn earlier(known: Option<u64>, message: &StreamMessage) -> Option<u64> {
    let stored = u64::try_from(message.time.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    Some(known.map_or(stored, |known| known.min(stored)))
}

async fn look_at_unowned(
    context: &Context,
    watched: &[Watched],
    board: &Board,
    settled: &mut Settled,
) -> Vec<UnownedLag> {
    let mut found = Vec::new();
    let mut queues: HashMap<Pool, HashMap<String, Backlog>> = HashMap::new();
    for lane in watched {
        let owned = board.owned(lane.pool);
        let missing: BTreeSet<u16> = (0..lane.partitions)
            .filter(|partition| !owned.contains(partition))
            .collect();
        let mut sum = LaneLag {
            lane: lane.lane.name.to_owned(),
            ..LaneLag::default()
        };
        for partition in missing.iter().copied().map(Partition) {
            if settled.holds(lane, partition) {
                continue;
            }
            match look(context, lane, partition).await {
                Ok(Seen::Lag(lag)) => {
                    settled.note(lane, partition, lag.messages());
                    sum.add(&lag);
                }
                // A pool that never ran anywhere waits for nobody.
                Ok(Seen::Nothing) => {
                    let rest = missing.range(partition.0..).copied().map(Partition);
                    rest.for_each(|partition| settled.note(lane, partition, 0));
                    break;
                }
                Err(_) => break,
            }
            sleep(PAUSE).await;
        }
        if !missing.is_empty() && !queues.contains_key(&lane.pool) {
            // Queues that cannot be counted now are counted in the next round.
            let counted = queues_of(context, lane.pool, &missing)
                .await
                .unwrap_or_default();
            queues.insert(lane.pool, counted);
        }
        let of_pool = queues.get(&lane.pool).filter(|_| !missing.is_empty());
        let backlog = of_pool
            .and_then(|queues| queues.get(lane.lane.name))
            .copied()
            .unwrap_or_default();
        let partitions = missing.into_iter().collect();
        let reported = UnownedLag {
            pool: lane.pool.as_str().to_owned(),
            partitions,
            lag: sum,
            backlog,
        };
        if reported.messages() > 0 {
            found.push(reported);
        }
    }
    found
}

/// What waits in spill queues of a pool's partitions, by lane.
async fn queues_of(
    context: &Context,
    pool: Pool,
    partitions: &BTreeSet<u16>,
) -> Result<HashMap<String, Backlog>, async_nats::Error> {
    let stream = context.get_stream_no_info(subjects::SPILL).await?;
    let filter = subjects::spill_filter(pool, None);
    let mut counts = stream.info_with_subjects(filter).await?;
    let mut queues: HashMap<String, Backlog> = HashMap::new();
    while let Some((subject, count)) = counts.try_next().await? {
        let Some((_, queue)) = SpillQueue::parse(&subject) else {
            continue;
        };
        if partitions.contains(&queue.partition.0) {
            let backlog = queues.entry(queue.lane).or_default();
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            match queue.conversation {
                None => backlog.ready = backlog.ready.saturating_add(count),
                Some(_) => backlog.waiting = backlog.waiting.saturating_add(count),
            }
        }
    }
    Ok(queues)
}

async fn look(
    context: &Context,
    lane: &Watched,
    partition: Partition,
) -> Result<Seen, async_nats::Error> {
    let stream = context.get_stream_no_info(lane.lane.stream).await?;
    let info = match stream
        .consumer_info(subjects::consumer(lane.pool, partition, lane.lane.name))
        .await
    {
        Ok(info) => info,
        Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => return Ok(Seen::Nothing),
        Err(error) => return Err(error.into()),
    };
    let in_work = u64::try_from(info.num_ack_pending).unwrap_or_default();
    let mut lag = LaneLag {
        lane: lane.lane.name.to_owned(),
        unread: info.num_pending,
        in_work,
        oldest_ms: 0,
        partition: None,
    };
    if lag.messages() > 0 {
        let floor = info.ack_floor.stream_sequence + 1;
        let is_new = |filter: &String| !subjects::is_replay_filter(filter);
        let filters = filters(&info).into_iter().filter(is_new).collect();
        if let Some(stored_ms) = oldest(&stream, filters, floor).await {
            lag.oldest_ms = now_ms().saturating_sub(stored_ms);
            lag.partition = Some(partition.0);
        }
    }
    Ok(Seen::Lag(lag))
}

/// When the first message from a sequence on was stored, in unix milliseconds.
async fn oldest(stream: &Stream<()>, filters: Vec<String>, from: u64) -> Option<u64> {
    let mut oldest = None;
    for filter in filters {
        if let Ok(message) = stream.direct_get_next_for_subject(filter, Some(from)).await {
            oldest = earlier(oldest, &message);
        }
    }
    oldest
}
