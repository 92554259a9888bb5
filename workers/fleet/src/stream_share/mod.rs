//! Keeps any tenant from filling what all share: counts whose bytes the streams hold, and holds up whoever has more than
//! its share until it has less.
//!
//! One process at a time counts, and only streams that are filling up. What is held up loses nothing: deliveries get
//! 503 and Meta keeps them, sends get 429, and pools leave the tenant's work where it is. A tenant whose dead letters
//! fill its share rests in every pool that would write more of them, until somebody replays or discards some.

mod account;
mod verdict;

use super::janitor::{Space, floor};
use account::Account;
use ackline_runtime::platform::Platform;
use ackline_runtime::spill::References;
use ackline_runtime::tuning::{Stamped, TenantTuning, TuningStore};
use ackline_shared::clock::now_ms;
use ackline_shared::config::Reader;
use ackline_shared::ids::TenantId;
use ackline_shared::overdraft::{Holding, Overdraft};
use ackline_shared::subjects::{self, Pool, SpillQueue, Subject, config_key, header, tuning_key};
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::consumer::{DeliverPolicy, Info};
use async_nats::jetstream::stream::Stream;
use futures_util::{StreamExt, TryStreamExt};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use verdict::Share;

const STREAMS: [&str; 4] = [
    subjects::UPDATES,
    subjects::OUTBOUND,
    subjects::SPILL,
    subjects::DEAD,
];
/// Who held a tenant up begins its name so.
const BY: &str = "share:";
/// Time for counting at one look; what is left is counted at the next.
const COUNT_WAIT: Duration = Duration::from_secs(4);
const ANSWER_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamShareSettings {
    share: Share,
    interval: Duration,
}

impl StreamShareSettings {
    pub fn read(reader: &mut Reader) -> Self {
        let tenant_percent = reader.count("stream_share.tenant_percent", 0..=100);
        let from_percent = reader.count("stream_share.from_percent", 1..=100);
        let interval = reader.duration("stream_share.interval");
        Self {
            share: Share {
                tenant_percent,
                from_percent,
            },
            interval,
        }
    }
}

/// How many tenants are held up.
#[derive(Debug, Clone, Default)]
pub struct StreamShareMetrics {
    over: Family<OfStream, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStream {
    stream: &'static str,
}

impl StreamShareMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "Tenants that hold more of a stream than their share and are held up, as the process that counts sees it";
        registry.register("ackline_tenants_over_share", help, metrics.over.clone());
        metrics
    }
}

/// Counts, as the one process that does.
#[derive(Debug)]
pub struct StreamShares {
    /// Where the streams and buckets are.
    pub platform: Platform,
    pub settings: StreamShareSettings,
    pub metrics: StreamShareMetrics,
}

type Over = BTreeMap<TenantId, Overdraft>;

impl StreamShares {
    /// Counts for as long as it is waited for; never ends.
    pub(super) async fn count_for_good(&self) {
        if self.settings.share.tenant_percent == 0 {
            return std::future::pending().await;
        }
        let (mut accounts, mut references) = (HashMap::new(), References::default());
        loop {
            if let Err(error) = self.look(&mut accounts, &mut references).await {
                tracing::warn!(%error, "whose bytes the streams hold could not be counted");
            }
            sleep(self.settings.interval).await;
        }
    }

    /// Looks at every stream once and holds up, or lets go, whoever is due.
    async fn look(
        &self,
        accounts: &mut HashMap<&'static str, Account>,
        references: &mut References,
    ) -> Result<(), Trouble> {
        let before = self.platform.snapshot();
        let mut over = Over::new();
        for name in STREAMS {
            let was = |tenant: &TenantId| {
                before
                    .overdrafts
                    .get(tenant)
                    .is_some_and(|overdraft| overdraft.is_of(&[name]))
            };
            let exceeded = match self.exceeded(name, accounts, references, was).await? {
                Some(exceeded) if before.tenants.len() > 1 => exceeded,
                // Nobody else is there to be spared, or it is not counted yet: what was, stays.
                Some(_) => BTreeMap::new(),
                None => before
                    .overdrafts
                    .iter()
                    .filter_map(|(tenant, held)| Some((tenant.clone(), *held.streams.get(name)?)))
                    .collect(),
            };
            let gauge = self.metrics.over.get_or_create(&OfStream { stream: name });
            gauge.set(i64::try_from(exceeded.len()).unwrap_or(i64::MAX));
            for (tenant, holding) in exceeded {
                over.entry(tenant)
                    .or_default()
                    .streams
                    .insert(name.to_owned(), holding);
            }
        }
        self.report(&before.overdrafts, &over).await?;
        self.hold_up(&over).await
    }

    /// Who holds too much of a stream; `None` while it is not counted to its end.
    async fn exceeded(
        &self,
        name: &'static str,
        accounts: &mut HashMap<&'static str, Account>,
        references: &mut References,
        was: impl Fn(&TenantId) -> bool,
    ) -> Result<Option<BTreeMap<TenantId, Holding>>, Trouble> {
        let context = self.platform.log.context();
        let stream = timeout(ANSWER_WAIT, context.get_stream(name))
            .await
            .map_err(Trouble::new)?;
        let stream = stream.map_err(Trouble::new)?;
        let space = Space::of(&stream);
        // A little early, so that the count is there when it matters.
        if !space.is_above(self.settings.share.from_percent / 2) {
            accounts.remove(name);
            return Ok(Some(BTreeMap::new()));
        }
        let is_read = matches!(name, subjects::UPDATES | subjects::OUTBOUND);
        let first = if is_read {
            let consumers = timeout(ANSWER_WAIT, stream.consumers().try_collect::<Vec<Info>>());
            let consumers = consumers
                .await
                .map_err(Trouble::new)?
                .map_err(Trouble::new)?;
            let noted = timeout(ANSWER_WAIT, self.platform.floors.read(name)).await;
            let noted = noted.map_err(Trouble::new)?.map_err(Trouble::new)?;
            let floor = floor(&space, &consumers, &noted.floors);
            space.first.max(floor.saturating_add(1))
        } else {
            space.first
        };
        let account = accounts.entry(name).or_insert_with(|| Account::new(first));
        account.forget_below(first);
        // What is taken out from between is only seen as a sum.
        if account.bytes() > space.bytes.saturating_add(space.bytes / 10) {
            *account = Account::new(first);
        }
        if !count(&stream, account, space.last).await? {
            return Ok(None);
        }
        let (mut held, mut unfinished) = (account.held().clone(), account.bytes());
        // Every pool has acknowledged what spill queues refer to, and still it takes room.
        if is_read {
            let following = timeout(COUNT_WAIT, references.follow(context)).await;
            following.map_err(Trouble::new)?.map_err(Trouble::new)?;
            for (tenant, bytes) in references.held_below(name, first) {
                *held.entry(tenant).or_default() += bytes;
                unfinished = unfinished.saturating_add(bytes);
            }
        }
        let unfinished = unfinished.min(space.bytes);
        Ok(Some(self.settings.share.exceeded(
            space.bytes_max,
            &held,
            unfinished,
            was,
        )))
    }

    /// Writes down for the edge and the API who is over its share, and who is not any more.
    async fn report(
        &self,
        before: &BTreeMap<TenantId, std::sync::Arc<Overdraft>>,
        over: &Over,
    ) -> Result<(), Trouble> {
        let config = &self.platform.buckets.config;
        for (tenant, overdraft) in over {
            let is_reported =
                |reported: &Overdraft| reported.streams.keys().eq(overdraft.streams.keys());
            if before
                .get(tenant)
                .is_some_and(|reported| is_reported(reported))
            {
                continue;
            }
            let words = overdraft.words();
            tracing::warn!(%tenant, words, "this tenant holds more than its share of a stream and is held up");
            let reported = Overdraft {
                v: Overdraft::VERSION,
                at_ms: now_ms(),
                ..overdraft.clone()
            };
            let bytes = serde_json::to_vec(&reported).map_err(Trouble::new)?;
            config
                .put(config_key::overdraft(tenant), bytes.into())
                .await
                .map_err(Trouble::new)?;
        }
        for tenant in before.keys().filter(|tenant| !over.contains_key(tenant)) {
            tracing::info!(%tenant, "this tenant is within its share of the streams again");
            config
                .delete(config_key::overdraft(tenant))
                .await
                .map_err(Trouble::new)?;
        }
        Ok(())
    }

    /// Pauses tenants where their work would fill more of what they have too much of, and lets them go on after that.
    async fn hold_up(&self, over: &Over) -> Result<(), Trouble> {
        let table = self.platform.tuning.table();
        for pool in Pool::ALL {
            let is_due = |overdraft: &Overdraft| overdraft.is_of(pool.writes());
            let due: BTreeMap<_, _> = over
                .iter()
                .filter(|(_, overdraft)| is_due(overdraft))
                .collect();
            let ours: BTreeSet<_> = table
                .tenants(pool)
                .filter(|(_, entry)| entry.value.paused && entry.by.starts_with(BY))
                .map(|(tenant, _)| tenant)
                .collect();
            for (tenant, overdraft) in &due {
                if !table
                    .tenant(pool, tenant)
                    .is_some_and(|entry| entry.value.paused)
                {
                    self.turn(pool, tenant, true, &format!("{BY} {}", overdraft.words()))
                        .await?;
                }
            }
            for tenant in ours.into_iter().filter(|tenant| !due.contains_key(tenant)) {
                self.turn(pool, tenant, false, &format!("{BY} within its share again"))
                    .await?;
            }
        }
        Ok(())
    }

    async fn turn(
        &self,
        pool: Pool,
        tenant: &TenantId,
        paused: bool,
        by: &str,
    ) -> Result<(), Trouble> {
        let store = TuningStore::new(self.platform.buckets.tuning.clone());
        let key = tuning_key::tenant(pool, tenant);
        let (revision, stored) = store
            .read::<TenantTuning>(&key)
            .await
            .map_err(Trouble::new)?;
        let value = stored.map(|entry| entry.value).unwrap_or_default();
        if value.paused == paused {
            return Ok(());
        }
        let value = TenantTuning { paused, ..value };
        let stamped = Stamped {
            value,
            by: by.to_owned(),
            at_ms: now_ms(),
            platform: true,
        };
        store
            .write(&key, &stamped, revision)
            .await
            .map(drop)
            .map_err(Trouble::new)
    }
}

/// Counts on to the end of a stream as it was; false when that takes longer.
async fn count(stream: &Stream, account: &mut Account, last: u64) -> Result<bool, Trouble> {
    if account.next() > last {
        return Ok(true);
    }
    let config = OrderedConfig {
        headers_only: true,
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: account.next().max(1),
        },
        ..OrderedConfig::default()
    };
    let consumer = timeout(ANSWER_WAIT, stream.create_consumer(config))
        .await
        .map_err(Trouble::new)?;
    let mut messages = consumer
        .map_err(Trouble::new)?
        .messages()
        .await
        .map_err(Trouble::new)?;
    let until = Instant::now() + COUNT_WAIT;
    while account.next() <= last {
        let next = tokio::time::timeout_at(until, messages.next()).await;
        let Ok(Some(message)) = next else {
            return Ok(false);
        };
        let message = message.map_err(Trouble::new)?;
        let place = message.info().map_err(Trouble::new)?;
        let (sequence, pending) = (place.stream_sequence, place.pending);
        let headers = message.headers.as_ref();
        let payload = headers.and_then(|headers| headers.get(header::MSG_SIZE));
        let payload: u64 = payload
            .and_then(|size| size.as_str().parse().ok())
            .unwrap_or_default();
        let written = headers.map_or(0, |headers| {
            headers
                .iter()
                .map(|(name, values)| {
                    AsRef::<str>::as_ref(name).len()
                        + values.iter().map(|v| v.as_str().len() + 4).sum::<usize>()
                })
                .sum()
        });
        let around = u64::try_from(message.subject.len() + written).unwrap_or_default();
        account.add(sequence, owner(&message.subject), payload + around);
        if pending == 0 {
            return Ok(true);
        }
    }
    Ok(true)
}

fn owner(subject: &str) -> Option<TenantId> {
    match Subject::parse(subject) {
        Some(subject) => Some(subject.tenant().clone()),
        None => SpillQueue::parse(subject).map(|(_, queue)| queue.tenant),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("NATS: {0}")]
struct Trouble(String);

impl Trouble {
    #[allow(clippy::needless_pass_by_value, reason = "for map_err")]
    fn new(error: impl Display) -> Self {
        Self(error.to_string())
    }
}
