//! Where pools go on when nats-server forgot how far they were.

use super::core::{Recorder, Seen};
use super::stage::{DEADLINE, Stage};
use ackline_fleet::floors::{AtRest, FloorKeeper};
use ackline_runtime::asked::Askers;
use ackline_runtime::floors::Floors;
use ackline_runtime::settings::PoolSettings;
use ackline_shared::config::Reader;
use ackline_shared::ids::TenantId;
use ackline_shared::registry::Snapshot;
use ackline_shared::stored;
use ackline_shared::subjects::{self, Class, Partition, Pool, UPDATES};
use async_nats::jetstream::consumer::{Info, pull};
use futures_util::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::timeout;

fn consumer() -> String {
    subjects::consumer(Pool::Relay, Partition(1), "msg")
}

fn keeper(stage: &Stage) -> FloorKeeper {
    let settings = PoolSettings::read(&mut Reader::load(None, []), Pool::Relay);
    FloorKeeper {
        platform: stage.platform.clone(),
        pools: BTreeMap::from([(Pool::Relay, (settings, everybody as Askers))]),
    }
}

fn everybody(_: &Snapshot) -> Option<BTreeSet<TenantId>> {
    None
}

async fn info(stage: &Stage) -> Option<Info> {
    let stream = stage.platform.log.context().get_stream(UPDATES).await;
    stream.unwrap().consumer_info(consumer()).await.ok()
}

/// A pool that finished three updates and ended.
async fn three_finished() -> (Stage, Seen) {
    let (stage, seen) = (Stage::start(Snapshot::default()).await, Seen::default());
    let (stop, running) = stage.run(Recorder(seen.clone()), "one");
    for id in ["a", "b", "c"] {
        stage.publish("US.1", id, "ok").await;
    }
    stage.acknowledged(&consumer(), 3).await;
    stop.send_replace(true);
    timeout(DEADLINE, running).await.unwrap().unwrap();
    (stage, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nats_server_forgot_is_made_again_where_it_was_without_any_pool() {
    let (mut stage, seen) = three_finished().await;
    let (keeper, mut at_rest) = (keeper(&stage), AtRest::default());
    keeper.note(&mut at_rest).await;
    stage.publish("US.1", "d", "ok").await;
    stage.restart_server().await;
    assert!(info(&stage).await.is_none(), "it was in memory");
    keeper.note(&mut at_rest).await;
    let again = info(&stage).await.unwrap();
    assert_eq!((again.ack_floor.stream_sequence, again.num_pending), (3, 1));
    let (_stop, _running) = stage.run(Recorder(seen.clone()), "two");
    stage.acknowledged(&consumer(), 4).await;
    assert_eq!(seen.effects_of("u:US.1"), ["a", "b", "c", "d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_an_earlier_version_kept_on_disk_goes_on_in_memory() {
    let (stage, seen) = (Stage::start(Snapshot::default()).await, Seen::default());
    for id in ["a", "b", "c"] {
        stage.publish("US.1", id, "ok").await;
    }
    let config = pull::Config {
        durable_name: Some(consumer()),
        filter_subjects: vec![subjects::update_filter(Partition(1), Class::Message)],
        ..pull::Config::default()
    };
    let stream = stage.platform.log.context().get_stream(UPDATES).await;
    let on_disk = stream.unwrap().create_consumer(config).await.unwrap();
    let messages = on_disk.fetch().max_messages(2).messages().await.unwrap();
    messages
        .for_each(async |message| message.unwrap().double_ack().await.unwrap())
        .await;
    let (_stop, _running) = stage.run(Recorder(seen.clone()), "one");
    stage.acknowledged(&consumer(), 3).await;
    assert_eq!(seen.effects_of("u:US.1"), ["c"]);
    assert!(info(&stage).await.unwrap().config.memory_storage);
}

#[tokio::test(flavor = "multi_thread")]
async fn floors_of_another_stream_of_the_same_name_say_nothing() {
    let (stage, seen) = (Stage::start(Snapshot::default()).await, Seen::default());
    stage.publish("US.1", "a", "ok").await;
    let mut floors = Floors::new(1);
    floors.raise(&consumer(), 1);
    let store = &stage.platform.buckets.floors;
    let value = stored::encode(&floors).into();
    store.put(UPDATES, value).await.unwrap();
    let (_stop, _running) = stage.run(Recorder(seen.clone()), "one");
    stage.acknowledged(&consumer(), 1).await;
    assert_eq!(seen.effects_of("u:US.1"), ["a"]);
}
