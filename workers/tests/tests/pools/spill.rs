//! Waiting out of others' way: noisy tenants and conversations that wait for long.

use super::stage::{DEADLINE, Stage};
use ackline_fleet::janitor::{Janitor, JanitorMetrics, JanitorSettings};
use ackline_ownership::standing::Standing;
use ackline_runtime::job::{Job, LaneSource, Verdict, Work};
use ackline_runtime::metrics::Metrics;
use ackline_runtime::settings::PoolSettings;
use ackline_runtime::status::PoolStatus;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, Class, Partition, Pool, header};
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Does what the payload says and keeps the order of what it did.
#[derive(Clone)]
struct Latch {
    open: watch::Sender<bool>,
    done: Arc<Mutex<Vec<(String, String, String)>>>,
    changed: Arc<Notify>,
    wait: Duration,
}

impl Latch {
    fn new(wait: Duration) -> Self {
        Self {
            open: watch::channel(false).0,
            done: Arc::default(),
            changed: Arc::default(),
            wait,
        }
    }

    fn done(&self) -> Vec<(String, String, String)> {
        self.done.lock().unwrap().clone()
    }

    fn count(&self, tenant: &str) -> usize {
        self.done().iter().filter(|(of, _, _)| of == tenant).count()
    }

    async fn wait_for(&self, tenant: &str, count: usize) {
        let enough = async {
            while self.count(tenant) < count {
                self.changed.notified().await;
            }
        };
        assert!(
            timeout(DEADLINE, enough).await.is_ok(),
            "only {} of {tenant}",
            self.count(tenant)
        );
    }

    /// What every conversation saw, in order.
    fn by_conversation(&self) -> BTreeMap<String, Vec<String>> {
        let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (tenant, conversation, id) in self.done() {
            seen.entry(format!("{tenant}/{conversation}"))
                .or_default()
                .push(id);
        }
        seen
    }
}

struct Latched(Latch);

impl Job for Latched {
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
        let latch = &self.0;
        let mut open = latch.open.subscribe();
        match &work.payload[..work.payload.len().min(5)] {
            b"latch" => drop(open.wait_for(|open| *open).await),
            b"later" if !*open.borrow() => {
                return Verdict::Retry {
                    reason: "not open".to_owned(),
                    after: Some(latch.wait),
                };
            }
            _ => {}
        }
        let head = &work.head;
        let is_whole = work.payload.len() <= 5 || is_long(&work.payload, head.id.as_str());
        let what = if is_whole { "" } else { "damaged " };
        let id = format!("{what}{}@{}", head.id.as_str(), work.sequence);
        latch.done.lock().unwrap().push((
            head.tenant.to_string(),
            head.conversation.as_str().to_owned(),
            id,
        ));
        latch.changed.notify_one();
        Verdict::Done
    }
}

/// A payload too long to be copied, with what is to be done and its own id at its end.
fn long(what: &[u8], id: &str) -> Vec<u8> {
    let mut payload = vec![b'x'; LONG];
    payload[..what.len()].copy_from_slice(what);
    payload[LONG - id.len()..].copy_from_slice(id.as_bytes());
    payload
}

fn is_long(payload: &[u8], id: &str) -> bool {
    payload.len() == LONG && payload.ends_with(id.as_bytes())
}

/// Gives a stream another size.
async fn resize(stage: &Stage, name: &str, bytes: impl FnOnce(u64) -> u64) {
    let context = stage.platform.log.context();
    let mut stream = context.get_stream(name).await.unwrap();
    let info = stream.info().await.unwrap().clone();
    let mut config = info.config;
    config.max_bytes = i64::try_from(bytes(info.state.bytes)).unwrap();
    context.update_stream(config).await.unwrap();
}

fn narrow(settings: &mut PoolSettings) {
    settings.window = 40;
    settings.tenant_in_flight_max = 2;
    settings.give_up_after = Duration::from_secs(60);
}

fn parking(settings: &mut PoolSettings) {
    settings.window = 8;
    settings.park_after = Duration::from_millis(100);
    settings.attempts_max = 1000;
    settings.give_up_after = Duration::from_secs(60);
}

fn run_seen(
    stage: &Stage,
    latch: &Latch,
    adjust: impl FnOnce(&mut PoolSettings),
) -> (watch::Sender<bool>, JoinHandle<()>, Metrics) {
    let metrics = Metrics::register(&mut Registry::default());
    let seen = (metrics.clone(), Standing::default());
    let (stop, running) = stage.run_as(
        stage.platform.clone(),
        Latched(latch.clone()),
        "one",
        seen,
        adjust,
    );
    (stop, running, metrics)
}

/// Waits until the pool tells what is to be told of it.
async fn reported(metrics: &Metrics, is_so: impl Fn(&PoolStatus) -> bool) {
    let status = || metrics.activity(Pool::Relay).status("working");
    let seen = async {
        while !is_so(&status()) {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(DEADLINE, seen).await.is_ok(), "{:?}", status());
}

const NOISE: usize = 300;
const LONG: usize = 20_000;

async fn make_noise(stage: &Stage) -> BTreeMap<String, Vec<String>> {
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for n in 0..NOISE {
        let (conversation, id) = (format!("US.{}", n % 7), format!("n{n:03}"));
        stage.publish_to("noisy", &conversation, &id, "latch").await;
        expected
            .entry(format!("noisy/u:{conversation}"))
            .or_default()
            .push(format!("{id}@{}", n + 1));
    }
    expected
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_behind_a_tenant_larger_than_its_share_and_it_keeps_its_order() {
    let (stage, latch) = (
        Stage::start(Snapshot::default()).await,
        Latch::new(Duration::ZERO),
    );
    let mut expected = make_noise(&stage).await;
    stage.publish_to("quiet", "US.q", "q1", "ok").await;
    let (_stop, _running, metrics) = run_seen(&stage, &latch, narrow);
    latch.wait_for("quiet", 1).await;
    assert_eq!(latch.count("noisy"), 0, "the noisy tenant still waits");
    reported(&metrics, |pool| {
        pool.lines.moved > 0 && pool.lines.parked == 0
    })
    .await;
    let noisy = metrics.activity(Pool::Relay).status("").tenants;
    assert!(
        noisy
            .iter()
            .any(|tenant| tenant.tenant.as_str() == "noisy" && tenant.lines.moved > 0),
        "{noisy:?}"
    );
    latch.open.send_replace(true);
    latch.wait_for("noisy", NOISE).await;
    stage.holds(subjects::SPILL, 0..=0).await;
    // Back from its spill queue, it is read directly again.
    stage.publish_to("noisy", "US.0", "last", "ok").await;
    latch.wait_for("noisy", NOISE + 1).await;
    expected
        .entry("noisy/u:US.0".to_owned())
        .or_default()
        .push(format!("last@{}", NOISE + 2));
    expected.insert("quiet/u:US.q".to_owned(), vec![format!("q1@{}", NOISE + 1)]);
    assert_eq!(latch.by_conversation(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_finds_what_was_moved_and_goes_on_in_order() {
    let (stage, latch) = (
        Stage::start(Snapshot::default()).await,
        Latch::new(Duration::ZERO),
    );
    let mut expected = make_noise(&stage).await;
    let (stop, running) = stage.run_with(Latched(latch.clone()), "one", narrow);
    stage.holds(subjects::SPILL, 30..=NOISE as u64).await;
    // The latch is shut: whatever runs is cancelled, and nothing took effect.
    running.abort();
    drop(stop);
    stage.publish_to("noisy", "US.0", "last", "latch").await;
    expected
        .entry("noisy/u:US.0".to_owned())
        .or_default()
        .push(format!("last@{}", NOISE + 1));
    let (_stop, _running) = stage.run_with(Latched(latch.clone()), "two", narrow);
    latch.open.send_replace(true);
    latch.wait_for("noisy", NOISE + 1).await;
    assert_eq!(latch.by_conversation(), expected);
    stage.holds(subjects::SPILL, 0..=0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_wait_leaves_the_window_and_holds_only_its_conversation() {
    let (stage, latch) = (
        Stage::start(Snapshot::default()).await,
        Latch::new(Duration::from_millis(300)),
    );
    let (_stop, _running, metrics) = run_seen(&stage, &latch, parking);
    for id in ["a1", "a2", "a3"] {
        stage.publish_to("acme", "US.a", id, "later").await;
    }
    for n in 0..20 {
        stage
            .publish_to("acme", "US.b", &format!("b{n:02}"), "ok")
            .await;
    }
    latch.wait_for("acme", 20).await;
    stage
        .acknowledged(&subjects::consumer(Pool::Relay, Partition(1), "msg"), 23)
        .await;
    // What is read again after the short duplicate window of these tests is stored again.
    stage.holds(subjects::SPILL, 3..=9).await;
    reported(&metrics, |pool| {
        pool.lines.moved == 0 && pool.lines.parked >= 2
    })
    .await;
    latch.open.send_replace(true);
    latch.wait_for("acme", 23).await;
    let seen = latch.by_conversation();
    assert_eq!(seen["acme/u:US.a"], ["a1@1", "a2@2", "a3@3"]);
    stage.holds(subjects::SPILL, 0..=0).await;
    stage.publish_to("acme", "US.a", "a4", "ok").await;
    latch.wait_for("acme", 24).await;
    assert_eq!(latch.by_conversation()["acme/u:US.a"][3], "a4@24");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_wakes_a_conversation_that_waits_outside() {
    let (stage, latch) = (
        Stage::start(Snapshot::default()).await,
        Latch::new(Duration::from_millis(300)),
    );
    let (stop, running) = stage.run_with(Latched(latch.clone()), "one", parking);
    for id in ["a1", "a2"] {
        stage.publish_to("acme", "US.a", id, "later").await;
    }
    stage.holds(subjects::SPILL, 2..=2).await;
    stop.send_replace(true);
    timeout(DEADLINE, running).await.unwrap().unwrap();
    stage.publish_to("acme", "US.a", "a3", "ok").await;
    let (_stop, _running) = stage.run_with(Latched(latch.clone()), "two", parking);
    latch.open.send_replace(true);
    latch.wait_for("acme", 3).await;
    assert_eq!(
        latch.by_conversation()["acme/u:US.a"],
        ["a1@1", "a2@2", "a3@3"]
    );
    stage.holds(subjects::SPILL, 0..=0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_updates_move_without_their_payloads_and_come_back_whole_in_order() {
    let (stage, latch) = (
        Stage::start(Snapshot::default()).await,
        Latch::new(Duration::ZERO),
    );
    // Room for a few whole ones only.
    resize(&stage, subjects::SPILL, |_| 150_000).await;
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let count = 100;
    for n in 0..count {
        let (conversation, id) = (format!("US.{}", n % 3), format!("n{n:03}"));
        stage
            .publish_to("noisy", &conversation, &id, long(b"latch", &id))
            .await;
        expected
            .entry(format!("noisy/u:{conversation}"))
            .or_default()
            .push(format!("{id}@{}", n + 1));
    }
    stage.publish_to("quiet", "US.q", "q1", "ok").await;
    let (stop, running) = stage.run_with(Latched(latch.clone()), "one", narrow);
    latch.wait_for("quiet", 1).await;
    stage.holds(subjects::SPILL, 30..=100).await;
    // A successor reads them as well.
    running.abort();
    drop(stop);
    let (_stop, _running) = stage.run_with(Latched(latch.clone()), "two", narrow);
    latch.open.send_replace(true);
    latch.wait_for("noisy", count).await;
    expected.insert("quiet/u:US.q".to_owned(), vec![format!("q1@{}", count + 1)]);
    assert_eq!(latch.by_conversation(), expected);
    stage.holds(subjects::SPILL, 0..=0).await;
}

/// Three long ones of a conversation that waits outside, and enough of another that is done.
async fn three_outside(stage: &Stage, latch: &Latch) -> (watch::Sender<bool>, JoinHandle<()>) {
    let running = stage.run_with(Latched(latch.clone()), "one", parking);
    for id in ["a1", "a2", "a3"] {
        stage
            .publish_to("acme", "US.a", id, long(b"later", id))
            .await;
    }
    fill(stage, latch, "b").await;
    stage.holds(subjects::SPILL, 3..=9).await;
    running
}

const FILL: usize = 60;

async fn fill(stage: &Stage, latch: &Latch, name: &str) {
    let before = latch.count("acme");
    for n in 0..FILL {
        let id = format!("{name}{n:02}");
        stage
            .publish_to("acme", "US.b", &id, long(b"okay.", &id))
            .await;
    }
    latch.wait_for("acme", before + FILL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_until_its_payload_was_gone_is_a_dead_letter_that_says_so() {
    let (stage, latch) = (
        Stage::start(Snapshot::default()).await,
        Latch::new(Duration::from_millis(300)),
    );
    let (_stop, _running) = three_outside(&stage, &latch).await;
    let context = stage.platform.log.context();
    let updates = context.get_stream(subjects::UPDATES).await.unwrap();
    updates.purge().await.unwrap();
    let letters = stage
        .messages(subjects::DEAD, &subjects::dead_filter(None, None), 3)
        .await;
    for (letter, id) in letters.iter().zip(["a1", "a2", "a3"]) {
        let headers = letter.headers.as_ref().unwrap();
        let said = |name: &str| headers.get(name).unwrap().as_str();
        assert!(said(header::DEAD_REASON).contains("its payload is gone from UPDATES"));
        assert_eq!(
            (said(header::DEAD_ID), said(header::DEAD_CUT)),
            (id, LONG.to_string().as_str())
        );
    }
    stage.holds(subjects::SPILL, 0..=0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn room_is_made_around_what_spill_queues_refer_to() {
    let (stage, latch) = (
        Stage::start(Snapshot::default()).await,
        Latch::new(Duration::from_millis(300)),
    );
    let (_stop, _running) = three_outside(&stage, &latch).await;
    let context = stage.platform.log.context();
    let janitor = Janitor {
        context: context.clone(),
        floors: stage.platform.floors.clone(),
        locks: stage.platform.buckets.locks.clone(),
        instance: "one".to_owned(),
        settings: JanitorSettings {
            interval: Duration::from_secs(30),
            above_percent: 80,
            down_to_percent: 50,
        },
        metrics: JanitorMetrics::register(&mut Registry::default()),
    };
    let consumer = subjects::consumer(Pool::Relay, Partition(1), "msg");
    let mut first = 1;
    // What moved once moves again.
    for name in ["c", "d"] {
        let last = context
            .get_stream(subjects::UPDATES)
            .await
            .unwrap()
            .cached_info()
            .state
            .last_sequence;
        stage.acknowledged(&consumer, last.min(3 + 60)).await;
        resize(&stage, subjects::UPDATES, |bytes| bytes * 10 / 9).await;
        timeout(DEADLINE, janitor.take_a_turn()).await.unwrap();
        let state = context
            .get_stream(subjects::UPDATES)
            .await
            .unwrap()
            .cached_info()
            .state
            .clone();
        assert!(state.first_sequence > first + 20, "{state:?}");
        first = state.first_sequence;
        resize(&stage, subjects::UPDATES, |_| 64 << 20).await;
        fill(&stage, &latch, name).await;
    }
    latch.open.send_replace(true);
    latch.wait_for("acme", 3 + 3 * FILL).await;
    assert_eq!(
        latch.by_conversation()["acme/u:US.a"],
        ["a1@1", "a2@2", "a3@3"]
    );
    stage.holds(subjects::SPILL, 0..=0).await;
}
