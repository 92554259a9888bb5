//! Adaptive concurrency: the limit follows what a pool talks to, and only where an operator says so.

use super::stage::{DEADLINE, Stage};
use ackline_fleet::board::Board;
use ackline_fleet::gauges::Gauges;
use ackline_fleet::scaling::Targets;
use ackline_ownership::standing::{Standing, State};
use ackline_runtime::job::{Job, LaneSource, Verdict, Work};
use ackline_runtime::metrics::Metrics;
use ackline_runtime::status::PoolStatus;
use ackline_runtime::tuning::{PoolTuning, Stamped, TuningStore};
use ackline_shared::clock::now_ms;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, Class, Pool, tuning_key};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const QUICK_MS: u64 = 40;
const SLOW_MS: u64 = 400;
/// Updates stored and not finished: enough for every place to be taken.
const AHEAD: usize = 120;

/// A downstream that takes its time.
#[derive(Clone, Default)]
struct Target {
    takes_ms: Arc<AtomicU64>,
    running: Arc<AtomicUsize>,
    /// The most that ran at once.
    peak: Arc<AtomicUsize>,
    done: Arc<AtomicUsize>,
}

impl Job for Target {
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
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(running, Ordering::SeqCst);
        sleep(Duration::from_millis(self.takes_ms.load(Ordering::SeqCst))).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.done.fetch_add(1, Ordering::SeqCst);
        Verdict::Done
    }
}

/// A process whose pool always has enough to do.
struct Process {
    stage: Arc<Stage>,
    target: Target,
    board: Board,
    registry: Registry,
    feed: JoinSet<()>,
}

impl Process {
    async fn start(adaptive: Option<&str>) -> Self {
        let stage = Arc::new(Stage::start(Snapshot::default()).await);
        let (mut registry, standing) = (Registry::default(), Standing::default());
        let metrics = Metrics::register(&mut registry);
        let board = Board::new("one", metrics.clone(), standing.clone());
        let targets = Targets {
            drain: Duration::from_secs(30),
            min: 0,
            max: 10,
        };
        registry.register_collector(Box::new(Gauges::new(board.clone(), targets)));
        standing.set(Pool::Relay, State::Starting);
        let target = Target::default();
        target.takes_ms.store(QUICK_MS, Ordering::SeqCst);
        let feed = JoinSet::new();
        let mut process = Self {
            stage: stage.clone(),
            target: target.clone(),
            board,
            registry,
            feed,
        };
        if let Some(adaptive) = adaptive {
            process.tune(Some(adaptive)).await;
        }
        let (stop, _running) = stage.run_seen(target.clone(), "one", metrics, standing);
        process.feed.spawn(async move {
            for n in 0_usize.. {
                while n - target.done.load(Ordering::SeqCst) >= AHEAD {
                    sleep(Duration::from_millis(2)).await;
                }
                stage
                    .publish_to(
                        &format!("t{}", n % 8),
                        &format!("US.{n}"),
                        &format!("m{n}"),
                        "x",
                    )
                    .await;
            }
            drop(stop);
        });
        process
    }

    async fn tune(&self, adaptive: Option<&str>) {
        let store = TuningStore::new(self.stage.platform.buckets.tuning.clone());
        let key = tuning_key::pool(Pool::Relay);
        let (revision, _) = store.read::<Value>(&key).await.unwrap();
        let adaptive = adaptive.map(|text| text.parse().unwrap());
        let value = PoolTuning {
            adaptive,
            ..PoolTuning::default()
        };
        let stamped = Stamped {
            value,
            by: "the operator".to_owned(),
            at_ms: now_ms(),
            platform: true,
        };
        store.write(&key, &stamped, revision).await.unwrap();
    }

    fn status(&self) -> PoolStatus {
        self.board.own_pools().remove(0)
    }

    async fn shows(&self, what: &str, is_so: impl Fn(&PoolStatus) -> bool) {
        let seen = async {
            while !is_so(&self.status()) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        let seen = timeout(DEADLINE, seen).await.is_ok();
        let status = self.status();
        assert!(
            seen,
            "never {what}: {:?} of {}",
            status.adaptive, status.concurrency
        );
    }

    async fn does(&self, more: usize) {
        let until = self.target.done.load(Ordering::SeqCst) + more;
        let done = async {
            while self.target.done.load(Ordering::SeqCst) < until {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(DEADLINE, done).await.expect("work is done in time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_falls_while_a_downstream_is_slow_and_recovers_after_it() {
    let process = Process::start(Some("1..8")).await;
    process
        .shows("at the most", |status| status.adaptive == Some(8))
        .await;
    assert_eq!(process.status().concurrency, 8);

    process.target.takes_ms.store(SLOW_MS, Ordering::SeqCst);
    process
        .shows("at the least", |status| status.adaptive == Some(1))
        .await;
    let mut text = String::new();
    encode(&mut text, &process.registry).unwrap();
    for line in [
        "ackline_pool_concurrency{pool=\"relay\"} 1.0",
        "ackline_pool_concurrency_max{pool=\"relay\"} 8.0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    // What was begun before the fall has ended; nothing more runs than is allowed.
    process.does(8).await;
    process.target.peak.store(0, Ordering::SeqCst);
    process.does(3).await;
    assert_eq!(process.target.peak.load(Ordering::SeqCst), 1);

    process.target.takes_ms.store(QUICK_MS, Ordering::SeqCst);
    process
        .shows("recovered", |status| status.adaptive == Some(8))
        .await;

    process.tune(Some("off")).await;
    process
        .shows("off", |status| {
            status.adaptive.is_none() && status.concurrency == 8
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_follows_a_slow_downstream_unless_an_operator_says_so() {
    let process = Process::start(None).await;
    process.does(50).await;
    process.target.takes_ms.store(SLOW_MS, Ordering::SeqCst);
    process.does(40).await;
    process.target.peak.store(0, Ordering::SeqCst);
    process.does(16).await;
    let status = process.status();
    assert_eq!((status.adaptive, status.concurrency), (None, 8));
    // Two places may be kept free.
    assert!(process.target.peak.load(Ordering::SeqCst) >= 6);
}
