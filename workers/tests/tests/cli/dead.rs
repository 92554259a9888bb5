//! Dead letters and replays from the command line.

use super::Terminal;
use crate::letter::{head, letter};
use ackline_cli::agree::Person;
use ackline_cli::{EXIT_CHANGES, EXIT_FAILED, EXIT_OK};
use ackline_shared::config::EXIT_CONFIG;
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::{self, Class, Partition, Pool, UPDATES};
use async_nats::jetstream;
use serde_json::{Value, json};

/// Stores a letter of acme's that the relay pool gave up.
pub async fn give_up(context: &jetstream::Context, n: u32) {
    let head = head(&format!("wamid.{n}"));
    let (subject, headers) = letter(
        Pool::Relay,
        &head,
        &format!("{UPDATES}:{n}"),
        "relay old: answered 400",
    );
    let payload = format!("{{\"n\":{n}}}");
    context
        .publish_with_headers(subject, headers, payload.into())
        .await
        .unwrap()
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_looked_through_replayed_and_discarded_from_the_command_line() {
    let terminal = Terminal::open();
    let none = terminal.ask(&["dead", "list"]).await;
    assert_eq!(
        (none.out.as_str(), none.code),
        ("no dead letters\n", EXIT_OK),
        "{none:?}"
    );
    assert_eq!(terminal.ask(&["replay", "list"]).await.out, "no replays\n");
    let context = terminal.context().await;
    for n in 1..=3 {
        give_up(&context, n).await;
    }
    let list = terminal
        .ask(&[
            "dead", "list", "--json", "--pool", "relay", "--reason", "Answered",
        ])
        .await;
    let list: Value = serde_json::from_str(&list.out).unwrap();
    let sequences: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["sequence"])
        .collect();
    assert_eq!(sequences, [3, 2, 1], "newest first");
    let shown = terminal.ask(&["dead", "show", "2"]).await;
    assert!(
        shown.out.contains("relay old: answered 400") && shown.out.contains("\"n\": 2"),
        "{}",
        shown.out
    );
    assert!(shown.out.contains("goes to relay"), "{}", shown.out);
    assert_eq!(terminal.ask(&["dead", "show", "9"]).await.code, EXIT_FAILED);

    let dry = terminal
        .ask(&["dead", "replay", "--tenant", "acme", "--dry-run"])
        .await;
    assert_eq!(dry.code, EXIT_CHANGES, "{dry:?}");
    assert!(
        dry.out.starts_with("3 dead letters would be replayed"),
        "{}",
        dry.out
    );
    assert_eq!(
        terminal
            .ask(&["dead", "discard", "--all", "--count", "2"])
            .await
            .code,
        EXIT_CONFIG
    );
    let gone = terminal
        .ask(&["dead", "discard", "--text", "\"n\":1", "--count", "1"])
        .await;
    assert_eq!(gone.code, EXIT_OK, "{gone:?}");
    let edited = terminal.files.path().join("edited.json");
    std::fs::write(&edited, "{\"n\":22}").unwrap();
    let edit = terminal
        .ask(&["dead", "edit", "2", "--payload", edited.to_str().unwrap()])
        .await;
    assert_eq!(edit.code, EXIT_OK, "{edit:?}");
    let replay = terminal
        .ask(&["dead", "replay", "--all", "--yes", "--json"])
        .await;
    let job: Value = serde_json::from_str(&replay.out).unwrap();
    assert_eq!(
        (&job["state"], &job["done"], replay.code),
        (&json!("done"), &json!(1), EXIT_OK)
    );
    assert_eq!(
        terminal.ask(&["dead", "count"]).await.out,
        "no open dead letters\n"
    );
    assert_eq!(
        terminal
            .ask(&["dead", "replay", "--all", "--dry-run"])
            .await
            .code,
        EXIT_OK
    );

    let updates = context.get_stream(UPDATES).await.unwrap();
    let stored = [
        updates.direct_get(1).await.unwrap(),
        updates.direct_get(2).await.unwrap(),
    ];
    assert_eq!(
        stored.each_ref().map(|message| &message.payload[..]),
        [&b"{\"n\":22}"[..], b"{\"n\":3}"]
    );
    let tenant = TenantId::new("acme").unwrap();
    let subject = subjects::replay(Pool::Relay, Partition(1), Class::Message.as_str(), &tenant);
    assert!(
        stored
            .iter()
            .all(|message| message.subject.as_str() == subject),
        "{stored:?}"
    );
    assert_eq!(
        terminal.ask(&["replay", "list"]).await.out.lines().count(),
        3
    );

    let unknown = terminal
        .ask(&[
            "replay", "past", "--tenant", "acme", "--pool", "relay", "--target", "nobody",
            "--from", "7d",
        ])
        .await;
    assert_eq!(unknown.code, EXIT_CONFIG);
    assert!(
        unknown.err.contains("acme has no relay `nobody`"),
        "{}",
        unknown.err
    );
    let people = terminal
        .ask(&[
            "replay", "past", "--tenant", "acme", "--pool", "flows", "--from", "7d",
        ])
        .await;
    assert!(people.err.contains("--answer-people"), "{}", people.err);
}

/// Gives one answer to whatever is asked, and keeps what was shown.
struct Says(bool, String);

impl Person for Says {
    fn show(&mut self, text: &str) {
        self.1.push_str(text);
    }

    fn answer(&mut self, question: &str) -> Option<bool> {
        self.1.push_str(question);
        Some(self.0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_replayed_or_discarded_unseen() {
    let terminal = Terminal::open();
    // Whoever comes first sets the streams up.
    assert_eq!(
        terminal.ask(&["dead", "count"]).await.out,
        "no open dead letters\n"
    );
    let context = terminal.context().await;
    for n in 1..=3 {
        give_up(&context, n).await;
    }
    for (arguments, part) in [
        (&["dead", "replay"][..], "say which: --tenant, --pool"),
        (&["dead", "replay", "--dry-run"], "or --all"),
        (&["dead", "discard", "--count", "3"], "or --all"),
        (
            &["dead", "replay", "--all", "--pool", "relay"],
            "leave it or the filters out",
        ),
        (
            &["dead", "replay", "--letter", "1", "--all"],
            "cannot be used with",
        ),
        (
            &["dead", "replay", "--all", "--yes", "--count", "3"],
            "cannot be used with",
        ),
        (
            &["dead", "replay", "--all"],
            "there is no terminal to ask at; say --yes, or --count 3",
        ),
        (
            &["dead", "discard", "--pool", "relay"],
            "there is no terminal to ask at",
        ),
        (
            &["dead", "replay", "--all", "--count", "2"],
            "these are 3 now; say --count 3",
        ),
    ] {
        let refused = terminal.ask(arguments).await;
        assert_eq!(refused.code, EXIT_CONFIG, "{arguments:?}: {refused:?}");
        assert!(refused.err.contains(part), "{arguments:?}: {refused:?}");
    }
    let mut no = Says(false, String::new());
    let refused = terminal
        .ask_somebody(&["dead", "replay", "--tenant", "acme"], &mut no)
        .await;
    assert_eq!(
        (refused.code, refused.err.as_str()),
        (EXIT_FAILED, "nothing was changed\n")
    );
    for part in [
        "3 dead letters would be replayed\n",
        "d ago",
        "3  pool relay",
        "3  tenant acme",
        "answered 400",
    ] {
        assert!(no.1.contains(part), "{part} in {}", no.1);
    }
    assert!(
        no.1.ends_with("Put them before their pools again?"),
        "{}",
        no.1
    );
    assert_eq!(terminal.ask(&["replay", "list"]).await.out, "no replays\n");

    let mut yes = Says(true, String::new());
    let one = terminal
        .ask_somebody(&["dead", "discard", "--text", "\"n\":1"], &mut yes)
        .await;
    assert_eq!(one.code, EXIT_OK, "{one:?}");
    assert!(
        yes.1.starts_with("1 dead letters would be discarded\n")
            && yes.1.ends_with("Discard them?")
    );
    let rest = terminal
        .ask(&["dead", "replay", "--all", "--count", "2", "--json"])
        .await;
    let job: Value = serde_json::from_str(&rest.out).unwrap();
    assert_eq!((&job["done"], rest.code), (&json!(2), EXIT_OK), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_counted_before_it_is_put_before_a_pool() {
    let terminal = Terminal::open();
    // Whoever comes first sets the streams up.
    assert_eq!(terminal.ask(&["dead", "count"]).await.code, EXIT_OK);
    super::publish(
        &terminal.context().await,
        TenantId::new("acme").unwrap(),
        Class::Message,
    )
    .await;
    let past = [
        "replay", "past", "--tenant", "acme", "--pool", "relay", "--from", "1h",
    ];
    let nobody = terminal.ask(&past).await;
    assert_eq!(nobody.code, EXIT_CONFIG);
    assert!(nobody.err.contains("say --yes, or --count 1"), "{nobody:?}");
    let mut no = Says(false, String::new());
    assert_eq!(
        terminal.ask_somebody(&past, &mut no).await.code,
        EXIT_FAILED
    );
    assert!(
        no.1.starts_with("1 updates and records would be replayed\n  received between "),
        "{}",
        no.1
    );
    assert!(no.1.ends_with("Put them before relay again?"), "{}", no.1);
    let done = terminal
        .ask(&[&past[..], &["--yes", "--json"]].concat())
        .await;
    let job: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(
        (&job["state"], &job["done"], done.code),
        (&json!("done"), &json!(1), EXIT_OK)
    );
}
