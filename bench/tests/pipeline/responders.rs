//! Two responders on one number: while the other one has a conversation nothing of ours answers in it.

use crate::installation::{ACME_NUMBER, Blueprint, Installation, from_business, text};
use crate::receiver::Receiver;
use ackline_bench::meta::{Accepted, Hand, HandoverSpec};
use serde_json::Value;

const PERSON: &str = "4915100000009";

async fn say(installation: &Installation, words: &str) -> Accepted {
    let accepted = installation.post(text(PERSON, ACME_NUMBER, words));
    installation.acknowledged(&accepted).await;
    accepted
}

async fn hand(installation: &Installation, action: Hand) {
    let number = Some(ACME_NUMBER.to_owned());
    let spec = HandoverSpec {
        person: PERSON.to_owned(),
        phone_number_id: number,
        action,
    };
    if let Some(posted) = installation.simulator().hand_over(&spec).unwrap() {
        installation.acknowledged(&posted).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flow_is_silent_until_the_other_responder_gives_the_conversation_back() {
    let endpoint = Receiver::start().await;
    let mut blueprint = Blueprint::new().await;
    blueprint.endpoint = Some(endpoint.url());
    let installation = blueprint.start().await;

    say(&installation, "one").await;
    assert_eq!(installation.replies(PERSON, 1).await, ["You wrote: one"]);
    hand(&installation, Hand::Take).await;
    let two = say(&installation, "two").await;
    hand(&installation, Hand::Pass).await;
    say(&installation, "three").await;
    assert_eq!(
        installation.replies(PERSON, 2).await,
        ["You wrote: one", "You wrote: three"]
    );
    hand(&installation, Hand::Take).await;
    say(&installation, "four").await;
    hand(&installation, Hand::Release).await;
    say(&installation, "five").await;
    let replies = installation.replies(PERSON, 3).await;
    assert_eq!(
        replies,
        ["You wrote: one", "You wrote: three", "You wrote: five"]
    );

    // Customers are told, under names of their own. Meta counts in seconds: the same handover in one second is one.
    for (name, count) in [
        ("message.standby", 2),
        ("conversation.lost", 1),
        ("conversation.gained", 1),
    ] {
        let is = |received: &crate::receiver::Received| {
            let event: Value = serde_json::from_str(&received.body).unwrap();
            event["type"] == name
        };
        let reported = endpoint.wait(count, is).await;
        assert!(
            name != "message.standby"
                || reported
                    .iter()
                    .any(|one| one.entry.body.contains(&two.message_ids[0]))
        );
    }
    assert!(installation.dead_letters("acme", "flows").await.is_empty());
    let all = installation
        .simulator()
        .journal()
        .read(Default::default(), |entry| from_business(entry).is_some());
    assert_eq!(all.await.entries.len(), 3);
}
