//! Delivery to real servers on loopback, verified by the reference library.

use super::fixture::{Fixture, head, message, status};
use super::*;
use crate::core::job::Marks;
use crate::core::ring::Keeper;
use crate::egress::receiver::{Answer, Received as Request, Receiver, closed_port, loopback, settings};
use ackline_shared::envelope::Replay;
use ackline_shared::ids::{EntityId, UpdateId};
use ackline_shared::secret::Secret;
use ackline_shared::standard_webhooks::secret_from_bytes;

const ATTEMPT: Duration = Duration::from_secs(10);

fn secret() -> Secret<String> {
    secret_from_bytes(&[7; 32])
}

fn work() -> Work {
    Work {
        head: head(Class::Message),
        payload: message().to_string().into(),
        sequence: 1,
        attempt: 1,
        last_attempt: false,
        overdue: false,
        marks: Marks::default(),
        keeper: Keeper::default(),
    }
}

async fn deliver(sender: &Sender, fixture: &Fixture, work: &Work) -> Verdict {
    sender.deliver(&fixture.snapshot, &fixture.master, work).await
}

/// What the reference library says of a request under one secret.
fn verify(request: &Request, secret: &Secret<String>) -> Result<(), standardwebhooks::WebhookError> {
    standardwebhooks::Webhook::new(secret.expose()).unwrap().verify(&request.body, &request.headers)
}

/// One endpoint that answers this to one event.
async fn verdict(answer: Answer, attempt_timeout: Duration) -> Verdict {
    let customer = Receiver::start([answer]).await;
    let mut fixture = Fixture::new();
    fixture.endpoint("crm", &customer.url("/hook"), &[&secret()], &[]);
    deliver(&Sender::new(loopback(), attempt_timeout), &fixture, &work()).await
}

#[tokio::test]
async fn the_reference_library_verifies_an_event_under_every_live_secret() {
    let customer = Receiver::start([]).await;
    let (mut fixture, old, new) = (Fixture::new(), secret(), secret_from_bytes(&[8; 32]));
    fixture.endpoint("crm", &customer.url("/hook"), &[&new, &old], &[]);
    assert_eq!(deliver(&Sender::new(loopback(), ATTEMPT), &fixture, &work()).await, Verdict::Done);

    let [request] = &customer.take()[..] else { panic!("one request") };
    verify(request, &old).unwrap();
    verify(request, &new).unwrap();
    assert!(verify(request, &secret_from_bytes(&[9; 32])).is_err());
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hook"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("content-length"), Some(request.body.len().to_string().as_str()));
    assert!(request.header("transfer-encoding").is_none());
    assert!(request.header("user-agent").unwrap().starts_with("Ackline/"));
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(request.header("webhook-id"), body["id"].as_str());
    assert_eq!(body.to_string().as_bytes(), request.body, "compact");
}

#[tokio::test]
async fn every_attempt_has_the_same_id_and_body() {
    let customer = Receiver::start([Answer::Status(500)]).await;
    let (work, sender, mut fixture) = (work(), Sender::new(loopback(), ATTEMPT), Fixture::new());
    fixture.endpoint("crm", &customer.url("/"), &[&secret()], &["message.*"]);
    assert_eq!(deliver(&sender, &fixture, &work).await, Verdict::retry("endpoint crm: answered 500"));
    assert_eq!(deliver(&sender, &fixture, &work).await, Verdict::Done);
    let [first, second] = &customer.take()[..] else { panic!("two requests") };
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!(first.body, second.body);
    verify(second, &secret()).unwrap();
}

#[tokio::test]
async fn an_answer_decides_the_verdict() {
    assert_eq!(verdict(Answer::Status(202), ATTEMPT).await, Verdict::Done);
    let gone = Verdict::dead("endpoint crm: endpoint is gone (410)");
    assert_eq!(verdict(Answer::Status(410), ATTEMPT).await, gone);
    assert_eq!(verdict(Answer::Status(415), ATTEMPT).await, Verdict::dead("endpoint crm: answered 415"));
    for code in [400, 401, 404, 503] {
        let reason = format!("endpoint crm: answered {code}");
        assert_eq!(verdict(Answer::Status(code), ATTEMPT).await, Verdict::retry(reason));
    }
    let later = Answer::With(503, "retry-after", "30".into());
    let (reason, after) = ("endpoint crm: answered 503".into(), Some(Duration::from_secs(30)));
    assert_eq!(verdict(later, ATTEMPT).await, Verdict::Retry { reason, after });
    let silent = verdict(Answer::Hang, Duration::from_millis(300)).await;
    assert_eq!(silent, Verdict::retry("endpoint crm: no answer in time"));
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_tried_again_and_an_inward_url_is_not() {
    let (work, mut fixture) = (work(), Fixture::new());
    fixture.endpoint("down", &format!("http://{}/", closed_port().await), &[&secret()], &[]);
    let verdict = deliver(&Sender::new(loopback(), ATTEMPT), &fixture, &work).await;
    assert_eq!(verdict, Verdict::retry("endpoint down: the destination cannot be reached"));

    let mut fixture = Fixture::new();
    fixture.endpoint("inward", "https://10.0.0.1/", &[&secret()], &[]);
    let sender = Sender::new(Egress::new(&settings(&[])).unwrap(), ATTEMPT);
    let verdict = deliver(&sender, &fixture, &work).await;
    assert_eq!(verdict, Verdict::dead("endpoint inward: the destination cannot be reached"));
}

#[tokio::test]
async fn only_subscribed_endpoints_get_an_event_and_none_is_nothing_to_do() {
    let (wants, other) = (Receiver::start([]).await, Receiver::start([]).await);
    let (sender, mut fixture) = (Sender::new(loopback(), ATTEMPT), Fixture::new());
    fixture.endpoint("other", &other.url("/"), &[&secret()], &["flow.*", "message.read"]);
    assert_eq!(deliver(&sender, &fixture, &work()).await, Verdict::Idle);
    fixture.endpoint("wants", &wants.url("/"), &[&secret()], &["message.received"]);
    assert_eq!(deliver(&sender, &fixture, &work()).await, Verdict::Done);
    assert_eq!((wants.take().len(), other.take().len()), (1, 0));
}

#[tokio::test]
async fn an_update_without_an_event_is_nothing_to_do_and_an_unreadable_one_is_dead() {
    let (sender, mut fixture) = (Sender::new(loopback(), ATTEMPT), Fixture::new());
    let unreadable = Work { payload: Bytes::from_static(b"{"), ..work() };
    assert_eq!(deliver(&sender, &fixture, &unreadable).await, Verdict::Idle, "nobody asked");
    let played = status("played", serde_json::json!({})).to_string();
    fixture.endpoint("crm", &format!("http://{}/", closed_port().await), &[&secret()], &[]);
    assert_eq!(deliver(&sender, &fixture, &Work { payload: played.into(), ..work() }).await, Verdict::Idle);
    let verdict = deliver(&sender, &fixture, &unreadable).await;
    assert!(matches!(verdict, Verdict::Dead { reason } if reason.contains("cannot be read")));
}

#[tokio::test]
async fn a_retry_reaches_only_the_endpoints_that_have_not_answered_for_good() {
    let (good, gone) = (Receiver::start([]).await, Receiver::start([Answer::Status(410)]).await);
    let slow = Receiver::start([Answer::Status(502)]).await;
    let (work, sender, mut fixture) = (work(), Sender::new(loopback(), ATTEMPT), Fixture::new());
    for (id, customer) in [("good", &good), ("gone", &gone), ("slow", &slow)] {
        fixture.endpoint(id, &customer.url("/"), &[&secret()], &[]);
    }
    let first = deliver(&sender, &fixture, &work).await;
    let reason = "endpoint slow: answered 502; endpoint gone: endpoint is gone (410)";
    assert_eq!(first, Verdict::retry(reason));
    let second = deliver(&sender, &fixture, &work).await;
    assert_eq!(second, Verdict::dead("endpoint gone: endpoint is gone (410)"));
    assert_eq!([good, gone, slow].map(|customer| customer.take().len()), [1, 1, 2]);
}

#[tokio::test]
async fn a_replay_is_marked_keeps_its_id_and_reaches_only_its_target() {
    let customer = Receiver::start([]).await;
    let mut fixture = Fixture::new();
    fixture.endpoint("old", &customer.url("/old"), &[&secret()], &[]);
    fixture.endpoint("new", &customer.url("/new"), &[&secret()], &[]);
    let sender = Sender::new(loopback(), ATTEMPT);
    assert_eq!(deliver(&sender, &fixture, &work()).await, Verdict::Done);
    let first = customer.take();
    assert!(first.len() == 2 && first.iter().all(|request| request.header("ackline-replay").is_none()));

    let mut again = work();
    again.head.replay = Some(Box::new(Replay {
        pool: Pool::Events,
        of: "UPDATES:1".into(),
        id: again.head.id.clone(),
        target: EntityId::new("new").ok(),
        done: Vec::new(),
        verbatim: true,
    }));
    again.head.id = UpdateId::new("wamid.A=~rp_1");
    assert_eq!(deliver(&sender, &fixture, &again).await, Verdict::Done);
    let [request] = &customer.take()[..] else { panic!("one request") };
    assert_eq!((request.path.as_str(), request.header("ackline-replay")), ("/new", Some("true")));
    assert_eq!(request.header("webhook-id"), first[0].header("webhook-id"));
    verify(request, &secret()).unwrap();
}
