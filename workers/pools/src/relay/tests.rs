//! Delivery to real servers on loopback.

pub(crate) mod fixture;

use super::*;
use ackline_egress::receiver::{Answer, Receiver, closed_port, loopback, settings};
use ackline_engine::state::Heard;
use ackline_runtime::job::Trouble;
use ackline_shared::secret::Secret;
use ackline_shared::signature::{SigningKey, verify};
use fixture::{APP_SECRET, Fixture, PAYLOAD, work};
use serde_json::json;

const ATTEMPT: Duration = Duration::from_secs(10);

fn sender() -> Sender {
    Sender {
        egress: loopback(),
        timeout: ATTEMPT,
    }
}

async fn deliver(sender: &Sender, fixture: &Fixture, work: &Work) -> Verdict {
    sender
        .deliver(&fixture.snapshot, &fixture.master, work)
        .await
}

/// One relay that answers this, or nothing at all, to one update.
async fn verdict(answer: Answer, attempt_timeout: Duration) -> Verdict {
    let bot = Receiver::start([answer]).await;
    let mut fixture = Fixture::new();
    fixture.relay("bot", &bot.url("/webhook"), json!({}));
    let work = work();
    deliver(
        &Sender {
            egress: loopback(),
            timeout: attempt_timeout,
        },
        &fixture,
        &work,
    )
    .await
}

#[tokio::test]
async fn a_bot_gets_metas_bytes_with_metas_headers_and_a_valid_signature() {
    let bot = Receiver::start([]).await;
    let mut fixture = Fixture::new();
    fixture.relay("bot", &bot.url("/webhook?x=1"), json!({}));
    let work = work();
    assert_eq!(deliver(&sender(), &fixture, &work).await, Verdict::Done);

    let [request] = &bot.take()[..] else {
        panic!("one request")
    };
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/webhook?x=1")
    );
    assert_eq!(request.body, PAYLOAD);
    let key = SigningKey::new(&Secret::new(APP_SECRET.to_owned()));
    let signature = request.header("x-hub-signature-256").map(str::as_bytes);
    assert_eq!(verify(&[key], signature, &request.body), Ok(()));

    let mut names: Vec<_> = request.headers.keys().map(ToString::to_string).collect();
    names.sort();
    let expected = [
        "accept",
        "accept-encoding",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "x-hub-signature-256",
    ];
    assert_eq!(names, expected, "nothing of ours, nothing missing");
    assert_eq!(
        request.header("content-length"),
        Some(PAYLOAD.len().to_string().as_str())
    );
    assert_eq!(request.header("user-agent"), Some("facebookexternalua"));
    assert_eq!(request.header("accept"), Some("*/*"));
    assert_eq!(request.header("accept-encoding"), Some("deflate, gzip"));
    assert_eq!(request.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn an_update_that_came_alone_keeps_metas_signature() {
    let bot = Receiver::start([]).await;
    let mut fixture = Fixture::new();
    fixture.relay("bot", &bot.url("/"), json!({}));
    let mut work = work();
    Arc::get_mut(&mut work.head).unwrap().signature = Some("sha256=from-meta".into());
    assert_eq!(deliver(&sender(), &fixture, &work).await, Verdict::Done);
    assert_eq!(
        bot.take()[0].header("x-hub-signature-256"),
        Some("sha256=from-meta")
    );
}

fn trouble(verdict: Verdict) -> Trouble {
    match verdict {
        Verdict::Trouble(trouble) => trouble,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_decides_the_verdict() {
    assert_eq!(verdict(Answer::Status(204), ATTEMPT).await, Verdict::Done);
    assert_eq!(
        verdict(Answer::Status(400), ATTEMPT).await,
        Verdict::dead("relay bot: answered 400")
    );
    for code in [401, 404, 408, 410, 502] {
        let trouble = trouble(verdict(Answer::Status(code), ATTEMPT).await);
        assert_eq!(trouble.reason, format!("relay bot: answered {code}"));
        assert_eq!((trouble.kind, trouble.had_it()), (TroubleKind::Down, true));
    }
    let later = trouble(verdict(Answer::With(429, "retry-after", "7".into()), ATTEMPT).await);
    assert_eq!(
        (later.kind, later.after),
        (TroubleKind::Busy, Some(Duration::from_secs(7)))
    );
    let silent = trouble(verdict(Answer::Hang, Duration::from_millis(300)).await);
    assert_eq!(
        (silent.reason.as_str(), silent.kind),
        ("relay bot: no answer in time", TroubleKind::TimedOut)
    );
}

#[tokio::test]
async fn a_refusal_for_good_shows_how_it_began_to_whoever_reads_the_dead_letter() {
    let bot = Receiver::start([Answer::With(422, "x-words", "no such field".into())]).await;
    let (work, mut fixture) = (work(), Fixture::new());
    fixture.relay("bot", &bot.url("/"), json!({}));
    assert_eq!(
        deliver(&sender(), &fixture, &work).await,
        Verdict::dead("relay bot: answered 422")
    );
    assert_eq!(work.answered.take(), Heard::Answer);
}

#[tokio::test]
async fn a_bot_that_cannot_be_reached_is_in_trouble_and_so_is_an_inward_url() {
    let mut fixture = Fixture::new();
    fixture.relay(
        "bot",
        &format!("http://{}/", closed_port().await),
        json!({}),
    );
    let down = trouble(deliver(&sender(), &fixture, &work()).await);
    assert_eq!(down.reason, "relay bot: the destination cannot be reached");
    assert!(!down.had_it());

    let mut fixture = Fixture::new();
    fixture.relay("bot", "https://169.254.169.254/latest/", json!({}));
    let sender = Sender {
        egress: Egress::new(&settings(&[])).unwrap(),
        timeout: ATTEMPT,
    };
    let inward = trouble(deliver(&sender, &fixture, &work()).await);
    assert_eq!(
        inward.reason, down.reason,
        "nothing tells a private address from a closed port"
    );
}

#[tokio::test]
async fn a_relay_that_is_gone_or_off_leaves_a_dead_letter_that_says_so() {
    let mut fixture = Fixture::new();
    for _ in 0..2 {
        let Verdict::Dead { reason } = deliver(&sender(), &fixture, &work()).await else {
            panic!()
        };
        assert!(
            reason.contains("not configured any more, or switched off"),
            "{reason}"
        );
        fixture.relay("bot", "https://bot.example/", json!({"enabled": false}));
    }
}

#[tokio::test]
async fn a_relay_may_say_how_long_it_takes() {
    let bot = Receiver::start([Answer::Hang]).await;
    let mut fixture = Fixture::new();
    fixture.relay("bot", &bot.url("/"), json!({"timeout": "1s"}));
    let relay = fixture.snapshot.relays["relay.acme.bot"].clone();
    assert_eq!(
        sender().target(&relay).timeout,
        Some(Duration::from_secs(1))
    );
    let silent = trouble(deliver(&sender(), &fixture, &work()).await);
    assert_eq!(silent.kind, TroubleKind::TimedOut);
}

#[tokio::test]
async fn at_most_once_gives_up_what_was_sent_and_not_answered() {
    let bot = Receiver::start([Answer::Status(503), Answer::Hang]).await;
    let mut fixture = Fixture::new();
    fixture.relay(
        "bot",
        &bot.url("/"),
        json!({"timeout": "1s", "redelivery": "at_most_once"}),
    );
    let work = work();
    let busy = deliver(&sender(), &fixture, &work).await;
    assert!(
        matches!(busy, Verdict::Trouble(_)),
        "an answer is an answer: {busy:?}"
    );
    assert!(work.marks.all().is_empty());
    let Verdict::Dead { reason } = deliver(&sender(), &fixture, &work).await else {
        panic!()
    };
    assert!(reason.contains("its answer was lost"), "{reason}");
    let again = deliver(&sender(), &fixture, &work).await;
    assert!(
        matches!(again, Verdict::Dead { .. }),
        "whoever takes over does not send it again: {again:?}"
    );
    assert_eq!(bot.take().len(), 2);
}
