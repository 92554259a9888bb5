//! Delivery to real servers on loopback, verified by the reference library.

pub(crate) mod fixture;

use super::*;
use ackline_egress::receiver::{
    Answer, Received as Request, Receiver, closed_port, loopback, settings,
};
use ackline_runtime::dedupe::ConversationRecord;
use ackline_runtime::job::{Answered, Marks};
use ackline_shared::envelope::Replay;
use ackline_shared::ids::{EntityId, UpdateId};
use ackline_shared::secret::Secret;
use ackline_shared::standard_webhooks::secret_from_bytes;
use ackline_shared::subjects::Class;
use fixture::{Fixture, head, message, status};

const ATTEMPT: Duration = Duration::from_secs(10);

fn sender() -> Sender {
    Sender {
        egress: loopback(),
        timeout: ATTEMPT,
    }
}

/// The same work for another endpoint.
fn work_for(endpoint: &str) -> Work {
    Work {
        target: Arc::new(Target {
            name: endpoint.to_owned(),
            ..Target::default()
        }),
        ..work()
    }
}

fn secret() -> Secret<String> {
    secret_from_bytes(&[7; 32])
}

fn work() -> Work {
    Work {
        head: Arc::new(head(Class::Message)),
        payload: message().to_string().into(),
        sequence: 1,
        attempt: 1,
        last_attempt: false,
        target: Arc::new(Target {
            name: "crm".to_owned(),
            ..Target::default()
        }),
        answered: Answered::default(),
        overdue: false,
        marks: Marks::default(),
        record: ConversationRecord::default(),
    }
}

async fn deliver(sender: &Sender, fixture: &Fixture, work: &Work) -> Verdict {
    sender
        .deliver(&fixture.snapshot, &fixture.master, work)
        .await
}

/// What the reference library says of a request under one secret.
fn verify(
    request: &Request,
    secret: &Secret<String>,
) -> Result<(), standardwebhooks::WebhookError> {
    standardwebhooks::Webhook::new(secret.expose())
        .unwrap()
        .verify(&request.body, &request.headers)
}

/// One endpoint that answers this to one event.
async fn verdict(answer: Answer, attempt_timeout: Duration) -> Verdict {
    let customer = Receiver::start([answer]).await;
    let mut fixture = Fixture::new();
    fixture.endpoint("crm", &customer.url("/hook"), &[&secret()], &[]);
    deliver(
        &Sender {
            egress: loopback(),
            timeout: attempt_timeout,
        },
        &fixture,
        &work(),
    )
    .await
}

#[tokio::test]
async fn the_reference_library_verifies_an_event_under_every_live_secret() {
    let customer = Receiver::start([]).await;
    let (mut fixture, old, new) = (Fixture::new(), secret(), secret_from_bytes(&[8; 32]));
    fixture.endpoint("crm", &customer.url("/hook"), &[&new, &old], &[]);
    assert_eq!(deliver(&sender(), &fixture, &work()).await, Verdict::Done);

    let [request] = &customer.take()[..] else {
        panic!("one request")
    };
    verify(request, &old).unwrap();
    verify(request, &new).unwrap();
    assert!(verify(request, &secret_from_bytes(&[9; 32])).is_err());
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/hook")
    );
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(
        request.header("content-length"),
        Some(request.body.len().to_string().as_str())
    );
    assert!(request.header("transfer-encoding").is_none());
    assert!(
        request
            .header("user-agent")
            .unwrap()
            .starts_with("Ackline/")
    );
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(request.header("webhook-id"), body["id"].as_str());
    assert_eq!(body.to_string().as_bytes(), request.body, "compact");
}

#[tokio::test]
async fn every_attempt_has_the_same_id_and_body() {
    let customer = Receiver::start([Answer::Status(500)]).await;
    let (work, sender, mut fixture) = (work(), sender(), Fixture::new());
    fixture.endpoint("crm", &customer.url("/"), &[&secret()], &["message.*"]);
    let first = deliver(&sender, &fixture, &work).await;
    assert_eq!(first.reason(), Some("endpoint crm: answered 500"));
    assert_eq!(deliver(&sender, &fixture, &work).await, Verdict::Done);
    let [first, second] = &customer.take()[..] else {
        panic!("two requests")
    };
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!(first.body, second.body);
    verify(second, &secret()).unwrap();
}

#[tokio::test]
async fn an_answer_decides_the_verdict() {
    assert_eq!(verdict(Answer::Status(202), ATTEMPT).await, Verdict::Done);
    let gone = Verdict::dead("endpoint crm: endpoint is gone (410) and is switched off");
    assert_eq!(verdict(Answer::Status(410), ATTEMPT).await, gone);
    for code in [400, 415] {
        let dead = Verdict::dead(format!("endpoint crm: answered {code}"));
        assert_eq!(verdict(Answer::Status(code), ATTEMPT).await, dead);
    }
    for code in [401, 404, 503] {
        let passing = verdict(Answer::Status(code), ATTEMPT).await;
        let reason = format!("endpoint crm: answered {code}");
        assert!(
            matches!(&passing, Verdict::Trouble(trouble) if trouble.reason == reason),
            "{passing:?}"
        );
    }
    let later = verdict(Answer::With(503, "retry-after", "30".into()), ATTEMPT).await;
    let after = Some(Duration::from_secs(30));
    assert!(
        matches!(&later, Verdict::Trouble(trouble) if trouble.after == after),
        "{later:?}"
    );
    let silent = verdict(Answer::Hang, Duration::from_millis(300)).await;
    assert_eq!(silent.reason(), Some("endpoint crm: no answer in time"));
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_in_trouble_and_so_is_an_inward_url() {
    let down = format!("http://{}/", closed_port().await);
    let inward = Sender {
        egress: Egress::new(&settings(&[])).unwrap(),
        timeout: ATTEMPT,
    };
    for (url, sender) in [(down.as_str(), sender()), ("https://10.0.0.1/", inward)] {
        let mut fixture = Fixture::new();
        fixture.endpoint("crm", url, &[&secret()], &[]);
        let verdict = deliver(&sender, &fixture, &work()).await;
        assert!(matches!(&verdict, Verdict::Trouble(_)), "{verdict:?}");
        assert_eq!(
            verdict.reason(),
            Some("endpoint crm: the destination cannot be reached")
        );
    }
}

#[tokio::test]
async fn only_subscribed_endpoints_get_an_event() {
    let mut fixture = Fixture::new();
    fixture.endpoint(
        "other",
        "https://x.example/",
        &[&secret()],
        &["flow.*", "message.read"],
    );
    fixture.endpoint(
        "wants",
        "https://x.example/",
        &[&secret()],
        &["message.received"],
    );
    let (head, payload) = (head(Class::Message), message().to_string());
    let selects = |name| request::selects(&fixture.snapshot, &head, payload.as_bytes(), name);
    assert_eq!(
        ["other", "wants", "gone", ""].map(selects),
        [false, true, true, false]
    );
}

#[tokio::test]
async fn an_update_without_an_event_is_nothing_to_do_and_an_unreadable_one_is_dead() {
    let (sender, mut fixture) = (sender(), Fixture::new());
    let unreadable = Work {
        payload: Bytes::from_static(b"{"),
        ..work()
    };
    let played = status("played", serde_json::json!({})).to_string();
    fixture.endpoint(
        "crm",
        &format!("http://{}/", closed_port().await),
        &[&secret()],
        &[],
    );
    assert_eq!(
        deliver(
            &sender,
            &fixture,
            &Work {
                payload: played.into(),
                ..work()
            }
        )
        .await,
        Verdict::Idle
    );
    let verdict = deliver(&sender, &fixture, &unreadable).await;
    assert!(matches!(verdict, Verdict::Dead { reason } if reason.contains("cannot be read")));
}

#[tokio::test]
async fn a_replay_is_marked_and_keeps_its_id() {
    let customer = Receiver::start([]).await;
    let mut fixture = Fixture::new();
    fixture.endpoint("new", &customer.url("/new"), &[&secret()], &[]);
    let (sender, first) = (sender(), work_for("new"));
    assert_eq!(deliver(&sender, &fixture, &first).await, Verdict::Done);
    let first = customer.take();
    assert!(first[0].header("ackline-replay").is_none());

    let mut replayed = head(Class::Message);
    replayed.replay = Some(Box::new(Replay {
        pool: Pool::Events,
        of: "UPDATES:1".into(),
        id: replayed.id.clone(),
        target: EntityId::new("new").ok(),
        done: Vec::new(),
        verbatim: true,
    }));
    replayed.id = UpdateId::new("wamid.A=~rp_1");
    let again = Work {
        head: Arc::new(replayed),
        ..work_for("new")
    };
    assert_eq!(deliver(&sender, &fixture, &again).await, Verdict::Done);
    let [request] = &customer.take()[..] else {
        panic!("one request")
    };
    assert_eq!(
        (request.path.as_str(), request.header("ackline-replay")),
        ("/new", Some("true"))
    );
    assert_eq!(request.header("webhook-id"), first[0].header("webhook-id"));
    verify(request, &secret()).unwrap();
}
