//! Makes room in a stream that is nearly full, by what every pool has acknowledged and nothing else.
//!
//! Streams refuse new messages when they are full, so the oldest finished ones go before that. What a consumer
//! has not acknowledged stays, whatever the space: the janitor never trades an update for room. One process at
//! a time does it; the lock spares work and is not what makes it safe. Updates that nobody claims, which every pool
//! passes over, move to the dead letters before their room is used; what spill queues refer to moves to the stream's end.

mod referred;
mod unrouted;

use ackline_runtime::floors::{FloorStore, Floors};
use ackline_shared::config::Reader;
use ackline_shared::shutdown::{Shutdown, ended};
use ackline_shared::subjects;
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, Info};
use async_nats::jetstream::kv::Store;
use async_nats::jetstream::stream::Stream;
use futures_util::TryStreamExt;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The lock's key.
const LOCK: &str = "janitor";
/// The streams that are kept from filling up; dead letters only go by age.
const STREAMS: [&str; 2] = [subjects::UPDATES, subjects::OUTBOUND];

/// When to make room, and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JanitorSettings {
    /// Pause between two looks.
    pub interval: Duration,
    /// Fill in percent from which room is made; 0 for never.
    pub above_percent: u64,
    /// Fill in percent down to which it is made.
    pub down_to_percent: u64,
}

impl JanitorSettings {
    /// Reads the `[janitor]` section.
    pub fn read(reader: &mut Reader) -> Self {
        let interval = reader.duration("janitor.interval");
        let above_percent = reader.count("janitor.purge_above_percent", 0..=99);
        let down_to_percent = reader.count("janitor.purge_down_to_percent", 0..=98);
        if above_percent > 0 && down_to_percent >= above_percent {
            reader.mistake(
                "janitor.purge_down_to_percent",
                "is not below janitor.purge_above_percent",
            );
        }
        Self {
            interval,
            above_percent,
            down_to_percent,
        }
    }
}

/// What the janitor counts.
#[derive(Debug, Clone, Default)]
pub struct JanitorMetrics {
    purged: Family<OfStream, Counter>,
    fill: Family<OfStream, Gauge<f64, AtomicU64>>,
    unrouted: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStream {
    stream: &'static str,
}

impl JanitorMetrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "Finished messages removed to make room";
        registry.register(
            "ackline_janitor_purged_messages",
            help,
            metrics.purged.clone(),
        );
        let help = "Updates that nobody claims moved to the dead letters to make room";
        registry.register(
            "ackline_janitor_unrouted_moved",
            help,
            metrics.unrouted.clone(),
        );
        let help = "Share of its size limit that a stream uses, as the janitor last saw it";
        registry.register("ackline_stream_fill_ratio", help, metrics.fill.clone());
        metrics
    }
}

/// Looks after the streams until the signal.
#[derive(Debug)]
pub struct Janitor {
    /// Where the streams are.
    pub context: Context,
    /// Up to where consumers had acknowledged everything.
    pub floors: FloorStore,
    /// Where the lock is.
    pub locks: Store,
    /// This process's name.
    pub instance: String,
    /// When and how much.
    pub settings: JanitorSettings,
    /// What is counted.
    pub metrics: JanitorMetrics,
}

impl Janitor {
    /// Runs until the signal.
    pub async fn run(self, mut shutdown: Shutdown) {
        if self.settings.above_percent == 0 {
            return;
        }
        let rounds = async {
            loop {
                if timeout(self.settings.interval, self.take_a_turn())
                    .await
                    .is_err()
                {
                    tracing::warn!("the streams could not be looked after in time");
                }
                sleep(self.settings.interval).await;
            }
        };
        tokio::select! {
            () = ended(&mut shutdown) => {}
            () = rounds => {}
        }
    }

    /// Looks after every stream once, unless another process is at it.
    pub async fn take_a_turn(&self) {
        let Ok(revision) = self.locks.create(LOCK, self.instance.clone().into()).await else {
            return;
        };
        for name in STREAMS {
            if let Err(error) = self.look_after(name).await {
                tracing::warn!(stream = name, %error, "no room can be made");
            }
        }
        // Not given back, it expires by itself.
        let _given_back = self.locks.purge_expect_revision(LOCK, Some(revision)).await;
    }

    async fn look_after(&self, name: &'static str) -> Result<(), Trouble> {
        let stream = self.context.get_stream(name).await.map_err(Trouble::new)?;
        let space = Space::of(&stream);
        let labels = OfStream { stream: name };
        self.metrics.fill.get_or_create(&labels).set(space.fill());
        if !space.is_above(self.settings.above_percent) {
            return Ok(());
        }
        // Consumers are asked after the stream, so a floor at the stream's end covers nothing that came later.
        let consumers: Vec<Info> = stream
            .consumers()
            .try_collect()
            .await
            .map_err(Trouble::new)?;
        let noted = self.floors.read(name).await.map_err(Trouble::new)?;
        let floor = floor(&space, &consumers, &noted.floors);
        let Some(below) = purge_below(&space, floor, self.settings.down_to_percent) else {
            tracing::warn!(
                stream = name,
                percent = space.percent(),
                floor,
                "the stream is nearly full of what is not finished; when it is full, new messages are refused"
            );
            return Ok(());
        };
        let (below, moved) = match name {
            subjects::UPDATES => {
                unrouted::quarantine(&self.context, &stream, space.first, below).await?
            }
            _ => (below, 0),
        };
        let (below, kept) = referred::keep(&self.context, name, &space, below).await?;
        if kept > 0 {
            tracing::info!(
                stream = name,
                kept,
                "messages that spill queues refer to moved to the end of their stream"
            );
        }
        if moved > 0 {
            self.metrics.unrouted.inc_by(moved);
            tracing::info!(
                moved,
                "updates that nobody claims moved to the dead letters; `ackline unrouted` shows them"
            );
        }
        let purged = stream.purge().sequence(below).await.map_err(Trouble::new)?;
        self.metrics
            .purged
            .get_or_create(&labels)
            .inc_by(purged.purged);
        tracing::info!(
            stream = name,
            percent = space.percent(),
            purged = purged.purged,
            below,
            "made room"
        );
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("NATS: {0}")]
struct Trouble(String);

impl Trouble {
    #[allow(clippy::needless_pass_by_value, reason = "for map_err")]
    fn new(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// How full a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    pub(super) bytes: u64,
    pub(super) bytes_max: u64,
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Space {
    pub(super) fn of(stream: &Stream) -> Self {
        let info = stream.cached_info();
        Self {
            bytes: info.state.bytes,
            bytes_max: u64::try_from(info.config.max_bytes).unwrap_or(0),
            first: info.state.first_sequence,
            last: info.state.last_sequence,
        }
    }

    fn percent(&self) -> u64 {
        self.bytes
            .saturating_mul(100)
            .checked_div(self.bytes_max)
            .unwrap_or(0)
    }

    fn fill(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a share for people")]
        if self.bytes_max == 0 {
            0.0
        } else {
            self.bytes as f64 / self.bytes_max as f64
        }
    }

    pub(super) fn is_above(&self, percent: u64) -> bool {
        self.bytes_max > 0 && self.percent() >= percent
    }
}

/// The sequence up to which every consumer has acknowledged everything; foreign consumers count too, and those that
/// nats-server has just forgotten.
pub(super) fn floor(space: &Space, consumers: &[Info], noted: &Floors) -> u64 {
    let is_gone = |name: &str| consumers.iter().all(|info| info.name != name);
    let gone = noted.all().filter(|(name, _)| is_gone(name));
    let keeps = |info: &&Info| info.config.ack_policy != AckPolicy::None;
    if !consumers
        .iter()
        .any(|info| subjects::pool_of_consumer(&info.name).is_some())
    {
        // No pool ever ran here: nothing is finished.
        return 0;
    }
    consumers
        .iter()
        .filter(keeps)
        .map(|info| floor_of(space, info))
        .chain(gone.map(|(_, floor)| floor))
        .min()
        .unwrap_or(0)
}

pub(super) fn floor_of(space: &Space, info: &Info) -> u64 {
    if info.num_pending == 0 && info.num_ack_pending == 0 {
        space.last
    } else {
        info.ack_floor.stream_sequence
    }
}

/// The sequence below which to purge: as much as brings the fill down, and never beyond the floor. `None` when
/// nothing may go.
fn purge_below(space: &Space, floor: u64, down_to_percent: u64) -> Option<u64> {
    let target = space.bytes_max.saturating_mul(down_to_percent) / 100;
    let excess = u128::from(space.bytes.saturating_sub(target));
    let messages = u128::from(space.last.saturating_sub(space.first) + 1);
    let share = excess * messages / u128::from(space.bytes.max(1));
    let below = space
        .first
        .saturating_add(u64::try_from(share).unwrap_or(u64::MAX))
        .min(floor.saturating_add(1));
    (below > space.first).then_some(below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_as_much_goes_as_is_needed() {
        let space = Space {
            bytes: 900,
            bytes_max: 1000,
            first: 1,
            last: 900,
        };
        assert_eq!(purge_below(&space, 900, 60), Some(301));
        assert_eq!(purge_below(&space, 100, 60), Some(101));
        assert_eq!(purge_below(&space, 0, 60), None);
    }

    #[test]
    fn the_defaults_are_valid_and_a_target_above_the_limit_is_a_mistake() {
        let mut reader = Reader::load(None, []);
        JanitorSettings::read(&mut reader);
        reader.finish().unwrap();
        let wrong = [(
            "ACKLINE_JANITOR_PURGE_DOWN_TO_PERCENT".to_owned(),
            "95".to_owned(),
        )];
        let mut reader = Reader::load(None, wrong);
        JanitorSettings::read(&mut reader);
        assert_eq!(reader.finish().unwrap_err().mistakes.len(), 1);
    }

    proptest! {
        #[test]
        fn nothing_above_the_floor_ever_goes(first in 1_u64..1_000, count in 0_u64..1_000_000, floor in 0_u64..1_000_000, bytes in 0_u64..u64::MAX / 200, max in 1_u64..u64::MAX / 200, target in 0_u64..99) {
            let space = Space { bytes, bytes_max: max, first, last: first + count };
            if let Some(below) = purge_below(&space, floor, target) {
                prop_assert!(below <= floor + 1);
                prop_assert!(below > first);
            }
        }
    }
}
