//! The order of what happened within one second, which Meta does not divide.

use super::*;
use sqlx::Row;

/// In the second 1000, as the log has it: a question, our answer, another question, its answer.
fn a_second() -> Log {
    let answer = |log: Log, id: &str, created_ms| {
        let command = SendCommand {
            created_ms,
            ..command(id)
        };
        log.record(
            &format!("{id}:queued"),
            &Record::ReplyQueued {
                command: Box::new(command),
            },
        )
    };
    let log = answer(
        Log::new().message("w1", None, Some(PHONE), "one?"),
        "m1",
        1_000_400,
    );
    answer(
        log.message("w2", None, Some(PHONE), "two?"),
        "m2",
        1_000_700,
    )
}

#[tokio::test]
async fn within_a_second_messages_are_in_the_order_of_the_log() {
    let mut log = a_second();
    for is_backwards in [false, true] {
        if is_backwards {
            log.works.reverse();
        }
        let (_directory, journal) = written(&log).await;
        let conversation = conversations(&journal).await.remove(0);
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let one = Bound { items: 1, ..MANY };
            let page = journal
                .messages("acme", &conversation.id, after, one)
                .await
                .unwrap();
            after = page
                .items
                .last()
                .map(|last| (last.created_ms, last.sequence));
            seen.extend(page.items.into_iter().map(|message| message.direction));
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, ["out", "in", "out", "in"], "newest first");
        assert_eq!(
            (conversation.last_direction.as_str(), conversation.last_ms),
            ("out", 1_000_700)
        );
    }
}

#[tokio::test]
async fn the_newest_message_of_a_second_is_the_last_in_the_log() {
    let log = a_second().message("w3", None, Some(PHONE), "three?");
    let (_directory, journal) = written(&log).await;
    let found = conversations(&journal).await.remove(0);
    assert_eq!(
        (found.last_text.as_str(), found.last_direction.as_str()),
        ("three?", "in")
    );
    assert_eq!(
        found.last_ms, 1_000_700,
        "it moves no further down among conversations"
    );
    // The same when it turns out that it was somebody with two conversations.
    let apart = Log::new().message("v1", Some(USER), None, "earlier");
    let (_directory, journal) = written(&apart).await;
    journal.write_batch(&log.works).await.unwrap();
    let both = log.message("v2", Some(USER), Some(PHONE), "both");
    journal.write_batch(&both.works).await.unwrap();
    let found = conversations(&journal).await;
    assert_eq!(
        (found.len(), found[0].last_text.as_str(), found[0].last_ms),
        (1, "both", 1_000_700)
    );
}

#[tokio::test]
async fn a_page_is_read_from_an_index_in_its_order() {
    let (_directory, journal) = written(&a_second()).await;
    let plan = format!("EXPLAIN QUERY PLAN {}", super::super::query::MESSAGES);
    let rows = sqlx::query(sqlx::AssertSqlSafe(plan))
        .bind("acme")
        .bind("c")
        .bind(5)
        .bind(5)
        .bind(50)
        .fetch_all(&journal.database().unwrap().readers)
        .await
        .unwrap();
    let steps: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
    assert!(
        steps.len() == 1
            && steps[0].contains("messages_in_order (conversation=? AND (second,sequence)<"),
        "{steps:?}"
    );
}
