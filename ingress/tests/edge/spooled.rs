//! The whole edge with a spool: outages of a real nats-server, and its own end by SIGKILL meanwhile.

use crate::against_nats::{Running, SOON, context, declare, settings, stored};
use crate::client::{Answer, delivery, post};
use ackline_shared::subjects::UPDATES;
use ackline_shared::testing::{NatsOptions, NatsServer, Process};
use ackline_shared::vault::VaultKey;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// A message from a person, in a delivery of its own.
fn message(person: usize, number: usize) -> String {
    delivery(
        "100",
        &[&format!("wamid.{number:05}{}", "x".repeat(person))],
    )
}

/// Everything in the stream, once, and per conversation in the order it was sent.
fn assert_once_and_in_order(ids: &[String], expected: usize) {
    assert_eq!(
        ids.iter().collect::<HashSet<_>>().len(),
        expected,
        "{ids:?}"
    );
    assert_eq!(ids.len(), expected, "{ids:?}");
    let mut last: HashMap<usize, &str> = HashMap::new();
    for id in ids {
        let before = last.insert(id.len(), id);
        assert!(
            before.is_none_or(|before| before < id.as_str()),
            "{before:?} before {id}: {ids:?}"
        );
    }
}

async fn stored_ids(edge: &Running) -> Vec<String> {
    stored(&edge.settings)
        .await
        .iter()
        .map(|(head, _)| head.id.as_str().to_owned())
        .collect()
}

fn enabled<'a>(directory: &'a Path, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let directory = directory.to_str().unwrap();
    let spool = [
        ("ACKLINE_SPOOL_ENABLED", "true"),
        ("ACKLINE_SPOOL_DIRECTORY", directory),
    ];
    spool.iter().chain(more).copied().collect()
}

#[tokio::test]
async fn an_outage_costs_no_503_and_keeps_the_order() {
    let mut server = NatsServer::start().unwrap();
    let master = declare(&server).await;
    let directory = tempfile::tempdir().unwrap();
    let edge = Running::start(&server, &master, &enabled(directory.path(), &[])).await;
    edge.ready().await;
    edge.until("/readyz", |answer| {
        answer.body.contains(r#""state":"direct""#)
    })
    .await;
    let mut number = 0;
    let mut post_some = async |count: usize| {
        for _ in 0..count {
            number += 1;
            assert_eq!(edge.post(&message(number % 5, number)).await.status, 200);
        }
    };
    post_some(20).await;
    server.kill();
    post_some(100).await;
    edge.until("/readyz", |answer| {
        answer.status == 200
            && answer.body.contains(r#""state":"spooling""#)
            && answer.body.contains(r#""records":100"#)
    })
    .await;
    server.restart().unwrap();
    post_some(20).await;
    edge.until("/readyz", |answer| {
        answer.body.contains(r#""state":"direct""#)
    })
    .await;
    post_some(20).await;
    server.freeze().unwrap();
    // The first one waits out its budget, and the others need not.
    post_some(20).await;
    server.thaw().unwrap();
    edge.until("/readyz", |answer| {
        answer.body.contains(r#""state":"direct""#)
    })
    .await;
    assert_once_and_in_order(&stored_ids(&edge).await, 180);
    let metrics = edge.get("/metrics").await.body;
    assert!(
        metrics.contains("spool_records 0") && metrics.contains("spool_failures_total 0"),
        "{metrics}"
    );
    edge.stop().await;
}

#[tokio::test]
async fn a_full_spool_means_503_until_it_is_drained() {
    let mut server = NatsServer::start().unwrap();
    let master = declare(&server).await;
    let directory = tempfile::tempdir().unwrap();
    let small = [
        ("ACKLINE_SPOOL_BYTES_MAX", "1MiB"),
        ("ACKLINE_SPOOL_SEGMENT_BYTES", "64KiB"),
    ];
    let edge = Running::start(&server, &master, &enabled(directory.path(), &small)).await;
    edge.ready().await;
    server.kill();
    let large = |number| message(1, number) + &" ".repeat(300 << 10);
    for number in 0..3 {
        assert_eq!(edge.post(&large(number)).await.status, 200);
    }
    let answer = edge.post(&large(3)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("retry-after")),
        (503, Some("2"))
    );
    let metrics = edge.get("/metrics").await.body;
    assert!(
        metrics.contains("refusals_total{reason=\"spool_full\"} 1"),
        "{metrics}"
    );
    server.restart().unwrap();
    edge.until("/readyz", |answer| {
        answer.body.contains(r#""state":"direct""#)
    })
    .await;
    assert_eq!(edge.post(&large(3)).await.status, 200);
    assert_once_and_in_order(&stored_ids(&edge).await, 4);
    edge.stop().await;
}

/// The edge as a process of its own, to be killed.
struct Child {
    public: SocketAddr,
    private: SocketAddr,
    process: Process,
}

impl Child {
    fn start(server: &NatsServer, master: &VaultKey, more: &[(&str, &str)]) -> Self {
        let (url, key) = (server.url(), master.to_base64().expose().clone());
        let mut command = Command::new(env!("CARGO_BIN_EXE_ackline-ingress"));
        command
            .env_clear()
            .env("ACKLINE_NATS_URL", url)
            .env("ACKLINE_SECRETS_MASTER_KEY", key)
            .env("ACKLINE_INGRESS_LISTEN", "127.0.0.1:0")
            .env("ACKLINE_INGRESS_PRIVATE_LISTEN", "127.0.0.1:0")
            .env("ACKLINE_NATS_STREAM_BYTES_MAX", "64MiB")
            .env("ACKLINE_NATS_SESSION_BYTES_MAX", "64MiB")
            .env("ACKLINE_TELEMETRY_FORMAT", "json")
            .envs(more.iter().copied());
        let (process, (public, private)) =
            Process::start("ackline-ingress", command, SOON, |line| {
                let line: serde_json::Value = serde_json::from_str(line).ok()?;
                let address = |name: &str| {
                    line.pointer(&format!("/fields/{name}"))?
                        .as_str()?
                        .parse()
                        .ok()
                };
                Some((address("webhooks")?, address("private")?))
            })
            .unwrap();
        Self {
            public,
            private,
            process,
        }
    }

    async fn until(&self, holds: impl Fn(&Answer) -> bool) {
        let deadline = Instant::now() + SOON;
        loop {
            let request = Request::get("/readyz")
                .header("host", "edge")
                .body(Full::default())
                .unwrap();
            let answer = send(self.private, request).await;
            if holds(&answer) {
                return;
            }
            assert!(Instant::now() < deadline, "still {answer:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
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

#[tokio::test]
async fn an_edge_killed_while_it_spools_loses_nothing_it_acknowledged() {
    let mut server = NatsServer::start().unwrap();
    let master = declare(&server).await;
    let directory = tempfile::tempdir().unwrap();
    let more = enabled(directory.path(), &[]);
    let edge = Child::start(&server, &master, &more);
    edge.until(|answer| answer.status == 200 && answer.body.contains("\"connected\""))
        .await;
    server.kill();
    for number in 0..60 {
        assert_eq!(
            send(edge.public, post(&message(number % 5, number)))
                .await
                .status,
            200
        );
    }
    // SIGKILL, as dropping a process does.
    drop(edge.process);
    server.restart().unwrap();
    let edge = Child::start(&server, &master, &more);
    edge.until(|answer| answer.status == 200 && answer.body.contains(r#""state":"direct""#))
        .await;
    assert_eq!(send(edge.public, post(&message(0, 60))).await.status, 200);
    let settings = settings(&server, &master, &[]);
    let ids: Vec<_> = stored(&settings)
        .await
        .iter()
        .map(|(head, _)| head.id.as_str().to_owned())
        .collect();
    assert_once_and_in_order(&ids, 61);
}

#[tokio::test]
async fn a_logged_edge_publishes_again_what_a_server_lost() {
    let mut server = NatsServer::start_with(NatsOptions::default()).unwrap();
    let master = declare(&server).await;
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().to_str().unwrap();
    let more = [
        ("ACKLINE_NATS_DURABILITY", "logged"),
        ("ACKLINE_SPOOL_DIRECTORY", directory),
    ];
    let edge = Running::start(&server, &master, &more).await;
    edge.ready().await;
    for number in 0..30 {
        assert_eq!(edge.post(&message(number % 5, number)).await.status, 200);
    }
    edge.until("/readyz", |answer| {
        answer.body.contains(r#""durability":"logged""#) && answer.body.contains(r#""records":0"#)
    })
    .await;
    // As after power loss of a server that syncs now and then: some of what it acknowledged is gone.
    let stream = context(&edge.settings)
        .await
        .get_stream(UPDATES)
        .await
        .unwrap();
    for sequence in 11..=20 {
        stream.delete_message(sequence).await.unwrap();
    }
    server.restart().unwrap();
    edge.ready().await;
    let deadline = Instant::now() + SOON;
    loop {
        let mut stream = context(&edge.settings)
            .await
            .get_stream(UPDATES)
            .await
            .unwrap();
        if stream.info().await.unwrap().state.messages == 30 {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "what was lost is not published again"
        );
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(edge.post(&message(1, 30)).await.status, 200);
    edge.stop().await;
}
