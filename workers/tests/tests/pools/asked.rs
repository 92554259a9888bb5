//! A pool reads the updates of those who ask for them, from the moment they do.

use super::core::{Recorder, Seen};
use super::stage::{DEADLINE, Stage};
use ackline_engine::state::Target;
use ackline_fleet::floors::{AtRest, FloorKeeper};
use ackline_runtime::asked::Askers;
use ackline_runtime::consumer::filters;
use ackline_runtime::job::{Job, LaneSource, Verdict, Work};
use ackline_runtime::platform::Platform;
use ackline_runtime::settings::PoolSettings;
use ackline_shared::config::Reader;
use ackline_shared::envelope::Head;
use ackline_shared::ids::TenantId;
use ackline_shared::registry::{Registry, RegistryWriter, Snapshot};
use ackline_shared::subjects::{self, Class, Partition, Pool, UPDATES};
use ackline_shared::vault::VaultKey;
use async_nats::jetstream::consumer::{Info, PullConsumer};
use futures_util::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::time::timeout;

/// Does what is meant for a tenant's relay.
struct Asking(Platform, Recorder);

impl Job for Asking {
    const POOL: Pool = Pool::Relay;

    fn lanes() -> Vec<LaneSource> {
        Recorder::lanes()
    }

    fn askers(snapshot: &Snapshot) -> Option<BTreeSet<TenantId>> {
        snapshot.owners(&snapshot.relays, "relay")
    }

    fn targets(&self, head: &Head) -> Vec<Arc<Target>> {
        let snapshot = self.0.snapshot();
        let relays = Snapshot::owned(&snapshot.relays, "relay", &head.tenant);
        relays.map(|_| Arc::default()).collect()
    }

    async fn run(&self, work: &Work) -> Verdict {
        self.1.run(work).await
    }
}

async fn stage() -> (Stage, Platform, RegistryWriter) {
    let stage = Stage::start(Snapshot::default()).await;
    let (registry, mut writer) = Registry::writable();
    writer.begin();
    writer.complete();
    let platform = Platform::new(
        stage.platform.log.clone(),
        registry,
        stage.platform.buckets.clone(),
        VaultKey::generate(),
    );
    (stage, platform, writer)
}

fn declare(writer: &mut RegistryWriter, tenant: &str) {
    let relay = format!(r#"{{"id":"bot","tenant":"{tenant}","url":"https://bot.example"}}"#);
    writer.take(&format!("relay.{tenant}.bot"), Some(relay.as_bytes()));
}

/// The consumer, once it is made.
async fn reads(stage: &Stage) -> Option<Info> {
    let stream = stage.platform.log.context().get_stream(UPDATES).await;
    let name = subjects::consumer(Pool::Relay, Partition(1), "msg");
    stream.unwrap().consumer_info(name).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_asked_for_is_delivered_and_who_begins_to_ask_misses_nothing() {
    let (stage, platform, mut writer) = stage().await;
    let seen = Seen::default();
    let job = Asking(platform.clone(), Recorder(seen.clone()));
    let (_stop, _running) = stage.run_on(platform, job, "one");
    stage.publish("US.1", "a", "ok").await;
    stage.publish_to("globex", "US.9", "g1", "ok").await;
    declare(&mut writer, "globex");
    // It was passed over a moment ago, when nobody asked for it yet.
    seen.wait_for(1).await;
    assert_eq!(seen.effects_of("u:US.9"), ["g1"]);
    stage.publish_to("globex", "US.9", "g2", "ok").await;
    stage.publish("US.1", "b", "ok").await;
    seen.wait_for(2).await;
    let filters = filters(&reads(&stage).await.unwrap());
    let globex = TenantId::new("globex").unwrap();
    let messages = subjects::update_filter(Partition(1), Class::Message);
    let replays = subjects::replay_filter(Pool::Relay, &messages).unwrap();
    let of_globex = [messages, replays].map(|filter| subjects::narrowed(&filter, &globex).unwrap());
    assert_eq!(filters, of_globex);
    declare(&mut writer, "acme");
    seen.wait_for(4).await;
    assert_eq!(seen.effects_of("u:US.1"), ["a", "b"]);
    assert_eq!(seen.effects_of("u:US.9"), ["g1", "g2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_asks_nothing_is_delivered_and_nothing_lags() {
    let (stage, platform, _writer) = stage().await;
    let job = Asking(platform.clone(), Recorder(Seen::default()));
    let (_stop, _running) = stage.run_on(platform.clone(), job, "one");
    // Another pool has read it, and this one was given nothing.
    let seen = Seen::default();
    struct Everybody(Recorder);
    impl Job for Everybody {
        const POOL: Pool = Pool::Crm;
        fn lanes() -> Vec<LaneSource> {
            Recorder::lanes()
        }
        async fn run(&self, work: &Work) -> Verdict {
            self.0.run(work).await
        }
    }
    let (_stop_too, _running_too) =
        stage.run_on(platform, Everybody(Recorder(seen.clone())), "two");
    stage.publish("US.1", "a", "ok").await;
    seen.wait_for(1).await;
    let info = reads(&stage).await.unwrap();
    let messages = subjects::update_filter(Partition(1), Class::Message);
    assert_eq!(filters(&info), [subjects::to_nobody(&messages).unwrap()]);
    assert_eq!((info.delivered.consumer_sequence, info.num_pending), (0, 0));
}

/// Passes over everything that is there, as a consumer does in time, and notes that.
async fn passed_over(stage: &Stage, platform: &Platform) {
    let settings = PoolSettings::read(&mut Reader::load(None, []), Pool::Relay);
    let keeper = FloorKeeper {
        platform: platform.clone(),
        pools: BTreeMap::from([(Pool::Relay, (settings, Asking::askers as Askers))]),
    };
    let name = subjects::consumer(Pool::Relay, Partition(1), "msg");
    let stream = stage.platform.log.context().get_stream(UPDATES).await;
    let consumer: PullConsumer = stream.unwrap().get_consumer(&name).await.unwrap();
    // Whoever asks for messages makes it look.
    let none = consumer.fetch().max_messages(1).messages().await.unwrap();
    assert_eq!(none.count().await, 0);
    let is_noted = async || {
        keeper.note(&mut AtRest::default()).await;
        let noted = platform.floors.read(UPDATES).await.unwrap();
        noted.floors.of(&name) == Some(noted.last)
    };
    let all = async { while !is_noted().await {} };
    timeout(DEADLINE, all).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_passed_over_when_somebody_was_declared_comes_all_the_same() {
    let (mut stage, platform, mut writer) = stage().await;
    let seen = Seen::default();
    let job = || Asking(platform.clone(), Recorder(seen.clone()));
    let (stop, running) = stage.run_on(platform.clone(), job(), "one");
    stage.publish_to("globex", "US.9", "g1", "ok").await;
    let opened = async { while reads(&stage).await.is_none() {} };
    timeout(DEADLINE, opened).await.unwrap();
    passed_over(&stage, &platform).await;
    declare(&mut writer, "globex");
    seen.wait_for(1).await;
    let name = subjects::consumer(Pool::Relay, Partition(1), "msg");
    stage.acknowledged(&name, 1).await;
    stop.send_replace(true);
    timeout(DEADLINE, running).await.unwrap().unwrap();

    // The same when nats-server forgets the consumer meanwhile.
    stage.publish("US.1", "a1", "ok").await;
    passed_over(&stage, &platform).await;
    stage.restart_server().await;
    declare(&mut writer, "acme");
    let (_stop, _running) = stage.run_on(platform.clone(), job(), "two");
    seen.wait_for(2).await;
    assert_eq!(seen.effects_of("u:US.9"), ["g1"]);
    assert_eq!(seen.effects_of("u:US.1"), ["a1"]);
}
