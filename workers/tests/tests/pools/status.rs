//! What processes tell about themselves over NATS, and what of the streams they see.

use super::given_up::bury;
use super::stage::{DEADLINE, RunningPool, Stage};
use ackline_engine::state::BreakerReport;
use ackline_fleet::board::Board;
use ackline_fleet::diagnosis::Condition;
use ackline_fleet::fleet::PoolSum;
use ackline_fleet::gauges::Gauges;
use ackline_fleet::lag::{self, Watched};
use ackline_fleet::publish;
use ackline_fleet::scaling::Targets;
use ackline_ownership::membership::Membership;
use ackline_ownership::standing::{Standing, State};
use ackline_replay::open;
use ackline_replay::settled::Settled;
use ackline_runtime::batch::{self, BatchJob, BatchSize};
use ackline_runtime::job::{Job, LaneSource, Verdict, Work};
use ackline_runtime::metrics::Metrics;
use ackline_runtime::open_breakers::OpenBreakers;
use ackline_runtime::pool::Host;
use ackline_runtime::settings::PoolSettings;
use ackline_runtime::status::held::Drain;
use ackline_runtime::tuning::{Mode, PoolTuning, Stamped, TenantTuning, TuningStore};
use ackline_shared::clock::now_ms;
use ackline_shared::config::Reader;
use ackline_shared::ids::TenantId;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, Class, Partition, Pool, SpillQueue, header, tuning_key};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

/// A job that ends when it is let.
struct Held(Arc<Semaphore>);

impl Job for Held {
    const POOL: Pool = Pool::Relay;

    fn lanes() -> Vec<LaneSource> {
        let filters = |partition| vec![subjects::update_filter(partition, Class::Message)];
        vec![LaneSource {
            name: "msg",
            stream: subjects::UPDATES,
            filters,
            weight: 1,
        }]
    }

    async fn run(&self, _work: &Work) -> Verdict {
        self.0.acquire().await.unwrap().forget();
        Verdict::Done
    }
}

/// A process as far as it is seen: what it counts, what it says and what it hears.
struct Process {
    board: Board,
    metrics: Metrics,
    standing: Standing,
    registry: Registry,
    _end: watch::Sender<bool>,
}

impl Process {
    fn start(stage: &Stage, instance: &str, looks_at_unowned: bool) -> Self {
        let (end, shutdown) = watch::channel(false);
        let (mut registry, standing) = (Registry::default(), Standing::default());
        let metrics = Metrics::register(&mut registry);
        let board = Board::new(instance, metrics.clone(), standing.clone());
        registry.register_collector(Box::new(Gauges::new(board.clone(), targets())));
        let context = stage.platform.log.context().clone();
        let watched: Vec<_> = Held::lanes()
            .into_iter()
            .map(|lane| Watched {
                pool: Pool::Relay,
                lane,
                partitions: 4,
            })
            .collect();
        board.activity(Pool::Relay).spread(4);
        tokio::spawn(publish::speak(
            context.client(),
            board.clone(),
            shutdown.clone(),
        ));
        tokio::spawn(publish::listen(
            context.client(),
            board.clone(),
            shutdown.clone(),
        ));
        let interval = Duration::from_millis(50);
        tokio::spawn(lag::watch(
            context,
            watched,
            board.clone(),
            interval,
            looks_at_unowned,
            shutdown,
        ));
        Self {
            board,
            metrics,
            standing,
            registry,
            _end: end,
        }
    }

    fn run(&self, stage: &Stage, job: Held) -> RunningPool {
        self.standing.set(Pool::Relay, State::Starting);
        stage.run_seen(
            job,
            self.board.instance(),
            self.metrics.clone(),
            self.standing.clone(),
        )
    }

    async fn sees(&self, what: &str, is_so: impl Fn(&PoolSum) -> bool) -> PoolSum {
        let seen = async {
            loop {
                if let Some(pool) = self.board.pool(Pool::Relay).filter(&is_so) {
                    return pool;
                }
                tokio::task::yield_now().await;
            }
        };
        match timeout(DEADLINE, seen).await {
            Ok(pool) => pool,
            Err(_) => panic!("never {what}: {:?}", self.board.pool(Pool::Relay)),
        }
    }

    fn scrape(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text
    }
}

fn targets() -> Targets {
    Targets {
        drain: Duration::from_secs(30),
        min: 0,
        max: 10,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_process_sees_what_another_holds_and_how_far_it_is_behind() {
    let stage = Stage::start(Snapshot::default()).await;
    let (worker, other) = (
        Process::start(&stage, "worker", false),
        Process::start(&stage, "other", false),
    );
    let let_go = Arc::new(Semaphore::new(0));
    let (_stop, _running) = worker.run(&stage, Held(let_go.clone()));
    for n in 0..3 {
        stage
            .publish(&format!("US.{}", n % 2), &format!("m{n}"), "x")
            .await;
    }
    let pool = other
        .sees("3 behind", |pool| {
            pool.lag_messages() == 3 && pool.load.running == 2
        })
        .await;
    assert_eq!((pool.load.queued, pool.working(), pool.unowned), (1, 1, 0));
    assert_eq!(
        (pool.lanes[0].partition, pool.tenants[0].tenant.as_str()),
        (Some(1), "acme")
    );
    assert!(pool.lag() > Duration::ZERO);
    let text = worker.scrape();
    for queue in [
        "ackline_pool_running{pool=\"relay\"} 2.0",
        "ackline_pool_lag_messages{pool=\"relay\",lane=\"msg\"} 3.0",
        "ackline_tenant_running{pool=\"relay\",tenant=\"acme\"} 2.0",
        "ackline_pool_owned_partitions{pool=\"relay\"} 4.0",
        "ackline_workers_wanted{pool=\"relay\"} 1.0",
    ] {
        assert!(text.contains(queue), "{queue} in {text}");
    }
    let_go.add_permits(3);
    let pool = other
        .sees("caught up", |pool| {
            pool.lag_messages() == 0 && pool.rates.finished > 0.0
        })
        .await;
    assert_eq!(pool.load.held(), 0);
    assert_eq!(pool.diagnosis().condition, Condition::Healthy);
    assert_eq!(pool.service.count(), 3);
    let text = worker.scrape();
    for queue in [
        "ackline_pool_verdicts_total{pool=\"relay\",verdict=\"done\"} 3",
        "ackline_pool_service_seconds_count{pool=\"relay\"} 3",
        "ackline_pool_wait_seconds_count{pool=\"relay\"} 3",
        "ackline_pool_owner_changes_total{pool=\"relay\",change=\"taken\"} 4",
        "ackline_pool_lag_seconds{pool=\"relay\",lane=\"msg\"} 0.0",
        "ackline_pool_waiting{pool=\"relay\"} 0.0",
        "ackline_pool_spilled{pool=\"relay\"} 0.0",
        "ackline_pool_parked{pool=\"relay\"} 0.0",
        "ackline_pool_breakers_open{pool=\"relay\"} 0.0",
    ] {
        assert!(text.contains(queue), "{queue} in {text}");
    }
}

/// Work on whole batches that does nothing.
struct Filed;

impl BatchJob for Filed {
    const POOL: Pool = Pool::Journal;
    const STREAM: &'static str = subjects::UPDATES;

    async fn run(&self, _batch: &[Work]) -> Result<Vec<(usize, String)>, String> {
        Ok(Vec::new())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_works_in_batches_shows_its_pause_too() {
    let stage = Stage::start(Snapshot::default()).await;
    let process = Process::start(&stage, "one", false);
    let (_end, shutdown) = watch::channel(false);
    let host = Host {
        platform: stage.platform.clone(),
        metrics: process.metrics.clone(),
        standing: process.standing.clone(),
        membership: Membership::join(
            stage.platform.log.context(),
            &stage.platform.buckets,
            "one",
            Duration::from_secs(2),
        ),
        breakers: OpenBreakers::default(),
        shutdown,
    };
    let settings = PoolSettings::shared(&mut Reader::load(None, []));
    let size = BatchSize {
        max: 10,
        linger: Duration::ZERO,
    };
    tokio::spawn(batch::run(Filed, settings, size, host));
    let shows = async |is_paused: bool| {
        let shown = async {
            while process
                .board
                .pool(Pool::Journal)
                .is_none_or(|pool| pool.working() == 0 || pool.paused != is_paused)
            {
                tokio::task::yield_now().await;
            }
        };
        assert!(
            timeout(DEADLINE, shown).await.is_ok(),
            "{:?}",
            process.board.pool(Pool::Journal)
        );
    };
    shows(false).await;
    let store = TuningStore::new(stage.platform.buckets.tuning.clone());
    let value = PoolTuning {
        paused: true,
        ..PoolTuning::default()
    };
    let entry = Stamped {
        value,
        by: "the operator".to_owned(),
        at_ms: now_ms(),
        platform: true,
    };
    store
        .write(&tuning_key::pool(Pool::Journal), &entry, 0)
        .await
        .unwrap();
    shows(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_downstream_with_an_open_breaker_is_seen_with_its_pool() {
    let stage = Stage::start(Snapshot::default()).await;
    let (worker, other) = (
        Process::start(&stage, "worker", false),
        Process::start(&stage, "other", false),
    );
    let (_stop, _running) = worker.run(&stage, Held(Arc::new(Semaphore::new(0))));
    let breakers = OpenBreakers::default();
    worker.board.watch(breakers.clone());
    for (pool, name) in [
        (Pool::Relay, "relay.acme.bot"),
        (Pool::Events, "endpoint.acme.shop"),
    ] {
        let (since, next) = (Some(Duration::from_secs(9)), Duration::from_secs(1));
        breakers.publish(
            pool,
            vec![BreakerReport {
                name: name.to_owned(),
                since,
                next,
                is_slow: false,
            }],
        );
    }
    let pool = other
        .sees("circuit breaker open", |pool| {
            pool.breakers_open == 1 && pool.working() == 1
        })
        .await;
    assert_eq!(pool.breakers[0].downstream, "relay.acme.bot");
    assert!(
        pool.diagnosis()
            .words
            .contains("relay.acme.bot circuit breaker open for"),
        "{:?}",
        pool.diagnosis()
    );
    assert!(
        worker
            .scrape()
            .contains("ackline_pool_breakers_open{pool=\"relay\"} 1.0")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_seen_until_nothing_is_left_of_what_was_there() {
    let stage = Stage::start(Snapshot::default()).await;
    let worker = Process::start(&stage, "worker", false);
    let let_go = Arc::new(Semaphore::new(0));
    let (_stop, _running) = worker.run(&stage, Held(let_go.clone()));
    for n in 0..3 {
        stage.publish("US.1", &format!("m{n}"), "x").await;
    }
    worker.sees("3 held", |pool| pool.load.held() == 3).await;
    let acme = TenantId::new("acme").unwrap();
    let store = TuningStore::new(stage.platform.buckets.tuning.clone());
    let value = TenantTuning {
        mode: Some(Mode::Drain),
        ..TenantTuning::default()
    };
    let entry = Stamped {
        value,
        by: "the operator".to_owned(),
        at_ms: now_ms(),
        platform: true,
    };
    store
        .write(&tuning_key::tenant(Pool::Relay, &acme), &entry, 0)
        .await
        .unwrap();
    while now_ms() <= entry.at_ms {
        tokio::task::yield_now().await;
    }
    stage.publish("US.1", "later", "x").await;
    let drain = |pool: &PoolSum| pool.tenants.first().and_then(|tenant| tenant.drain);
    let left = Some(Drain {
        left: 3,
        is_read: true,
    });
    let pool = worker
        .sees("3 left", |pool| {
            drain(pool) == left && pool.load.held() == 4
        })
        .await;
    assert_eq!(pool.tenants_held, 1);
    assert_eq!(pool.tenants[0].turned.as_ref().unwrap().by, "the operator");
    assert!(
        pool.diagnosis().words.contains("acme draining, 3 left"),
        "{}",
        pool.diagnosis().words
    );
    let_go.add_permits(100);
    let pool = worker
        .sees("drained", |pool| {
            drain(pool).is_some_and(|drain| drain.is_done())
        })
        .await;
    assert_eq!(pool.load.held(), 1, "what came later is kept");
    assert!(
        worker
            .scrape()
            .contains("ackline_pool_tenants_held{pool=\"relay\"} 1.0")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_counts_the_open_dead_letters_and_all_tell_them() {
    let stage = Stage::start(Snapshot::default()).await;
    let (first, other) = (
        Process::start(&stage, "a", false),
        Process::start(&stage, "b", false),
    );
    let (_stop, _running) = other.run(&stage, Held(Arc::new(Semaphore::new(0))));
    bury(&stage, Pool::Relay, 1, "relay a: answered 400", now_ms()).await;
    let (_end, shutdown) = watch::channel(false);
    for process in [&first, &other] {
        let (context, books) = (
            stage.platform.log.context().clone(),
            stage.platform.buckets.replays.clone(),
        );
        let interval = Duration::from_millis(50);
        tokio::spawn(open::follow(
            context,
            books,
            process.board.clone(),
            interval,
            shutdown.clone(),
        ));
    }
    let open = |pool: &PoolSum| pool.dead.as_ref().map(|dead| dead.open);
    for process in [&first, &other] {
        process
            .sees("a dead letter", |pool| open(pool) == Some(1))
            .await;
    }
    let reported = async {
        while !first.board.is_first() || other.board.tick().dead.is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, reported)
        .await
        .expect("the second by name counts nothing");
    Settled::new(stage.platform.buckets.replays.clone())
        .claim("dc_1", &[1])
        .await
        .unwrap();
    other.sees("none open", |pool| open(pool) == Some(0)).await;
    let text = first.scrape();
    assert!(
        text.contains("ackline_dead_letters_open{pool=\"relay\"} 0.0"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_without_workers_is_seen_and_calls_for_one() {
    let stage = Stage::start(Snapshot::default()).await;
    let api = Process::start(&stage, "api", true);
    let worker = Process::start(&stage, "worker", false);
    let (stop, running) = worker.run(&stage, Held(Arc::new(Semaphore::new(100))));
    stage.publish("US.1", "m1", "x").await;
    api.sees("done", |pool| {
        pool.working() == 1 && pool.history.iter().sum::<u32>() == 1
    })
    .await;
    stop.send_replace(true);
    timeout(DEADLINE, running).await.unwrap().unwrap();
    stage.publish("US.1", "m2", "x").await;
    let pool = api
        .sees("waiting", |pool| {
            pool.working() == 0 && pool.lag_messages() == 1
        })
        .await;
    assert_eq!(pool.diagnosis().words, "nobody works on it; 1 waiting");
    assert_eq!(pool.wanted(&targets()), 1);
    let text = api.scrape();
    assert!(
        text.contains("ackline_unowned_lag_messages{pool=\"relay\",lane=\"msg\"} 1.0"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_spill_queues_without_workers_is_seen_and_calls_for_one() {
    let stage = Stage::start(Snapshot::default()).await;
    let api = Process::start(&stage, "api", true);
    for (conversation, id) in [(None, "moved"), (Some("00ff".to_owned()), "parked")] {
        let (lane, tenant) = ("msg".to_owned(), TenantId::new("acme").unwrap());
        let queue = SpillQueue {
            partition: Partition(2),
            lane,
            tenant,
            conversation,
        };
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(header::MSG_ID, id);
        stage
            .platform
            .log
            .write_raw(queue.subject(Pool::Relay), headers, "x".into())
            .await
            .unwrap();
    }
    let pool = api
        .sees("in spill queues", |pool| pool.unfinished() == 2)
        .await;
    assert_eq!(
        (pool.lag_messages(), pool.waiting(), pool.working()),
        (1, 1, 0)
    );
    assert_eq!(pool.wanted(&targets()), 1);
}
