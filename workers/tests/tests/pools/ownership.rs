//! Several processes on one pool: joining, leaving, dying, and what outlives the broker.

use super::stage::{DEADLINE, RunningPool, Stage};
use ackline_ownership::lease::{FencingToken, Freshness, Lease, Moment};
use ackline_ownership::owners::Owner;
use ackline_runtime::dedupe::{DedupeStore, Recall};
use ackline_runtime::job::{Job, LaneSource, Verdict, Work};
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, Class, Partition, Pool};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

const PARTITIONS: u16 = 4;

/// Every effect there was, whoever had it.
#[derive(Clone, Default)]
struct Ledger {
    effects: Arc<Mutex<Vec<Effect>>>,
    changed: Arc<Notify>,
}

#[derive(Debug, Clone)]
struct Effect {
    process: &'static str,
    conversation: String,
    id: String,
}

impl Ledger {
    fn all(&self) -> Vec<Effect> {
        self.effects.lock().unwrap().clone()
    }

    async fn until(&self, enough: impl Fn(&[Effect]) -> bool) {
        let waiting = async {
            while !enough(&self.effects.lock().unwrap()) {
                self.changed.notified().await;
            }
        };
        assert!(
            timeout(DEADLINE, waiting).await.is_ok(),
            "only {:?}",
            self.all()
        );
    }

    /// Nothing is missing, nothing took effect twice, and every conversation kept its order.
    fn is_whole(&self, counts: &BTreeMap<String, usize>) {
        let mut ids: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for effect in self.all() {
            ids.entry(effect.conversation).or_default().push(effect.id);
        }
        for (conversation, count) in counts {
            let expected: Vec<String> = (0..*count).map(|n| message_id(conversation, n)).collect();
            assert_eq!(
                ids.get(&format!("u:{conversation}")),
                Some(&expected),
                "{conversation}"
            );
        }
    }
}

fn message_id(conversation: &str, number: usize) -> String {
    format!("{conversation}.{number:04}")
}

/// A process's work: each effect takes a moment.
struct Worker {
    process: &'static str,
    ledger: Ledger,
    takes: Duration,
}

impl Job for Worker {
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

    async fn run(&self, work: &Work) -> Verdict {
        sleep(self.takes).await;
        let effect = Effect {
            process: self.process,
            conversation: work.head.conversation.as_str().to_owned(),
            id: work.head.id.as_str().to_owned(),
        };
        self.ledger.effects.lock().unwrap().push(effect);
        self.ledger.changed.notify_waiters();
        self.ledger.changed.notify_one();
        Verdict::Done
    }
}

struct Scene {
    stage: Stage,
    ledger: Ledger,
    published: BTreeMap<String, usize>,
}

impl Scene {
    async fn open() -> Self {
        let stage = Stage::start(Snapshot::default()).await;
        Self {
            stage,
            ledger: Ledger::default(),
            published: BTreeMap::new(),
        }
    }

    fn start(&self, process: &'static str) -> RunningPool {
        self.start_slow(process, Duration::from_millis(2))
    }

    fn start_slow(&self, process: &'static str, takes: Duration) -> RunningPool {
        self.stage.run(
            Worker {
                process,
                ledger: self.ledger.clone(),
                takes,
            },
            process,
        )
    }

    /// Two conversations per partition get this many messages each.
    async fn publish(&mut self, rounds: usize) {
        for _ in 0..rounds {
            for partition in 0..PARTITIONS {
                for name in ["a", "b"] {
                    let conversation = format!("{name}{partition}");
                    let count = self.published.entry(conversation.clone()).or_default();
                    self.stage
                        .publish_in(partition, &conversation, &message_id(&conversation, *count))
                        .await;
                    *count += 1;
                }
            }
        }
    }

    async fn done(&self) {
        let expected: usize = self.published.values().sum();
        self.ledger.until(|effects| effects.len() >= expected).await;
        self.ledger.is_whole(&self.published);
    }

    /// Waits until the partitions are shared like this, by numbers.
    async fn shared(&self, expected: &[(&str, usize)]) {
        let expected: BTreeMap<String, usize> = expected
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        let mut last = BTreeMap::new();
        let reached = async {
            loop {
                last = self.owners().await;
                if last == expected {
                    return;
                }
            }
        };
        let is_reached = timeout(DEADLINE, reached).await.is_ok();
        assert!(is_reached, "wanted {expected:?}, last {last:?}");
    }

    async fn owners(&self) -> BTreeMap<String, usize> {
        let mut owners: BTreeMap<String, usize> = BTreeMap::new();
        for partition in 0..PARTITIONS {
            let record = self
                .stage
                .platform
                .buckets
                .owners
                .get(format!("relay.{partition}"))
                .await;
            let Ok(Some(record)) = record else { continue };
            let owner: Owner = serde_json::from_slice(&record).unwrap();
            if !owner.released {
                *owners.entry(owner.instance).or_default() += 1;
            }
        }
        owners
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_join_and_leave_share_the_partitions_and_lose_nothing() {
    let mut scene = Scene::open().await;
    let (_stop_one, _one) = scene.start("one");
    scene.shared(&[("one", 4)]).await;
    scene.publish(20).await;
    let (stop_two, two) = scene.start("two");
    scene.publish(20).await;
    scene.shared(&[("one", 2), ("two", 2)]).await;
    let (_stop_three, _three) = scene.start("three");
    scene.publish(20).await;
    let reached = async { while scene.owners().await.len() < 3 {} };
    timeout(DEADLINE, reached).await.expect("three owners");
    let before = Instant::now();
    stop_two.send_replace(true);
    scene.publish(20).await;
    timeout(DEADLINE, two).await.unwrap().unwrap();
    scene.shared(&[("one", 2), ("three", 2)]).await;
    assert!(
        before.elapsed() < Duration::from_secs(6),
        "{:?}",
        before.elapsed()
    );
    scene.publish(5).await;
    scene.done().await;
    let workers: BTreeSet<&str> = scene
        .ledger
        .all()
        .iter()
        .map(|effect| effect.process)
        .collect();
    assert_eq!(workers, BTreeSet::from(["one", "two", "three"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_owned_is_taken_over_when_its_life_ends() {
    let mut scene = Scene::open().await;
    let (_stop_one, one) = scene.start("one");
    let (_stop_two, _two) = scene.start("two");
    scene.shared(&[("one", 2), ("two", 2)]).await;
    scene.publish(50).await;
    one.abort();
    let killed = Instant::now();
    scene.publish(5).await;
    scene.done().await;
    assert!(
        killed.elapsed() < Duration::from_secs(6),
        "{:?}",
        killed.elapsed()
    );
    scene.shared(&[("two", 4)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_runs_when_its_partition_is_handed_over_is_finished_first() {
    let mut scene = Scene::open().await;
    let (stop_one, one) = scene.start_slow("one", Duration::from_millis(300));
    scene.publish(3).await;
    scene.ledger.until(|effects| !effects.is_empty()).await;
    let (_stop_two, _two) = scene.start("two");
    stop_one.send_replace(true);
    timeout(DEADLINE, one).await.unwrap().unwrap();
    scene.done().await;
    scene.shared(&[("two", 4)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_processes_than_partitions_stand_by_until_one_leaves() {
    let mut scene = Scene::open().await;
    let names = ["one", "two", "three", "four", "five"];
    let mut running: Vec<RunningPool> = names.iter().map(|name| scene.start(name)).collect();
    let each_one = async {
        loop {
            let owners = scene.owners().await;
            if owners.len() == 4 && owners.values().all(|count| *count == 1) {
                return owners;
            }
        }
    };
    let owners = timeout(DEADLINE, each_one)
        .await
        .expect("one partition each");
    let leaving = names
        .iter()
        .position(|name| owners.contains_key(*name))
        .unwrap();
    let idle = names
        .iter()
        .find(|name| !owners.contains_key(**name))
        .unwrap();
    let (stop, ended) = running.remove(leaving);
    stop.send_replace(true);
    timeout(DEADLINE, ended).await.unwrap().unwrap();
    let taken = async { while !scene.owners().await.contains_key(*idle) {} };
    timeout(DEADLINE, taken)
        .await
        .expect("the idle one takes over");
    scene.publish(5).await;
    scene.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_owned_again_after_its_buckets_were_lost() {
    let mut scene = Scene::open().await;
    let (_stop_one, _one) = scene.start("one");
    let (_stop_two, _two) = scene.start("two");
    scene.shared(&[("one", 2), ("two", 2)]).await;
    scene.publish(5).await;
    scene.done().await;
    let context = scene.stage.platform.log.context().clone();
    for bucket in [subjects::BUCKET_LEASES, subjects::BUCKET_OWNERS] {
        context.delete_key_value(bucket).await.unwrap();
    }
    scene.publish(5).await;
    scene.shared(&[("one", 2), ("two", 2)]).await;
    scene.publish(5).await;
    scene.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_a_life_moves_nothing_and_loses_nothing() {
    let mut scene = Scene::open().await;
    let (_stop_one, _one) = scene.start("one");
    let (_stop_two, _two) = scene.start("two");
    scene.shared(&[("one", 2), ("two", 2)]).await;
    scene.publish(20).await;
    scene
        .stage
        .restart_server_after(super::stage::LEASE_TTL * 2)
        .await;
    scene.publish(20).await;
    scene.done().await;
    scene.shared(&[("one", 2), ("two", 2)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_process_renews_one_key_and_writes_nothing_else() {
    let scene = Scene::open().await;
    let (_stop_one, _one) = scene.start("one");
    let (_stop_two, _two) = scene.start("two");
    scene.shared(&[("one", 2), ("two", 2)]).await;
    let context = scene.stage.platform.log.context().clone();
    let written = async |bucket: &str| {
        let stream = context.get_stream(format!("KV_{bucket}")).await.unwrap();
        stream.get_info().await.unwrap().state.last_sequence
    };
    let (owners, started) = (written(subjects::BUCKET_OWNERS).await, Instant::now());
    let first = written(subjects::BUCKET_LEASES).await;
    let later = async { while written(subjects::BUCKET_LEASES).await < first + 8 {} };
    timeout(DEADLINE, later).await.expect("renewals");
    // Two processes, a renewal each half second of a life of two.
    assert!(
        started.elapsed() > Duration::from_millis(1200),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(written(subjects::BUCKET_OWNERS).await, owners);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_owners_writes_are_refused() {
    let stage = Stage::start(Snapshot::default()).await;
    let freshness = Arc::new(Freshness::new(Duration::from_secs(600)));
    freshness.renewed(Moment::now());
    let lease = |epoch| {
        let token = FencingToken {
            revision: epoch,
            epoch,
            bucket: 0,
        };
        Lease::new(
            Partition(1),
            token,
            freshness.fresh().unwrap(),
            freshness.clone(),
        )
    };
    let (stale, present) = (lease(1), lease(2));
    let record = |lease: &Lease| {
        let dedupe = DedupeStore::new(&stage.platform);
        dedupe.record("relay.test".to_owned(), Some(lease.clone()))
    };
    // It has read the record before its successor writes, or reads it afterwards.
    let before = record(&stale);
    assert!(matches!(before.recall("m1").await, Ok(Recall::Open(_))));
    record(&present).finish("m1").await.unwrap();
    assert!(before.finish("m2").await.is_err());
    assert!(record(&stale).recall("m1").await.is_err());
    assert!(record(&stale).finish("m2").await.is_err());
    assert_eq!(record(&lease(3)).recall("m1").await, Ok(Recall::Done));
    // Nor can it write anew what is gone, once it knows.
    stage
        .platform
        .buckets
        .sessions
        .purge("relay.test")
        .await
        .unwrap();
    stale.cut();
    assert!(record(&stale).finish("m2").await.is_err());
}
