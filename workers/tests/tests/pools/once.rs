//! What took effect takes effect no more, however much was said since and however far back a takeover reads.

use super::flows::{body, egress, sent, snapshot, text};
use super::stage::Stage;
use ackline_pools::flows::FlowsJob;
use ackline_runtime::dedupe::{DedupeStore, Recall};
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects;
use futures_util::TryStreamExt;
use serde_json::json;
use std::collections::BTreeSet;

/// More than a conversation's record has room for.
const SAID: usize = 450;

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_answers_nothing_twice_after_hundreds_of_messages_and_a_takeover_from_the_start() {
    let definition = json!({
        "format": 1, "name": "Echo", "entry": [{"on": "any"}], "start": "say",
        "nodes": {
            "say": {"kind": "message.text", "body": "{{ message.text }}", "exits": {"next": "done"}},
            "done": {"kind": "end"}
        }
    });
    let stage = Stage::start(snapshot(&definition)).await;
    let (stop, running) = stage.run(FlowsJob::new(stage.platform.clone(), egress()), "one");
    for number in 0..SAID {
        let id = format!("m{number}");
        stage.publish("US.1", &id, text(&id, &id)).await;
    }
    assert_eq!(sent(&stage, SAID).await.len(), SAID);
    stage.publish_again("US.1", "m0", text("m0", "m0")).await;
    stop.send(true).unwrap();
    running.await.unwrap();

    // Nobody knows where the reading stood: everything is read again, and one more that is new.
    let stream = stage
        .platform
        .log
        .context()
        .get_stream(subjects::UPDATES)
        .await
        .unwrap();
    let names: Vec<String> = stream.consumer_names().try_collect().await.unwrap();
    for name in names {
        stream.delete_consumer(&name).await.unwrap();
    }
    let (_stop, _running) = stage.run(FlowsJob::new(stage.platform.clone(), egress()), "two");
    stage.publish("US.1", "last", text("last", "last")).await;
    // The last effects of a conversation are published again under their ids, and whoever sends knows them.
    let mut count = SAID + 1;
    let commands = loop {
        let commands = sent(&stage, count).await;
        if commands
            .last()
            .is_some_and(|command| body(command) == "last")
        {
            break commands;
        }
        count += 1;
    };
    let ids: BTreeSet<&str> = commands.iter().map(|command| command.id.as_str()).collect();
    assert_eq!(ids.len(), SAID + 1, "every message was answered once");
    assert_eq!(
        commands
            .iter()
            .filter(|command| body(command) == "m0")
            .count(),
        1
    );
}

#[tokio::test]
async fn a_record_knows_thousands_of_finished_updates_at_few_bytes_each() {
    let stage = Stage::start(Snapshot::default()).await;
    let dedupe = || DedupeStore::new(&stage.platform);
    let record = dedupe().record("relay.acme.person".to_owned(), None);
    const COUNT: u32 = 3000;
    for number in 0..COUNT {
        record.finish(&format!("m{number}")).await.unwrap();
    }
    let successor = dedupe().record("relay.acme.person".to_owned(), None);
    for number in 0..COUNT {
        assert_eq!(
            successor.recall(&format!("m{number}")).await,
            Ok(Recall::Done),
            "{number}"
        );
    }
    assert!(matches!(successor.recall("new").await, Ok(Recall::Open(_))));
    let mut bytes = 0;
    for name in [subjects::FINISHED.to_owned(), "KV_sessions".to_owned()] {
        let stream = stage
            .platform
            .log
            .context()
            .get_stream(&name)
            .await
            .unwrap();
        bytes += stream.get_info().await.unwrap().state.bytes;
    }
    assert!(bytes < u64::from(COUNT) * 8, "{bytes} bytes on disk");
}

#[tokio::test]
async fn a_conversation_of_one_update_costs_little_more_than_its_key() {
    let stage = Stage::start(Snapshot::default()).await;
    let dedupe = DedupeStore::new(&stage.platform);
    const COUNT: u64 = 100;
    for number in 0..COUNT {
        let record = dedupe.record(format!("relay.acme.{number:032x}"), None);
        record
            .finish("wamid.HBgLMTU1NTAxMDAxMjMVAgASGBQzQUU=")
            .await
            .unwrap();
    }
    let stream = stage
        .platform
        .log
        .context()
        .get_stream("KV_sessions")
        .await
        .unwrap();
    let each = stream.get_info().await.unwrap().state.bytes / COUNT;
    assert!(each <= 200, "{each} bytes a conversation");
}
