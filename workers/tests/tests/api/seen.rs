//! How the process and its pools are, as the API and the private listener say it.

use super::stage::{ACME, OPERATOR, Stage};
use ackline_ownership::standing::State;
use ackline_runtime::activity::PoolReport;
use ackline_runtime::batch::BatchJob;
use ackline_runtime::status::Stuck;
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::Pool;
use axum::http::StatusCode;
use serde_json::json;

#[tokio::test]
async fn the_private_listener_reports_health_and_metrics() {
    let stage = Stage::start().await;
    assert_eq!(stage.private("/livez").await.status, StatusCode::OK);
    let ready = stage.private("/readyz").await;
    assert_eq!(
        (ready.status, &ready.json["journal"]),
        (StatusCode::OK, &json!("readable"))
    );
    let metrics = stage.private("/metrics").await;
    assert!(metrics.text.contains("things_total 3"), "{}", metrics.text);
    stage.standing.set(Pool::Relay, State::Working);
    let (lane, tenant) = ("msg".to_owned(), TenantId::new("acme").unwrap());
    let what = "an update is not tried again".to_owned();
    let stuck = vec![Stuck {
        partition: 3,
        lane,
        tenant,
        since_ms: 45_000,
        what,
    }];
    stage.board.activity(Pool::Relay).report(PoolReport {
        stuck,
        ..PoolReport::default()
    });
    let ready = stage.private("/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    let place = "relay, partition 3, lane msg, tenant acme: an update is not tried again, for 45 s";
    assert_eq!(ready.json["stuck"], json!([place]));
    stage
        .get("/metrics", ACME)
        .await
        .is_problem(StatusCode::NOT_FOUND, "not-found");
}

#[tokio::test]
async fn a_read_model_that_lacks_what_was_written_before_is_a_warning_with_what_to_do() {
    let stage = Stage::start().await;
    assert_eq!(stage.private("/readyz").await.json["warnings"], json!([]));
    stage.journal.resumes().await;
    let ready = stage.private("/readyz").await;
    let warning = ready.json["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("lacks what was written before 20") && warning.contains("journal rebuild")
    );
    assert_eq!(
        (ready.status, &ready.json["journal_fault"]),
        (StatusCode::OK, &json!(null))
    );
}

#[tokio::test]
async fn an_entry_that_does_not_parse_is_named_by_health_and_counted() {
    let stage = Stage::start().await;
    stage
        .platform
        .buckets
        .config
        .put("relay.acme.broken", "{".into())
        .await
        .unwrap();
    let mut registry = stage.platform.registry.clone();
    while registry.snapshot().unreadable.is_empty() {
        assert!(registry.changed().await);
    }
    let ready = stage.private("/readyz").await;
    assert_eq!(
        (ready.status, &ready.json["unreadable"]),
        (StatusCode::OK, &json!(["relay.acme.broken"]))
    );
    let metrics = stage.private("/metrics").await;
    assert!(
        metrics
            .text
            .contains("ackline_configuration_entries_unreadable 1"),
        "{}",
        metrics.text
    );
}

#[tokio::test]
async fn pools_are_shown_to_operators_only_with_a_verdict_in_words() {
    let stage = Stage::start().await;
    for path in ["/v1/pools", "/v1/pools/relay", "/v1/pools/relay/tenants"] {
        stage
            .get(path, ACME)
            .await
            .is_problem(StatusCode::FORBIDDEN, "forbidden");
    }
    stage
        .get("/v1/pools/relay", OPERATOR)
        .await
        .is_problem(StatusCode::NOT_FOUND, "not-found");
    stage
        .get("/v1/pools/relays", OPERATOR)
        .await
        .is_problem(StatusCode::NOT_FOUND, "not-found");
    let status = json!({"instance": "w1", "version": "0.1.0", "started_ms": 1, "at_ms": 2,
        "dead": [{"pool": "relay", "open": 3, "last_hour": 1, "oldest_ms": 9000, "reasons": {"refused": 3}}],
        "pools": [
        {"pool": "relay", "state": "working", "partitions": 4, "owned": [0, 1, 2], "owner_changes": 3,
         "concurrency": 8, "paused": false, "load": {"queued": 5, "running": 8, "waiting": 0},
         "rates": {"read": 10.0, "finished": 10.0, "retried": 0.0, "dead": 0.0},
         "service": {"counts": [], "total_ms": 0.0}, "wait": {"counts": [], "total_ms": 0.0},
         "lanes": [{"lane": "msg", "unread": 7, "in_work": 13, "oldest_ms": 9000, "partition": 2}],
         "tenants": [{"tenant": "acme", "rate": 10.0, "load": {"queued": 5, "running": 8, "waiting": 0}}],
         "history": [9, 10]},
        {"pool": "a pool of tomorrow", "state": "working", "partitions": 4, "owned": [], "owner_changes": 0,
         "concurrency": 8, "paused": false, "load": {"queued": 0, "running": 0, "waiting": 0},
         "rates": {"read": 0.0, "finished": 0.0, "retried": 0.0, "dead": 0.0},
         "service": {"counts": [], "total_ms": 0.0}, "wait": {"counts": [], "total_ms": 0.0},
         "lanes": [], "tenants": [], "history": []}]});
    stage.board.hear(serde_json::from_value(status).unwrap());
    let relay = stage.get("/v1/pools/relay", OPERATOR).await.json;
    assert_eq!(
        relay["verdict"],
        json!({"condition": "unowned", "words": "1 of 4 partitions have no owner"})
    );
    assert_eq!(
        (&relay["lag_messages"], &relay["lag_seconds"]),
        (&json!(20), &json!(9.0))
    );
    let dead = json!({"open": 3, "last_hour": 1, "oldest_seconds": 9.0, "reasons": {"refused": 3}, "more": false});
    assert_eq!(relay["dead_letters"], dead);
    let all = stage.get("/v1/pools", OPERATOR).await.json;
    assert_eq!(all["items"], json!([relay]));
    let tenants = stage.get("/v1/pools/relay/tenants", OPERATOR).await.json;
    assert_eq!(tenants["items"][0]["tenant"], "acme");
    assert_eq!(tenants["items"][0]["running"], 8);
}
