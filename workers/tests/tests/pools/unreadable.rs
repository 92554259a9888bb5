//! An update that the edge took and no reader of ours can read: every pool says so, and none takes it for unwanted.

use super::flows::egress;
use super::oversized::run_batches;
use super::stage::Stage;
use ackline_connectors::CrmSync;
use ackline_pools::events::EventsJob;
use ackline_pools::flows::FlowsJob;
use ackline_pools::relay::RelayJob;
use ackline_shared::ids::TenantId;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, DEAD, Pool, header};
use ackline_store::Journal;
use serde_json::json;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_a_dead_letter_of_every_pool() {
    let url = "http://127.0.0.1:9/";
    let mut snapshot = Snapshot::default();
    for (key, value) in [
        ("tenant.acme", json!({"id": "acme", "name": "Acme"})),
        (
            "bot.acme.shop",
            json!({"id": "shop", "tenant": "acme", "flows": ["order"]}),
        ),
        (
            "relay.acme.old",
            json!({"id": "old", "tenant": "acme", "url": url, "fields": ["messages"]}),
        ),
        (
            "endpoint.acme.web",
            json!({"id": "web", "tenant": "acme", "url": url, "secrets": [], "events": ["flow.*"]}),
        ),
        (
            "crm.acme.desk",
            json!({"id": "desk", "tenant": "acme", "kind": "chatwoot", "url": url, "account_id": 1, "inbox_id": 1,
                "inbox_identifier": "a", "access_token": "t", "hook_token": "h"}),
        ),
    ] {
        snapshot
            .fold(key, Some(value.to_string().as_bytes()))
            .unwrap();
    }
    let stage = Stage::start(snapshot).await;
    let platform = || stage.platform.clone();
    // Each is a process of its own, with a name of its own.
    let _running = (
        stage.run(FlowsJob::new(platform(), egress()), "flows"),
        stage.run(RelayJob::new(platform(), egress(), TIMEOUT), "relay"),
        stage.run(EventsJob::new(platform(), egress(), TIMEOUT), "events"),
        stage.run(CrmSync::new(platform(), egress(), TIMEOUT), "crm"),
    );
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(&format!("sqlite://{}/j.db", directory.path().display()))
        .await
        .unwrap();
    let _journal = run_batches(&stage, journal);
    let message = r#"{"id":"w","from":"49","type":"text","weight":1e400}"#;
    let value = format!(r#"{{"metadata":{{"phone_number_id":"100"}},"messages":[{message}]}}"#);
    let payload =
        format!(r#"{{"entry":[{{"id":"W","changes":[{{"field":"messages","value":{value}}}]}}]}}"#);
    stage.publish("US.1", "w", payload).await;

    let acme = TenantId::new("acme").unwrap();
    let mut letters = Vec::new();
    for pool in [
        Pool::Flows,
        Pool::Relay,
        Pool::Crm,
        Pool::Events,
        Pool::Journal,
    ] {
        letters.extend(stage.messages(DEAD, &subjects::dead(pool, &acme), 1).await);
    }
    for letter in &letters {
        let reason = letter
            .headers
            .as_ref()
            .unwrap()
            .get(header::DEAD_REASON)
            .unwrap()
            .as_str();
        assert!(
            reason.contains("number out of range"),
            "{}: {reason}",
            letter.subject
        );
    }
}
