//! Live tuning: every process obeys soon, what is paused is kept in order, what is discarded is not lost.

use super::stage::{DEADLINE, Stage};
use ackline_engine::state::Target;
use ackline_runtime::job::{Job, LaneSource, Verdict, Work};
use ackline_runtime::log::Log;
use ackline_runtime::platform::Platform;
use ackline_runtime::tuning::{Mode, PoolTuning, Stamped, TenantTuning, TuningStore};
use ackline_shared::clock::now_ms;
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{ConversationKey, TenantId, UpdateId};
use ackline_shared::nats::Buckets;
use ackline_shared::registry::{Registry, Snapshot};
use ackline_shared::subjects::{self, Class, Partition, Pool, tuning_key};
use ackline_shared::vault::VaultKey;
use async_nats::jetstream;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

/// What a change may take at most until everybody obeys.
const OBEYED_WITHIN: Duration = Duration::from_secs(2);

/// What the jobs do, seen from outside; they wait for the latch.
#[derive(Clone)]
struct Watcher {
    latch: Arc<Semaphore>,
    running: Arc<watch::Sender<usize>>,
    done: Arc<watch::Sender<usize>>,
    order: Arc<Mutex<HashMap<String, Vec<String>>>>,
}

impl Watcher {
    fn new(latch: usize) -> Self {
        Self {
            latch: Arc::new(Semaphore::new(latch)),
            running: Arc::new(watch::Sender::new(0)),
            done: Arc::new(watch::Sender::new(0)),
            order: Arc::default(),
        }
    }

    fn open() -> Self {
        Self::new(Semaphore::MAX_PERMITS)
    }

    async fn run_reaches(&self, count: usize, within: Duration) {
        let reached = timeout(
            within,
            self.running
                .subscribe()
                .wait_for(|running| *running == count),
        )
        .await
        .is_ok();
        assert!(
            reached,
            "{} are running instead of {count}",
            *self.running.borrow()
        );
    }

    async fn done_reaches(&self, count: usize) {
        let reached = timeout(
            DEADLINE,
            self.done.subscribe().wait_for(|done| *done >= count),
        )
        .await
        .is_ok();
        assert!(
            reached,
            "{} are done instead of {count}",
            *self.done.borrow()
        );
    }

    fn order_of(&self, conversation: &str) -> Vec<String> {
        self.order
            .lock()
            .unwrap()
            .get(conversation)
            .cloned()
            .unwrap_or_default()
    }

    async fn work(&self, work: &Work) -> Verdict {
        self.running.send_modify(|running| *running += 1);
        self.latch.acquire().await.unwrap().forget();
        let (conversation, id) = (
            work.head.conversation.as_str().to_owned(),
            work.head.id.as_str().to_owned(),
        );
        self.order
            .lock()
            .unwrap()
            .entry(conversation)
            .or_default()
            .push(id);
        self.running.send_modify(|running| *running -= 1);
        self.done.send_modify(|done| *done += 1);
        Verdict::Done
    }
}

struct Relaying(Watcher);
struct Syncing(Watcher);

fn lanes() -> Vec<LaneSource> {
    let filters = |partition| vec![subjects::update_filter(partition, Class::Message)];
    vec![LaneSource {
        name: "msg",
        stream: subjects::UPDATES,
        filters,
        weight: 1,
    }]
}

impl Job for Relaying {
    const POOL: Pool = Pool::Relay;

    fn lanes() -> Vec<LaneSource> {
        lanes()
    }

    async fn run(&self, work: &Work) -> Verdict {
        self.0.work(work).await
    }
}

impl Job for Syncing {
    const POOL: Pool = Pool::Crm;

    fn lanes() -> Vec<LaneSource> {
        lanes()
    }

    async fn run(&self, work: &Work) -> Verdict {
        self.0.work(work).await
    }
}

/// A job that nothing concerns.
struct Unconcerned;

impl Job for Unconcerned {
    const POOL: Pool = Pool::Relay;

    fn lanes() -> Vec<LaneSource> {
        lanes()
    }

    fn targets(&self, _head: &Head) -> Vec<Arc<Target>> {
        Vec::new()
    }

    async fn run(&self, work: &Work) -> Verdict {
        panic!("{} asks nothing of it", work.head.id.as_str())
    }
}

/// The platform of another process, with a connection of its own.
async fn another_process(stage: &Stage) -> Platform {
    let info = stage.platform.log.context().client().server_info();
    let client = async_nats::connect(format!("nats://{}:{}", info.host, info.port))
        .await
        .unwrap();
    let context = jetstream::new(client);
    let bucket = async |name: &str| context.get_key_value(name).await.unwrap();
    let buckets = Buckets {
        config: bucket(subjects::BUCKET_CONFIG).await,
        tuning: bucket(subjects::BUCKET_TUNING).await,
        ..stage.platform.buckets.clone()
    };
    Platform::new(
        Log::new(context, 4),
        Registry::fixed(Snapshot::default()),
        buckets,
        VaultKey::generate(),
    )
}

async fn publish(stage: &Stage, tenant: &str, conversation: &str, id: &str) {
    publish_at(stage, tenant, conversation, id, now_ms()).await;
}

async fn publish_at(stage: &Stage, tenant: &str, conversation: &str, id: &str, received_ms: u64) {
    let head = Head {
        id: UpdateId::new(id),
        tenant: TenantId::new(tenant).unwrap(),
        partition: Partition(1),
        family: Family::Update(Class::Message),
        kind: "message.text".to_owned(),
        app: None,
        phone: None,
        conversation: ConversationKey::user(conversation),
        received_ms,
        signature: None,
        traceparent: None,
        field: None,
        replay: None,
    };
    stage.platform.log.write(&head, "{}".into()).await.unwrap();
}

async fn turn<T: Serialize + serde::de::DeserializeOwned>(stage: &Stage, key: &str, value: T) {
    let store = TuningStore::new(stage.platform.buckets.tuning.clone());
    let (revision, _) = store.read::<Value>(key).await.unwrap();
    let stamped = Stamped {
        value,
        by: "the operator".to_owned(),
        at_ms: now_ms(),
        platform: true,
    };
    store.write(key, &stamped, revision).await.unwrap();
}

async fn turn_acme(stage: &Stage, value: TenantTuning) {
    turn(
        stage,
        &tuning_key::tenant(Pool::Relay, &TenantId::new("acme").unwrap()),
        value,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_obey_a_change_and_a_pause_within_the_deadline_and_keep_the_work() {
    let stage = Stage::start(Snapshot::default()).await;
    let other = another_process(&stage).await;
    let (relay, crm) = (Watcher::new(0), Watcher::new(0));
    for n in 0..40 {
        publish(
            &stage,
            &format!("t{}", n % 10),
            &format!("US.{}", n % 20),
            &format!("m{n:02}"),
        )
        .await;
    }
    let (_stop_one, _one) = stage.run(Relaying(relay.clone()), "one");
    let (_stop_two, _two) = stage.run_on(other, Syncing(crm.clone()), "two");
    for watcher in [&relay, &crm] {
        watcher.run_reaches(8, DEADLINE).await;
    }
    for pool in [Pool::Relay, Pool::Crm] {
        turn(
            &stage,
            &tuning_key::pool(pool),
            PoolTuning {
                concurrency: Some(12),
                ..PoolTuning::default()
            },
        )
        .await;
    }
    for watcher in [&relay, &crm] {
        // Three of the twelve are kept free for tenants that come with a single piece; the last of these took two.
        watcher.run_reaches(11, OBEYED_WITHIN).await;
    }
    for pool in [Pool::Relay, Pool::Crm] {
        turn(
            &stage,
            &tuning_key::pool(pool),
            PoolTuning {
                paused: true,
                ..PoolTuning::default()
            },
        )
        .await;
    }
    for watcher in [&relay, &crm] {
        // Both tables must know before anything ends, or its place would rightly be filled again.
        let known = async {
            while !stage
                .platform
                .tuning
                .table()
                .pool(Pool::Crm)
                .is_some_and(|entry| entry.value.paused)
            {
                tokio::task::yield_now().await;
            }
        };
        timeout(OBEYED_WITHIN, known).await.unwrap();
        watcher.latch.add_permits(1000);
        watcher.run_reaches(0, OBEYED_WITHIN).await;
        assert!(*watcher.done.borrow() < 40, "work is left");
    }
    for pool in [Pool::Relay, Pool::Crm] {
        turn(&stage, &tuning_key::pool(pool), PoolTuning::default()).await;
    }
    for watcher in [&relay, &crm] {
        watcher.done_reaches(40).await;
        for n in 0..20 {
            let expected = [format!("m{n:02}"), format!("m{:02}", n + 20)];
            assert_eq!(watcher.order_of(&format!("u:US.{n}")), expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_tenants_work_is_kept_in_order_while_others_go_on() {
    let (stage, watcher) = (Stage::start(Snapshot::default()).await, Watcher::open());
    turn_acme(
        &stage,
        TenantTuning {
            paused: true,
            ..TenantTuning::default()
        },
    )
    .await;
    for n in 0..30 {
        publish(&stage, "acme", "US.1", &format!("a{n:02}")).await;
        publish(&stage, "globex", "US.2", &format!("g{n:02}")).await;
    }
    let (_stop, _running) = stage.run(Relaying(watcher.clone()), "one");
    watcher.done_reaches(30).await;
    assert_eq!(
        (
            watcher.order_of("u:US.1").len(),
            watcher.order_of("u:US.2").len()
        ),
        (0, 30)
    );
    turn_acme(&stage, TenantTuning::default()).await;
    watcher.done_reaches(60).await;
    let expected: Vec<String> = (0..30).map(|n| format!("a{n:02}")).collect();
    assert_eq!(watcher.order_of("u:US.1"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_discarded_stands_among_the_dead_letters_with_who_said_so() {
    let (stage, watcher) = (Stage::start(Snapshot::default()).await, Watcher::open());
    turn_acme(
        &stage,
        TenantTuning {
            mode: Some(Mode::Discard),
            ..TenantTuning::default()
        },
    )
    .await;
    publish(&stage, "acme", "US.1", "d1").await;
    publish(&stage, "acme", "US.1", "d2").await;
    let (_stop, _running) = stage.run(Relaying(watcher.clone()), "one");
    assert_eq!(
        stage.dead_letters(2).await,
        ["discarded by the operator"; 2]
    );
    stage
        .acknowledged(&subjects::consumer(Pool::Relay, Partition(1), "msg"), 2)
        .await;
    turn_acme(&stage, TenantTuning::default()).await;
    let resumed = async {
        while stage
            .platform
            .tuning
            .table()
            .tenant(Pool::Relay, &TenantId::new("acme").unwrap())
            .unwrap()
            .value
            != TenantTuning::default()
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(OBEYED_WITHIN, resumed).await.unwrap();
    publish(&stage, "acme", "US.1", "d3").await;
    watcher.done_reaches(1).await;
    assert_eq!(watcher.order_of("u:US.1"), ["d3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_finishes_what_was_there_and_keeps_what_comes_later() {
    let (stage, watcher) = (Stage::start(Snapshot::default()).await, Watcher::open());
    publish(&stage, "acme", "US.1", "a1").await;
    turn_acme(
        &stage,
        TenantTuning {
            mode: Some(Mode::Drain),
            ..TenantTuning::default()
        },
    )
    .await;
    let later = now_ms() + 10;
    publish_at(&stage, "acme", "US.1", "a2", later).await;
    publish_at(&stage, "acme", "US.1", "a3", later).await;
    publish_at(&stage, "globex", "US.2", "g1", later).await;
    let (_stop, _running) = stage.run(Relaying(watcher.clone()), "one");
    watcher.done_reaches(2).await;
    assert_eq!(
        (watcher.order_of("u:US.1"), watcher.order_of("u:US.2")),
        (vec!["a1".into()], vec!["g1".into()])
    );
    turn_acme(&stage, TenantTuning::default()).await;
    watcher.done_reaches(4).await;
    assert_eq!(watcher.order_of("u:US.1"), ["a1", "a2", "a3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_seen_soon_after_the_broker_came_back() {
    let mut stage = Stage::start(Snapshot::default()).await;
    assert!(stage.platform.tuning.loaded(DEADLINE).await);
    stage.restart_server().await;
    turn_acme(
        &stage,
        TenantTuning {
            weight: Some(3),
            ..TenantTuning::default()
        },
    )
    .await;
    let acme = TenantId::new("acme").unwrap();
    let seen = async {
        while stage
            .platform
            .tuning
            .table()
            .tenant(Pool::Relay, &acme)
            .is_none()
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(OBEYED_WITHIN, seen).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_asks_nothing_of_a_pool_is_acknowledged_without_an_attempt() {
    let stage = Stage::start(Snapshot::default()).await;
    for n in 0..200 {
        publish(&stage, "acme", "US.1", &format!("i{n}")).await;
    }
    let (stop, running) = stage.run(Unconcerned, "one");
    stage
        .acknowledged(&subjects::consumer(Pool::Relay, Partition(1), "msg"), 200)
        .await;
    stop.send_replace(true);
    timeout(DEADLINE, running).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_newer_version_knows_stays_until_everything_is_set_back() {
    let stage = Stage::start(Snapshot::default()).await;
    let (bucket, key) = (
        &stage.platform.buckets.tuning,
        tuning_key::pool(Pool::Relay),
    );
    let newer = json!({"v": 1, "value": {"concurrency": 8, "burst": [2]}, "by": "x", "at_ms": 1, "why": "y"});
    bucket.put(&key, newer.to_string().into()).await.unwrap();
    let stored = async || -> Value {
        let stored = bucket.get(&key).await.unwrap().unwrap();
        serde_json::from_slice(&stored).unwrap()
    };
    let paused = PoolTuning {
        paused: true,
        ..PoolTuning::default()
    };
    turn(&stage, &key, paused).await;
    let after = stored().await;
    assert_eq!(after["value"], json!({"paused": true, "burst": [2]}));
    assert_eq!((&after["why"], &after["v"]), (&json!("y"), &json!(1)));

    let store = TuningStore::new(bucket.clone());
    let (revision, entry) = store.read::<PoolTuning>(&key).await.unwrap();
    let nothing = Stamped {
        value: PoolTuning::default(),
        ..entry.unwrap()
    };
    store.reset(&key, &nothing, revision).await.unwrap();
    assert_eq!(stored().await["value"], json!({}));
}
