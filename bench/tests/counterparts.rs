//! Holds the third-party programs to what our own tests rely on: if one of these fails, mend the
//! counterpart before looking at Ackline.
#![cfg(test)]

use ackline_bench::processes::{PywaBot, Verification, aimock, chatwoot, pywa_bot, verify_event};
use ackline_shared::secret::Secret;
use ackline_shared::signature::SigningKey;
use ackline_shared::standard_webhooks;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const WITHIN: Duration = Duration::from_secs(20);

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().timeout(WITHIN).build().unwrap()
}

/// A Graph API that accepts every message and passes on what it was asked to send.
async fn graph() -> (String, mpsc::Receiver<Value>) {
    let (sent, received) = mpsc::channel(16);
    let answer = json!({"messaging_product": "whatsapp", "contacts": [], "messages": [{"id": "wamid.reply"}]});
    let accept = async move |Json(message): Json<Value>| {
        sent.send(message).await.unwrap();
        Json(answer.clone())
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v26.0", listener.local_addr().unwrap());
    let app = Router::new().route("/v26.0/{number}/messages", post(accept));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, received)
}

/// A text message in the shape of 2026, from somebody without a phone number, with Meta's escapes.
fn text_delivery(number: &str) -> String {
    json!({"object": "whatsapp_business_account", "entry": [{"id": "419561257915477", "changes": [{"field": "messages",
        "value": {"messaging_product": "whatsapp",
            "metadata": {"display_phone_number": "15550783881", "phone_number_id": number},
            "contacts": [{"profile": {"name": "Sheena"}, "user_id": "US.13491208655302741918"}],
            "messages": [{"from_user_id": "US.13491208655302741918", "id": "wamid.in", "timestamp": "1795000000",
                "type": "text", "text": {"body": "a/b"}}]}}]}]})
    .to_string()
    .replace('/', "\\/")
}

#[tokio::test]
async fn a_pywa_bot_answers_a_signed_text_and_refuses_a_forged_one() {
    let (graph_url, mut sent) = graph().await;
    let app_secret = Secret::new("app-secret".to_owned());
    let bot = PywaBot {
        graph_url,
        phone_number_id: "106540352242922".to_owned(),
        app_secret: app_secret.clone(),
        token: Secret::new("token".to_owned()),
    };
    let running = pywa_bot(&bot).unwrap();
    let body = text_delivery(&bot.phone_number_id);
    let deliver = async |signature: String| {
        let request = client()
            .post(running.url())
            .header("X-Hub-Signature-256", signature);
        request
            .header("content-type", "application/json")
            .body(body.clone())
            .send()
            .await
            .unwrap()
            .status()
    };

    let forged = SigningKey::new(&Secret::new("another".to_owned())).sign(body.as_bytes());
    assert_eq!(deliver(forged).await, 403);
    let signed = SigningKey::new(&app_secret).sign(body.as_bytes());
    assert_eq!(deliver(signed).await, 200, "{}", running.log());

    let reply = tokio::time::timeout(WITHIN, sent.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(reply["recipient"], "US.13491208655302741918");
    assert_eq!(reply["text"]["body"], "You said: a/b");
    assert!(
        sent.try_recv().is_err(),
        "the forged delivery was answered too"
    );
}

#[tokio::test]
async fn chatwoots_document_accepts_a_message_and_refuses_what_it_does_not_allow() {
    let chatwoot = chatwoot().unwrap();
    let messages = format!(
        "{}/api/v1/accounts/1/conversations/1/messages",
        chatwoot.url()
    );
    let ask = |body: Value| client().post(&messages).json(&body).send();
    let ask_with_token = |body: Value| {
        client()
            .post(&messages)
            .header("api_access_token", "t")
            .json(&body)
            .send()
    };

    let message = json!({"content": "hi", "message_type": "incoming", "source_id": "wamid.in"});
    assert_eq!(ask_with_token(message.clone()).await.unwrap().status(), 200);
    assert_eq!(ask(message).await.unwrap().status(), 401);
    assert_eq!(
        ask_with_token(json!({"message_type": "incoming"}))
            .await
            .unwrap()
            .status(),
        422
    );
}

#[tokio::test]
async fn the_scripted_model_answers_fails_and_keeps_a_journal() {
    let model = aimock().unwrap();
    let ask = async |text: &str| {
        let body = json!({"model": "any", "messages": [{"role": "user", "content": text}]});
        let url = format!("{}/v1/chat/completions", model.url());
        client().post(url).json(&body).send().await.unwrap()
    };

    let answer: Value = ask("What are your opening hours?")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        "We are open from 9 to 18 on weekdays."
    );
    assert_eq!(ask("slow down").await.status(), 429);
    assert_eq!(ask("break").await.status(), 500);
    assert_eq!(ask("no line of the script").await.status(), 503);

    let journal = client()
        .get(format!("{}/__aimock/journal", model.url()))
        .send()
        .await
        .unwrap();
    let journal: Vec<Value> = journal.json().await.unwrap();
    assert_eq!(journal.len(), 4);
    assert_eq!(
        journal[0]["body"]["messages"][0]["content"],
        "What are your opening hours?"
    );
}

#[tokio::test]
async fn the_reference_library_accepts_our_event_and_refuses_an_altered_one() {
    let secret = standard_webhooks::secret_from_bytes(&[7; 32]);
    let key = standard_webhooks::key(&secret).unwrap();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let body = r#"{"type":"message.received"}"#;
    let signature = standard_webhooks::sign(&[key], "evt_1", now, body.as_bytes());
    let headers = BTreeMap::from([
        ("webhook-id".to_owned(), "evt_1".to_owned()),
        ("webhook-timestamp".to_owned(), now.to_string()),
        ("webhook-signature".to_owned(), signature),
    ]);

    let good = verify_event(&secret, &headers, body).await.unwrap();
    assert_eq!(
        good,
        Verification::Accepted(json!({"type": "message.received"}))
    );
    let altered = verify_event(&secret, &headers, r#"{"type":"message.sent"}"#)
        .await
        .unwrap();
    assert!(matches!(altered, Verification::Refused(_)), "{altered:?}");
}
