//! What processes tell about themselves over NATS, and what of the streams they see.

use super::stage::{DEADLINE, RunningPool, Stage};
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, Class, Pool};
use ackline_workers::core::job::{Job, LaneSource, Verdict, Work};
use ackline_workers::core::metrics::Metrics;
use ackline_workers::core::scaling::Targets;
use ackline_workers::core::standing::{Standing, State};
use ackline_workers::core::status::board::Board;
use ackline_workers::core::status::diagnosis::Condition;
use ackline_workers::core::status::fleet::PoolSum;
use ackline_workers::core::status::gauges::Gauges;
use ackline_workers::core::status::lag::{self, Watched};
use ackline_workers::core::status::publish;
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
        vec![LaneSource { name: "msg", stream: subjects::UPDATES, filters, weight: 1 }]
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
            .map(|lane| Watched { pool: Pool::Relay, lane, partitions: 4 })
            .collect();
        board.activity(Pool::Relay).spread(4);
        tokio::spawn(publish::speak(context.client(), board.clone(), shutdown.clone()));
        tokio::spawn(publish::listen(context.client(), board.clone(), shutdown.clone()));
        let interval = Duration::from_millis(50);
        tokio::spawn(lag::watch(context, watched, board.clone(), interval, looks_at_unowned, shutdown));
        Self { board, metrics, standing, registry, _end: end }
    }

    fn run(&self, stage: &Stage, job: Held) -> RunningPool {
        self.standing.set(Pool::Relay, State::Starting);
        stage.run_seen(job, self.board.instance(), self.metrics.clone(), self.standing.clone())
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
    Targets { drain: Duration::from_secs(30), min: 0, max: 10 }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_process_sees_what_another_holds_and_how_far_it_is_behind() {
    let stage = Stage::start(Snapshot::default()).await;
    let (worker, other) = (Process::start(&stage, "worker", false), Process::start(&stage, "other", false));
    let let_go = Arc::new(Semaphore::new(0));
    let (_stop, _running) = worker.run(&stage, Held(let_go.clone()));
    for n in 0..3 {
        stage.publish(&format!("US.{}", n % 2), &format!("m{n}"), "x").await;
    }
    let pool = other.sees("3 behind", |pool| pool.lag_messages() == 3 && pool.load.running == 2).await;
    assert_eq!((pool.load.queued, pool.working(), pool.unowned), (1, 1, 0));
    assert_eq!((pool.lanes[0].partition, pool.tenants[0].tenant.as_str()), (Some(1), "acme"));
    assert!(pool.lag() > Duration::ZERO);
    let text = worker.scrape();
    for line in [
        "ackline_pool_running{pool=\"relay\"} 2.0",
        "ackline_pool_lag_messages{pool=\"relay\",lane=\"msg\"} 3.0",
        "ackline_tenant_running{pool=\"relay\",tenant=\"acme\"} 2.0",
        "ackline_pool_owned_partitions{pool=\"relay\"} 4.0",
        "ackline_workers_wanted{pool=\"relay\"} 1.0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let_go.add_permits(3);
    let pool = other.sees("caught up", |pool| pool.lag_messages() == 0 && pool.rates.finished > 0.0).await;
    assert_eq!(pool.load.held(), 0);
    assert_eq!(pool.diagnosis().condition, Condition::Healthy);
    assert_eq!(pool.service.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_without_workers_is_seen_and_calls_for_one() {
    let stage = Stage::start(Snapshot::default()).await;
    let api = Process::start(&stage, "api", true);
    let worker = Process::start(&stage, "worker", false);
    let (stop, running) = worker.run(&stage, Held(Arc::new(Semaphore::new(100))));
    stage.publish("US.1", "m1", "x").await;
    api.sees("done", |pool| pool.working() == 1 && pool.history.iter().sum::<u32>() == 1).await;
    stop.send_replace(true);
    timeout(DEADLINE, running).await.unwrap().unwrap();
    stage.publish("US.1", "m2", "x").await;
    let pool = api.sees("waiting", |pool| pool.working() == 0 && pool.lag_messages() == 1).await;
    assert_eq!(pool.diagnosis().words, "nobody works on it; 1 waiting");
    assert_eq!(pool.wanted(&targets()), 1);
}
