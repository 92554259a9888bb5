//! A batch is worked on in memory and written once; what it leaves is what its updates one by one would leave.

use super::*;
use ackline_shared::ids::conversation_id;

/// Rows of every kind: replies, statuses early, late, again and of others' messages, people under one id, the other, both.
fn some(log: Log, pick: usize) -> Log {
    let to_user = json!({"recipient_user_id": USER});
    let named = json!({"biz_opaque_callback_data": "m2", "recipient_user_id": "US.2"});
    match pick {
        0 => log.message("w1", Some(USER), None, "a"),
        1 => log.message("w2", None, Some(PHONE), "b"),
        2 => log.message("w3", Some(USER), Some(PHONE), "c"),
        3 => log.message("w4", Some("US.2"), Some(PHONE), "d"),
        4 => log.message("w5", Some("US.2"), None, "e"),
        5 => log.queued("m1"),
        6 => log.sent("m1", "out1"),
        7 => log.status("out1", "sent", &json!({})),
        8 => log.status("out1", "delivered", &to_user),
        9 => log.status("out1", "failed", &json!({})),
        10 => log.queued("m2"),
        11 => log.failed("m2", true),
        12 => log.status("out2", "delivered", &json!({})),
        13 => log.status("out2", "sent", &named),
        14 => log.status("out3", "read", &to_user),
        _ => log.message("out3", None, Some(PHONE), "f"),
    }
}

/// All that queries tell after the log was written in batches of one size.
async fn told(log: &Log, batch: usize) -> String {
    let (_directory, journal) = open().await;
    for batch in log.works.chunks(batch) {
        assert_eq!(journal.write_batch(batch).await.unwrap(), []);
    }
    let (conversations, messages) = everything(&journal).await;
    let content = messages
        .iter()
        .map(|message| message.content.get().to_owned());
    let mut told = format!(
        "{conversations:#?} {messages:#?} {:#?}",
        content.collect::<Vec<_>>()
    );
    for id in [
        "m1", "m2", "w1", "w2", "w3", "w4", "w5", "out1", "out2", "out3",
    ] {
        let message = journal.message("acme", id).await.unwrap();
        told.push_str(&format!("{id}: {message:#?}"));
    }
    for key in [
        ConversationKey::user(USER),
        ConversationKey::user("US.2"),
        ConversationKey::phone(PHONE),
    ] {
        let id = conversation_id("acme", NUMBER, &key);
        let now = journal.conversation_id("acme", &id).await.unwrap();
        told.push_str(&format!("{key:?}: {now:?}"));
    }
    told
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_log_leaves_the_same_in_whatever_batches_it_is_written(
        picks in proptest::collection::vec(0..16_usize, 1..40),
        batch in 2..40_usize,
    ) {
        let log = picks.iter().fold(Log::new(), |log, pick| some(log, *pick));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (one_by_one, together) =
            runtime.block_on(async { (told(&log, 1).await, told(&log, batch).await) });
        prop_assert_eq!(one_by_one, together);
    }

    #[test]
    fn what_comes_again_changes_nothing(picks in proptest::collection::vec(0..16_usize, 1..40)) {
        let all = || picks.iter().fold(Log::new(), |log, pick| some(log, *pick));
        let (log, mut once) = (all(), all());
        let mut seen = std::collections::HashSet::new();
        once.works.retain(|work| seen.insert(work.head.id.as_str().to_owned()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (again, once) = runtime.block_on(async { (told(&log, 3).await, told(&once, 3).await) });
        prop_assert_eq!(again, once);
    }
}

#[tokio::test]
async fn what_the_database_refuses_is_left_out_and_the_rest_is_written() {
    let (_directory, journal) = open().await;
    // A conversation that no key leads to is in the way of the one that is to be made.
    let id = conversation_id("acme", NUMBER, &ConversationKey::user("US.7"));
    sqlx::query(
        "INSERT INTO conversations (id, tenant, phone_number_id, last_ms, last_text, last_direction, incoming, outgoing, created_ms)
         VALUES (?1, 'acme', '1', 0, '', '', 0, 0, 0)",
    )
    .bind(id)
    .execute(&journal.database().unwrap().writer)
    .await
    .unwrap();
    let mut log = Log::new();
    for at in 0..9 {
        let user = if at == 3 || at == 7 { "US.7" } else { USER };
        log = log.message(&format!("w{at}"), Some(user), None, "hi");
    }
    let rejected = journal.write_batch(&log.works).await.unwrap();
    let places: Vec<_> = rejected.iter().map(|one| one.index).collect();
    assert_eq!(places, [3, 7]);
    assert!(
        rejected[0].reason.starts_with("the database refuses it"),
        "{rejected:?}"
    );
    let (conversations, messages) = everything(&journal).await;
    assert_eq!(
        (
            conversations.len(),
            conversations[0].incoming,
            messages.len()
        ),
        (1, 7, 7)
    );
}
