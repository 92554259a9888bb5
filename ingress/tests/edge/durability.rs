//! What a 200 promises: refused at the start when NATS does not keep it, and kept by groups when it does.

use crate::against_nats::{Running, SOON, context, declare, stored};
use crate::client::delivery;
use ackline_shared::subjects::UPDATES;
use ackline_shared::testing::{NatsOptions, NatsServer};
use futures_util::future::join_all;
use tokio::time::timeout;

const MONITORED: &str = "http: \"127.0.0.1:-1\"";
const MONITOR: &str = "Starting http monitor on ";

fn server(sync_always: bool) -> NatsServer {
    NatsServer::start_with(NatsOptions {
        sync_always,
        extra_config: MONITORED.to_owned(),
    })
    .unwrap()
}

fn monitor(server: &NatsServer) -> String {
    let log = server.log();
    let at = log
        .split(MONITOR)
        .nth(1)
        .unwrap_or_else(|| panic!("no monitor in {log}"));
    format!("http://{}", at.split_whitespace().next().unwrap())
}

#[tokio::test]
async fn a_server_that_does_not_sync_stops_the_start_when_synced_is_promised() {
    let server = server(false);
    let master = declare(&server).await;
    let edge = Running::start(
        &server,
        &master,
        &[("ACKLINE_NATS_MONITOR_URL", &monitor(&server))],
    )
    .await;
    let error = timeout(SOON, edge.process)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert!(
        error.to_string().contains("sync_interval: always"),
        "{error}"
    );
}

#[tokio::test]
async fn one_replica_stops_the_start_when_replicated_is_promised() {
    let server = server(true);
    let master = declare(&server).await;
    let edge = Running::start(
        &server,
        &master,
        &[("ACKLINE_NATS_DURABILITY", "replicated")],
    )
    .await;
    let error = timeout(SOON, edge.process)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert!(error.to_string().contains("needs 3 replicas"), "{error}");
}

#[tokio::test]
async fn readiness_says_whether_the_promise_is_verified() {
    let server = server(true);
    let master = declare(&server).await;
    let monitor = monitor(&server);
    let told = Running::start(&server, &master, &[("ACKLINE_NATS_MONITOR_URL", &monitor)]).await;
    told.until("/readyz", |answer| {
        answer.body.contains("\"durability_verified\":true")
    })
    .await;
    told.stop().await;
    let untold = Running::start(&server, &master, &[]).await;
    untold.ready().await;
    assert!(
        untold
            .get("/readyz")
            .await
            .body
            .contains("\"durability_verified\":false")
    );
    untold.stop().await;
}

#[tokio::test]
async fn what_waits_together_is_committed_together_and_stored_once_in_order() {
    let server = server(true);
    let master = declare(&server).await;
    let one = [
        ("ACKLINE_INGRESS_THREADS", "1"),
        ("ACKLINE_INGRESS_PUBLISH_BUDGET", "15s"),
    ];
    let edge = Running::start(&server, &master, &one).await;
    edge.ready().await;
    let ids: Vec<_> = (100..400).map(|number| format!("wamid.{number}")).collect();
    let batches: Vec<Vec<&str>> = ids
        .chunks(10)
        .map(|ids| ids.iter().map(String::as_str).collect())
        .collect();
    let bodies: Vec<_> = batches.iter().map(|ids| delivery("100", ids)).collect();
    let answers = join_all(bodies.iter().map(|body| edge.post(body))).await;
    assert!(
        answers.iter().all(|answer| answer.status == 200),
        "{answers:?}"
    );
    let stored: Vec<_> = stored(&edge.settings)
        .await
        .iter()
        .map(|(head, _)| head.id.as_str().to_owned())
        .collect();
    assert_eq!(stored.len(), ids.len());
    for batch in &batches {
        let kept: Vec<_> = stored
            .iter()
            .filter(|id| batch.contains(&id.as_str()))
            .collect();
        assert_eq!(&kept, batch, "a delivery's own order");
    }
    let syncs = context(&edge.settings)
        .await
        .get_stream(UPDATES)
        .await
        .unwrap()
        .cached_info()
        .state
        .messages;
    assert_eq!(syncs, 300);
    let metrics = edge.get("/metrics").await.body;
    let groups: usize = metrics
        .split("ingress_groups_total ")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        groups > 0 && groups < 200,
        "{groups} groups for 300 updates"
    );
    edge.stop().await;
}

#[tokio::test]
async fn a_duplicate_in_a_group_costs_the_group_and_no_update() {
    let server = server(true);
    let master = declare(&server).await;
    // Without a memory, duplicates reach the server.
    let plain = [
        ("ACKLINE_INGRESS_ACKNOWLEDGED_MAX", "0"),
        ("ACKLINE_INGRESS_PUBLISH_BUDGET", "15s"),
    ];
    let edge = Running::start(&server, &master, &plain).await;
    edge.ready().await;
    assert_eq!(edge.post(&delivery("100", &["22"])).await.status, 200);
    let ids: Vec<_> = (10..40).map(|number| number.to_string()).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    assert_eq!(edge.post(&delivery("100", &ids)).await.status, 200);
    let stored: Vec<_> = stored(&edge.settings)
        .await
        .into_iter()
        .map(|(head, _)| head.id)
        .collect();
    let stored: Vec<_> = stored.iter().map(|id| id.as_str()).collect();
    let others = ids.iter().filter(|id| **id != "22");
    assert_eq!(
        stored,
        ["22"].iter().chain(others).copied().collect::<Vec<_>>()
    );
    let metrics = edge.get("/metrics").await.body;
    assert!(
        metrics.contains("groups_split_total 1") && metrics.contains("updates_duplicate_total 1"),
        "{metrics}"
    );
    edge.stop().await;
}
