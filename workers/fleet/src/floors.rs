//! Notes up to where each pool has acknowledged everything, and makes consumers again that nats-server forgot.
//!
//! It is done every few seconds, and asks no more than how long each stream is while nothing
//! happens. A consumer that is gone while its pool runs nowhere is made again here: what waits for it is counted by it, and
//! whoever scales the pools goes by that.

use super::janitor::{Space, floor_of};
use super::lag::Watched;
use ackline_runtime::asked::{Asked, Askers};
use ackline_runtime::consumer::ConsumerFault;
use ackline_runtime::floors::{FloorError, Floors};
use ackline_runtime::intake;
use ackline_runtime::platform::Platform;
use ackline_runtime::settings::PoolSettings;
use ackline_shared::subjects::{self, Partition, Pool};
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::Info;
use futures_util::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The streams that pools read.
const STREAMS: [&str; 2] = [subjects::UPDATES, subjects::OUTBOUND];
/// How often the floors are noted: what was finished since then is read again when nats-server was restarted.
const EVERY: Duration = Duration::from_secs(5);
const LOOK_MAX: Duration = Duration::from_secs(10);

/// Notes floors, as the one process that does.
#[derive(Debug)]
pub struct FloorKeeper {
    pub platform: Platform,
    /// The pools that read partition by partition.
    pub pools: BTreeMap<Pool, (PoolSettings, Askers)>,
}

/// The streams of which there was nothing more to note, as they looked then.
#[derive(Debug, Default)]
pub struct AtRest(BTreeMap<&'static str, Look>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    last: u64,
    consumers: usize,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("NATS: {0}")]
    Nats(String),
    #[error(transparent)]
    Floors(#[from] FloorError),
    #[error(transparent)]
    Consumer(#[from] ConsumerFault),
}

impl Trouble {
    fn new(error: &dyn Display) -> Self {
        Self::Nats(error.to_string())
    }
}

impl FloorKeeper {
    /// Notes for as long as it is waited for; never ends.
    pub(super) async fn note_for_good(&self) {
        let mut at_rest = AtRest::default();
        loop {
            self.note(&mut at_rest).await;
            sleep(EVERY).await;
        }
    }

    /// Looks at every stream once.
    pub async fn note(&self, at_rest: &mut AtRest) {
        for stream in STREAMS {
            let looked = timeout(LOOK_MAX, self.look(stream, &mut at_rest.0)).await;
            let looked = looked.unwrap_or_else(|late| Err(Trouble::new(&late)));
            if let Err(error) = looked {
                tracing::warn!(stream, %error, "up to where the pools have read is not noted; trying again");
            }
        }
    }

    async fn look(
        &self,
        name: &'static str,
        at_rest: &mut BTreeMap<&'static str, Look>,
    ) -> Result<(), Trouble> {
        let context = self.platform.log.context();
        let stream = context.get_stream(name).await;
        let stream = stream.map_err(|error| Trouble::new(&error))?;
        let space = Space::of(&stream);
        let now = Look {
            last: space.last,
            consumers: stream.cached_info().state.consumer_count,
        };
        if at_rest.get(name) == Some(&now) {
            return Ok(());
        }
        // Consumers are asked after the stream, so a floor at the stream's end covers nothing that came later.
        let consumers: Vec<Info> = stream
            .consumers()
            .try_collect()
            .await
            .map_err(|error| Trouble::new(&error))?;
        let noted = self.platform.floors.read(name).await?;
        let is_made_again = self.make_again(name, &consumers, &noted.floors).await?;
        let in_memory = consumers.iter().filter(|info| info.config.memory_storage);
        let floors: Vec<(&str, u64)> = in_memory
            .map(|info| (info.name.as_str(), floor_of(&space, info)))
            .collect();
        self.platform.floors.raise(name, &floors).await?;
        let is_settled = |info: &Info| info.num_pending == 0 && info.num_ack_pending == 0;
        if !is_made_again && consumers.iter().all(is_settled) {
            at_rest.insert(name, now);
        } else {
            at_rest.remove(name);
        }
        Ok(())
    }

    /// Makes every consumer again that is known by its floor and is gone; tells whether there was one.
    async fn make_again(
        &self,
        stream: &str,
        consumers: &[Info],
        floors: &Floors,
    ) -> Result<bool, Trouble> {
        let present: BTreeSet<&str> = consumers.iter().map(|info| info.name.as_str()).collect();
        let missing: BTreeSet<&str> = floors
            .all()
            .map(|(name, _)| name)
            .filter(|name| !present.contains(name))
            .collect();
        if missing.is_empty() {
            return Ok(false);
        }
        let platform = &self.platform;
        for (pool, (settings, askers)) in &self.pools {
            let partitions = platform.log.partitions();
            let mut asked = Asked::new(*askers, platform.registry.clone(), partitions);
            for lane in Watched::of(*pool, partitions) {
                for partition in (0..lane.partitions).map(Partition) {
                    let name = subjects::consumer(*pool, partition, lane.lane.name);
                    if lane.lane.stream != stream || !missing.contains(name.as_str()) {
                        continue;
                    }
                    let (context, floors) = (platform.log.context(), &platform.floors);
                    // Its owner may have made it meanwhile, and be reading: that is not to be disturbed.
                    if is_there(context, stream, &name).await {
                        continue;
                    }
                    let place = (partition, &asked.audience(partition));
                    intake::open_lane(context, floors, settings, *pool, &lane.lane, place).await?;
                }
            }
        }
        Ok(true)
    }
}

async fn is_there(context: &Context, stream: &str, consumer: &str) -> bool {
    match context.get_stream_no_info(stream).await {
        Ok(stream) => stream.consumer_info(consumer).await.is_ok(),
        Err(_) => false,
    }
}
