//! The flows pool: from an update in the log to send commands, with calls in between.

use super::stage::{DEADLINE, Stage};
use ackline_egress::{Egress, EgressSettings};
use ackline_message::{Content, FlowFact, Record, SendCommand};
use ackline_ownership::standing::Standing;
use ackline_pools::flows::FlowsJob;
use ackline_runtime::following::AttemptReport;
use ackline_runtime::metrics::Metrics;
use ackline_shared::config::Reader;
use ackline_shared::ids::TenantId;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, Partition};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// A customer's order API on a free port.
async fn order_api() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route(
        "/orders/1001",
        get(async || Json(json!({"status": "shipped"}))),
    );
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/orders/{{{{ order }}}}")
}

pub fn egress() -> Egress {
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let variables = [("ACKLINE_EGRESS_ALLOW".to_owned(), "127.0.0.1".to_owned())];
    let mut reader = Reader::load(None, variables);
    let settings = EgressSettings::read(&mut reader);
    reader.finish().unwrap();
    Egress::new(&settings).unwrap()
}

pub fn snapshot(definition: &Value) -> Snapshot {
    assert!(
        ackline_flow::Compiled::from_json(definition).is_ok(),
        "the flow is valid"
    );
    let mut snapshot = Snapshot::default();
    let entries = [
        ("tenant.acme", json!({"id": "acme", "name": "Acme"})),
        (
            "bot.acme.shop",
            json!({"id": "shop", "tenant": "acme", "flows": ["order"]}),
        ),
        (
            "flow.acme.order",
            json!({"id": "order", "tenant": "acme", "definition": definition}),
        ),
    ];
    for (key, value) in entries {
        snapshot
            .fold(key, Some(value.to_string().as_bytes()))
            .unwrap();
    }
    snapshot
}

pub fn text(id: &str, body: &str) -> Vec<u8> {
    let message = json!({"id": id, "from_user_id": "US.1", "type": "text", "text": {"body": body}, "timestamp": "1"});
    let contact = json!({"profile": {"name": "Ana"}, "user_id": "US.1"});
    let value = json!({"metadata": {"phone_number_id": "100"}, "contacts": [contact], "messages": [message]});
    json!({"object": "whatsapp_business_account", "entry": [{"id": "W", "changes": [{"value": value, "field": "messages"}]}]})
        .to_string()
        .into_bytes()
}

pub async fn sent(stage: &Stage, count: usize) -> Vec<SendCommand> {
    let messages = stage
        .messages(subjects::OUTBOUND, subjects::OUTBOUND_SUBJECTS[0], count)
        .await;
    messages
        .iter()
        .map(|message| serde_json::from_slice(&message.payload).unwrap())
        .collect()
}

pub fn body(command: &SendCommand) -> &str {
    match &command.content {
        Content::Text { body, .. } => body,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_asks_calls_and_answers_and_repeats_nothing() {
    let definition = json!({
        "format": 1, "name": "Order", "entry": [{"on": "any"}], "start": "ask",
        "nodes": {
            "ask": {"kind": "ask.text", "body": "Hi {{ contact.name }}, which order?", "variable": "order",
                    "exits": {"next": "fetch"}},
            "fetch": {"kind": "http", "url": order_api().await, "save": {"status": "/status"},
                      "exits": {"ok": "tell", "http_error": "sorry", "timeout": "sorry"}},
            "tell": {"kind": "message.text", "body": "It is {{ status }}.", "exits": {"next": "done"}},
            "sorry": {"kind": "message.text", "body": "Not found.", "exits": {"next": "done"}},
            "done": {"kind": "end"}
        }
    });
    let stage = Stage::start(snapshot(&definition)).await;
    let (_stop, _running) = stage.run(FlowsJob::new(stage.platform.clone(), egress()), "one");
    stage.publish("US.1", "m1", text("m1", "hello")).await;
    assert_eq!(body(&sent(&stage, 1).await[0]), "Hi Ana, which order?");
    // The same update, stored again: the session knows it.
    stage.publish_again("US.1", "m1", text("m1", "hello")).await;
    stage.publish("US.1", "m2", text("m2", "1001")).await;
    let commands = sent(&stage, 2).await;
    assert_eq!(body(&commands[1]), "It is shipped.");
    assert_eq!(commands[1].to.user_id.as_deref(), Some("US.1"));
    let completed = (0..4)
        .map(|number| subjects::record_filter(Partition(number), Record::FLOW_COMPLETED))
        .collect();
    let completed = stage.messages_of(subjects::UPDATES, completed, 1).await;
    let Record::FlowStep { facts } = serde_json::from_slice(&completed[0].payload).unwrap() else {
        panic!("a step of flows")
    };
    let [
        FlowFact::Queued { .. },
        FlowFact::Completed { outcome, bot, .. },
    ] = facts.as_slice()
    else {
        panic!("a message, and the flow's end")
    };
    assert_eq!((outcome.as_str(), bot.as_str()), ("completed", "shop"));
}

/// A server that answers 503 as a model and 404 to everything else.
async fn failing() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let busy = async || (StatusCode::SERVICE_UNAVAILABLE, "the secret answer");
    let router = Router::new().route("/v1/chat/completions", post(busy));
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_fail_are_counted_by_kind_and_told_to_whoever_follows() {
    let url = failing().await;
    let definition = json!({
        "format": 1, "name": "Order", "entry": [{"on": "any"}], "start": "fetch",
        "nodes": {
            "fetch": {"kind": "http", "url": format!("{url}/orders?of=private"), "save": {},
                      "exits": {"ok": "done", "http_error": "model", "timeout": "done"}},
            "model": {"kind": "agent", "mode": "chat", "system": "Be kind.",
                      "endpoint": {"base_url": format!("{url}/v1"), "model": "any"},
                      "timeout_seconds": 1, "fallback": "Sorry.", "exits": {"done": "done"}},
            "done": {"kind": "end"}
        }
    });
    let stage = Stage::start(snapshot(&definition)).await;
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let client = stage.platform.log.context().client();
    let (_end, shutdown) = watch::channel(false);
    tokio::spawn(metrics.following().clone().serve(client.clone(), shutdown));
    let acme = TenantId::new("acme").unwrap();
    let mut attempt_report = client.subscribe(subjects::reports(&acme)).await.unwrap();
    let job = FlowsJob::new(stage.platform.clone(), egress()).with_metrics(metrics.clone());
    let (_stop, _running) = stage.run_seen(job, "one", metrics, Standing::default());
    let (mut failures, mut number) = (Vec::new(), 0);
    let failed = async {
        while failures.len() < 2 {
            // Whoever follows asks until somebody has heard it; each conversation calls once more.
            client
                .publish(subjects::follow(&acme), "".into())
                .await
                .unwrap();
            number += 1;
            let id = format!("m{number}");
            stage
                .publish(&format!("US.{number}"), &id, text(&id, "hello"))
                .await;
            while let Ok(Some(message)) =
                timeout(Duration::from_secs(1), attempt_report.next()).await
            {
                let attempt_report: AttemptReport =
                    serde_json::from_slice(&message.payload).unwrap();
                assert!(
                    !format!("{attempt_report:?}").contains("secret answer"),
                    "{attempt_report:?}"
                );
                if attempt_report.verdict.ends_with(" failed") {
                    failures.push((
                        attempt_report.pool,
                        attempt_report.verdict,
                        attempt_report.reason.unwrap(),
                    ));
                }
            }
        }
    };
    timeout(DEADLINE, failed).await.unwrap();
    let of =
        |verdict: &str, reason: &str| ("flows".to_owned(), verdict.to_owned(), reason.to_owned());
    assert_eq!(failures[0], of("http failed", "answered 404"));
    assert_eq!(
        failures[1],
        of("model failed", "the model answered 503, after 2 requests")
    );
    let mut scraped = String::new();
    encode(&mut scraped, &registry).unwrap();
    for line in [
        "call=\"http\",outcome=\"status_4xx\"} ",
        "call=\"model\",outcome=\"status_5xx\"} ",
    ] {
        assert!(
            scraped.contains(&format!("ackline_flow_calls_total{{{line}")),
            "{line} in {scraped}"
        );
    }
}

/// A model that answers what it is told to, in order, and keeps what it was asked.
async fn scripted(answers: Vec<(StatusCode, &'static str, Value)>) -> (String, Asked) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Asked::default();
    let (seen, answers) = (asked.clone(), Arc::new(Mutex::new(VecDeque::from(answers))));
    let answer = async move |Json(request): Json<Value>| {
        seen.lock().unwrap().push(request);
        let next = answers.lock().unwrap().pop_front();
        let (status, wait, body) = next.expect("as many requests as answers");
        (status, [("retry-after", wait)], Json(body))
    };
    let router = Router::new().route("/v1/chat/completions", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}/v1"), asked)
}

type Asked = Arc<Mutex<Vec<Value>>>;

fn said(content: &str) -> Value {
    json!({"choices": [{"message": {"role": "assistant", "content": content}}]})
}

fn assistant(base_url: &str) -> Value {
    json!({
        "format": 1, "name": "Ask", "entry": [{"on": "any"}], "start": "model",
        "nodes": {
            "model": {"kind": "agent", "system": "Be kind.", "endpoint": {"base_url": base_url, "model": "m"},
                      "fallback": "Sorry.", "exits": {"next": "done"}},
            "done": {"kind": "end"}
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_model_is_asked_again_and_its_answer_goes_out_in_whatsapps_marks() {
    let unsupported =
        json!({"error": {"message": "Unsupported parameter: 'max_tokens'", "param": "max_tokens"}});
    let answer =
        said("<think>Greet **warmly**.</think>**Monday**: see https://x.example/__a__/b*c*d");
    let (url, asked) = scripted(vec![
        (StatusCode::SERVICE_UNAVAILABLE, "0", json!({})),
        (StatusCode::TOO_MANY_REQUESTS, "0", json!({})),
        (StatusCode::BAD_REQUEST, "", unsupported),
        (StatusCode::OK, "", answer),
        (StatusCode::OK, "", said("Bye.")),
    ])
    .await;
    let stage = Stage::start(snapshot(&assistant(&url))).await;
    let (_stop, _running) = stage.run(FlowsJob::new(stage.platform.clone(), egress()), "one");
    stage.publish("US.1", "m1", text("m1", "hours?")).await;
    assert_eq!(
        body(&sent(&stage, 1).await[0]),
        "*Monday*: see https://x.example/__a__/b*c*d"
    );
    stage.publish("US.2", "m2", text("m2", "hours?")).await;
    assert_eq!(body(&sent(&stage, 2).await[1]), "Bye.");
    let asked = asked.lock().unwrap();
    let fields =
        |name: &str| -> Vec<bool> { asked.iter().map(|one| one.get(name).is_some()).collect() };
    assert_eq!(fields("max_tokens"), [true, true, true, false, false]);
    let newer = fields("max_completion_tokens");
    assert_eq!(
        newer,
        [false, false, false, true, true],
        "it is learned once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_asks_for_too_long_a_wait_or_has_no_credit_is_not_asked_again() {
    let no_credit = json!({"error": {"code": "insufficient_quota"}});
    let (url, asked) = scripted(vec![
        (StatusCode::TOO_MANY_REQUESTS, "3600", json!({})),
        (StatusCode::TOO_MANY_REQUESTS, "0", no_credit),
        (StatusCode::UNAUTHORIZED, "0", json!({})),
    ])
    .await;
    let stage = Stage::start(snapshot(&assistant(&url))).await;
    let (_stop, _running) = stage.run(FlowsJob::new(stage.platform.clone(), egress()), "one");
    for number in 1..=3 {
        let id = format!("m{number}");
        stage.publish("US.1", &id, text(&id, "hours?")).await;
        let sent = sent(&stage, number).await;
        assert_eq!(body(&sent[number - 1]), "Sorry.");
    }
    assert_eq!(asked.lock().unwrap().len(), 3);
}
