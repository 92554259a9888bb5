//! The simulator over real HTTP on loopback: a receiver on one side, a Graph API client on the other.

use super::*;
use ackline_shared::signature::{SigningKey, verify};
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Mutex;
use tokio::sync::mpsc;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
const NUMBER: &str = "100000000000101";

/// A webhook receiver that hands on what it gets and answers from a script, then 200.
struct Receiver {
    server: Server,
    got: mpsc::Receiver<(HeaderMap, Bytes)>,
}

struct Script {
    answers: Mutex<VecDeque<u16>>,
    got: mpsc::Sender<(HeaderMap, Bytes)>,
}

async fn receiver(answers: &[u16]) -> Receiver {
    let (sender, got) = mpsc::channel(10_000);
    let script = Script {
        answers: Mutex::new(answers.iter().copied().collect()),
        got: sender,
    };
    let router = Router::new()
        .route("/hook", get(challenge).post(take))
        .with_state(Arc::new(script));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Receiver {
        server: Server::start(listener, router).unwrap(),
        got,
    }
}

async fn take(State(script): State<Arc<Script>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let _ = script.got.send((headers, body)).await;
    let answer = script.answers.lock().unwrap().pop_front().unwrap_or(200);
    StatusCode::from_u16(answer).unwrap()
}

async fn challenge(RawQuery(query): RawQuery) -> (StatusCode, String) {
    let query = query.unwrap_or_default();
    let value = |name: &str| {
        let pair = query
            .split('&')
            .find_map(|pair| pair.strip_prefix(&format!("{name}=")));
        pair.unwrap_or_default().to_owned()
    };
    match (
        value("hub.mode").as_str(),
        value("hub.verify_token").as_str(),
    ) {
        ("subscribe", "simulated-verify-token") => (StatusCode::OK, value("hub.challenge")),
        _ => (StatusCode::FORBIDDEN, String::new()),
    }
}

impl Receiver {
    fn url(&self) -> String {
        format!("http://{}/hook", self.server.addr())
    }

    async fn next(&mut self) -> (HeaderMap, Bytes) {
        timeout(PATIENCE, self.got.recv())
            .await
            .expect("a webhook arrives in time")
            .expect("the receiver runs")
    }

    async fn next_json(&mut self) -> Value {
        serde_json::from_slice(&self.next().await.1).unwrap()
    }

    async fn next_status(&mut self) -> Value {
        self.next_json().await["entry"][0]["changes"][0]["value"].take()
    }
}

fn quiet() -> Options {
    Options {
        ladder: Ladder {
            enabled: false,
            ..Ladder::default()
        },
        retry_scale: 0.0001,
        ..Options::default()
    }
}

async fn pointed_at(receiver: &Receiver, options: Options) -> Running {
    start(Options {
        webhook_url: Some(receiver.url()),
        ..options
    })
    .await
    .unwrap()
}

fn http() -> reqwest::Client {
    install_tls_provider();
    delivery::client(PATIENCE).unwrap()
}

async fn send(sim: &Running, body: Value) -> (u16, Value) {
    let url = format!("{}/{NUMBER}/messages", sim.graph_url());
    let request = http()
        .post(url)
        .bearer_auth("simulated-access-token")
        .json(&body);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn control(sim: &Running, path: &str, body: Value) -> (u16, Value) {
    let response = http()
        .post(format!("{}/_sim/{path}", sim.url()))
        .json(&body)
        .send()
        .await
        .unwrap();
    (
        response.status().as_u16(),
        response.json().await.unwrap_or_default(),
    )
}

fn text_to(to: &str, text: &str) -> Value {
    json!({"messaging_product": "whatsapp", "to": to, "type": "text", "text": {"body": text}})
}

#[tokio::test]
async fn a_webhook_has_metas_headers_and_a_signature_over_its_escaped_bytes() {
    let mut receiver = receiver(&[]).await;
    let sim = pointed_at(&receiver, quiet()).await;
    let message =
        json!({"from": "+15551230001", "name": "Zo\u{eb}", "text": "caf\u{e9} \u{1f600} a/b"});
    let (status, accepted) = control(&sim, "messages", message).await;
    assert_eq!(status, 202);
    let (headers, body) = receiver.next().await;
    let keys = [SigningKey::from_bytes(b"simulated-app-secret")];
    assert_eq!(
        verify(
            &keys,
            headers.get("x-hub-signature-256").map(|h| h.as_bytes()),
            &body
        ),
        Ok(())
    );
    let text = std::str::from_utf8(&body).unwrap();
    assert!(
        text.is_ascii() && text.contains(r#""body":"caf\u00e9 \ud83d\ude00 a\/b""#),
        "{text}"
    );
    assert!(
        text.ends_with(r#""field":"messages"}]}]}"#),
        "value comes before field: {text}"
    );
    assert!(
        headers
            .get("x-hub-signature")
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("sha1=")
    );
    assert_eq!(headers["user-agent"], "facebookexternalua");
    assert_eq!(headers["accept-encoding"], "deflate, gzip");
    assert_eq!(headers["accept"], "*/*");
    assert_eq!(headers["content-length"], body.len().to_string());
    assert!(!headers.contains_key("transfer-encoding"));
    let value = &serde_json::from_slice::<Value>(&body).unwrap()["entry"][0]["changes"][0]["value"];
    assert_eq!(value["messages"][0]["from"], "15551230001");
    assert_eq!(value["messages"][0]["id"], accepted["message_ids"][0]);
    assert_eq!(
        value["messages"][0]["from_user_id"],
        accepted["conversation"]
    );
    assert_eq!(value["contacts"][0]["user_id"], accepted["conversation"]);
}

#[tokio::test]
async fn a_webhook_is_posted_again_with_the_same_bytes_until_it_is_answered_200() {
    let mut receiver = receiver(&[500, 204, 302, 401, 200]).await;
    let sim = pointed_at(&receiver, quiet()).await;
    sim.simulator()
        .receive(IncomingMessage::text("15551", "hi"), Posting::default())
        .unwrap();
    let first = receiver.next().await.1;
    for _ in 0..4 {
        assert_eq!(receiver.next().await.1, first);
    }
    let query = JournalQuery {
        kind: Some("webhook".into()),
        n: 5,
        wait_ms: 20_000,
        ..JournalQuery::default()
    };
    let page = sim.simulator().read_journal(&query).await;
    let seen: Vec<(Option<u16>, Outcome)> = page
        .entries
        .iter()
        .filter_map(|n| attempt(&n.entry))
        .collect();
    let retrying = |status| (Some(status), Outcome::Retrying);
    let expected = [
        retrying(500),
        retrying(204),
        retrying(302),
        retrying(401),
        (Some(200), Outcome::Delivered),
    ];
    assert_eq!(seen, expected);
    assert_eq!(sim.simulator().pending(), 0);
}

fn attempt(entry: &Entry) -> Option<(Option<u16>, Outcome)> {
    match entry {
        Entry::Webhook(webhook) => Some((webhook.status, webhook.outcome)),
        _ => None,
    }
}

#[tokio::test]
async fn a_receiver_that_never_recovers_is_given_up_after_seven_scaled_days() {
    let unreachable = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let options = Options {
        webhook_url: Some(format!("http://{unreachable}/")),
        retry_scale: 1e-6,
        ..quiet()
    };
    let sim = start(options).await.unwrap();
    sim.simulator()
        .receive(IncomingMessage::text("15551", "hi"), Posting::default())
        .unwrap();
    let ask = crate::journal::Ask {
        at_least: 1,
        wait: PATIENCE,
        ..Default::default()
    };
    let given_up =
        |entry: &Entry| attempt(entry).is_some_and(|(_, outcome)| outcome == Outcome::GivenUp);
    assert_eq!(
        sim.simulator()
            .journal()
            .read(ask, given_up)
            .await
            .entries
            .len(),
        1
    );
}

#[tokio::test]
async fn a_person_without_a_phone_number_is_known_by_user_id_only() {
    let mut receiver = receiver(&[]).await;
    let sim = pointed_at(
        &receiver,
        Options {
            ladder: Ladder::default(),
            ..quiet()
        },
    )
    .await;
    let user = "DE.13491208655302741918";
    let message = IncomingMessage::text_without_phone(user, "hi");
    sim.simulator()
        .receive(message, Posting::default())
        .unwrap();
    let value = receiver.next_status().await;
    assert_eq!(value["messages"][0]["from_user_id"], user);
    assert_eq!(value["messages"][0].get("from"), None);
    assert_eq!(value["contacts"][0].get("wa_id"), None);
    let reply = json!({"messaging_product": "whatsapp", "recipient": user, "type": "text", "text": {"body": "yo"}});
    let (status, answer) = send(&sim, reply).await;
    assert_eq!((status, answer["contacts"][0].get("wa_id")), (200, None));
    let sent = receiver.next_status().await;
    assert_eq!(sent["statuses"][0]["recipient_user_id"], user);
    assert_eq!(sent["statuses"][0].get("recipient_id"), None);
}

#[tokio::test]
async fn a_batch_of_eight_over_two_entries_is_one_webhook() {
    let mut receiver = receiver(&[]).await;
    let sim = pointed_at(&receiver, quiet()).await;
    let message = |n: u32| json!({"from": format!("1555{n:04}"), "text": format!("message {n}")});
    let change = |n: u32| json!({"messages": [message(n), message(n + 1)]});
    let entries = json!([{"changes": [change(0), change(2)]}, {"changes": [change(4), change(6)]}]);
    let (status, accepted) = control(&sim, "deliveries", json!({"entries": entries})).await;
    assert_eq!((status, &accepted["updates"]), (202, &json!(8)));
    let body = receiver.next_json().await;
    let texts: Vec<&str> = body["entry"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|entry| entry["changes"].as_array().unwrap())
        .flat_map(|change| change["value"]["messages"].as_array().unwrap())
        .filter_map(|message| message["text"]["body"].as_str())
        .collect();
    assert_eq!(
        texts,
        (0..8).map(|n| format!("message {n}")).collect::<Vec<_>>()
    );
    assert_eq!(body["entry"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_batch_over_metas_limits_or_without_a_person_is_refused() {
    let receiver = receiver(&[]).await;
    let sim = pointed_at(&receiver, quiet()).await;
    let batch = |messages: Vec<Value>| json!({"entries": [{"changes": [{"messages": messages}]}]});
    let many = vec![json!({"from": "1", "text": "x"}); 1001];
    assert_eq!(
        control(&sim, "deliveries", batch(many.clone())).await.0,
        400
    );
    let (status, accepted) = control(&sim, "deliveries", batch(many[1..].to_vec())).await;
    assert_eq!((status, &accepted["updates"]), (202, &json!(1000)));
    let large = vec![json!({"from": "1", "text": "\u{e9}".repeat(600)}); 999];
    assert_eq!(control(&sim, "deliveries", batch(large)).await.0, 400);
    assert_eq!(control(&sim, "messages", json!({"text": "x"})).await.0, 400);
    assert_eq!(control(&sim, "deliveries", json!({})).await.0, 400);
}

#[tokio::test]
async fn account_fields_and_raw_bytes_are_passed_on_as_given() {
    let mut receiver = receiver(&[]).await;
    let sim = pointed_at(&receiver, quiet()).await;
    let change = json!({"field": "account_update", "value": {"event": "PARTNER_ADDED"}});
    control(
        &sim,
        "deliveries",
        json!({"entries": [{"waba_id": "77", "changes": [change.clone()]}]}),
    )
    .await;
    let body = receiver.next_json().await;
    assert_eq!(body["entry"][0]["id"], "77");
    assert!(body["entry"][0]["time"].is_u64());
    assert_eq!(body["entry"][0]["changes"][0], change);
    control(
        &sim,
        "deliveries",
        json!({"raw": "{not json", "signature": "missing"}),
    )
    .await;
    let (headers, body) = receiver.next().await;
    assert_eq!(body, "{not json");
    assert!(!headers.contains_key("x-hub-signature-256"));
}

#[tokio::test]
async fn duplicates_are_the_same_bytes_and_a_bad_signature_is_not_retried() {
    let mut receiver = receiver(&[200, 200, 401]).await;
    let sim = pointed_at(&receiver, quiet()).await;
    let (_, accepted) = control(
        &sim,
        "messages",
        json!({"from": "1555", "text": "x", "duplicate": 1}),
    )
    .await;
    assert_eq!(accepted["deliveries"].as_array().unwrap().len(), 2);
    assert_eq!(receiver.next().await.1, receiver.next().await.1);
    let (_, accepted) = control(
        &sim,
        "messages",
        json!({"from": "1555", "text": "x", "signature": "bad"}),
    )
    .await;
    let (headers, body) = receiver.next().await;
    let keys = [SigningKey::from_bytes(b"simulated-app-secret")];
    assert!(
        verify(
            &keys,
            headers.get("x-hub-signature-256").map(|h| h.as_bytes()),
            &body
        )
        .is_err()
    );
    let delivery = accepted["deliveries"][0].as_u64();
    let page = sim
        .simulator()
        .read_journal(&JournalQuery {
            delivery,
            wait_ms: 20_000,
            ..Default::default()
        })
        .await;
    assert_eq!(
        attempt(&page.entries[0].entry),
        Some((Some(401), Outcome::GivenUp))
    );
}

#[tokio::test]
async fn statuses_climb_the_ladder_and_echo_the_senders_reference() {
    let mut receiver = receiver(&[]).await;
    let sim = pointed_at(
        &receiver,
        Options {
            ladder: Ladder::default(),
            ..quiet()
        },
    )
    .await;
    let mut body = text_to("+15551230001", "hi");
    body["biz_opaque_callback_data"] = json!("m-1");
    let (_, answer) = send(&sim, body).await;
    for expected in ["sent", "delivered", "read"] {
        let value = receiver.next_status().await;
        let status = &value["statuses"][0];
        assert_eq!(status["status"], expected);
        assert_eq!(status["id"], answer["messages"][0]["id"]);
        assert_eq!(status["biz_opaque_callback_data"], "m-1");
        assert_eq!(status["recipient_id"], "15551230001");
        assert_eq!(value["contacts"][0]["wa_id"], "15551230001");
        assert_eq!(status.get("pricing").is_some(), expected != "read");
    }
}

#[tokio::test]
async fn statuses_come_out_of_order_when_told_to() {
    let mut receiver = receiver(&[]).await;
    let ladder = Ladder {
        reversed: true,
        ..Ladder::default()
    };
    let sim = pointed_at(&receiver, Options { ladder, ..quiet() }).await;
    let (_, answer) = send(&sim, text_to("15551230001", "hi")).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(receiver.next_status().await["statuses"][0]["status"].take());
    }
    assert_eq!(seen, ["read", "delivered", "sent"]);
    let id = &answer["messages"][0]["id"];
    control(
        &sim,
        "statuses",
        json!({"message_id": id, "statuses": ["failed", "sent"], "code": 131026}),
    )
    .await;
    let failed = receiver.next_status().await;
    assert_eq!(failed["statuses"][0]["errors"][0]["code"], 131_026);
    assert_eq!(failed.get("contacts"), None);
    assert_eq!(
        receiver.next_status().await["statuses"][0]["status"],
        "sent"
    );
}

#[tokio::test]
async fn the_pair_rate_refuses_the_46th_message_to_one_person_only() {
    let pacing = Limits {
        mps: 0,
        scale: 100.0,
        ..Limits::default()
    };
    let sim = start(Options { pacing, ..quiet() }).await.unwrap();
    for n in 0..45 {
        assert_eq!(
            send(&sim, text_to("15551230001", &n.to_string())).await.0,
            200
        );
    }
    let (status, answer) = send(&sim, text_to("15551230001", "one too many")).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!(131_056)));
    assert_eq!(
        send(&sim, text_to("15551230002", "someone else")).await.0,
        200
    );
}

#[tokio::test]
async fn a_number_over_its_throughput_gets_130429() {
    let pacing = Limits {
        mps: 2,
        scale: 100.0,
        ..Limits::default()
    };
    let sim = start(Options { pacing, ..quiet() }).await.unwrap();
    assert_eq!(send(&sim, text_to("15551230001", "a")).await.0, 200);
    assert_eq!(send(&sim, text_to("15551230002", "b")).await.0, 200);
    assert_eq!(
        send(&sim, text_to("15551230003", "c")).await.1["error"]["code"],
        130_429
    );
}

#[tokio::test]
async fn an_injected_error_recovers_and_touches_only_its_recipient() {
    let sim = start(quiet()).await.unwrap();
    let rule = json!({"times": 2, "recipient": "+15551230001", "code": 131000, "headers": {"retry-after": "1"}});
    assert_eq!(control(&sim, "rules", rule).await.0, 201);
    assert_eq!(send(&sim, text_to("15551230002", "x")).await.0, 200);
    for _ in 0..2 {
        let (status, answer) = send(&sim, text_to("15551230001", "x")).await;
        assert_eq!((status, &answer["error"]["code"]), (500, &json!(131_000)));
    }
    assert_eq!(send(&sim, text_to("15551230001", "x")).await.0, 200);
    let query = JournalQuery {
        conversation: Some("15551230001".into()),
        ..JournalQuery::default()
    };
    let page = sim.simulator().read_journal(&query).await;
    let kinds: Vec<&str> = page
        .entries
        .iter()
        .map(|numbered| numbered.entry.kind())
        .collect();
    assert_eq!(
        kinds,
        ["graph", "graph", "message", "graph"],
        "only the accepted message is seen"
    );
}

#[tokio::test]
async fn a_dropped_connection_leaves_the_client_unsure_whether_the_message_was_sent() {
    let sim = start(quiet()).await.unwrap();
    let url = format!("{}/{NUMBER}/messages", sim.graph_url());
    for (when, seen) in [(Drop::Before, 0), (Drop::After, 1)] {
        sim.simulator()
            .rules()
            .add(Rule {
                drop: Some(when),
                ..Rule::default()
            })
            .unwrap();
        let request = http()
            .post(&url)
            .bearer_auth("simulated-access-token")
            .json(&text_to("15551", "x"));
        assert!(request.send().await.is_err(), "no answer is written");
        let query = JournalQuery {
            kind: Some("message".into()),
            ..JournalQuery::default()
        };
        assert_eq!(
            sim.simulator().read_journal(&query).await.entries.len(),
            seen
        );
    }
}

#[tokio::test]
async fn an_accepted_message_can_fail_later() {
    let mut receiver = receiver(&[]).await;
    let sim = pointed_at(
        &receiver,
        Options {
            ladder: Ladder::default(),
            ..quiet()
        },
    )
    .await;
    sim.simulator()
        .rules()
        .add(Rule {
            fail_code: Some(131_026),
            ..Rule::default()
        })
        .unwrap();
    assert_eq!(send(&sim, text_to("15551", "x")).await.0, 200);
    let status = receiver.next_status().await["statuses"][0].take();
    assert_eq!(
        (&status["status"], &status["errors"][0]["code"]),
        (&json!("failed"), &json!(131_026))
    );
}

#[tokio::test]
async fn the_graph_api_knows_its_token_its_objects_and_its_paths() {
    let sim = start(quiet()).await.unwrap();
    let ask = async |path: &str, token: Option<&str>| {
        let request = http().get(format!("{}/{path}", sim.graph_url()));
        let request = if let Some(token) = token {
            request.bearer_auth(token)
        } else {
            request
        };
        let response = request.send().await.unwrap();
        (
            response.status().as_u16(),
            response.json::<Value>().await.unwrap(),
        )
    };
    let token = Some("simulated-access-token");
    let (status, number) = ask(
        &format!("{NUMBER}?fields=id,display_phone_number,verified_name"),
        token,
    )
    .await;
    assert_eq!((status, &number["id"]), (200, &json!(NUMBER)));
    assert_eq!(number.as_object().unwrap().len(), 3);
    assert_eq!(ask(NUMBER, Some("wrong")).await.1["error"]["code"], 190);
    let (status, nobody) = ask(NUMBER, None).await;
    assert_eq!((status, &nobody["error"]["code"]), (401, &json!(104)));
    assert_eq!(ask("42", token).await.1["error"]["error_subcode"], 33);
    assert_eq!(
        ask(&format!("{NUMBER}?fields=shoe_size"), token).await.1["error"]["code"],
        100
    );
    assert_eq!(ask("a/b/c", token).await.1["error"]["code"], 2500);
    let apps = ask("200000000000201/subscribed_apps", token).await.1;
    assert_eq!(apps["data"].as_array().unwrap().len(), 1);
    assert_eq!(
        ask("200000000000201/phone_numbers", token).await.1["data"][0]["id"],
        NUMBER
    );
}

#[tokio::test]
async fn media_comes_back_byte_for_byte_and_can_be_sent() {
    let sim = start(quiet()).await.unwrap();
    let file = reqwest::multipart::Part::bytes(vec![0u8, 255, 13, 10]).file_name("a.png");
    let form = reqwest::multipart::Form::new().text("messaging_product", "whatsapp");
    let form = form.part("file", file.mime_str("image/png").unwrap());
    let upload = http()
        .post(format!("{}/{NUMBER}/media", sim.graph_url()))
        .multipart(form);
    let uploaded = upload
        .bearer_auth("simulated-access-token")
        .send()
        .await
        .unwrap();
    let id = uploaded.json::<Value>().await.unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let fetch =
        async |url: &str, token: &str| http().get(url).bearer_auth(token).send().await.unwrap();
    let metadata = fetch(
        &format!("{}/{id}", sim.graph_url()),
        "simulated-access-token",
    )
    .await;
    let metadata: Value = metadata.json().await.unwrap();
    assert_eq!(
        (&metadata["mime_type"], &metadata["file_size"]),
        (&json!("image/png"), &json!(4))
    );
    let url = metadata["url"].as_str().unwrap();
    assert_eq!(fetch(url, "wrong").await.status(), 401);
    let expired = format!("{}?expires=1", url.split('?').next().unwrap());
    assert_eq!(
        fetch(&expired, "simulated-access-token").await.status(),
        404
    );
    let bytes = fetch(url, "simulated-access-token")
        .await
        .bytes()
        .await
        .unwrap();
    assert_eq!(&bytes[..], [0, 255, 13, 10]);
    let image = |id: &str| json!({"messaging_product": "whatsapp", "to": "15551", "type": "image", "image": {"id": id}});
    assert_eq!(send(&sim, image(&id)).await.0, 200);
    assert_eq!(send(&sim, image("42")).await.1["error"]["code"], 131_009);
}

#[tokio::test]
async fn the_window_and_unknown_templates_are_refused_when_enforced() {
    let mut receiver = receiver(&[]).await;
    let templates = Some(vec!["hello".to_owned()]);
    let sim = pointed_at(
        &receiver,
        Options {
            enforce_window: true,
            templates,
            ..quiet()
        },
    )
    .await;
    assert_eq!(
        send(&sim, text_to("15551", "x")).await.1["error"]["code"],
        131_047
    );
    let template = |name: &str| {
        json!({"messaging_product": "whatsapp", "to": "15551", "type": "template",
            "template": {"name": name, "language": {"code": "en_US"}}})
    };
    assert_eq!(send(&sim, template("hello")).await.0, 200);
    assert_eq!(
        send(&sim, template("other")).await.1["error"]["code"],
        132_001
    );
    let accepted = sim
        .simulator()
        .receive(IncomingMessage::text("15551", "hi"), Posting::default())
        .unwrap();
    receiver.next().await;
    assert_eq!(send(&sim, text_to("15551", "x")).await.0, 200);
    let receipt = json!({"messaging_product": "whatsapp", "status": "read", "message_id": accepted.message_ids[0],
        "typing_indicator": {"type": "text"}});
    assert_eq!(send(&sim, receipt).await, (200, json!({"success": true})));
}

#[tokio::test]
async fn the_handshake_passes_with_the_right_token_only() {
    let receiver = receiver(&[]).await;
    let sim = pointed_at(&receiver, quiet()).await;
    assert_eq!(control(&sim, "handshake", json!({})).await.1["ok"], true);
    let verify_token = Secret::new("another".to_owned());
    let stranger = pointed_at(
        &receiver,
        Options {
            verify_token,
            ..quiet()
        },
    )
    .await;
    let handshake = stranger.simulator().handshake().await;
    assert_eq!((handshake.ok, handshake.status), (false, Some(403)));
}

#[tokio::test]
async fn the_journal_waits_for_what_is_asked_and_can_be_cleared() {
    let receiver = receiver(&[]).await;
    let sim = pointed_at(&receiver, quiet()).await;
    let url = format!(
        "{}/_sim/journal?kind=message&conversation=%2B15551230001&n=1&wait_ms=20000",
        sim.url()
    );
    let waiting = tokio::spawn(http().get(url).send());
    sim.simulator()
        .receive(
            IncomingMessage::text("15551230002", "other"),
            Posting::default(),
        )
        .unwrap();
    sim.simulator()
        .receive(
            IncomingMessage::text("15551230001", "mine"),
            Posting::default(),
        )
        .unwrap();
    let page: Value = waiting.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(page["entries"].as_array().unwrap().len(), 1);
    assert_eq!(page["entries"][0]["text"], "mine");
    assert_eq!(page["entries"][0]["author"], "user");
    let cleared = http()
        .delete(format!("{}/_sim/journal", sim.url()))
        .send()
        .await
        .unwrap();
    assert_eq!(cleared.status(), 204);
    let health: Value = http()
        .get(format!("{}/_sim/health", sim.url()))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(health["ok"], true);
    sim.stop().await;
}

#[tokio::test]
async fn a_second_responder_takes_a_conversation_and_gives_it_back() {
    let mut receiver = receiver(&[]).await;
    let options = Options {
        webhook_url: Some(receiver.url()),
        ..Options::default()
    };
    let simulator = start(options).await.unwrap();
    let hand = |action| HandoverSpec {
        person: "4915100000001".into(),
        phone_number_id: None,
        action,
    };
    let mut reported = Vec::new();
    for action in [
        None,
        Some(Hand::Take),
        Some(Hand::Pass),
        Some(Hand::Take),
        Some(Hand::Release),
    ] {
        if let Some(action) = action {
            let posted = simulator.simulator().hand_over(&hand(action)).unwrap();
            assert_eq!(
                posted.is_none(),
                action == Hand::Release,
                "letting go is told nobody"
            );
            if posted.is_some() {
                let handover: Value = serde_json::from_slice(&receiver.next().await.1).unwrap();
                let value = &handover["entry"][0]["changes"][0]["value"];
                assert_eq!(value["recipient"]["phone_number_id"], NUMBER);
                assert_eq!(
                    (&value["sender"]["phone_number"], &value["metadata"]),
                    (&json!("4915100000001"), &Value::Null)
                );
                assert_eq!(value["control_taken"].is_object(), action == Hand::Take);
            }
        }
        let message = IncomingMessage::text("4915100000001", "hi");
        simulator
            .simulator()
            .receive(message, Posting::default())
            .unwrap();
        let body: Value = serde_json::from_slice(&receiver.next().await.1).unwrap();
        assert_eq!(
            body["entry"][0]["changes"][0]["value"]["messages"][0]["from"],
            "4915100000001"
        );
        reported.push(
            body["entry"][0]["changes"][0]["field"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    assert_eq!(
        reported,
        ["messages", "standby", "messages", "standby", "messages"]
    );
}
