//! The worker core against a real nats-server: order, once, retries, dead letters, takeover.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{ConversationKey, PhoneNumberId, TenantId, UpdateId};
use ackline_shared::nats::{self, Durability, NatsSettings};
use ackline_shared::registry::{Registry, Snapshot};
use ackline_shared::subjects::{self, Class, Partition, Pool, header};
use ackline_shared::testing::NatsServer;
use ackline_shared::vault::VaultKey;
use ackline_workers::core::backoff::Backoff;
use ackline_workers::core::job::{Job, LaneSource, Verdict, Work};
use ackline_workers::core::log::{Log, now_ms};
use ackline_workers::core::metrics::Metrics;
use ackline_workers::core::pool::{self, Host};
use ackline_workers::core::settings::PoolSettings;
use ackline_workers::platform::Platform;
use futures_util::StreamExt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(30);

/// What the job saw, in order; the payload says how to behave.
#[derive(Clone, Default)]
struct Seen {
    effects: Arc<Mutex<Vec<(String, String)>>>,
    attempts: Arc<Mutex<HashMap<String, u32>>>,
    changed: Arc<Notify>,
}

impl Seen {
    fn effects_of(&self, conversation: &str) -> Vec<String> {
        let effects = self.effects.lock().unwrap();
        effects.iter().filter(|(key, _)| key == conversation).map(|(_, id)| id.clone()).collect()
    }

    async fn wait_for(&self, count: usize) {
        let enough = async {
            while self.effects.lock().unwrap().len() < count {
                self.changed.notified().await;
            }
        };
        assert!(timeout(DEADLINE, enough).await.is_ok(), "only {:?}", self.effects.lock().unwrap());
    }
}

struct Recorder(Seen);

impl Job for Recorder {
    const POOL: Pool = Pool::Relay;

    fn lanes() -> Vec<LaneSource> {
        let filters = |partition| vec![subjects::update_filter(partition, Class::Message)];
        vec![LaneSource { name: "msg", stream: subjects::UPDATES, filters, weight: 1 }]
    }

    async fn run(&self, work: &Work) -> Verdict {
        let attempts = {
            let mut attempts = self.0.attempts.lock().unwrap();
            let count = attempts.entry(work.head.id.as_str().to_owned()).or_default();
            *count += 1;
            *count
        };
        let verdict = match &work.payload[..] {
            b"fail twice" if attempts <= 2 => return Verdict::retry("not yet"),
            b"always fail" => return Verdict::retry("never works"),
            b"poison" => panic!("poison"),
            b"refuse" => return Verdict::dead("refused: 400"),
            _ => Verdict::Done,
        };
        let effect = (work.head.conversation.to_string(), work.head.id.to_string());
        self.0.effects.lock().unwrap().push(effect);
        self.0.changed.notify_one();
        verdict
    }
}

struct Stage {
    _server: NatsServer,
    platform: Platform,
}

impl Stage {
    async fn start() -> Self {
        let server = NatsServer::start().unwrap();
        let settings = NatsSettings {
            url: server.url(),
            credentials_file: None,
            monitor_url: None,
            durability: Durability::Stored,
            partitions: 4,
            max_age: Duration::from_secs(3600),
            dead_max_age: Duration::from_secs(3600),
            stream_bytes_max: 64 << 20,
            duplicate_window: Duration::from_millis(100),
            session_max_age: Duration::from_secs(3600),
            lease_ttl: Duration::from_secs(2),
        };
        let client = nats::connect(&settings, "test", false).await.unwrap();
        let context = nats::jetstream(client);
        let buckets = nats::prepare(&context, &settings).await.unwrap();
        let registry = Registry::fixed(Snapshot::default());
        let platform = Platform::new(Log::new(context, 4), registry, buckets, VaultKey::generate());
        Self { _server: server, platform }
    }

    fn pool(&self, seen: &Seen, instance: &str) -> (watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        let (stop, shutdown) = watch::channel(false);
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let host = Host { platform: self.platform.clone(), metrics, instance: instance.to_owned(), shutdown };
        let settings = PoolSettings {
            window: 256,
            window_bytes_max: 8 << 20,
            tenant_in_flight_max: 8,
            ack_wait: Duration::from_secs(30),
            lease_ttl: Duration::from_secs(2),
            drain_timeout: Duration::from_secs(5),
            concurrency: 8,
            attempts_max: 3,
            backoff: Backoff { initial: Duration::from_millis(20), max: Duration::from_millis(50) },
            attempt_timeout: Duration::from_secs(5),
        };
        (stop, tokio::spawn(pool::run(Recorder(seen.clone()), settings, host)))
    }

    async fn publish(&self, conversation: &str, id: &str, payload: &'static str) {
        let head = Head {
            id: UpdateId::new(id),
            tenant: TenantId::new("acme").unwrap(),
            partition: Partition(1),
            family: Family::Update(Class::Message),
            kind: "message.text".into(),
            app: None,
            phone: PhoneNumberId::new("100").ok(),
            conversation: ConversationKey::user(conversation),
            received_ms: now_ms(),
            signature: None,
            traceparent: None,
        };
        self.platform.log.write(&head, payload.into()).await.unwrap();
    }

    /// The reasons among the dead letters, once there are this many.
    async fn dead_letters(&self, count: usize) -> Vec<String> {
        let context = self.platform.log.context();
        let stream = context.get_stream(subjects::DEAD).await.unwrap();
        let config = async_nats::jetstream::consumer::pull::OrderedConfig::default();
        let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
        let mut reasons = Vec::new();
        while reasons.len() < count {
            let message =
                timeout(DEADLINE, messages.next()).await.expect("a dead letter in time").unwrap().unwrap();
            let headers = message.headers.clone().unwrap();
            reasons.push(headers.get(header::DEAD_REASON).unwrap().to_string());
            assert!(headers.get(header::DEAD_ORIGIN).unwrap().as_str().starts_with("UPDATES:"));
        }
        reasons
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_keeps_its_order_through_retries_and_others_do_not_wait() {
    let (stage, seen) = (Stage::start().await, Seen::default());
    stage.publish("US.slow", "s1", "fail twice").await;
    stage.publish("US.slow", "s2", "ok").await;
    for n in 0..5 {
        stage.publish("US.fast", &format!("f{n}"), "ok").await;
    }
    let (stop, running) = stage.pool(&seen, "one");
    seen.wait_for(7).await;
    assert_eq!(seen.effects_of("u:US.slow"), ["s1", "s2"]);
    assert_eq!(seen.effects_of("u:US.fast"), ["f0", "f1", "f2", "f3", "f4"]);
    stop.send_replace(true);
    timeout(DEADLINE, running).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_stands_in_the_dead_letters_with_its_reason() {
    let (stage, seen) = (Stage::start().await, Seen::default());
    stage.publish("US.1", "d1", "always fail").await;
    stage.publish("US.1", "d2", "refuse").await;
    stage.publish("US.1", "d3", "poison").await;
    stage.publish("US.1", "d4", "ok").await;
    let foreign = subjects::update(Partition(1), Class::Message, &TenantId::new("acme").unwrap());
    stage.platform.log.write_raw(foreign, async_nats::HeaderMap::new(), "no headers".into()).await.unwrap();
    let (_stop, _running) = stage.pool(&seen, "one");
    seen.wait_for(1).await;
    let mut reasons = stage.dead_letters(4).await;
    reasons.sort();
    assert_eq!(reasons[0], "gave up after 3 attempts: never works");
    assert_eq!(reasons[1], "refused: 400");
    assert!(reasons[2].starts_with("the header"), "{reasons:?}");
    assert!(reasons[3].starts_with("the job panicked"), "{reasons:?}");
    assert_eq!(seen.attempts.lock().unwrap()["d1"], 3);
    assert_eq!(seen.effects_of("u:US.1"), ["d4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_comes_again_after_the_duplicate_window_takes_no_effect() {
    let (stage, seen) = (Stage::start().await, Seen::default());
    let (_stop, _running) = stage.pool(&seen, "one");
    stage.publish("US.1", "m1", "ok").await;
    seen.wait_for(1).await;
    // The stream forgets the id after its window; publishing until it takes it again proves the window is over.
    let mut stream = stage.platform.log.context().get_stream(subjects::UPDATES).await.unwrap();
    let stored_twice = async {
        while stream.info().await.unwrap().state.messages < 2 {
            stage.publish("US.1", "m1", "ok").await;
        }
    };
    timeout(DEADLINE, stored_twice).await.unwrap();
    stage.publish("US.1", "m2", "ok").await;
    seen.wait_for(2).await;
    assert_eq!(seen.effects_of("u:US.1"), ["m1", "m2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_takes_over_in_order_and_repeats_nothing() {
    let (stage, seen) = (Stage::start().await, Seen::default());
    let (stop, running) = stage.pool(&seen, "one");
    for n in 0..20 {
        stage.publish("US.1", &format!("a{n:02}"), "ok").await;
    }
    seen.wait_for(5).await;
    let (_stop_two, _second) = stage.pool(&seen, "two");
    stop.send_replace(true);
    timeout(DEADLINE, running).await.unwrap().unwrap();
    for n in 0..20 {
        stage.publish("US.1", &format!("b{n:02}"), "ok").await;
    }
    seen.wait_for(40).await;
    let effects = seen.effects_of("u:US.1");
    let expected: Vec<String> =
        ["a", "b"].iter().flat_map(|l| (0..20).map(move |n| format!("{l}{n:02}"))).collect();
    assert_eq!(effects, expected);
}
