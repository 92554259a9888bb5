//! Whoever fills a stream that all share is held up, told why, and let go once there is room.

use super::stage::{DEADLINE, Stage};
use ackline_fleet::floors::FloorKeeper;
use ackline_fleet::shared_work::{self, SharedWork};
use ackline_fleet::stream_share::{StreamShareMetrics, StreamShareSettings, StreamShares};
use ackline_ownership::lock::Lock;
use ackline_runtime::platform::Platform;
use ackline_runtime::tuning::{Stamped, TenantTuning};
use ackline_shared::config::Reader;
use ackline_shared::ids::TenantId;
use ackline_shared::overdraft::Overdraft;
use ackline_shared::registry::{Registry, Snapshot};
use ackline_shared::subjects::{
    self, Class, Partition, Pool, SpillQueue, config_key, header, tuning_key,
};
use async_nats::HeaderMap;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::kv::Store;
use prometheus_client::registry::Registry as Metrics;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// Waits until an entry says what is asked for.
async fn entry<T: DeserializeOwned>(
    store: &Store,
    key: &str,
    wanted: impl Fn(Option<&T>) -> bool,
) -> Option<T> {
    let found = async {
        loop {
            let value = store.get(key).await.unwrap();
            let value = value.map(|bytes| serde_json::from_slice::<T>(&bytes).unwrap());
            if wanted(value.as_ref()) {
                return value;
            }
        }
    };
    timeout(DEADLINE, found)
        .await
        .unwrap_or_else(|_| panic!("{key} in time"))
}

fn counting(platform: &Platform) -> (SharedWork, Lock) {
    let variables = [(
        "ACKLINE_STREAM_SHARE_INTERVAL".to_owned(),
        "50ms".to_owned(),
    )];
    let mut reader = Reader::load(None, variables);
    let settings = StreamShareSettings::read(&mut reader);
    reader.finish().unwrap();
    let shares = StreamShares {
        platform: platform.clone(),
        settings,
        metrics: StreamShareMetrics::register(&mut Metrics::default()),
    };
    let floors = FloorKeeper {
        platform: platform.clone(),
        pools: BTreeMap::new(),
    };
    let locks = platform.buckets.locks.clone();
    let lock = Lock::new(locks, shared_work::LOCK, "one", Duration::from_secs(2));
    (SharedWork { shares, floors }, lock)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_dead_letters_fill_the_stream_rests_until_there_is_room() {
    let stage = Stage::start(Snapshot::default()).await;
    let context = stage.platform.log.context();
    let (config, tuning) = (
        &stage.platform.buckets.config,
        &stage.platform.buckets.tuning,
    );
    for name in ["acme", "globex"] {
        let value = format!(r#"{{"id":"{name}","name":"{name}"}}"#);
        config
            .put(format!("tenant.{name}"), value.into())
            .await
            .unwrap();
    }
    let (acme, globex) = (
        TenantId::new("acme").unwrap(),
        TenantId::new("globex").unwrap(),
    );
    for _ in 0..40 {
        for (tenant, bytes) in [(&acme, 100), (&globex, 1000)] {
            let subject = subjects::dead(Pool::Relay, tenant);
            context
                .publish(subject, vec![b'x'; bytes].into())
                .await
                .unwrap()
                .await
                .unwrap();
        }
    }
    let mut stream = context.get_stream(subjects::DEAD).await.unwrap();
    let info = stream.info().await.unwrap().clone();
    let mut smaller = info.config;
    smaller.max_bytes = i64::try_from(info.state.bytes * 10 / 7).unwrap();
    context.update_stream(smaller).await.unwrap();

    let mut platform = stage.platform.clone();
    platform.registry = Registry::watch(config.clone(), context.client());
    assert!(platform.registry.loaded(DEADLINE).await);
    let (_end, shutdown) = watch::channel(false);
    let (work, lock) = counting(&platform);
    tokio::spawn(work.run(lock, shutdown));
    let reported = entry::<Overdraft>(config, &config_key::overdraft(&globex), |reported| {
        reported.is_some()
    })
    .await
    .unwrap();
    let held = reported.streams[subjects::DEAD];
    assert!(held.bytes >= 40_000 && held.bytes > held.limit, "{held:?}");
    for pool in [Pool::Flows, Pool::Relay, Pool::Replies] {
        let key = tuning_key::tenant(pool, &globex);
        let paused = entry::<Stamped<TenantTuning>>(tuning, &key, |entry| entry.is_some())
            .await
            .unwrap();
        assert!(paused.value.paused && paused.platform, "{paused:?}");
        assert!(
            paused.by.contains("it holds 1 MiB of DEAD"),
            "{}",
            paused.by
        );
    }
    let journal = tuning
        .get(tuning_key::tenant(Pool::Journal, &globex))
        .await
        .unwrap();
    assert!(
        journal.is_none(),
        "what everybody did is still written down"
    );
    assert!(
        config
            .get(config_key::overdraft(&acme))
            .await
            .unwrap()
            .is_none(),
        "the other is within its share"
    );

    stream
        .purge()
        .filter(subjects::dead(Pool::Relay, &globex))
        .await
        .unwrap();
    entry::<Overdraft>(config, &config_key::overdraft(&globex), |reported| {
        reported.is_none()
    })
    .await;
    let key = tuning_key::tenant(Pool::Relay, &globex);
    let going =
        |entry: Option<&Stamped<TenantTuning>>| entry.is_some_and(|entry| !entry.value.paused);
    entry::<Stamped<TenantTuning>>(tuning, &key, going).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_spill_queues_refer_to_counts_where_it_lies_once_whoever_waits_for_it() {
    let stage = Stage::start(Snapshot::default()).await;
    let context = stage.platform.log.context();
    let config = &stage.platform.buckets.config;
    for name in ["acme", "globex"] {
        let value = format!(r#"{{"id":"{name}","name":"{name}"}}"#);
        config
            .put(format!("tenant.{name}"), value.into())
            .await
            .unwrap();
    }
    for (tenant, count) in [("acme", 30), ("globex", 30)] {
        for n in 0..count {
            let id = format!("{tenant}{n}");
            stage
                .publish_to(tenant, "US.1", &id, vec![b'x'; 10_000])
                .await;
        }
    }
    // A pool that wants none of it has finished everything.
    let mut updates = context.get_stream(subjects::UPDATES).await.unwrap();
    let finished = pull::Config {
        durable_name: Some(subjects::consumer(Pool::Relay, Partition(1), "msg")),
        filter_subject: subjects::update_filter(Partition(3), Class::Message),
        ..pull::Config::default()
    };
    updates.create_consumer(finished).await.unwrap();
    let info = updates.info().await.unwrap().clone();
    let mut smaller = info.config;
    smaller.max_bytes = i64::try_from(info.state.bytes * 10 / 7).unwrap();
    context.update_stream(smaller).await.unwrap();
    // Both have some waiting in two pools: acme a fifth of the stream, counted twice two fifths, and globex a third.
    for pool in [Pool::Relay, Pool::Events] {
        for (tenant, sequences) in [("acme", 1..=17), ("globex", 31..=60)] {
            let line = SpillQueue {
                partition: Partition(1),
                lane: "msg".to_owned(),
                tenant: TenantId::new(tenant).unwrap(),
                conversation: None,
            };
            for sequence in sequences {
                let mut headers = HeaderMap::new();
                let origin = format!("{}:{sequence}:@in.1.msg.{tenant}", subjects::UPDATES);
                headers.insert(header::SPILL_ORIGIN, origin);
                headers.insert(header::SPILL_LENGTH, "10000");
                let stored = context.publish_with_headers(line.subject(pool), headers, "".into());
                stored.await.unwrap().await.unwrap();
            }
        }
    }
    let mut platform = stage.platform.clone();
    platform.registry = Registry::watch(config.clone(), context.client());
    assert!(platform.registry.loaded(DEADLINE).await);
    let (_end, shutdown) = watch::channel(false);
    let (work, lock) = counting(&platform);
    tokio::spawn(work.run(lock, shutdown));
    let key = |name: &str| config_key::overdraft(&TenantId::new(name).unwrap());
    let reported = entry::<Overdraft>(config, &key("globex"), |reported| reported.is_some())
        .await
        .unwrap();
    assert_eq!(
        reported.streams[subjects::UPDATES].bytes,
        300_000,
        "{reported:?}"
    );
    assert!(config.get(key("acme")).await.unwrap().is_none());

    // What is taken out of SPILL is not referred to any more.
    let spill = context.get_stream(subjects::SPILL).await.unwrap();
    spill.purge().await.unwrap();
    entry::<Overdraft>(config, &key("globex"), |reported| reported.is_none()).await;
}
