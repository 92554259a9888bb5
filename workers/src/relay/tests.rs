//! Delivery to real servers on loopback.

use super::fixture::{APP_SECRET, Fixture, PAYLOAD, work};
use super::*;
use crate::egress::receiver::{Answer, Receiver, closed_port, loopback, settings};
use ackline_shared::secret::Secret;
use ackline_shared::signature::{SigningKey, verify};
use serde_json::json;

const ATTEMPT: Duration = Duration::from_secs(10);

fn sender() -> Sender {
    Sender::new(loopback(), ATTEMPT)
}

async fn deliver(sender: &Sender, fixture: &Fixture, work: &Work) -> Verdict {
    sender.deliver(&fixture.snapshot, &fixture.master, work).await
}

/// One relay that answers this, or nothing at all, to one update.
async fn verdict(answer: Answer, attempt_timeout: Duration) -> Verdict {
    let bot = Receiver::start([answer]).await;
    let mut fixture = Fixture::new();
    fixture.relay("bot", &bot.url("/webhook"), json!({}));
    let work = work();
    deliver(&Sender::new(loopback(), attempt_timeout), &fixture, &work).await
}

#[tokio::test]
async fn a_bot_gets_metas_bytes_with_metas_headers_and_a_valid_signature() {
    let bot = Receiver::start([]).await;
    let mut fixture = Fixture::new();
    fixture.relay("bot", &bot.url("/webhook?x=1"), json!({}));
    let work = work();
    assert_eq!(deliver(&sender(), &fixture, &work).await, Verdict::Done);

    let [request] = &bot.take()[..] else { panic!("one request") };
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/webhook?x=1"));
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
    assert_eq!(request.header("content-length"), Some(PAYLOAD.len().to_string().as_str()));
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
    work.head.signature = Some("sha256=from-meta".into());
    assert_eq!(deliver(&sender(), &fixture, &work).await, Verdict::Done);
    assert_eq!(bot.take()[0].header("x-hub-signature-256"), Some("sha256=from-meta"));
}

#[tokio::test]
async fn an_answer_decides_the_verdict() {
    assert_eq!(verdict(Answer::Status(204), ATTEMPT).await, Verdict::Done);
    assert_eq!(verdict(Answer::Status(400), ATTEMPT).await, Verdict::dead("relay bot: answered 400"));
    assert_eq!(verdict(Answer::Status(408), ATTEMPT).await, Verdict::retry("relay bot: answered 408"));
    assert_eq!(verdict(Answer::Status(502), ATTEMPT).await, Verdict::retry("relay bot: answered 502"));
    let moved = Answer::With(301, "location", "https://example.com/".into());
    assert_eq!(verdict(moved, ATTEMPT).await, Verdict::retry("relay bot: answered 301"));
    let later = Answer::With(429, "retry-after", "7".into());
    let after = Some(Duration::from_secs(7));
    assert_eq!(
        verdict(later, ATTEMPT).await,
        Verdict::Retry { reason: "relay bot: answered 429".into(), after }
    );
    let silent = verdict(Answer::Hang, Duration::from_millis(300)).await;
    assert_eq!(silent, Verdict::retry("relay bot: no answer in time"));
}

#[tokio::test]
async fn a_bot_that_is_down_is_tried_again_and_an_inward_url_is_not() {
    let (work, mut fixture) = (work(), Fixture::new());
    fixture.relay("down", &format!("http://{}/", closed_port().await), json!({}));
    let verdict = deliver(&sender(), &fixture, &work).await;
    assert_eq!(verdict, Verdict::retry("relay down: the destination cannot be reached"));

    let mut fixture = Fixture::new();
    fixture.relay("inward", "https://169.254.169.254/latest/", json!({}));
    let sender = Sender::new(Egress::new(&settings(&[])).unwrap(), ATTEMPT);
    let verdict = deliver(&sender, &fixture, &work).await;
    assert_eq!(verdict, Verdict::dead("relay inward: the destination cannot be reached"));
}

#[tokio::test]
async fn no_relay_is_nothing_to_do() {
    let (work, fixture) = (work(), Fixture::new());
    assert_eq!(deliver(&sender(), &fixture, &work).await, Verdict::Idle);
}

#[tokio::test]
async fn a_retry_reaches_only_the_bots_that_have_not_answered_for_good() {
    let (good, bad) = (Receiver::start([]).await, Receiver::start([Answer::Status(422)]).await);
    let slow = Receiver::start([Answer::Status(503)]).await;
    let (work, sender, mut fixture) = (work(), sender(), Fixture::new());
    for (id, bot) in [("good", &good), ("bad", &bad), ("slow", &slow)] {
        fixture.relay(id, &bot.url("/"), json!({}));
    }
    let first = deliver(&sender, &fixture, &work).await;
    assert_eq!(first, Verdict::retry("relay slow: answered 503; relay bad: answered 422"));
    let second = deliver(&sender, &fixture, &work).await;
    assert_eq!(second, Verdict::dead("relay bad: answered 422"));
    let counts = [good, bad, slow].map(|bot| bot.take().len());
    assert_eq!(counts, [1, 1, 2]);
}

#[tokio::test]
async fn a_bot_whose_turns_are_used_up_is_busy() {
    let bot = Receiver::start([]).await;
    let (work, mut fixture) = (work(), Fixture::new());
    fixture.relay("bot", &bot.url("/"), json!({"concurrency": 1}));
    let sender = Sender::new(loopback(), Duration::from_millis(400));
    let held = sender.turnstile.enter("relay.acme.bot", 1).await;
    let verdict = deliver(&sender, &fixture, &work).await;
    let reason = "relay bot: busy: its requests at once are used up".to_owned();
    assert_eq!(verdict, Verdict::Wait { reason, after: Duration::from_secs(1) });
    assert!(bot.take().is_empty());
    drop(held);
    assert_eq!(deliver(&sender, &fixture, &work).await, Verdict::Done);
}

#[tokio::test]
async fn a_bot_that_does_not_work_is_left_alone_and_another_gets_its_updates() {
    let dead = Receiver::start((0..5).map(|_| Answer::Status(502))).await;
    let alive = Receiver::start([]).await;
    let mut fixture = Fixture::new();
    fixture.relay("dead", &dead.url("/"), json!({}));
    let sender = Sender::new(loopback(), Duration::from_secs(8));
    for _ in 0..5 {
        assert!(matches!(deliver(&sender, &fixture, &work()).await, Verdict::Retry { .. }));
    }
    dead.take();
    let verdict = deliver(&sender, &fixture, &work()).await;
    assert!(
        matches!(&verdict, Verdict::Wait { after, .. } if *after <= Duration::from_secs(1)),
        "{verdict:?}"
    );
    assert!(dead.take().is_empty(), "it is not asked");
    fixture.relay("alive", &alive.url("/"), json!({}));
    let both = work();
    assert!(matches!(deliver(&sender, &fixture, &both).await, Verdict::Wait { .. }));
    assert_eq!((alive.take().len(), both.marks.all()), (1, vec!["alive".to_owned()]));
}
