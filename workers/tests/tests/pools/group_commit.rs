//! Writes of the same moment are stored together, and each has an answer of its own.

use super::stage::{DEADLINE, Stage, head};
use ackline_runtime::group_commit::{Destination, Receipt, Write, WriteError, Writer};
use ackline_runtime::log::Log;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{BUCKET_SESSIONS, Partition, UPDATES};
use futures_util::future::join_all;

const COUNT: usize = 600;

fn message(number: usize) -> Write {
    let partition = Partition(u16::try_from(number % 4).unwrap());
    let head = head(partition, "US.1", &format!("m{number}"));
    Write {
        subject: head.subject(),
        headers: head.to_headers(),
        payload: format!("{number}").into(),
    }
}

#[tokio::test]
async fn writes_of_the_same_moment_are_stored_once_where_their_receipts_say() {
    let stage = Stage::start(Snapshot::default()).await;
    let context = stage.platform.log.context().clone();
    let mut stream = context.get_stream(UPDATES).await.unwrap();
    let mut config = stream.info().await.unwrap().config.clone();
    // However slow the machine is, a repeat is known as one.
    config.duplicate_window = DEADLINE;
    context.update_stream(config).await.unwrap();
    let writer = Writer::grouped(context.clone());
    let write = |number| writer.write(Destination::Updates, message(number));
    let receipts = join_all((0..COUNT).map(write)).await;
    for (number, receipt) in receipts.iter().enumerate() {
        let Ok(Receipt {
            sequence,
            duplicate: false,
        }) = receipt
        else {
            panic!("{number}: {receipt:?}")
        };
        let stored = stream.direct_get(*sequence).await.unwrap();
        assert_eq!(stored.payload, format!("{number}"));
    }
    // Repeats among others: each is told of, and nothing is stored twice.
    let again = join_all((COUNT / 2..COUNT + COUNT / 2).map(write)).await;
    for (number, receipt) in (COUNT / 2..).zip(again) {
        let receipt = receipt.unwrap();
        assert_eq!(receipt.duplicate, number < COUNT, "{number}");
        let stored = stream.direct_get(receipt.sequence).await.unwrap();
        assert_eq!(stored.payload, format!("{number}"));
    }
    let messages = stream.get_info().await.unwrap().state.messages;
    assert_eq!(messages, u64::try_from(COUNT + COUNT / 2).unwrap());
}

#[tokio::test]
async fn a_session_that_somebody_else_wrote_holds_up_no_other_of_its_group() {
    let stage = Stage::start(Snapshot::default()).await;
    let context = stage.platform.log.context().clone();
    let (ours, theirs) = (Log::grouped(context.clone(), 4), &stage.platform.log);
    let key = |number: usize| format!("flows.acme.100.{number}");
    let put = |number: usize, revision| {
        let (ours, key) = (ours.clone(), key(number));
        async move { ours.put_session(&key, "ours".into(), revision).await }
    };
    let first = join_all((0..COUNT).map(|number| put(number, 0))).await;
    let revisions: Vec<u64> = first.into_iter().map(Result::unwrap).collect();
    let taken = |number: usize| number % 100 == 7;
    for number in (0..COUNT).filter(|number| taken(*number)) {
        let (key, revision) = (key(number), revisions[number]);
        let written = theirs.put_session(&key, "theirs".into(), revision).await;
        written.unwrap();
    }
    let second = join_all(
        revisions
            .iter()
            .enumerate()
            .map(|(number, &revision)| put(number, revision)),
    )
    .await;
    let store = &stage.platform.buckets.sessions;
    for (number, written) in second.into_iter().enumerate() {
        let entry = store.entry(key(number)).await.unwrap().unwrap();
        if taken(number) {
            assert_eq!(written, Err(WriteError::Overtaken), "{number}");
            assert_eq!(entry.value, "theirs");
        } else {
            assert_eq!(written, Ok(entry.revision), "{number}");
            assert_eq!(entry.value, "ours");
        }
    }
    let stored = context.get_stream(format!("KV_{BUCKET_SESSIONS}")).await;
    assert!(stored.unwrap().cached_info().config.allow_atomic_publish);
}

#[tokio::test]
async fn what_cannot_be_stored_is_told_to_each_that_waits() {
    let mut stage = Stage::start(Snapshot::default()).await;
    let writer = Writer::grouped(stage.platform.log.context().clone());
    stage.kill_server();
    let write = |number| writer.write(Destination::Updates, message(number));
    let answers = tokio::time::timeout(DEADLINE, join_all((0..COUNT).map(write)));
    let answers = answers.await.expect("every write is bounded in time");
    assert!(answers.iter().all(Result::is_err));
    stage.restart_server().await;
    let receipts = join_all((0..COUNT).map(write)).await;
    assert!(receipts.iter().all(Result::is_ok), "{receipts:?}");
}
