//! The whole edge on real sockets in front of a real nats-server.

use crate::client::{Answer, delivery, post};
use ackline_ingress::http::listeners::Listeners;
use ackline_ingress::process::{self, ProcessError};
use ackline_ingress::settings::IngressSettings;
use ackline_ingress_testkit::fixture;
use ackline_shared::config::Reader;
use ackline_shared::envelope::Head;
use ackline_shared::nats;
use ackline_shared::subjects::UPDATES;
use ackline_shared::testing::{NatsOptions, NatsServer};
use ackline_shared::vault::VaultKey;
use async_nats::jetstream::Context;
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

pub const SOON: Duration = Duration::from_secs(20);

pub struct Running {
    pub public: SocketAddr,
    pub private: SocketAddr,
    pub stop: watch::Sender<bool>,
    pub process: JoinHandle<Result<(), ProcessError>>,
    pub settings: IngressSettings,
}

impl Running {
    pub async fn start(server: &NatsServer, master: &VaultKey, more: &[(&str, &str)]) -> Self {
        let settings = settings(server, master, more);
        let listeners = Listeners::bind(settings.listen, settings.threads, settings.private_listen)
            .await
            .unwrap();
        let (public, private) = (
            listeners.public[0].local_addr().unwrap(),
            listeners.private.local_addr().unwrap(),
        );
        let (stop, stopped) = watch::channel(false);
        let process = tokio::spawn(process::run(settings.clone(), listeners, stopped));
        Self {
            public,
            private,
            stop,
            process,
            settings,
        }
    }

    pub async fn post(&self, body: &str) -> Answer {
        send(self.public, post(body)).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        let request = Request::get(path)
            .header("host", "edge")
            .body(Full::default())
            .unwrap();
        send(self.private, request).await
    }

    /// Waits until the routing table is there and NATS connected.
    pub async fn ready(&self) {
        self.until("/readyz", |answer| {
            answer.status == 200 && answer.body.contains("\"connected\"")
        })
        .await;
    }

    /// Waits until the private port says so.
    pub async fn until(&self, path: &str, holds: impl Fn(&Answer) -> bool) {
        let deadline = Instant::now() + SOON;
        loop {
            let answer = self.get(path).await;
            if holds(&answer) {
                return;
            }
            assert!(Instant::now() < deadline, "{path} still says {answer:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn stop(self) {
        self.stop.send_replace(true);
        timeout(SOON, self.process).await.unwrap().unwrap().unwrap();
    }
}

pub fn settings(server: &NatsServer, master: &VaultKey, more: &[(&str, &str)]) -> IngressSettings {
    let (url, key) = (server.url(), master.to_base64().expose().clone());
    let fixed = [
        ("ACKLINE_NATS_URL", url.as_str()),
        ("ACKLINE_SECRETS_MASTER_KEY", key.as_str()),
        ("ACKLINE_INGRESS_LISTEN", "127.0.0.1:0"),
        ("ACKLINE_INGRESS_PRIVATE_LISTEN", "127.0.0.1:0"),
        // The server reserves it, and several servers run at once.
        ("ACKLINE_NATS_STREAM_BYTES_MAX", "64MiB"),
        ("ACKLINE_NATS_SESSION_BYTES_MAX", "64MiB"),
    ];
    let variables = fixed
        .iter()
        .chain(more)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let mut reader = Reader::load(None, variables);
    let settings = IngressSettings::read(&mut reader);
    reader.finish().unwrap();
    settings
}

async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let response = timeout(SOON, client.send_request(request))
        .await
        .unwrap()
        .unwrap();
    Answer::read(response).await
}

pub async fn context(settings: &IngressSettings) -> Context {
    nats::jetstream(nats::connect(&settings.nats, "test").await.unwrap())
}

pub async fn declare(server: &NatsServer) -> VaultKey {
    let (entries, master) = fixture::entries();
    write(&settings(server, &master, &[]), entries).await;
    master
}

pub async fn write(settings: &IngressSettings, entries: Vec<(String, Vec<u8>)>) {
    let buckets = Box::pin(nats::prepare(&context(settings).await, &settings.nats))
        .await
        .unwrap();
    for (key, value) in entries {
        buckets.config.put(&key, value.into()).await.unwrap();
    }
}

pub async fn stored(settings: &IngressSettings) -> Vec<(Head, Bytes)> {
    let mut stream = context(settings).await.get_stream(UPDATES).await.unwrap();
    let last = stream.info().await.unwrap().state.last_sequence;
    let mut out = Vec::new();
    for sequence in 1..=last {
        let message = stream.get_raw_message(sequence).await.unwrap();
        out.push((
            Head::read(&message.subject, &message.headers).unwrap(),
            message.payload,
        ));
    }
    out
}

#[tokio::test]
async fn a_200_means_that_the_update_is_in_the_stream() {
    let server = NatsServer::start_with(NatsOptions {
        sync_always: true,
        ..NatsOptions::default()
    })
    .unwrap();
    let master = declare(&server).await;
    let edge = Running::start(&server, &master, &[]).await;
    edge.ready().await;
    let body = delivery("100", &["wamid.A"]);
    assert_eq!(edge.post(&body).await.status, 200);
    let [(head, payload)] = stored(&edge.settings).await.try_into().unwrap();
    assert_eq!(
        (head.tenant.as_str(), head.id.as_str(), payload),
        ("acme", "wamid.A", Bytes::from(body))
    );
    edge.until("/metrics", |answer| {
        answer
            .body
            .contains("updates_stored_total{class=\"msg\"} 1")
    })
    .await;
    edge.stop().await;
}

#[tokio::test]
async fn a_repeated_delivery_is_stored_once_and_a_batch_update_by_update() {
    let server = NatsServer::start().unwrap();
    let master = declare(&server).await;
    // Without a memory, JetStream is who tells repeats.
    let edge = Running::start(
        &server,
        &master,
        &[("ACKLINE_INGRESS_ACKNOWLEDGED_MAX", "0")],
    )
    .await;
    edge.ready().await;
    let batch = delivery(
        "100",
        &[
            "1", "22", "333", "4444", "55555", "666666", "7777777", "88888888",
        ],
    );
    for _ in 0..2 {
        assert_eq!(edge.post(&batch).await.status, 200);
    }
    let single = delivery("100", &["22"]);
    assert_eq!(edge.post(&single).await.status, 200);
    let stored = stored(&edge.settings).await;
    assert_eq!(stored.len(), 8);
    assert_eq!(stored[1].1, single);
    let metrics = edge.get("/metrics").await.body;
    assert!(metrics.contains("updates_duplicate_total 9"), "{metrics}");
    edge.stop().await;
}

#[tokio::test]
async fn a_repeat_of_what_was_acknowledged_is_answered_without_a_publish() {
    let mut server = NatsServer::start().unwrap();
    let master = declare(&server).await;
    let edge = Running::start(&server, &master, &[]).await;
    edge.ready().await;
    assert_eq!(edge.post(&delivery("100", &["1", "22"])).await.status, 200);
    assert_eq!(
        edge.post(&delivery("100", &["22", "333"])).await.status,
        200
    );
    let ids: Vec<_> = stored(&edge.settings)
        .await
        .iter()
        .map(|(head, _)| head.id.as_str().to_owned())
        .collect();
    assert_eq!(ids, ["1", "22", "333"]);
    let metrics = edge.get("/metrics").await.body;
    assert!(
        metrics.contains("updates_repeated_total 1")
            && metrics.contains("updates_duplicate_total 0"),
        "{metrics}"
    );
    server.kill();
    edge.until("/readyz", |answer| answer.body.contains("\"away\""))
        .await;
    // The log is away, and what it has is still known.
    assert_eq!(edge.post(&delivery("100", &["333"])).await.status, 200);
    for _ in 0..2 {
        // What was never acknowledged is never remembered.
        assert_eq!(
            edge.post(&delivery("100", &["333", "4444"])).await.status,
            503
        );
    }
    server.restart().unwrap();
    edge.ready().await;
    assert_eq!(edge.post(&delivery("100", &["4444"])).await.status, 200);
    assert_eq!(stored(&edge.settings).await.len(), 4);
    edge.stop().await;
}

#[tokio::test]
async fn a_killed_server_means_503_soon_and_200_again_after_its_return() {
    let mut server = NatsServer::start().unwrap();
    let master = declare(&server).await;
    let edge = Running::start(&server, &master, &[]).await;
    edge.ready().await;
    server.kill();
    edge.until("/readyz", |answer| {
        answer.status == 200 && answer.body.contains("\"away\"")
    })
    .await;
    let body = delivery("100", &["wamid.A"]);
    assert_eq!(edge.post(&body).await.status, 503);
    sleep(edge.settings.publishing.attempt_timeout).await;
    // Away for longer than an attempt: no more waiting for it.
    let started = Instant::now();
    let answer = edge.post(&body).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("retry-after")),
        (503, Some("2"))
    );
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "took {:?}",
        started.elapsed()
    );
    server.restart().unwrap();
    edge.ready().await;
    assert_eq!(edge.post(&body).await.status, 200);
    let stored = stored(&edge.settings).await;
    assert_eq!(
        stored
            .iter()
            .filter(|(head, _)| head.id.as_str() == "wamid.A")
            .count(),
        1
    );
    edge.stop().await;
}

#[tokio::test]
async fn a_server_that_comes_back_within_the_budget_costs_no_503() {
    let mut server = NatsServer::start().unwrap();
    let master = declare(&server).await;
    let long = [
        ("ACKLINE_INGRESS_PUBLISH_BUDGET", "15s"),
        ("ACKLINE_INGRESS_PUBLISH_ATTEMPT_TIMEOUT", "10s"),
    ];
    let edge = Running::start(&server, &master, &long).await;
    edge.ready().await;
    server.freeze().unwrap();
    let body = delivery("100", &["wamid.A"]);
    let (answer, ()) = tokio::join!(edge.post(&body), async {
        edge.until("/metrics", |answer| {
            answer.body.contains("updates_in_flight 1")
        })
        .await;
        server.restart().unwrap();
    });
    assert_eq!(answer.status, 200);
    assert_eq!(stored(&edge.settings).await.len(), 1);
    edge.stop().await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_means_503_within_the_budget_and_one_copy_in_the_end() {
    let server = NatsServer::start().unwrap();
    let master = declare(&server).await;
    let edge = Running::start(&server, &master, &[]).await;
    edge.ready().await;
    server.freeze().unwrap();
    let body = delivery("100", &["wamid.A"]);
    let started = Instant::now();
    assert_eq!(edge.post(&body).await.status, 503);
    let budget = edge.settings.publishing.budget;
    assert!(started.elapsed() >= budget && started.elapsed() < 2 * budget);
    server.thaw().unwrap();
    edge.ready().await;
    assert_eq!(edge.post(&body).await.status, 200);
    assert_eq!(stored(&edge.settings).await.len(), 1);
    edge.stop().await;
}

#[tokio::test]
async fn every_thread_serves_and_stores() {
    let server = NatsServer::start().unwrap();
    let master = declare(&server).await;
    let edge = Running::start(&server, &master, &[("ACKLINE_INGRESS_THREADS", "3")]).await;
    edge.ready().await;
    let ids: Vec<_> = (10..40).map(|number| format!("wamid.{number}")).collect();
    let bodies: Vec<_> = ids.iter().map(|id| delivery("100", &[id])).collect();
    let answers = join_all(bodies.iter().map(|body| edge.post(body))).await;
    assert!(
        answers.iter().all(|answer| answer.status == 200),
        "{answers:?}"
    );
    assert_eq!(stored(&edge.settings).await.len(), ids.len());
    edge.stop().await;
}

#[tokio::test]
async fn a_port_in_use_stops_the_start_with_its_name() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let server = NatsServer::start().unwrap();
    let settings = settings(
        &server,
        &VaultKey::generate(),
        &[("ACKLINE_INGRESS_LISTEN", &address.to_string())],
    );
    let error = Listeners::bind(settings.listen, settings.threads, settings.private_listen)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("ingress.listen") && error.contains(&address.to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn a_full_stream_means_503() {
    let server = NatsServer::start().unwrap();
    let (entries, master) = fixture::entries();
    let small = [
        ("ACKLINE_NATS_STREAM_BYTES_MAX", "1MiB"),
        ("ACKLINE_INGRESS_PUBLISH_BUDGET", "700ms"),
    ];
    write(&settings(&server, &master, &small), entries).await;
    let edge = Running::start(&server, &master, &small).await;
    edge.ready().await;
    let large = |id: &str| delivery("100", &[id]) + &" ".repeat(400 << 10);
    assert_eq!(edge.post(&large("1")).await.status, 200);
    assert_eq!(edge.post(&large("22")).await.status, 200);
    assert_eq!(edge.post(&large("333")).await.status, 503);
    assert_eq!(stored(&edge.settings).await.len(), 2);
    let metrics = edge.get("/metrics").await.body;
    assert!(
        metrics.contains("refusals_total{reason=\"jetstream_refused\"} 1"),
        "{metrics}"
    );
    edge.stop().await;
}

#[tokio::test]
async fn an_edge_started_before_nats_serves_once_nats_is_there() {
    let mut server = NatsServer::start().unwrap();
    let (entries, master) = fixture::entries();
    server.kill();
    let edge = Running::start(&server, &master, &[]).await;
    let body = delivery("100", &["wamid.A"]);
    assert_eq!(edge.post(&body).await.status, 503);
    let answer = edge.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.contains("\"connecting\"") && answer.body.contains("\"synced\""),
        "{}",
        answer.body
    );
    assert_eq!(edge.get("/livez").await.status, 200);
    server.restart().unwrap();
    write(&edge.settings, entries).await;
    edge.ready().await;
    edge.until("/readyz", |answer| answer.body.contains("\"numbers\":2"))
        .await;
    assert_eq!(edge.post(&body).await.status, 200);
    edge.stop().await;
}

#[tokio::test]
async fn another_partition_count_stops_the_start() {
    let server = NatsServer::start().unwrap();
    let master = declare(&server).await;
    let edge = Running::start(&server, &master, &[("ACKLINE_NATS_PARTITIONS", "8")]).await;
    let error = timeout(SOON, edge.process)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert!(
        error.to_string().contains("nats.partitions = 32"),
        "{error}"
    );
}

#[tokio::test]
async fn a_batch_as_large_as_metas_largest_is_stored_in_order() {
    let server = NatsServer::start().unwrap();
    let master = declare(&server).await;
    let edge = Running::start(
        &server,
        &master,
        &[("ACKLINE_INGRESS_PUBLISH_BUDGET", "15s")],
    )
    .await;
    edge.ready().await;
    let ids: Vec<_> = (1000..2000)
        .map(|number| format!("wamid.{number}"))
        .collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    assert_eq!(edge.post(&delivery("100", &ids)).await.status, 200);
    let stored = stored(&edge.settings).await;
    assert_eq!(
        stored
            .iter()
            .map(|(head, _)| head.id.as_str())
            .collect::<Vec<_>>(),
        ids
    );
    edge.stop().await;
}

#[tokio::test]
async fn more_in_flight_than_allowed_means_503_at_once() {
    let server = NatsServer::start().unwrap();
    let master = declare(&server).await;
    let edge = Running::start(
        &server,
        &master,
        &[
            ("ACKLINE_INGRESS_IN_FLIGHT_MAX", "1"),
            ("ACKLINE_INGRESS_THREADS", "1"),
        ],
    )
    .await;
    edge.ready().await;
    server.freeze().unwrap();
    let (first, second) = (delivery("100", &["1"]), delivery("100", &["22"]));
    let (first, second) = tokio::join!(edge.post(&first), async {
        edge.until("/metrics", |answer| {
            answer.body.contains("updates_in_flight 1")
        })
        .await;
        let started = Instant::now();
        let answer = edge.post(&second).await;
        assert!(started.elapsed() < edge.settings.publishing.budget / 2);
        answer
    });
    server.thaw().unwrap();
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (503, 503));
    let metrics = edge.get("/metrics").await.body;
    assert!(
        metrics.contains("refusals_total{reason=\"overloaded\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("refusals_total{reason=\"ack_late\"} 1"),
        "{metrics}"
    );
    edge.ready().await;
    assert_eq!(edge.post(&delivery("100", &["22"])).await.status, 200);
    edge.stop().await;
}

#[tokio::test]
async fn a_server_that_lost_its_store_gets_its_streams_again_and_503_is_said_until_the_configuration_is_back()
 {
    let mut server = NatsServer::start().unwrap();
    let (entries, master) = fixture::entries();
    write(&settings(&server, &master, &[]), entries.clone()).await;
    let edge = Running::start(&server, &master, &[]).await;
    edge.ready().await;
    assert_eq!(edge.post(&delivery("100", &["before"])).await.status, 200);
    server.wipe().unwrap();
    server.restart().unwrap();
    edge.until("/readyz", |answer| {
        answer.status == 503 && answer.body.contains("\"declared\":false")
    })
    .await;
    edge.until("/readyz", |answer| {
        answer.body.contains("\"streams\":\"there\"")
    })
    .await;
    assert_eq!(
        edge.post(&delivery("100", &["meanwhile"])).await.status,
        503
    );
    assert_eq!(edge.post(&delivery("999", &["nobodys"])).await.status, 503);
    // As `ackline apply` does: whatever is declared is written, for nothing is there.
    write(&edge.settings, entries).await;
    edge.ready().await;
    edge.until("/readyz", |answer| answer.body.contains("\"numbers\":2"))
        .await;
    assert_eq!(
        edge.post(&delivery("100", &["meanwhile"])).await.status,
        200
    );
    let ids: Vec<_> = stored(&edge.settings)
        .await
        .into_iter()
        .map(|(head, _)| head.id.as_str().to_owned())
        .collect();
    assert_eq!(ids, ["meanwhile"]);
    edge.stop().await;
}

#[tokio::test]
async fn a_number_declared_while_the_edge_runs_is_routed() {
    let server = NatsServer::start().unwrap();
    let (mut entries, master) = fixture::entries();
    let late = entries
        .iter()
        .position(|(key, _)| key == "phone.100")
        .unwrap();
    let late = vec![entries.remove(late)];
    write(&settings(&server, &master, &[]), entries).await;
    let edge = Running::start(&server, &master, &[]).await;
    edge.until("/readyz", |answer| answer.body.contains("\"numbers\":1"))
        .await;
    edge.until("/readyz", |answer| answer.body.contains("\"connected\""))
        .await;
    assert_eq!(edge.post(&delivery("100", &["1"])).await.status, 200);
    write(&edge.settings, late).await;
    edge.until("/readyz", |answer| answer.body.contains("\"numbers\":2"))
        .await;
    assert_eq!(edge.post(&delivery("100", &["22"])).await.status, 200);
    let tenants: Vec<_> = stored(&edge.settings)
        .await
        .iter()
        .map(|(head, _)| head.tenant.to_string())
        .collect();
    assert_eq!(tenants, ["_unrouted", "acme"]);
    edge.stop().await;
}

#[tokio::test]
async fn a_server_that_takes_only_short_messages_is_told_and_the_rest_goes_on() {
    let extra_config = "max_payload: 1MB".to_owned();
    let server = NatsServer::start_with(NatsOptions {
        extra_config,
        ..NatsOptions::default()
    })
    .unwrap();
    let master = declare(&server).await;
    let edge = Running::start(&server, &master, &[]).await;
    edge.ready().await;
    edge.until("/readyz", |answer| {
        answer.body.contains("\"max_payload\":1048576")
    })
    .await;
    let answer = edge.get("/readyz").await;
    assert!(
        answer.status == 200 && answer.body.contains("set `max_payload: 8MB`"),
        "{answer:?}"
    );
    let long = delivery("100", &["a"]).replace("caf", &"x".repeat(1_100_000));
    assert_eq!(edge.post(&long).await.status.as_u16(), 503);
    assert_eq!(
        edge.post(&delivery("100", &["b"])).await.status.as_u16(),
        200
    );
}
