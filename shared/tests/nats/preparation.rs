//! What is prepared, against a real server: with the same outcome for whoever looks through async-nats.

use ackline_shared::nats::layout::bucket_stream;
use ackline_shared::nats::preparation::establish;
use ackline_shared::nats::{
    BucketBytes, Durability, NatsError, NatsSettings, ServerUrls, connect, jetstream, prepare,
};
use ackline_shared::subjects::{
    self, BUCKET_CONFIG, BUCKET_LEASES, BUCKET_SESSIONS, SPILL, UPDATES, UPDATES_SUBJECTS,
    config_key,
};
use ackline_shared::testing::{NatsOptions, NatsServer};
use async_nats::jetstream::{kv, stream};
use std::time::Duration;

fn settings(server: &NatsServer) -> NatsSettings {
    let day = Duration::from_secs(86_400);
    NatsSettings {
        url: ServerUrls::new(server.url()),
        credentials_file: None,
        monitor_url: None,
        durability: Durability::Stored,
        partitions: 4,
        max_age: day,
        dead_max_age: day * 30,
        stream_bytes_max: 64 << 20,
        bucket_bytes: BucketBytes::default(),
        duplicate_window: Duration::from_secs(600),
        session_max_age: day,
        lease_ttl: Duration::from_secs(10),
    }
}

#[tokio::test]
async fn streams_and_buckets_have_the_settings_that_other_clients_would_give_them() {
    let server = NatsServer::start().unwrap();
    let settings = settings(&server);
    let context = jetstream(connect(&settings, "test").await.unwrap());
    let buckets = Box::pin(prepare(&context, &settings)).await.unwrap();
    // To create what exists is an error unless the settings are the same.
    let bucket = |name: &str, history: i64, max_age: Duration| kv::Config {
        bucket: name.to_owned(),
        history,
        max_age,
        max_bytes: if name == BUCKET_CONFIG {
            64 << 20
        } else {
            256 << 20
        },
        ..kv::Config::default()
    };
    for same in [
        bucket(BUCKET_CONFIG, 8, Duration::ZERO),
        bucket(BUCKET_LEASES, 1, settings.lease_ttl),
    ] {
        context.create_key_value(same).await.unwrap();
    }
    context
        .create_key_value(bucket(BUCKET_CONFIG, 7, Duration::ZERO))
        .await
        .unwrap_err();
    let updates = context
        .get_stream(UPDATES)
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    assert_eq!(
        (updates.discard, updates.storage),
        (stream::DiscardPolicy::New, stream::StorageType::File)
    );
    assert_eq!(
        (updates.max_age, updates.duplicate_window),
        (settings.max_age, settings.duplicate_window)
    );
    assert_eq!(
        (
            updates.max_bytes,
            updates.num_replicas,
            updates.max_consumers
        ),
        (64 << 20, 1, -1)
    );
    assert!(updates.allow_direct && updates.allow_atomic_publish && !updates.allow_rollup);
    let spill = context
        .get_stream(SPILL)
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    assert_eq!(spill.max_bytes, 16 << 20);
    assert_eq!(
        buckets
            .config
            .get(config_key::INSTALLATION)
            .await
            .unwrap()
            .unwrap(),
        r#"{"v":1,"partitions":4}"#
    );
    // Again changes nothing, and a record that was removed is written anew.
    Box::pin(prepare(&context, &settings)).await.unwrap();
    buckets
        .config
        .delete(config_key::INSTALLATION)
        .await
        .unwrap();
    let other = NatsSettings {
        partitions: 8,
        ..settings.clone()
    };
    Box::pin(prepare(&context, &other)).await.unwrap();
    let error = Box::pin(prepare(&context, &settings)).await.unwrap_err();
    assert!(
        matches!(
            error,
            NatsError::Partitions {
                stored: 8,
                configured: 4
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_stream_of_an_older_version_gets_the_subjects_it_lacks_and_keeps_the_rest() {
    let server = NatsServer::start().unwrap();
    let settings = settings(&server);
    let client = connect(&settings, "test").await.unwrap();
    let context = jetstream(client.clone());
    let [updates, records] = UPDATES_SUBJECTS.map(str::to_owned);
    let older = stream::Config {
        name: UPDATES.to_owned(),
        subjects: vec![updates.clone(), records.clone(), "mine".to_owned()],
        description: Some("ours".to_owned()),
        max_bytes: 1 << 20,
        ..stream::Config::default()
    };
    context.create_stream(older).await.unwrap();
    establish(&client, &settings).await.unwrap();
    let config = context
        .get_stream(UPDATES)
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    let replays = subjects::REPLAY_SUBJECTS.to_owned();
    assert_eq!(
        config.subjects,
        [updates, records, "mine".to_owned(), replays]
    );
    assert_eq!(
        (config.description.as_deref(), config.max_bytes),
        (Some("ours"), 1 << 20)
    );
}

#[tokio::test]
async fn a_bucket_of_an_older_version_is_bounded_where_that_fits_and_never_made_smaller() {
    let server = NatsServer::start().unwrap();
    let settings = settings(&server);
    let client = connect(&settings, "test").await.unwrap();
    let context = jetstream(client.clone());
    for (bucket, max_bytes) in [
        (BUCKET_CONFIG, 0),
        (BUCKET_SESSIONS, 0),
        (BUCKET_LEASES, 1 << 30),
    ] {
        let config = kv::Config {
            bucket: bucket.to_owned(),
            max_bytes,
            ..kv::Config::default()
        };
        let store = context.create_key_value(config).await.unwrap();
        if bucket == BUCKET_SESSIONS {
            store.put("large", vec![0; 600_000].into()).await.unwrap();
        }
    }
    let bytes = async |bucket: &str| {
        let stream = context.get_stream(bucket_stream(bucket)).await.unwrap();
        stream.cached_info().config.max_bytes
    };
    let small = BucketBytes {
        sessions: 1 << 20,
        ..settings.bucket_bytes
    };
    establish(
        &client,
        &NatsSettings {
            bucket_bytes: small,
            ..settings.clone()
        },
    )
    .await
    .unwrap();
    let bounds = (
        bytes(BUCKET_CONFIG).await,
        bytes(BUCKET_SESSIONS).await,
        bytes(BUCKET_LEASES).await,
    );
    assert_eq!(
        bounds,
        (64 << 20, -1, 1 << 30),
        "sessions are too full for so little"
    );
    let large = BucketBytes {
        config: 128 << 20,
        ..settings.bucket_bytes
    };
    establish(
        &client,
        &NatsSettings {
            bucket_bytes: large,
            ..settings.clone()
        },
    )
    .await
    .unwrap();
    establish(&client, &settings).await.unwrap();
    assert_eq!(
        (bytes(BUCKET_CONFIG).await, bytes(BUCKET_SESSIONS).await),
        (128 << 20, 64 << 20)
    );
    let too_large = BucketBytes {
        config: 1 << 50,
        ..settings.bucket_bytes
    };
    establish(
        &client,
        &NatsSettings {
            bucket_bytes: too_large,
            ..settings
        },
    )
    .await
    .unwrap();
    assert_eq!(bytes(BUCKET_CONFIG).await, 128 << 20, "it goes on as it is");
}

#[tokio::test]
async fn a_new_bucket_whose_size_cannot_be_reserved_is_made_without_one() {
    let server = NatsServer::start().unwrap();
    let bucket_bytes = BucketBytes {
        sessions: 1 << 50,
        ..BucketBytes::default()
    };
    let settings = NatsSettings {
        bucket_bytes,
        ..settings(&server)
    };
    let client = connect(&settings, "test").await.unwrap();
    establish(&client, &settings).await.unwrap();
    let context = jetstream(client);
    let bytes = async |bucket: &str| {
        let stream = context.get_stream(bucket_stream(bucket)).await.unwrap();
        stream.cached_info().config.max_bytes
    };
    assert_eq!(
        (bytes(BUCKET_SESSIONS).await, bytes(BUCKET_CONFIG).await),
        (-1, 64 << 20)
    );
}

#[tokio::test]
async fn what_jetstream_lacks_is_said_with_what_to_do() {
    let server = NatsServer::start().unwrap();
    let large = NatsSettings {
        stream_bytes_max: 1 << 50,
        ..settings(&server)
    };
    let client = connect(&large, "test").await.unwrap();
    let error = establish(&client, &large).await.unwrap_err().to_string();
    assert!(
        error.contains(SPILL) && error.contains("lower it, or give JetStream more"),
        "{error}"
    );
    let extra_config =
        "accounts { A { users: [{ user: ann, password: secret }] } }\nno_auth_user: ann";
    let options = NatsOptions {
        sync_always: false,
        extra_config: extra_config.to_owned(),
    };
    let server = NatsServer::start_with(options).unwrap();
    let settings = settings(&server);
    let client = connect(&settings, "test").await.unwrap();
    let error = establish(&client, &settings).await.unwrap_err().to_string();
    assert!(
        error.contains("JetStream") && error.contains("enabled"),
        "{error}"
    );
}
