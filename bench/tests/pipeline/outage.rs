//! nats-server dies under load: a 200 was the truth, whatever was not stored got a 503, and Meta's retries
//! bring it. Nor does a store that is gone lose more than it held.

use crate::installation::{ACME_NUMBER, Blueprint, INITECH_NUMBER, Installation, text};
use ackline_bench::dev::{until, witness};
use ackline_bench::journal::Ask;
use ackline_bench::meta::{Entry, Outcome};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const BEFORE: usize = 250;
const DURING: usize = 100;

fn load(installation: &Installation, from: usize, count: usize) -> BTreeSet<String> {
    let post = |n: usize| {
        let person = format!("49151{n:08}");
        installation
            .post(text(&person, INITECH_NUMBER, "load"))
            .message_ids
    };
    (from..from + count).flat_map(post).collect()
}

fn with_outcome(entry: &Entry, outcome: Outcome) -> bool {
    witness::attempt(entry).is_some_and(|attempt| attempt.outcome == outcome)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_200_survives_the_death_of_nats_and_retries_bring_the_rest() {
    let mut installation = Blueprint::new().await.start().await;
    let mut posted = load(&installation, 0, BEFORE);
    let acknowledged = |entry: &Entry| with_outcome(entry, Outcome::Delivered);
    let journal = |installation: &Installation| installation.simulator().clone();
    let simulator = journal(&installation);
    witness::entries(
        simulator.journal(),
        "first 200s",
        0,
        BEFORE / 5,
        acknowledged,
    )
    .await
    .unwrap();

    installation.kill_nats().await;
    posted.extend(load(&installation, BEFORE, DURING));
    let refused = |entry: &Entry| with_outcome(entry, Outcome::Retrying);
    witness::entries(
        simulator.journal(),
        "refusals while NATS is away",
        0,
        DURING,
        refused,
    )
    .await
    .unwrap();
    installation.start_nats().await.unwrap();

    witness::entries(
        simulator.journal(),
        "a 200 for everything",
        0,
        BEFORE + DURING,
        acknowledged,
    )
    .await
    .unwrap();
    let attempts = simulator.journal().read(
        Ask {
            limit: 100_000,
            ..Ask::default()
        },
        |entry| witness::attempt(entry).is_some(),
    );
    for entry in attempts.await.entries {
        let attempt = witness::attempt(&entry.entry).unwrap();
        let status = attempt.status.unwrap_or_default();
        assert!(
            status == 200 || status == 503,
            "answered {:?} ({:?})",
            attempt.status,
            attempt.error
        );
        assert_ne!(attempt.outcome, Outcome::GivenUp);
    }

    let mut stored: BTreeMap<String, usize> = BTreeMap::new();
    for update in installation.stored().await {
        *stored.entry(update.id).or_default() += 1;
    }
    let missing: Vec<&String> = posted
        .iter()
        .filter(|id| !stored.contains_key(*id))
        .collect();
    assert!(
        missing.is_empty(),
        "answered 200 and not in the log: {missing:?}"
    );
    let twice: Vec<_> = stored.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "more than once in the log: {twice:?}");
    assert_eq!(stored.len(), posted.len());

    installation.post(text("4915100000001", ACME_NUMBER, "still there?"));
    assert_eq!(
        installation.replies("4915100000001", 1).await,
        ["You wrote: still there?"]
    );
}

/// What the edge says of itself, with the status.
async fn readiness(installation: &Installation) -> anyhow::Result<(u16, Value)> {
    let url = format!("{}/readyz", installation.plan().ports.ingress_private.url());
    let answer = installation.http().get(url).send().await?;
    Ok((answer.status().as_u16(), answer.json().await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_nats_lost_its_store_the_edge_takes_nothing_until_apply_restored_what_is_declared() {
    let (mut installation, person) = (Blueprint::new().await.start().await, "4915100000002");
    installation.post(text(person, ACME_NUMBER, "before"));
    let before = ["You wrote: before"];
    assert_eq!(installation.replies(person, 1).await, before);

    installation.wipe_nats().await.unwrap();
    installation.start_nats().await.unwrap();
    let undeclared = async || {
        let (status, said) = readiness(&installation).await?;
        let is_reported = said["routing"]["declared"] == false && said["nats"] == "connected";
        Ok((status == 503 && said["ready"] == false && is_reported).then_some(()))
    };
    let what = "the edge says that nothing is declared";
    until(what, witness::WITHIN, undeclared).await.unwrap();
    let posted = installation.post(text(person, ACME_NUMBER, "after"));
    let refused = |entry: &Entry| {
        with_outcome(entry, Outcome::Retrying)
            && witness::attempt(entry).is_some_and(|attempt| attempt.status == Some(503))
    };
    let simulator = installation.simulator().clone();
    witness::entries(simulator.journal(), "a 503", 0, 1, refused)
        .await
        .unwrap();

    installation.apply().await.unwrap();
    installation.acknowledged(&posted).await;
    assert_eq!(
        installation.replies(person, 2).await,
        ["You wrote: before", "You wrote: after"]
    );
    let stored = installation.stored().await;
    let messages = stored
        .iter()
        .filter(|update| posted.message_ids.contains(&update.id));
    assert_eq!(messages.count(), 1, "stored once");
    let (status, said) = readiness(&installation).await.unwrap();
    assert_eq!((status, &said["ready"]), (200, &Value::Bool(true)));
}
