//! A spill queue in the stream SPILL.

use super::platform::platform;
use ackline_runtime::spill::{SpillEntry, Store};
use ackline_shared::subjects::header;
use async_nats::HeaderMap;

/// More entries of a spill queue than are appended one by one.
const MANY: usize = 9;

fn entry(subject: &str, id: &str) -> SpillEntry {
    let mut headers = HeaderMap::new();
    headers.insert(header::MSG_ID, id);
    SpillEntry {
        subject: subject.to_owned(),
        headers,
        payload: id.to_owned().into(),
    }
}

async fn ids(store: &Store, subject: &str, from: u64) -> Vec<String> {
    let (messages, _) = store.load(subject, from, 10).await.unwrap();
    messages
        .iter()
        .map(|message| String::from_utf8(message.payload.to_vec()).unwrap())
        .collect()
}

#[tokio::test]
async fn a_spill_queue_is_appended_in_order_once_and_taken_out_from_its_front() {
    let (platform, _server) = platform(&[]).await;
    let store = Store::new(platform.log.context().clone());
    let (a, b) = ("spill.relay.1.msg.a", "spill.relay.1.msg.b");
    assert!(ids(&store, a, 0).await.is_empty());
    let batch = [entry(a, "a1"), entry(b, "b1"), entry(a, "a2")];
    store.append(&batch).await.unwrap();
    store
        .append(&[entry(a, "a2"), entry(a, "a3")])
        .await
        .unwrap();
    store.append(&[entry(a, "a4")]).await.unwrap();
    assert_eq!(ids(&store, a, 0).await, ["a1", "a2", "a3", "a4"]);
    let many = |count: usize| -> Vec<SpillEntry> {
        (0..count)
            .map(|nth| entry("spill.relay.3.msg.c", &format!("c{nth:02}")))
            .collect()
    };
    store.append(&many(MANY)).await.unwrap();
    // All of that is in the next one, which is refused whole.
    store.append(&many(MANY + 2)).await.unwrap();
    let (stored, left) = store.load("spill.relay.3.msg.c", 0, 100).await.unwrap();
    assert_eq!(left, 0);
    let (some, left) = store.load("spill.relay.3.msg.c", 0, 4).await.unwrap();
    assert_eq!(
        (some.len(), left),
        (4, u64::try_from(MANY + 2).unwrap() - 4),
        "the rest is told of"
    );
    let stored: Vec<_> = stored.into_iter().map(|message| message.payload).collect();
    assert_eq!(
        stored,
        many(MANY + 2)
            .into_iter()
            .map(|entry| entry.payload)
            .collect::<Vec<_>>()
    );
    // Spill queues are written side by side, so only the order within one is known.
    let places: Vec<u64> = store
        .load(a, 0, 10)
        .await
        .unwrap()
        .0
        .iter()
        .map(|message| message.sequence)
        .collect();
    let (first, _) = store.load(a, 0, 1).await.unwrap();
    assert_eq!(
        first
            .iter()
            .map(|message| message.sequence)
            .collect::<Vec<_>>(),
        places[..1]
    );
    assert_eq!(ids(&store, a, places[0] + 1).await, ["a2", "a3", "a4"]);
    store.remove(a, places[1]).await.unwrap();
    assert_eq!(ids(&store, a, 0).await, ["a3", "a4"]);
    let mut counts = store.count("spill.relay.1.>").await.unwrap();
    counts.sort();
    assert_eq!(counts, [(a.to_owned(), 2), (b.to_owned(), 1)]);
    assert!(store.count("spill.relay.2.>").await.unwrap().is_empty());
}
