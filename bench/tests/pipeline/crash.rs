//! The workers, or nats-server below them, die in the middle of a burst: it is finished afterwards, and nobody
//! is answered twice.
//!
//! Meta has no idempotency keys. A send that was cut off between request and answer is therefore not repeated
//! but reported, as a dead letter that says so; it is the only way for an answer to be missing.

use crate::installation::{ACME_NUMBER, Blueprint, Installation, from_business, text};
use ackline_bench::dev::{until, witness};
use ackline_bench::journal::Ask;
use ackline_bench::meta::Entry;
use std::collections::BTreeMap;
use std::time::Duration;

const PEOPLE: usize = 150;
/// `pools.tenant_in_flight_max`, so many sends of a tenant can be cut off by one crash.
const SENDS_AT_ONCE: usize = 16;
const WITHIN: Duration = Duration::from_secs(60);

fn person(n: usize) -> String {
    format!("49152{n:08}")
}

/// Everybody writes; gives the ids.
fn say(installation: &Installation, words: &str) -> Vec<String> {
    let post = |n: usize| {
        installation
            .post(text(&person(n), ACME_NUMBER, &format!("{words} {n}")))
            .message_ids
    };
    (0..PEOPLE).flat_map(post).collect()
}

/// How often each answer was given.
async fn answers(installation: &Installation) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    let seen = installation
        .simulator()
        .journal()
        .read(Ask::default(), |entry| from_business(entry).is_some())
        .await;
    for entry in &seen.entries {
        let seen = from_business(&entry.entry).unwrap();
        *answers.entry(seen.text.clone()).or_default() += 1;
    }
    answers
}

/// Sends that may have gone out and are not repeated, by what they say.
async fn cut_off(installation: &Installation) -> anyhow::Result<Vec<String>> {
    let letters = installation.api("acme")?.dead_letters("replies").await?;
    let words = |letter: &serde_json::Value| {
        let reason = letter["reason"].as_str().unwrap_or_default();
        assert!(
            reason.contains("cut off"),
            "given up for another reason: {letter:#}"
        );
        letter["payload"]["content"]["body"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    Ok(letters.iter().map(words).collect())
}

enum Victim {
    Workers,
    Nats,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_die_in_a_burst_leave_nobody_unanswered_and_nobody_answered_twice() {
    burst_over(&Victim::Workers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nats_server_that_dies_in_a_burst_leaves_nobody_unanswered_and_nobody_answered_twice() {
    burst_over(&Victim::Nats).await;
}

async fn burst_over(victim: &Victim) {
    let mut installation = Blueprint::new().await.start().await;
    let mut posted = say(&installation, "question");
    let simulator = installation.simulator().clone();
    let answered = |entry: &Entry| from_business(entry).is_some();
    // Once while most wait for their flow, once while most wait for their send.
    for crash_after in [1, PEOPLE / 2] {
        witness::entries(
            simulator.journal(),
            "first answers",
            0,
            crash_after,
            answered,
        )
        .await
        .unwrap();
        match victim {
            Victim::Workers => installation.kill_workers().await,
            Victim::Nats => installation.kill_nats().await,
        }
        assert!(
            answers(&installation).await.len() < PEOPLE,
            "the burst was over before the crash"
        );
        match victim {
            Victim::Workers => installation.start_workers().await.unwrap(),
            Victim::Nats => installation.start_nats().await.unwrap(),
        }
    }

    let expected: Vec<String> = (0..PEOPLE)
        .map(|n| format!("You wrote: question {n}"))
        .collect();
    until("an answer or a report for everybody", WITHIN, async || {
        // The API says so while it is not connected yet.
        let Ok(cut_off) = cut_off(&installation).await else {
            return Ok(None);
        };
        let answers = answers(&installation).await;
        let settled = |words: &&String| answers.contains_key(*words) || cut_off.contains(words);
        Ok((expected.iter().filter(settled).count() == PEOPLE).then_some(()))
    })
    .await
    .unwrap();
    // What goes to a person goes in order: a second answer would come before the answer to this.
    posted.extend(say(&installation, "thanks"));
    let all = |entry: &Entry| {
        from_business(entry).is_some_and(|seen| seen.text.starts_with("You wrote: thanks"))
    };
    witness::entries(
        simulator.journal(),
        "answers of the successor",
        0,
        PEOPLE,
        all,
    )
    .await
    .unwrap();

    let (answers, cut_off) = (
        answers(&installation).await,
        cut_off(&installation).await.unwrap(),
    );
    let twice: Vec<_> = answers.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "answered more than once: {twice:?}");
    assert!(
        cut_off.len() <= 2 * SENDS_AT_ONCE,
        "more reported than can have been under way: {cut_off:?}"
    );
    let stored = installation.stored().await;
    let stored: Vec<&str> = stored.iter().map(|stored| stored.id.as_str()).collect();
    for wamid in &posted {
        assert_eq!(
            stored.iter().filter(|id| *id == wamid).count(),
            1,
            "{wamid} in the log"
        );
    }
    assert!(installation.dead_letters("acme", "flows").await.is_empty());
}
