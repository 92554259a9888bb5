//! The janitor against real streams: room is made of what is finished, and of nothing else.

use super::stage::{DEADLINE, Stage};
use ackline_fleet::janitor::{Janitor, JanitorMetrics, JanitorSettings};
use ackline_shared::ids::TenantId;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, Class, Partition, Pool, header};
use async_nats::jetstream::consumer::pull;
use futures_util::{StreamExt, TryStreamExt};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::time::Duration;
use tokio::time::timeout;

const COUNT: u64 = 40;

/// A stream of 40 messages that is some nine tenths full, with consumers of two pools.
async fn nearly_full() -> (Stage, Janitor, Registry) {
    let stage = Stage::start(Snapshot::default()).await;
    for n in 0..COUNT {
        stage
            .publish("US.1", &format!("m{n}"), vec![b'x'; 1000])
            .await;
    }
    let context = stage.platform.log.context();
    let mut stream = context.get_stream(subjects::UPDATES).await.unwrap();
    let info = stream.info().await.unwrap().clone();
    let mut config = info.config;
    config.max_bytes = i64::try_from(info.state.bytes * 10 / 9).unwrap();
    context.update_stream(config).await.unwrap();
    let mut registry = Registry::default();
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
        metrics: JanitorMetrics::register(&mut registry),
    };
    (stage, janitor, registry)
}

/// Acknowledges the first messages of a pool's consumer.
async fn acknowledge(stage: &Stage, pool: Pool, count: u64) {
    let stream = stage
        .platform
        .log
        .context()
        .get_stream(subjects::UPDATES)
        .await
        .unwrap();
    let name = subjects::consumer(pool, Partition(1), "msg");
    let config = pull::Config {
        durable_name: Some(name.clone()),
        filter_subjects: vec![subjects::update_filter(Partition(1), Class::Message)],
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await.unwrap();
    if count > 0 {
        let max = usize::try_from(count).unwrap();
        let messages = consumer.fetch().max_messages(max).messages().await.unwrap();
        messages
            .for_each(async |message| message.unwrap().double_ack().await.unwrap())
            .await;
        stage.acknowledged(&name, count).await;
    }
}

async fn first(stage: &Stage) -> u64 {
    let stream = stage
        .platform
        .log
        .context()
        .get_stream(subjects::UPDATES)
        .await
        .unwrap();
    stream.cached_info().state.first_sequence
}

#[tokio::test(flavor = "multi_thread")]
async fn room_is_made_of_what_all_pools_have_finished() {
    let (stage, janitor, registry) = nearly_full().await;
    acknowledge(&stage, Pool::Relay, COUNT).await;
    acknowledge(&stage, Pool::Crm, 2).await;
    timeout(DEADLINE, janitor.take_a_turn()).await.unwrap();
    assert_eq!(first(&stage).await, 3);
    acknowledge(&stage, Pool::Crm, COUNT - 2).await;
    timeout(DEADLINE, janitor.take_a_turn()).await.unwrap();
    let after = first(&stage).await;
    assert!(
        (15..=20).contains(&after),
        "only down to half of the limit: {after}"
    );
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let line = format!(
        "purged_messages_total{{stream=\"{}\"}} {}",
        subjects::UPDATES,
        after - 1
    );
    assert!(text.contains(&line), "{line} in {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_while_a_pool_has_not_finished_or_none_ever_ran() {
    let (stage, janitor, _registry) = nearly_full().await;
    timeout(DEADLINE, janitor.take_a_turn()).await.unwrap();
    assert_eq!(first(&stage).await, 1);
    acknowledge(&stage, Pool::Relay, COUNT).await;
    acknowledge(&stage, Pool::Crm, 0).await;
    timeout(DEADLINE, janitor.take_a_turn()).await.unwrap();
    assert_eq!(first(&stage).await, 1);
}

/// The same with an update that nobody claims, and a janitor that needs its room; and its place.
async fn nearly_full_around_nobodys() -> (Stage, Janitor, Registry, u64) {
    let (stage, janitor, registry) = nearly_full().await;
    // It lies among the first messages, as if it had come before most of them.
    let context = stage.platform.log.context();
    let updates = context.get_stream(subjects::UPDATES).await.unwrap();
    updates.purge().keep(20).await.unwrap();
    stage
        .publish_to(TenantId::UNROUTED, "US.2", "wamid.nobodys", "{\"any\":1}")
        .await;
    for n in 0..20 {
        stage
            .publish("US.1", &format!("later{n}"), vec![b'x'; 1000])
            .await;
    }
    acknowledge(&stage, Pool::Relay, COUNT + 1).await;
    let subject = subjects::update(Partition(1), Class::Message, &TenantId::unrouted());
    let place = updates
        .get_last_raw_message_by_subject(&subject)
        .await
        .unwrap()
        .sequence;
    let janitor = Janitor {
        settings: JanitorSettings {
            down_to_percent: 10,
            ..janitor.settings
        },
        ..janitor
    };
    (stage, janitor, registry, place)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_claims_moves_to_the_dead_letters_before_its_room_is_used() {
    let (stage, janitor, registry, place) = nearly_full_around_nobodys().await;
    let context = stage.platform.log.context();
    let subject = subjects::update(Partition(1), Class::Message, &TenantId::unrouted());
    timeout(DEADLINE, janitor.take_a_turn()).await.unwrap();
    assert!(first(&stage).await > place);
    let dead = context.get_stream(subjects::DEAD).await.unwrap();
    let letter = dead.direct_get(1).await.unwrap();
    assert_eq!(letter.subject.as_str(), "dead.journal._unrouted");
    assert_eq!(&letter.payload[..], b"{\"any\":1}");
    let header = |name: &str| letter.headers.get(name).unwrap().as_str();
    assert_eq!(header(header::DEAD_ID), "wamid.nobodys");
    assert!(
        header(header::DEAD_REASON).contains("ackline unrouted route"),
        "{}",
        header(header::DEAD_REASON)
    );
    assert_eq!(
        header(header::DEAD_ORIGIN),
        format!("UPDATES:{place}:{subject}")
    );
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    assert!(
        text.contains("ackline_janitor_unrouted_moved_total 1"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_half_of_what_nobody_claims_goes_where_the_dead_letters_are_half_full() {
    let (stage, janitor, _registry, place) = nearly_full_around_nobodys().await;
    let context = stage.platform.log.context();
    let acme = TenantId::new("acme").unwrap();
    let acmes = subjects::dead(Pool::Relay, &acme);
    let nobodys = subjects::dead(Pool::OF_UNROUTED, &TenantId::unrouted());
    for subject in std::iter::once(&acmes)
        .chain(std::iter::repeat_n(&nobodys, 20))
        .chain([&acmes])
    {
        let stored = context.publish(subject.clone(), vec![b'x'; 1000].into());
        stored.await.unwrap().await.unwrap();
    }
    let mut dead = context.get_stream(subjects::DEAD).await.unwrap();
    let info = dead.info().await.unwrap().clone();
    let mut config = info.config;
    config.max_bytes = i64::try_from(info.state.bytes * 10 / 6).unwrap();
    context.update_stream(config).await.unwrap();
    let held = async |subject: &str| {
        let dead = context.get_stream(subjects::DEAD).await.unwrap();
        let held = dead.info_with_subjects(subject).await.unwrap();
        let held: Vec<(String, usize)> = held.try_collect().await.unwrap();
        held.first().map_or(0, |(_, count)| *count)
    };
    timeout(DEADLINE, janitor.take_a_turn()).await.unwrap();
    assert!(first(&stage).await > place);
    assert_eq!(held(&acmes).await, 2, "what is a tenant's stays");
    assert_eq!(held(&nobodys).await, 11, "the newer half, and what came");
    // The first of these was the second of all.
    let oldest = dead.direct_get_next_for_subject(&nobodys, Some(1)).await;
    assert_eq!(oldest.unwrap().sequence, 12);
    let newest = dead
        .get_last_raw_message_by_subject(&nobodys)
        .await
        .unwrap();
    assert_eq!(&newest.payload[..], b"{\"any\":1}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_at_a_time_makes_room() {
    let (stage, janitor, _registry) = nearly_full().await;
    acknowledge(&stage, Pool::Relay, COUNT).await;
    let revision = stage
        .platform
        .buckets
        .locks
        .create("janitor", "another".into())
        .await
        .unwrap();
    timeout(DEADLINE, janitor.take_a_turn()).await.unwrap();
    assert_eq!(first(&stage).await, 1);
    stage
        .platform
        .buckets
        .locks
        .purge_expect_revision("janitor", Some(revision))
        .await
        .unwrap();
    timeout(DEADLINE, janitor.take_a_turn()).await.unwrap();
    assert!(first(&stage).await > 1);
}
