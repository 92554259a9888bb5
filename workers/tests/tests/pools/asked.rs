//! A pool reads the updates of those who ask for them, from the moment they do.

use super::core::{Recorder, Seen};
use super::stage::Stage;
use ackline_engine::state::Target;
use ackline_runtime::job::{Job, LaneSource, Verdict, Work};
use ackline_runtime::platform::Platform;
use ackline_shared::envelope::Head;
use ackline_shared::ids::TenantId;
use ackline_shared::registry::{Registry, RegistryWriter, Snapshot};
use ackline_shared::subjects::{self, Class, Partition, Pool, UPDATES};
use ackline_shared::vault::VaultKey;
use std::collections::BTreeSet;
use std::sync::Arc;

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

/// The filters of the consumer, and how much of what it has to deliver was delivered.
async fn reads(stage: &Stage) -> (Vec<String>, u64) {
    let stream = stage.platform.log.context().get_stream(UPDATES).await;
    let name = subjects::consumer(Pool::Relay, Partition(1), "msg");
    let info = stream.unwrap().consumer_info(name).await.unwrap();
    let filters = ackline_runtime::consumer::filters(&info);
    (filters, info.delivered.consumer_sequence)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_asks_for_is_not_delivered_and_who_begins_to_ask_misses_nothing() {
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
    let (filters, _) = reads(&stage).await;
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
    let (filters, delivered) = reads(&stage).await;
    let messages = subjects::update_filter(Partition(1), Class::Message);
    let to_nobody = subjects::to_nobody(&messages).unwrap();
    assert_eq!((filters, delivered), (vec![to_nobody], 0));
}
