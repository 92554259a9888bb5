//! The workers die in the middle of a burst: their successor finishes it, and nobody is answered twice.
//!
//! Meta has no idempotency keys. A send that was cut off between request and answer is therefore not repeated
//! but reported, as a dead letter that says so; it is the only way for an answer to be missing.

use crate::installation::{ACME_NUMBER, Blueprint, Installation, from_business, text};
use ackline_bench::dev::{until, witness};
use ackline_bench::journal::Ask;
use std::collections::BTreeMap;
use std::time::Duration;

const PEOPLE: usize = 150;
const WITHIN: Duration = Duration::from_secs(60);

fn person(n: usize) -> String {
    format!("49152{n:08}")
}

/// How many answers each person got.
async fn answers(installation: &Installation) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    let seen =
        installation.simulator().journal().read(Ask::default(), |entry| from_business(entry).is_some()).await;
    for entry in &seen.entries {
        let seen = from_business(&entry.entry).unwrap();
        *answers.entry(seen.text.clone()).or_default() += 1;
    }
    answers
}

/// Sends that may have gone out and are not repeated, by what they say.
async fn cut_off(installation: &Installation) -> Vec<String> {
    let letters = installation.dead_letters("acme", "replies").await;
    let words = |letter: &serde_json::Value| {
        let reason = letter["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("cut off"), "given up for another reason: {letter:#}");
        letter["payload"]["content"]["body"].as_str().unwrap_or_default().to_owned()
    };
    letters.iter().map(words).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_die_in_a_burst_leave_nobody_unanswered_and_nobody_answered_twice() {
    let mut installation = Blueprint::new().await.start().await;
    for n in 0..PEOPLE {
        installation.post(text(&person(n), ACME_NUMBER, &format!("question {n}")));
    }
    let simulator = installation.simulator().clone();
    let answered = |entry: &ackline_bench::meta::Entry| from_business(entry).is_some();
    witness::entries(simulator.journal(), "first answers", 0, PEOPLE / 5, answered).await.unwrap();
    installation.kill_workers().await;
    let before = answers(&installation).await.len();
    assert!(before < PEOPLE, "the burst was over before the crash");
    installation.start_workers().await.unwrap();

    let expected: Vec<String> = (0..PEOPLE).map(|n| format!("You wrote: question {n}")).collect();
    until("an answer or a report for everybody", WITHIN, async || {
        let (answers, cut_off) = (answers(&installation).await, cut_off(&installation).await);
        let settled = |words: &&String| answers.contains_key(*words) || cut_off.contains(words);
        Ok((expected.iter().filter(settled).count() == PEOPLE).then_some(()))
    })
    .await
    .unwrap();
    // A second answer to anybody would have been sent before the first to who writes now.
    for n in 0..PEOPLE {
        installation.post(text(&person(n), ACME_NUMBER, &format!("thanks {n}")));
    }
    let all = |entry: &ackline_bench::meta::Entry| {
        from_business(entry).is_some_and(|seen| seen.text.starts_with("You wrote: thanks"))
    };
    witness::entries(simulator.journal(), "answers of the successor", 0, PEOPLE, all).await.unwrap();

    let (answers, cut_off) = (answers(&installation).await, cut_off(&installation).await);
    let twice: Vec<_> = answers.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "answered more than once: {twice:?}");
    let unanswered = expected.iter().filter(|words| !answers.contains_key(*words)).count();
    println!(
        "{before} answered before, {} reported as cut off, {unanswered} of them unanswered",
        cut_off.len()
    );
    assert!(unanswered <= cut_off.len());
    assert_eq!(
        installation
            .stored()
            .await
            .iter()
            .filter(|stored| stored.tenant == "acme" && !stored.id.contains(':'))
            .count(),
        2 * PEOPLE
    );
    assert!(installation.dead_letters("acme", "flows").await.is_empty());
}
