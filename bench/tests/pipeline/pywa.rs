//! An unmodified pywa bot behind the relay: it verifies Meta's signature over what we pass on, and answers.

use crate::installation::{
    ACCESS_TOKEN, APP_SECRET, Blueprint, GLOBEX_NUMBER, Installation, text, texts,
};
use crate::receiver::{Received, Receiver};
use ackline_bench::dev::witness;
use ackline_bench::journal::Ask;
use ackline_bench::meta::{Batch, ChangeSpec, EntrySpec, IncomingMessage, Posting};
use ackline_bench::processes::{Counterpart, PywaBot, pywa_bot};
use ackline_shared::secret::Secret;

struct Scene {
    installation: Installation,
    /// Between the relay and the bot, so that every request is seen.
    wire: Receiver,
    bot: Counterpart,
}

async fn scene() -> Scene {
    let mut blueprint = Blueprint::new().await;
    let bot = PywaBot {
        graph_url: blueprint.graph_url(),
        phone_number_id: GLOBEX_NUMBER.to_owned(),
        app_secret: Secret::new(APP_SECRET.to_owned()),
        token: Secret::new(ACCESS_TOKEN.to_owned()),
    };
    let bot = tokio::task::spawn_blocking(move || pywa_bot(&bot).unwrap())
        .await
        .unwrap();
    let wire = Receiver::before(bot.url(), 0).await;
    blueprint.relay = Some(format!("{}/", wire.url()));
    Scene {
        installation: blueprint.start().await,
        wire,
        bot,
    }
}

fn carries(received: &Received, wamid: &str) -> bool {
    received.body.contains(wamid) && received.body.contains("\"messages\":[")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pywa_bot_behind_the_relay_verifies_metas_own_bytes_and_answers() {
    let Scene {
        installation,
        wire,
        bot,
    } = scene().await;
    let accepted = installation.post(text("4915100000001", GLOBEX_NUMBER, "Is it/ready? äöü 🚲"));
    installation.acknowledged(&accepted).await;
    assert_eq!(
        installation.replies("4915100000001", 1).await,
        ["You said: Is it/ready? äöü 🚲"],
        "{}",
        bot.log()
    );

    let wamid = &accepted.message_ids[0];
    let relayed = wire.wait(1, |received| carries(received, wamid)).await;
    let posted = witness::ended(installation.simulator(), accepted.deliveries[0])
        .await
        .unwrap();
    let posted = witness::attempt(&posted.entry).unwrap().body.clone();
    assert_eq!(
        Some(&relayed[0].entry.body),
        posted.as_ref(),
        "not Meta's own bytes"
    );
    let length = relayed[0].entry.headers.get("content-length").unwrap();
    assert_eq!(length, &relayed[0].entry.body.len().to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_eight_posted_twice_is_answered_once_each() {
    let Scene {
        installation,
        wire,
        bot,
    } = scene().await;
    let people: Vec<String> = (0..8)
        .map(|n| {
            if n == 7 {
                "US.13491208655302741918".into()
            } else {
                format!("491510000001{n}")
            }
        })
        .collect();
    let message = |n: usize| match n {
        7 => IncomingMessage::text_without_phone(&people[n], "message 7").to_number(GLOBEX_NUMBER),
        _ => text(&people[n], GLOBEX_NUMBER, &format!("message {n}")),
    };
    let change = |first: usize| ChangeSpec {
        phone_number_id: Some(GLOBEX_NUMBER.to_owned()),
        messages: vec![message(first), message(first + 1)],
        ..ChangeSpec::default()
    };
    let entry = |first: usize| EntrySpec {
        changes: vec![change(first), change(first + 2)],
        ..EntrySpec::default()
    };
    let batch = Batch {
        entries: vec![entry(0), entry(4)],
    };
    let twice = Posting {
        duplicate: 1,
        ..Posting::default()
    };
    let accepted = installation.simulator().deliver(&batch, twice).unwrap();
    assert_eq!((accepted.updates, accepted.deliveries.len()), (8, 2));
    installation.acknowledged(&accepted).await;
    for (n, person) in people.iter().enumerate() {
        assert_eq!(
            installation.replies(person, 1).await,
            [format!("You said: message {n}")],
            "{}",
            bot.log()
        );
    }

    // Each person's updates are relayed in order: a second copy would have come before this.
    for (n, person) in people.iter().enumerate() {
        let later = match n {
            7 => IncomingMessage::text_without_phone(person, "later").to_number(GLOBEX_NUMBER),
            _ => text(person, GLOBEX_NUMBER, "later"),
        };
        installation.post(later);
        let replies = witness::replies(installation.simulator(), person, 0, 2)
            .await
            .unwrap();
        assert_eq!(
            texts(&replies),
            [
                format!("You said: message {n}"),
                "You said: later".to_owned()
            ]
        );
    }
    let stored = installation.stored().await;
    for wamid in &accepted.message_ids {
        assert_eq!(
            stored.iter().filter(|stored| stored.id == *wamid).count(),
            1,
            "{wamid} in the log"
        );
        let relayed = wire.all().await;
        let relayed: Vec<_> = relayed
            .iter()
            .filter(|received| carries(&received.entry, wamid))
            .collect();
        assert_eq!(relayed.len(), 1, "{wamid} at the bot");
        let others = accepted
            .message_ids
            .iter()
            .filter(|other| relayed[0].entry.body.contains(*other))
            .count();
        assert_eq!(
            (others, relayed[0].entry.status.as_u16()),
            (1, 200),
            "one update a request"
        );
    }

    let to_user = |entry: &ackline_bench::meta::Entry| match entry {
        ackline_bench::meta::Entry::Graph(call) => call
            .body
            .as_ref()
            .is_some_and(|body| body["recipient"] == people[7] && body.get("to").is_none()),
        _ => false,
    };
    let addressed = installation
        .simulator()
        .journal()
        .read(Ask::default(), to_user)
        .await
        .entries;
    assert_eq!(
        addressed.len(),
        2,
        "the bot answers somebody without a phone number by user id"
    );
    assert!(!bot.log().contains("Traceback"), "{}", bot.log());
}
