//! A platform over a real nats-server with given configuration, for tests of jobs.

use ackline_message::Record;
use ackline_runtime::log::Log;
use ackline_runtime::platform::Platform;
use ackline_shared::config::Reader;
use ackline_shared::nats::{self, NatsSettings};
use ackline_shared::registry::{Registry, Snapshot};
use ackline_shared::subjects::{UPDATES, config_key};
use ackline_shared::testing::NatsServer;
use ackline_shared::vault::VaultKey;
use serde_json::{Value, json};

/// Starts a server and declares `entries` (config key, value), with the tenant `acme` and its data key.
pub async fn platform(entries: &[(&str, Value)]) -> (Platform, NatsServer) {
    let server = NatsServer::start().unwrap();
    let small = || "64MiB".to_owned();
    let own = [
        ("ACKLINE_NATS_URL", server.url()),
        ("ACKLINE_NATS_STREAM_BYTES_MAX", small()),
        ("ACKLINE_NATS_SESSION_BYTES_MAX", small()),
    ];
    let mut reader = Reader::load(None, own.map(|(name, value)| (name.to_owned(), value)));
    let settings = NatsSettings::read(&mut reader);
    reader.finish().unwrap();
    let client = Box::pin(nats::connect(&settings, "test")).await.unwrap();
    let context = nats::jetstream(client);
    let buckets = Box::pin(nats::prepare(&context, &settings)).await.unwrap();
    let (master, data) = (VaultKey::generate(), VaultKey::generate());
    let mut snapshot = Snapshot::default();
    let own = [
        (
            "tenant.acme".to_owned(),
            json!({"id": "acme", "name": "Acme"}),
        ),
        (
            config_key::data_key("acme"),
            json!(data.seal_under(&master, "acme")),
        ),
    ];
    for (key, value) in own.into_iter().chain(
        entries
            .iter()
            .map(|(key, v)| ((*key).to_owned(), v.clone())),
    ) {
        snapshot
            .fold(&key, Some(value.to_string().as_bytes()))
            .unwrap();
    }
    let log = Log::new(context, settings.partitions);
    (
        Platform::new(log, Registry::fixed(snapshot), buckets, master),
        server,
    )
}

/// Everything in UPDATES, read as records.
pub async fn records(platform: &Platform) -> Vec<Record> {
    let stream = platform.log.context().get_stream(UPDATES).await.unwrap();
    let count = stream.get_info().await.unwrap().state.messages;
    let mut records = Vec::new();
    for sequence in 1..=count {
        let message = stream.get_raw_message(sequence).await.unwrap();
        records.push(serde_json::from_slice(&message.payload).unwrap());
    }
    records
}
