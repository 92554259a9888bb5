//! Whose turn it is in a conversation, by the API and by what agents do in the CRM.

use super::stage::{ACME, GLOBEX, READER, SENDER, Stage, crm_link};
use ackline_shared::subjects::OUTBOUND;
use axum::http::StatusCode;
use serde_json::{Value, json};

const HOOK: &str = "/hooks/chatwoot/acme/desk/hook-token";
const PHONE: &str = "15550001";

/// A stage with a CRM link and a conversation with somebody, and the conversation's path.
async fn stage() -> (Stage, String) {
    let stage = Stage::start().await;
    stage
        .declare("crm.acme.desk", &crm_link("desk", None))
        .await;
    stage.configuration_is("crm_links", "desk").await;
    let hello = json!({"to": {"phone": PHONE}, "content": {"type": "text", "body": "hello"}});
    assert_eq!(
        stage.post("/v1/messages", ACME, &hello).await.status,
        StatusCode::ACCEPTED
    );
    stage.journal_catches_up().await;
    let conversations = stage.get("/v1/conversations", ACME).await.json;
    let path = format!(
        "/v1/conversations/{}",
        conversations["items"][0]["id"].as_str().unwrap()
    );
    (stage, path)
}

fn agent_message(id: u64, sender: &Value) -> Value {
    json!({"event": "message_created", "id": id, "content": "On its way", "message_type": "outgoing",
        "private": false, "source_id": null, "account": {"id": 3}, "inbox": {"id": 7}, "sender": sender,
        "conversation": {"contact_inbox": {"source_id": PHONE}}})
}

fn status(word: &str) -> Value {
    json!({"event": "conversation_status_changed", "id": 11, "inbox_id": 7, "status": word,
        "contact_inbox": {"source_id": PHONE}})
}

async fn hooked(stage: &Stage, body: Value) {
    let answer = stage.call("POST", HOOK, None, Some(body)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
}

async fn owner(stage: &Stage, path: &str) -> Value {
    let answer = stage.get(path, ACME).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json["owner"].clone()
}

#[tokio::test]
async fn an_agents_answer_makes_the_conversation_a_persons_until_it_is_resolved() {
    let (stage, path) = stage().await;
    assert_eq!(
        owner(&stage, &path).await,
        json!({"who": "idle", "since": null, "until": null, "why": null})
    );
    // What the CRM says by itself makes nobody rest.
    hooked(&stage, agent_message(1, &json!({"type": "agent_bot"}))).await;
    assert_eq!(owner(&stage, &path).await["who"], "idle");
    hooked(&stage, agent_message(2, &json!({"type": "user"}))).await;
    let person = owner(&stage, &path).await;
    assert_eq!(
        (&person["who"], person["until"].is_string()),
        (&json!("person"), true),
        "{person}"
    );
    assert_eq!(person["why"], "an agent answered in the CRM link desk");
    hooked(&stage, status("open")).await;
    assert_eq!(owner(&stage, &path).await, person);
    hooked(&stage, status("resolved")).await;
    let resolved = owner(&stage, &path).await;
    assert_eq!(
        (&resolved["who"], &resolved["until"]),
        (&json!("idle"), &Value::Null)
    );
    assert_eq!(
        stage.stored(OUTBOUND).await.len(),
        3,
        "both of the CRM's messages went out, and the first"
    );

    hooked(&stage, agent_message(3, &json!({"type": "user"}))).await;
    hooked(&stage, status("pending")).await;
    assert_eq!(owner(&stage, &path).await["who"], "bot");
    let mut elsewhere = status("resolved");
    elsewhere["inbox_id"] = json!(8);
    hooked(&stage, elsewhere).await;
    assert_eq!(
        owner(&stage, &path).await["who"],
        "bot",
        "another inbox is not this one"
    );
}

#[tokio::test]
async fn the_api_sets_whose_turn_it_is_and_sends_whoever_it_is() {
    let (stage, path) = stage().await;
    let set = format!("{path}/owner");
    let answer = stage
        .put(&set, SENDER, &json!({"who": "person", "for": "2h"}))
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(
        (&answer.json["who"], &answer.json["why"]),
        (&json!("person"), &json!("set by the API key sender"))
    );
    assert_eq!(owner(&stage, &path).await, answer.json);
    let hello = json!({"to": {"phone": PHONE}, "content": {"type": "text", "body": "hello"}});
    assert_eq!(
        stage.post("/v1/messages", ACME, &hello).await.status,
        StatusCode::ACCEPTED
    );
    // An answer in the CRM does not cut a longer time short, nor does it give an endless one an end.
    stage.put(&set, ACME, &json!({"who": "person"})).await;
    hooked(&stage, agent_message(1, &json!({"type": "user"}))).await;
    assert_eq!(owner(&stage, &path).await["until"], Value::Null);
    let answer = stage.put(&set, ACME, &json!({"who": "bot"})).await;
    assert_eq!(
        (answer.status, &answer.json["who"]),
        (StatusCode::OK, &json!("bot"))
    );

    for (body, at) in [
        (json!({"who": "bot", "for": "2h"}), "/for"),
        (json!({"who": "person", "for": "soon"}), "/for"),
        (json!({"who": "person", "for": "31d"}), "/for"),
        (json!({"who": "responder"}), "/who"),
        (json!({"who": "idle", "until": "x"}), "/until"),
    ] {
        let answer = stage.put(&set, ACME, &body).await;
        answer.is_problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
        assert_eq!(answer.json["errors"][0]["at"], at, "{body}");
    }
    assert_eq!(owner(&stage, &path).await["who"], "bot");
    let idle = json!({"who": "idle"});
    stage
        .put(&set, READER, &idle)
        .await
        .is_problem(StatusCode::FORBIDDEN, "forbidden");
    stage
        .get(&path, SENDER)
        .await
        .is_problem(StatusCode::FORBIDDEN, "forbidden");
    for path in [path.as_str(), "/v1/conversations/c_none"] {
        let key = if path.ends_with("none") { ACME } else { GLOBEX };
        stage
            .get(path, key)
            .await
            .is_problem(StatusCode::NOT_FOUND, "not-found");
        stage
            .put(&format!("{path}/owner"), key, &idle)
            .await
            .is_problem(StatusCode::NOT_FOUND, "not-found");
    }
}

#[tokio::test]
async fn an_answer_is_not_sent_while_nobody_can_say_whose_the_conversation_is() {
    let (mut stage, _path) = stage().await;
    stage.nats_goes_away().await;
    let answer = stage
        .call(
            "POST",
            HOOK,
            None,
            Some(agent_message(9, &json!({"type": "user"}))),
        )
        .await;
    assert_eq!(
        answer.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{}",
        answer.text
    );
}
