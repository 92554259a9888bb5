//! The workers process: what runs in it, from its configuration to its orderly end.

use crate::scaler::Scaler;
use ackline_api::{ApiSettings, ApiState, PrivateState};
use ackline_catalog::quota::Limits;
use ackline_egress::{Egress, EgressSettings};
use ackline_fleet::board::Board;
use ackline_fleet::floors::FloorKeeper;
use ackline_fleet::gauges::Gauges;
use ackline_fleet::janitor::{Janitor, JanitorMetrics, JanitorSettings};
use ackline_fleet::lag::{self, Watched};
use ackline_fleet::publish;
use ackline_fleet::settings::StatusSettings;
use ackline_fleet::shared_work::{self, SharedWork};
use ackline_fleet::stream_share::{StreamShareMetrics, StreamShareSettings, StreamShares};
use ackline_fleet::surroundings;
use ackline_ownership::lock::Lock;
use ackline_ownership::membership::Membership;
use ackline_ownership::standing::{Standing, State};
use ackline_pools::replies::GraphSettings;
use ackline_pools::{PoolParts, SPECS};
use ackline_replay::{DeadLetters, PoolRules, open, runner};
use ackline_runtime::batch::{self, BatchSize};
use ackline_runtime::log::Log;
use ackline_runtime::metrics::Metrics;
use ackline_runtime::open_breakers::OpenBreakers;
use ackline_runtime::platform::Platform;
use ackline_runtime::pool::Host;
use ackline_runtime::settings::{Concurrency, PoolSettings};
use ackline_runtime::upkeep::Upkeep;
use ackline_shared::clock::now_ms;
use ackline_shared::config::{Reader, Report};
use ackline_shared::nats::{self, Durability, NatsSettings};
use ackline_shared::registry::Registry;
use ackline_shared::shutdown::{Shutdown, ended};
use ackline_shared::subjects::Pool;
use ackline_shared::telemetry::Telemetry;
use ackline_shared::vault::{self, VaultKey};
use ackline_store::Journal;
use ackline_store::rebuild::Rebuilds;
use ackline_traces::{TraceSettings, Traces};
use anyhow::Context as _;
use prometheus_client::registry::Registry as MetricsRegistry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Longest silence while the configuration is read from NATS at the start; all of it may take longer.
const REGISTRY_SILENCE_MAX: Duration = Duration::from_secs(15);
/// How often the read model forgets ids that the log no longer holds.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3600);

/// What runs in a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    pub pools: BTreeSet<Pool>,
    /// Whether the REST API is served.
    pub api: bool,
}

impl Parts {
    /// Reads `all`, or a list such as `flows,replies,api`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self {
                pools: Pool::ALL.into_iter().collect(),
                api: true,
            });
        }
        let mut parts = Self {
            pools: BTreeSet::new(),
            api: false,
        };
        for name in text.split(',').map(str::trim) {
            if name == "api" {
                parts.api = true;
            } else {
                let known = Pool::ALL.map(Pool::as_str).join(", ");
                let pool = name
                    .parse()
                    .map_err(|error| format!("{error}; there are {known}, api and all"))?;
                parts.pools.insert(pool);
            }
        }
        Ok(parts)
    }

    fn need_journal(&self) -> bool {
        self.api || self.pools.contains(&Pool::Journal)
    }
}

/// The checked configuration of the process.
#[derive(Debug)]
pub struct Settings {
    pub telemetry: Telemetry,
    nats: NatsSettings,
    master: VaultKey,
    egress: EgressSettings,
    graph: GraphSettings,
    api: ApiSettings,
    journal_url: String,
    body_bytes_max: usize,
    batch: BatchSize,
    status: StatusSettings,
    traces: TraceSettings,
    janitor: JanitorSettings,
    stream_share: StreamShareSettings,
    pools: BTreeMap<Pool, PoolSettings>,
    journal: PoolSettings,
    concurrency: Concurrency,
    limits: Limits,
}

impl Settings {
    pub fn read(mut reader: Reader) -> Result<Self, Report> {
        let reader = &mut reader;
        let master = vault::master_key(reader);
        if let Err(error) = &master {
            reader.mistake("secrets", error);
        }
        let settings = Self {
            telemetry: Telemetry::read(reader),
            nats: NatsSettings::read(reader),
            // A placeholder that the report below never lets out.
            master: master.unwrap_or_else(|_| VaultKey::generate()),
            egress: EgressSettings::read(reader),
            graph: GraphSettings::read(reader),
            api: ApiSettings::read(reader),
            journal_url: reader.text("journal.url"),
            body_bytes_max: surroundings::read_body_bytes_max(reader),
            batch: BatchSize {
                max: usize::try_from(reader.count("journal.batch_max", 1..=10_000)).unwrap_or(1),
                linger: reader.duration("journal.batch_linger"),
            },
            status: StatusSettings::read(reader),
            traces: TraceSettings::read(reader),
            janitor: JanitorSettings::read(reader),
            stream_share: StreamShareSettings::read(reader),
            pools: Pool::ALL
                .into_iter()
                .filter(|pool| !pool.is_whole())
                .map(|pool| (pool, PoolSettings::read(reader, pool)))
                .collect(),
            journal: PoolSettings::shared(reader),
            concurrency: Concurrency::read(reader),
            limits: Limits::read(reader),
        };
        std::mem::replace(reader, Reader::load(None, [])).finish()?;
        Ok(settings)
    }
}

/// Runs the parts until the signal; `listen` wins over the configured addresses.
pub async fn run(settings: Settings, parts: Parts, shutdown: Shutdown) -> anyhow::Result<()> {
    let needs_journal = parts
        .need_journal()
        .then_some(settings.journal_url.as_str());
    let surroundings = surroundings::surroundings(settings.body_bytes_max, needs_journal);
    let listeners = Listeners::bind(&settings, &parts).await?;
    let client = nats::connect(&settings.nats, "ackline-workers").await?;
    let context = nats::jetstream(client);
    let bulk = nats::jetstream(nats::connect(&settings.nats, "ackline-workers-bulk").await?);
    let buckets = nats::prepare(&context, &settings.nats).await?;
    let registry = Registry::watch(buckets.config.clone(), context.client());
    anyhow::ensure!(
        registry.loaded(REGISTRY_SILENCE_MAX).await,
        "NATS sent nothing of the configuration for {} s",
        REGISTRY_SILENCE_MAX.as_secs()
    );
    let log = match settings.nats.durability {
        Durability::Synced => Log::grouped(context, settings.nats.partitions),
        Durability::Stored | Durability::Replicated | Durability::Logged => {
            Log::new(context, settings.nats.partitions)
        }
    };
    let log = log.with_bulk(bulk);
    let platform = Platform::new(log, registry, buckets, settings.master.clone());
    let journal = if parts.need_journal() {
        Some(Journal::at(&settings.journal_url)?)
    } else {
        None
    };
    let mut metrics = MetricsRegistry::default();
    let standing = Standing::default();
    parts
        .pools
        .iter()
        .for_each(|pool| standing.set(*pool, State::Starting));
    let instance = instance_name();
    let counts = Metrics::register_showing(&mut metrics, settings.status.tenants_max);
    let (counts, exporter) = match Traces::open(&settings.traces, &instance, &mut metrics) {
        Some((traces, exporter)) => (counts.with_traces(traces), Some(exporter)),
        None => (counts, None),
    };
    let host = Host {
        platform: platform.clone(),
        metrics: counts,
        standing: standing.clone(),
        membership: Membership::join(
            platform.log.context(),
            &platform.buckets,
            &instance,
            settings.nats.lease_ttl,
        ),
        breakers: OpenBreakers::default(),
        shutdown: shutdown.clone(),
    };
    let board = Board::new(&instance, host.metrics.clone(), standing.clone());
    metrics.register_collector(Box::new(Gauges::new(
        board.clone(),
        settings.status.targets.clone(),
    )));
    let janitor = Janitor {
        context: platform.log.context().clone(),
        floors: platform.floors.clone(),
        locks: platform.buckets.locks.clone(),
        instance: instance.clone(),
        settings: settings.janitor.clone(),
        metrics: JanitorMetrics::register(&mut metrics),
    };
    let shares = StreamShares {
        platform: platform.clone(),
        settings: settings.stream_share,
        metrics: StreamShareMetrics::register(&mut metrics),
    };
    let floors = FloorKeeper {
        platform: platform.clone(),
        pools: SPECS
            .into_iter()
            .filter_map(|spec| {
                let settings = settings.pools.get(&spec.pool)?.clone();
                Some((spec.pool, (settings, spec.askers)))
            })
            .collect(),
    };
    let mut running = JoinSet::new();
    host.breakers.register(&mut metrics);
    board.watch(host.breakers.clone());
    if let Some(exporter) = exporter {
        running.spawn(exporter.run(shutdown.clone()));
    }
    running.spawn(janitor.run(shutdown.clone()));
    let locks = platform.buckets.locks.clone();
    let lock = Lock::new(locks, shared_work::LOCK, &instance, settings.nats.lease_ttl);
    running.spawn(SharedWork { shares, floors }.run(lock, shutdown.clone()));
    running.spawn(surroundings::follow(
        surroundings.clone(),
        platform.log.clone(),
        shutdown.clone(),
    ));
    let upkeep = Upkeep::default();
    let (client, streams) = (platform.log.context().client(), settings.nats.clone());
    running.spawn(upkeep.clone().run(client, streams, shutdown.clone()));
    spawn_status(&mut running, &settings, &parts, &host, &board);
    if let Some(listener) = listeners.keda {
        let scaler = Scaler::new(board.clone(), settings.status.targets.clone());
        running.spawn(scaler.serve(listener, shutdown.clone()));
    }
    if let Some(journal) = &journal {
        running.spawn(journal.clone().look_after(shutdown.clone()));
        let journal = journal.clone();
        board.watch_fault(Pool::Journal, move || journal.fault());
    }
    spawn_pools(&mut running, &settings, &parts, &host, journal.as_ref())?;
    let private = PrivateState {
        platform: platform.clone(),
        journal: journal.clone(),
        standing,
        board: board.clone(),
        surroundings: surroundings.clone(),
        upkeep,
        unreadable: ackline_api::register_unreadable(&mut metrics),
        metrics: Arc::new(metrics),
    };
    running.spawn(serve(
        listeners.private,
        ackline_api::build_private(private),
        shutdown.clone(),
    ));
    if let (Some(listener), Some(journal)) = (listeners.api, journal.clone()) {
        let dead_letters = DeadLetters::new(platform.log.clone(), &platform.buckets);
        running.spawn(runner::run(
            dead_letters,
            instance,
            settings.nats.lease_ttl,
            shutdown.clone(),
        ));
        let targets = settings.status.targets.clone();
        let (limits, concurrency) = (settings.limits.clone(), settings.concurrency.clone());
        let settings = settings.api.clone();
        let service = ackline_api::build(ApiState {
            platform,
            journal,
            settings,
            board,
            targets,
            concurrency,
            limits,
            pools: PoolRules {
                target: ackline_pools::target,
                refusal: ackline_pools::refusal,
            },
        });
        running.spawn(serve(listener, service, shutdown.clone()));
    }
    tracing::info!(pools = ?parts.pools, api = parts.api, "the workers run");
    while let Some(ended) = running.join_next().await {
        // A process without one of its parts would look healthy; whoever supervises it starts it whole.
        ended.context("a part of the process broke")?;
    }
    host.membership.leave().await;
    if let Some(journal) = journal {
        journal.close().await;
    }
    Ok(())
}

fn spawn_status(
    running: &mut JoinSet<()>,
    settings: &Settings,
    parts: &Parts,
    host: &Host,
    board: &Board,
) {
    let context = host.platform.log.context();
    let watched: Vec<Watched> = Pool::ALL
        .into_iter()
        .flat_map(|pool| Watched::of(pool, host.platform.log.partitions()))
        .collect();
    watched
        .iter()
        .for_each(|lane| board.activity(lane.pool).spread(lane.partitions));
    let shutdown = || host.shutdown.clone();
    running.spawn(publish::speak(context.client(), board.clone(), shutdown()));
    running.spawn(publish::listen(context.client(), board.clone(), shutdown()));
    running.spawn(
        host.metrics
            .following()
            .clone()
            .serve(context.client(), shutdown()),
    );
    let replays = host.platform.buckets.replays.clone();
    running.spawn(open::follow(
        context.clone(),
        replays,
        board.clone(),
        open::INTERVAL,
        shutdown(),
    ));
    let answers_for_all = parts.api || settings.status.keda_listen.is_some();
    let interval = settings.status.lag_interval;
    running.spawn(lag::watch(
        context.clone(),
        watched,
        board.clone(),
        interval,
        answers_for_all,
        shutdown(),
    ));
}

fn spawn_pools(
    running: &mut JoinSet<()>,
    settings: &Settings,
    parts: &Parts,
    host: &Host,
    journal: Option<&Journal>,
) -> anyhow::Result<()> {
    let egress = Egress::new(&settings.egress)?;
    for pool in &parts.pools {
        let bounds = settings.pools.get(pool).unwrap_or(&settings.journal);
        let parts = PoolParts {
            host,
            settings: bounds,
            egress: &egress,
            graph: &settings.graph,
        };
        if let Some(spec) = SPECS.iter().find(|spec| spec.pool == *pool) {
            running.spawn((spec.start)(&parts)?);
            continue;
        }
        match pool {
            Pool::Journal => {
                if let Some(journal) = journal {
                    let rebuilds = Rebuilds::new(host.platform.buckets.replays.clone());
                    journal.rebuilt_by(rebuilds.clone());
                    running.spawn(
                        rebuilds
                            .follow(host.platform.log.context().client(), host.shutdown.clone()),
                    );
                    let job = batch::run(
                        journal.clone(),
                        settings.journal.clone(),
                        settings.batch,
                        host.clone(),
                    );
                    running.spawn(job);
                    running.spawn(prune(
                        journal.clone(),
                        settings.nats.max_age,
                        host.shutdown.clone(),
                    ));
                }
            }
            pool => anyhow::bail!("nothing starts the pool {pool}: add it to SPECS"),
        }
    }
    Ok(())
}

async fn prune(journal: Journal, keep: Duration, mut shutdown: Shutdown) {
    let keep_ms = u64::try_from(keep.as_millis())
        .unwrap_or(u64::MAX)
        .saturating_mul(2);
    loop {
        if let Err(error) = journal.prune(now_ms().saturating_sub(keep_ms)).await {
            tracing::warn!(%error, "old ids stay in the read model for now");
        }
        tokio::select! {
            () = ended(&mut shutdown) => return,
            () = tokio::time::sleep(PRUNE_INTERVAL) => {}
        }
    }
}

async fn serve(listener: TcpListener, service: axum::Router, mut shutdown: Shutdown) {
    let signal = async move { ended(&mut shutdown).await };
    if let Err(error) = ackline_api::serve(listener, service, signal).await {
        tracing::error!(%error, "a listener ended");
    }
}

/// Sockets are bound before anything else starts, so that a taken port is the first thing said.
struct Listeners {
    private: TcpListener,
    api: Option<TcpListener>,
    keda: Option<TcpListener>,
}

impl Listeners {
    async fn bind(settings: &Settings, parts: &Parts) -> anyhow::Result<Self> {
        let private = bind("api.private_listen", settings.api.private_listen).await?;
        let api = if parts.api {
            Some(bind("api.listen", settings.api.listen).await?)
        } else {
            None
        };
        let keda = match settings.status.keda_listen {
            Some(address) => Some(bind("scaling.keda_listen", address).await?),
            None => None,
        };
        Ok(Self { private, api, keda })
    }
}

async fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} ({key})"))
}

/// Tells this process from all others, earlier ones of the same number too.
fn instance_name() -> String {
    format!("{}-{:08x}", std::process::id(), rand::random::<u32>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_named_or_refused_with_the_choices() {
        assert_eq!(Parts::parse("all").unwrap().pools.len(), Pool::ALL.len());
        let some = Parts::parse("flows, api").unwrap();
        assert_eq!(
            (some.pools, some.api),
            (BTreeSet::from([Pool::Flows]), true)
        );
        let refused = Parts::parse("flows,replys").unwrap_err();
        assert!(
            refused.contains("replys") && refused.contains("replies"),
            "{refused}"
        );
    }

    #[test]
    fn every_pool_is_started_by_somebody() {
        let started: BTreeSet<Pool> = SPECS.iter().map(|spec| spec.pool).collect();
        let apart = [Pool::Journal];
        let all = Pool::ALL.into_iter().filter(|pool| !apart.contains(pool));
        assert_eq!(started, all.collect());
    }

    #[test]
    fn a_missing_master_key_is_one_mistake_among_all() {
        let wrong = [("ACKLINE_POOLS_WINDOW".to_owned(), "0".to_owned())];
        let report = Settings::read(Reader::load(None, wrong)).unwrap_err();
        assert_eq!(report.mistakes.len(), 2, "{report}");
    }
}
