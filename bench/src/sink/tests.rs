//! The sink over real HTTP: our signer against the public verifier, faults, orders and the assistant.

use super::*;
use crate::journal::unix_micros;
use ackline_shared::standard_webhooks;
use serde_json::json;
use std::time::Duration;

fn secret(byte: u8) -> Secret<String> {
    standard_webhooks::secret_from_bytes(&[byte; 32])
}

async fn sink() -> Running {
    let secrets = BTreeMap::from([("acme".to_owned(), vec![secret(1), secret(2)])]);
    start(Options {
        secrets,
        ..Options::default()
    })
    .await
    .unwrap()
}

fn http() -> reqwest::Client {
    reqwest::Client::builder()
        .timeout(Duration::from_secs(20))
        .no_proxy()
        .build()
        .unwrap()
}

async fn post(sink: &Running, key: &Secret<String>, id: &str, age_s: u64) -> reqwest::Result<u16> {
    let body = br#"{"type":"message.received","data":{}}"#;
    let timestamp = unix_micros() / 1_000_000 - age_s;
    let signature =
        standard_webhooks::sign(&[standard_webhooks::key(key).unwrap()], id, timestamp, body);
    let request = http()
        .post(format!("{}/webhooks/acme", sink.url()))
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp.to_string())
        .header("webhook-signature", signature)
        .body(body.to_vec());
    Ok(request.send().await?.status().as_u16())
}

async fn webhooks(sink: &Running) -> Vec<(bool, bool, Option<u16>)> {
    let page = sink.sink().read_journal(&JournalQuery::default()).await;
    let row = |entry: &Entry| match entry {
        Entry::Webhook(webhook) => Some((webhook.verified, webhook.duplicate, webhook.status)),
        _ => None,
    };
    page.entries
        .iter()
        .filter_map(|numbered| row(&numbered.entry))
        .collect()
}

#[tokio::test]
async fn a_good_signature_of_any_live_secret_is_taken_and_others_are_refused() {
    let sink = sink().await;
    assert_eq!(post(&sink, &secret(1), "a", 0).await.unwrap(), 200);
    assert_eq!(post(&sink, &secret(2), "b", 0).await.unwrap(), 200);
    assert_eq!(post(&sink, &secret(3), "c", 0).await.unwrap(), 401);
    assert_eq!(
        post(&sink, &secret(1), "d", 3600).await.unwrap(),
        401,
        "an old timestamp is a replay"
    );
    let unsigned = http()
        .post(format!("{}/webhooks/acme", sink.url()))
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(unsigned.status(), 401);
    let unknown = http()
        .post(format!("{}/webhooks/nobody", sink.url()))
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(unknown.status(), 404);
    let verified: Vec<bool> = webhooks(&sink).await.iter().map(|row| row.0).collect();
    assert_eq!(verified, [true, true, false, false, false, false]);
}

#[tokio::test]
async fn an_empty_secret_verifies_nothing() {
    let sink = sink().await;
    let url = format!("{}/_sink/secrets/acme", sink.url());
    let set = http()
        .put(url)
        .json(&json!({"secrets": ["whsec_"]}))
        .send()
        .await
        .unwrap();
    assert_eq!(set.status(), 204);
    assert_eq!(post(&sink, &secret(1), "a", 0).await.unwrap(), 401);
}

#[tokio::test]
async fn a_failed_attempt_is_not_taken_so_its_retry_is_no_duplicate() {
    let sink = sink().await;
    let fault = json!({"path": "/webhooks/acme", "status": 503, "retry_after_s": 2});
    let added = http()
        .post(format!("{}/_sink/faults", sink.url()))
        .json(&fault)
        .send()
        .await
        .unwrap();
    assert_eq!(added.status(), 201);
    for expected in [503, 200, 200] {
        assert_eq!(post(&sink, &secret(1), "same", 0).await.unwrap(), expected);
    }
    let rows = [
        (true, false, Some(503)),
        (true, false, Some(200)),
        (true, true, Some(200)),
    ];
    assert_eq!(webhooks(&sink).await, rows);
}

#[tokio::test]
async fn a_dropped_connection_has_no_answer() {
    let sink = sink().await;
    sink.sink()
        .add_fault(Fault {
            drop: true,
            ..Fault::default()
        })
        .unwrap();
    assert!(post(&sink, &secret(1), "a", 0).await.is_err());
    assert_eq!(webhooks(&sink).await, [(true, false, None)]);
}

#[tokio::test]
async fn orders_and_the_assistant_answer_and_are_recorded() {
    let sink = sink().await;
    let order = http()
        .get(format!("{}/orders/1001", sink.url()))
        .send()
        .await
        .unwrap();
    assert_eq!(order.json::<Value>().await.unwrap()["status"], "shipped");
    assert_eq!(
        http()
            .get(format!("{}/orders/7", sink.url()))
            .send()
            .await
            .unwrap()
            .status(),
        404
    );
    let request =
        json!({"model": "scripted", "messages": [{"role": "user", "content": "refund please"}]});
    let chat = http()
        .post(format!("{}/v1/chat/completions", sink.url()))
        .json(&request)
        .send()
        .await
        .unwrap();
    let chat: Value = chat.json().await.unwrap();
    assert!(
        chat["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .contains("30 days")
    );
    assert!(chat["usage"]["total_tokens"].as_u64().unwrap() > 0);
    let url = format!("{}/_sink/journal?kind=chat&n=1&wait_ms=20000", sink.url());
    let page: Value = http().get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(page["entries"][0]["status"], 200);
    sink.stop().await;
}

fn chatwoot(webhook_url: Option<String>) -> ChatwootOptions {
    ChatwootOptions {
        account_id: 1,
        inbox_id: 7,
        inbox_identifier: "inbox".to_owned(),
        access_token: Secret::new("agent-token".to_owned()),
        webhook_url: webhook_url.map(Secret::new),
        webhook_secret: None,
    }
}

#[tokio::test]
async fn chatwoot_reports_what_is_written_there_and_knows_its_token_and_its_ids() {
    let hook = sink().await;
    let hook_url = format!("{}/relay/hook", hook.url());
    let options = Options {
        chatwoot: Some(chatwoot(Some(hook_url))),
        ..Options::default()
    };
    let sink = start(options).await.unwrap();
    let call = async |path: &str, token: &str, body: Value| {
        let request = http()
            .post(format!("{}/{path}", sink.url()))
            .header("api_access_token", token);
        let response = request.json(&body).send().await.unwrap();
        (
            response.status().as_u16(),
            response.json::<Value>().await.unwrap(),
        )
    };
    let contact = json!({"source_id": "US.1", "identifier": "US.1", "name": "Ada"});
    assert_eq!(
        call("public/api/v1/inboxes/inbox/contacts", "", contact.clone())
            .await
            .0,
        200
    );
    assert_eq!(
        call("public/api/v1/inboxes/other/contacts", "", contact)
            .await
            .0,
        404
    );
    let start = json!({"source_id": "US.1", "inbox_id": "7"});
    assert_eq!(
        call("api/v1/accounts/1/conversations", "stranger", start.clone())
            .await
            .0,
        401
    );
    let (_, conversation) = call("api/v1/accounts/1/conversations", "agent-token", start).await;
    let messages = format!(
        "chatwoot/api/v1/accounts/1/conversations/{}/messages",
        conversation["id"]
    );
    let message = json!({"content": "hi", "message_type": "incoming", "source_id": "wamid.1"});
    assert_eq!(call(&messages, "agent-token", message).await.0, 200);

    assert!(sink.sink().agent_answers("US.2", "hello?").await.is_none());
    let answered = sink
        .sink()
        .agent_answers("US.1", "With you in a minute")
        .await
        .unwrap();
    assert_eq!(
        answered.status,
        Some(404),
        "the hook knows no such bot, and that is what it answered"
    );
    let url = format!("{}/_sink/journal?kind=relay&n=2&wait_ms=20000", hook.url());
    let page: Value = http().get(url).send().await.unwrap().json().await.unwrap();
    let body =
        |entry: &Value| serde_json::from_str::<Value>(entry["body"].as_str().unwrap()).unwrap();
    let mut sources: Vec<Value> = page["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| body(entry)["source_id"].clone())
        .collect();
    sources.sort_by_key(Value::is_null);
    assert_eq!(sources, [json!("wamid.1"), Value::Null]);
}
