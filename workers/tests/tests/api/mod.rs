//! The API as a service, without sockets, against a real nats-server and a real database file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod bad_input;
mod config;
mod content;
mod dead;
mod declared;
mod ids;
mod owner;
mod seen;
mod stage;
mod tuning;

use ackline_shared::subjects::{OUTBOUND, UPDATES};
use axum::http::StatusCode;
use serde_json::{Value, json};
use stage::{ACME, GLOBEX, READER, SENDER, Stage, crm_link, sealed};
use std::path::Path;
use std::time::Duration;

fn text(body: &str) -> Value {
    json!({"to": {"user_id": "US.1"}, "content": {"type": "text", "body": body}})
}

fn flow() -> Value {
    json!({"definition": {"format": 1, "name": "Hello", "entry": [{"on": "any"}], "start": "a",
        "nodes": {"a": {"kind": "message.text", "body": "hi", "exits": {"next": "e"}}, "e": {"kind": "end"}},
        "settings": {}}})
}

#[tokio::test]
async fn only_a_known_key_gets_in() {
    let stage = Stage::start().await;
    for key in [
        None,
        Some("wrong-wrong-wrong-wrong-wrong"),
        Some(""),
        Some("too-short"),
    ] {
        let answer = stage.call("GET", "/v1/conversations", key, None).await;
        answer.is_problem(StatusCode::UNAUTHORIZED, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    assert_eq!(
        stage.get("/v1/conversations", ACME).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say_and_nothing_else() {
    let stage = Stage::start().await;
    stage
        .post("/v1/messages", READER, &text("hi"))
        .await
        .is_problem(StatusCode::FORBIDDEN, "forbidden");
    stage
        .put("/v1/flows/f", SENDER, &flow())
        .await
        .is_problem(StatusCode::FORBIDDEN, "forbidden");
    for path in [
        "/v1/conversations",
        "/v1/messages/x",
        "/v1/bots",
        "/v1/flows",
        "/v1/dead-letters",
        "/v1/bots/b",
    ] {
        stage
            .get(path, SENDER)
            .await
            .is_problem(StatusCode::FORBIDDEN, "forbidden");
    }
    assert_eq!(
        stage.post("/v1/messages", SENDER, &text("hi")).await.status,
        StatusCode::ACCEPTED
    );
}

#[tokio::test]
async fn an_accepted_message_is_in_the_log_and_then_in_the_read_model() {
    let stage = Stage::start().await;
    let answer = stage.post("/v1/messages", ACME, &text("hello")).await;
    assert_eq!(
        (answer.status, &answer.json["status"]),
        (StatusCode::ACCEPTED, &json!("queued"))
    );
    let location = answer.header("location").unwrap().to_owned();
    let commands = stage.stored(OUTBOUND).await;
    assert_eq!(
        (commands.len(), &commands[0]["id"]),
        (1, &answer.json["id"])
    );
    assert_eq!(
        (&commands[0]["phone_number_id"], &commands[0]["tenant"]),
        (&json!("1001"), &json!("acme"))
    );

    stage
        .get(&location, ACME)
        .await
        .is_problem(StatusCode::NOT_FOUND, "not-found");
    stage.journal_catches_up().await;
    let message = stage.get(&location, ACME).await.json;
    assert_eq!(
        (&message["status"], &message["text"]),
        (&json!("queued"), &json!("hello"))
    );
    assert_eq!(
        message["content"],
        json!({"type": "text", "body": "hello", "preview_url": false})
    );
    let conversations = stage.get("/v1/conversations", ACME).await.json;
    assert_eq!(conversations["items"][0]["user_id"], "US.1");
    assert_eq!(conversations["items"][0]["id"], message["conversation_id"]);
}

#[tokio::test]
async fn what_is_not_acceptable_is_refused_with_every_mistake_and_stores_nothing() {
    let stage = Stage::start().await;
    let body = json!({"phone_number_id": "2001", "to": {}, "reply_to": "a b",
        "content": {"type": "text", "body": "x".repeat(4097)}});
    let answer = stage.post("/v1/messages", ACME, &body).await;
    answer.is_problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
    let places: Vec<_> = answer.json["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["at"].clone())
        .collect();
    assert_eq!(
        places,
        ["/to", "/content/body", "/reply_to", "/phone_number_id"]
    );
    for body in [
        json!({"to": 1}),
        json!([]),
        json!({"to": {"user_id": "a"}, "content": {"type": "poem"}}),
    ] {
        stage
            .post("/v1/messages", ACME, &body)
            .await
            .is_problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
    }
    assert_eq!(
        (
            stage.stored(OUTBOUND).await.len(),
            stage.stored(UPDATES).await.len()
        ),
        (0, 0)
    );
}

#[tokio::test]
async fn a_repeat_with_the_same_idempotency_key_is_the_same_message_even_when_jetstream_forgot_it()
{
    let stage = Stage::start().await;
    let send = async |key: &str, body: &str| {
        stage
            .send(
                "POST",
                "/v1/messages",
                Some(ACME),
                &[("idempotency-key", key)],
                Some(text(body)),
            )
            .await
    };
    let first = send("order-1", "hi").await.json;
    assert_eq!(send("order-1", "hi").await.json, first);
    assert_ne!(send("order-2", "hi").await.json, first);
    assert_eq!(stage.stored(OUTBOUND).await.len(), 2);
    stage.journal_catches_up().await;
    stage.purge(OUTBOUND).await;
    assert_eq!(send("order-1", "hi").await.json, first);
    assert_eq!(stage.stored(OUTBOUND).await.len(), 0);
    let conflict = |answer: &stage::Answer| {
        answer.is_problem(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-conflict");
    };
    conflict(&send("order-1", "other").await);
    let other_person = async |key: &str| {
        let mut body = text("hi");
        body["to"] = json!({"phone": "+4915199999"});
        stage
            .send(
                "POST",
                "/v1/messages",
                Some(ACME),
                &[("idempotency-key", key)],
                Some(body),
            )
            .await
    };
    conflict(&other_person("order-1").await);
    // Before the read model has it, the log alone tells.
    let early = send("order-3", "hi").await.json;
    conflict(&send("order-3", "other").await);
    conflict(&other_person("order-3").await);
    assert_eq!(send("order-3", "hi").await.json, early);
    stage.journal_catches_up().await;
    assert_eq!(
        stage
            .get(
                &format!("/v1/messages/{}", early["id"].as_str().unwrap()),
                ACME
            )
            .await
            .json["text"],
        "hi"
    );
    send("", "hi")
        .await
        .is_problem(StatusCode::BAD_REQUEST, "malformed");
    let other_key = [("idempotency-key", "order-1")];
    let other = stage
        .send(
            "POST",
            "/v1/messages",
            Some(SENDER),
            &other_key,
            Some(text("hi")),
        )
        .await;
    assert_ne!(other.json["id"], first["id"]);
}

#[tokio::test]
async fn while_the_first_request_with_an_idempotency_key_runs_another_is_told_to_come_back() {
    let stage =
        Stage::start_with(|settings| settings.request_timeout = Duration::from_secs(1)).await;
    let send = async |body: &str| {
        let headers = [("idempotency-key", "order-1")];
        stage
            .send(
                "POST",
                "/v1/messages",
                Some(ACME),
                &headers,
                Some(text(body)),
            )
            .await
    };
    stage.nats_stands_still();
    let both = tokio::join!(send("hi"), send("other"));
    let mut both: [_; 2] = both.into();
    both.sort_by_key(|answer| answer.status);
    let [refused, first] = &both;
    refused.is_problem(StatusCode::CONFLICT, "idempotency-running");
    assert_eq!(refused.header("retry-after"), Some("2"));
    first.is_problem(StatusCode::SERVICE_UNAVAILABLE, "timed-out");
    send("hi")
        .await
        .is_problem(StatusCode::SERVICE_UNAVAILABLE, "timed-out");
}

#[tokio::test]
async fn what_the_pool_would_refuse_is_refused_with_its_place() {
    let stage = Stage::start().await;
    let yes = json!({"id": "1", "title": "Yes"});
    let buttons = |more: Value| {
        let mut content = json!({"type": "buttons", "body": "x", "buttons": [yes.clone()]});
        content
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        content
    };
    let person = json!({"phone": "+491701234567"});
    for (to, content, at) in [
        (&person, buttons(json!({"footer": ""})), "/content/footer"),
        (&person, buttons(json!({"header": ""})), "/content/header"),
        (
            &person,
            buttons(json!({"buttons": [yes.clone(), {"id": "2", "title": "Yes"}]})),
            "/content/buttons/1/title",
        ),
        (
            &person,
            json!({"type": "image", "link": "https://a.example/x.png", "caption": ""}),
            "/content/caption",
        ),
        (
            &json!({"phone": "0170123"}),
            json!({"type": "text", "body": "x"}),
            "/to/phone",
        ),
        (
            &json!({"phone": "+1234567890123456"}),
            json!({"type": "text", "body": "x"}),
            "/to/phone",
        ),
        (&person, json!({"type": "text", "body": "  "}), ""),
    ] {
        let answer = stage
            .post("/v1/messages", ACME, &json!({"to": to, "content": content}))
            .await;
        answer.is_problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
        assert!(
            answer.json["errors"][0]["at"]
                .as_str()
                .unwrap()
                .starts_with(at),
            "{at}: {answer:?}"
        );
    }
    assert!(stage.stored(OUTBOUND).await.is_empty());
}

#[tokio::test]
async fn a_tenant_sees_nothing_of_another() {
    let stage = Stage::start().await;
    let id = stage.post("/v1/messages", ACME, &text("secret")).await.json["id"].clone();
    let id = id.as_str().unwrap();
    assert_eq!(
        stage.put("/v1/flows/f", ACME, &flow()).await.status,
        StatusCode::CREATED
    );
    stage.dead_letter("acme", "replies", 1).await;
    stage.journal_catches_up().await;
    let conversation = stage.get("/v1/conversations", ACME).await.json["items"][0]["id"].clone();
    let conversation = conversation.as_str().unwrap();
    let paths = [
        format!("/v1/messages/{id}"),
        format!("/v1/conversations/{conversation}/messages"),
        "/v1/flows/f".to_owned(),
    ];
    for path in &paths {
        assert_eq!(stage.get(path, ACME).await.status, StatusCode::OK, "{path}");
        stage
            .get(path, GLOBEX)
            .await
            .is_problem(StatusCode::NOT_FOUND, "not-found");
    }
    for path in ["/v1/conversations", "/v1/dead-letters"] {
        assert_eq!(
            stage.get(path, ACME).await.json["items"]
                .as_array()
                .unwrap()
                .len(),
            1,
            "{path}"
        );
        assert_eq!(
            stage.get(path, GLOBEX).await.json,
            json!({"items": []}),
            "{path}"
        );
    }
    let bot = json!({"flows": ["f"], "phone_numbers": ["1001"]});
    let answer = stage.put("/v1/bots/b", GLOBEX, &bot).await;
    answer.is_problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
    assert_eq!(answer.json["errors"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn pages_lead_through_everything_once() {
    let stage = Stage::start().await;
    for at in 0..5 {
        let body = json!({"to": {"user_id": format!("US.{at}")}, "content": {"type": "text", "body": "x"}});
        assert_eq!(
            stage.post("/v1/messages", ACME, &body).await.status,
            StatusCode::ACCEPTED
        );
        stage
            .dead_letter("acme", if at % 2 == 0 { "crm" } else { "relay" }, at)
            .await;
    }
    stage.journal_catches_up().await;
    for (list, identity, count) in [
        ("conversations?", "id", 5),
        ("dead-letters?", "sequence", 5),
        ("dead-letters?pool=crm&", "sequence", 3),
    ] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = stage
                .get(&format!("/v1/{list}limit=2{cursor}"), ACME)
                .await
                .json;
            seen.extend(
                page["items"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|item| item[identity].to_string()),
            );
            let Some(next) = page["next_cursor"].as_str() else {
                break;
            };
            cursor = format!("&cursor={next}");
        }
        let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
        assert_eq!((seen.len(), distinct.len()), (count, count), "{list}");
    }
    for bad in ["limit=0", "limit=201", "limit=x", "cursor=!", "colour=red"] {
        let answer = stage.get(&format!("/v1/conversations?{bad}"), ACME).await;
        answer.is_problem(StatusCode::BAD_REQUEST, "malformed");
    }
    stage
        .get("/v1/dead-letters?pool=swimming", ACME)
        .await
        .is_problem(StatusCode::BAD_REQUEST, "malformed");
}

#[tokio::test]
async fn bots_and_flows_change_only_as_their_author_last_saw_them() {
    let stage = Stage::start().await;
    let put = async |path: &str, headers: &[(&str, &str)], body: Value| {
        stage
            .send("PUT", path, Some(ACME), headers, Some(body))
            .await
    };
    let made = put("/v1/flows/f", &[("if-none-match", "*")], flow()).await;
    assert_eq!(made.status, StatusCode::CREATED);
    put("/v1/flows/f", &[("if-none-match", "*")], flow())
        .await
        .is_problem(StatusCode::PRECONDITION_FAILED, "precondition-failed");
    let bot = json!({"name": "Front", "flows": ["f"], "phone_numbers": ["1001"]});
    assert_eq!(
        put("/v1/bots/b", &[], bot.clone()).await.status,
        StatusCode::CREATED
    );
    let read = stage.get("/v1/bots/b", ACME).await;
    let tag = read.header("etag").unwrap().to_owned();
    assert_eq!(
        (&read.json["name"], &read.json["enabled"]),
        (&json!("Front"), &json!(true))
    );
    let changed = put("/v1/bots/b", &[("if-match", &tag)], bot.clone()).await;
    assert_eq!(changed.status, StatusCode::OK);
    assert_ne!(changed.header("etag"), Some(tag.as_str()));
    put("/v1/bots/b", &[("if-match", &tag)], bot.clone())
        .await
        .is_problem(StatusCode::PRECONDITION_FAILED, "precondition-failed");
    put("/v1/bots/new", &[("if-match", "*")], bot)
        .await
        .is_problem(StatusCode::PRECONDITION_FAILED, "precondition-failed");

    stage.configuration_is("bots", "b").await;
    assert_eq!(
        stage.get("/v1/bots", ACME).await.json["items"][0]["id"],
        "b"
    );
    assert_eq!(
        stage.get("/v1/flows", ACME).await.json["items"],
        json!([{"id": "f", "name": "Hello"}])
    );
}

#[tokio::test]
async fn what_was_read_is_not_read_again_and_can_be_put_back() {
    let stage = Stage::start().await;
    let put =
        async |path: &str, body: Value| stage.send("PUT", path, Some(ACME), &[], Some(body)).await;
    put("/v1/flows/f", flow()).await;
    put("/v1/bots/b", json!({"name": "Front", "flows": ["f"]})).await;
    for path in ["/v1/flows/f", "/v1/bots/b", "/v1/tenants/acme"] {
        let read = stage.get(path, ACME).await;
        let tag = read.header("etag").unwrap().to_owned();
        let known = [("if-none-match", tag.as_str())];
        let again = stage.send("GET", path, Some(ACME), &known, None).await;
        assert_eq!(again.status, StatusCode::NOT_MODIFIED, "{path}");
        assert_eq!(again.header("etag"), Some(tag.as_str()));
        let other = [("if-none-match", "\"0\"")];
        let again = stage.send("GET", path, Some(ACME), &other, None).await;
        assert_eq!(
            (again.status, again.json),
            (StatusCode::OK, read.json),
            "{path}"
        );
    }
    for path in ["/v1/flows/f", "/v1/bots/b"] {
        let read = stage.get(path, ACME).await.json;
        let back = put(path, read.clone()).await;
        assert_eq!((back.status, &back.json), (StatusCode::OK, &read), "{path}");
        let mut other = read;
        other["id"] = json!("another");
        put(path, other)
            .await
            .is_problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
    }
}

#[tokio::test]
async fn a_parameter_that_cannot_be_read_is_told_in_words() {
    let stage = Stage::start().await;
    for (path, key) in [
        ("/v1/conversations?limit=abc", ACME),
        ("/v1/relays?limit=abc", ACME),
        ("/v1/dead-letters?limit=abc", ACME),
        ("/v1/replays?limit=abc", ACME),
    ] {
        let answer = stage.get(path, key).await;
        answer.is_problem(StatusCode::BAD_REQUEST, "malformed");
        assert_eq!(
            answer.json["detail"], "limit: `abc` is not a whole number",
            "{path}"
        );
    }
    let answer = stage.get("/v1/dead-letters/abc", ACME).await;
    assert_eq!(
        answer.json["detail"],
        "`abc` in the path is not a whole number"
    );
}

#[tokio::test]
async fn a_flow_the_engine_would_not_run_is_refused_with_all_of_its_problems() {
    let stage = Stage::start().await;
    let mut broken = flow();
    broken["definition"]["nodes"]["a"]["exits"]["next"] = json!("nowhere");
    broken["definition"]["nodes"]["e"]["kind"] = json!("unheard of");
    let answer = stage.put("/v1/flows/f", ACME, &broken).await;
    answer.is_problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
    let errors = answer.json["errors"].as_array().unwrap();
    assert!(
        errors.len() >= 2 && errors.iter().all(|one| one["code"].is_string()),
        "{errors:?}"
    );
    stage
        .get("/v1/flows/f", ACME)
        .await
        .is_problem(StatusCode::NOT_FOUND, "not-found");
}

#[tokio::test]
async fn what_cannot_be_read_has_its_own_problem() {
    let stage = Stage::start().await;
    stage
        .get("/v1/nothing", ACME)
        .await
        .is_problem(StatusCode::NOT_FOUND, "not-found");
    stage
        .call("PATCH", "/v1/bots/b", Some(ACME), None)
        .await
        .is_problem(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed");
    let raw = async |media: &str, body: String| {
        let headers = [("content-type", media)];
        stage
            .raw("POST", "/v1/messages", Some(ACME), &headers, body)
            .await
    };
    raw("application/json", "{".into())
        .await
        .is_problem(StatusCode::BAD_REQUEST, "malformed");
    let deep = "[".repeat(4000);
    raw("application/json", format!("{{\"content\":{{\"x\":{deep}"))
        .await
        .is_problem(StatusCode::BAD_REQUEST, "malformed");
    raw("text/plain", text("x").to_string())
        .await
        .is_problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type");
    raw("application/json", "x".repeat(70_000))
        .await
        .is_problem(StatusCode::PAYLOAD_TOO_LARGE, "too-large");
    stage
        .get("/v1/bots/a.b", ACME)
        .await
        .is_problem(StatusCode::BAD_REQUEST, "malformed");
    assert_eq!(
        stage.get("/v1/messages/%2F..%00", ACME).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_key_that_asks_too_often_is_told_when_to_come_back() {
    let stage = Stage::start_with(|settings| {
        settings.requests_burst = 2;
        settings.requests_per_second = 1;
    })
    .await;
    let first = stage.get("/v1/bots", ACME).await;
    assert_eq!(
        (
            first.header("x-ratelimit-limit"),
            first.header("x-ratelimit-remaining")
        ),
        (Some("2"), Some("1"))
    );
    stage.get("/v1/bots", ACME).await;
    let refused = stage.get("/v1/bots", ACME).await;
    refused.is_problem(StatusCode::TOO_MANY_REQUESTS, "rate-limited");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(stage.get("/v1/bots", GLOBEX).await.status, StatusCode::OK);
}

#[tokio::test]
async fn every_answer_says_what_is_left_and_wrong_keys_are_held_back() {
    let stage = Stage::start_with(|settings| {
        settings.requests_burst = 8;
        settings.requests_per_second = 1;
    })
    .await;
    let limits = |answer: &stage::Answer| {
        ["limit", "remaining", "reset"].map(|name| {
            let value = answer.header(&format!("x-ratelimit-{name}"));
            value
                .unwrap_or_else(|| panic!("x-ratelimit-{name} of {answer:?}"))
                .parse::<u64>()
                .unwrap()
        })
    };
    let known = [
        stage.get("/v1/nothing", ACME).await,
        stage
            .send("DELETE", "/v1/bots", Some(ACME), &[], None)
            .await,
        stage
            .raw(
                "POST",
                "/v1/messages",
                Some(ACME),
                &[("content-type", "text/plain")],
                "x".into(),
            )
            .await,
    ];
    assert_eq!(known.each_ref().map(|answer| limits(answer)[1]), [7, 6, 5]);
    let unknown = [
        stage.send("GET", "/", None, &[], None).await,
        stage.send("GET", "/openapi.json", None, &[], None).await,
        stage
            .send("POST", "/hooks/chatwoot/acme/none/token", None, &[], None)
            .await,
        stage
            .get("/v1/bots", "a key that nobody has, of good length")
            .await,
    ];
    assert_eq!(
        unknown.each_ref().map(|answer| limits(answer)[1]),
        [7, 6, 5, 4]
    );
    for _ in 0..4 {
        stage
            .get("/v1/bots", "a key that nobody has, of good length")
            .await;
    }
    let refused = stage
        .get("/v1/bots", "a key that nobody has, of good length")
        .await;
    refused.is_problem(StatusCode::TOO_MANY_REQUESTS, "rate-limited");
    assert_eq!(limits(&refused)[1], 0);
    assert_eq!(
        stage.get("/v1/bots", ACME).await.status,
        StatusCode::OK,
        "who has a key is not held back"
    );
}

#[tokio::test]
async fn every_answer_carries_an_id_and_a_usable_one_is_kept() {
    let stage = Stage::start().await;
    let kept = stage
        .send("GET", "/", None, &[("x-request-id", "trace-7")], None)
        .await;
    assert_eq!(kept.header("x-request-id"), Some("trace-7"));
    let made = stage
        .send(
            "GET",
            "/nowhere",
            None,
            &[("x-request-id", "two words")],
            None,
        )
        .await;
    assert_eq!(made.header("x-request-id").unwrap().len(), 24);
    assert_eq!(kept.json["links"]["document"], "/openapi.json");
}

#[tokio::test]
async fn without_nats_sending_is_refused_at_once_and_reading_goes_on() {
    let mut stage = Stage::start().await;
    stage.post("/v1/messages", ACME, &text("before")).await;
    stage.journal_catches_up().await;
    stage.nats_goes_away().await;
    for answer in [
        stage.post("/v1/messages", ACME, &text("hi")).await,
        stage.put("/v1/flows/f", ACME, &flow()).await,
        stage.get("/v1/dead-letters", ACME).await,
    ] {
        answer.is_problem(StatusCode::SERVICE_UNAVAILABLE, "nats-away");
        assert_eq!(answer.header("retry-after"), Some("2"));
    }
    assert_eq!(
        stage.get("/v1/conversations", ACME).await.json["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let ready = stage.private("/readyz").await;
    assert_eq!(
        (ready.status, &ready.json["nats"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("away"))
    );
}

#[tokio::test]
async fn without_the_read_model_queries_say_so_and_sending_goes_on() {
    let stage = Stage::start().await;
    stage.journal.close().await;
    for path in [
        "/v1/conversations",
        "/v1/messages/m",
        "/v1/conversations/c/messages",
    ] {
        stage
            .get(path, ACME)
            .await
            .is_problem(StatusCode::SERVICE_UNAVAILABLE, "journal-away");
    }
    let headers = [("idempotency-key", "k")];
    let sent = stage
        .send(
            "POST",
            "/v1/messages",
            Some(ACME),
            &headers,
            Some(text("hi")),
        )
        .await;
    assert_eq!(sent.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_ended() {
    let stage =
        Stage::start_with(|settings| settings.request_timeout = Duration::from_millis(200)).await;
    stage.nats_stands_still();
    let answer = stage.post("/v1/messages", ACME, &text("hi")).await;
    answer.is_problem(StatusCode::SERVICE_UNAVAILABLE, "timed-out");
}

fn agent_message(id: u64, source_id: &str) -> Value {
    json!({"event": "message_created", "id": id, "content": "**On** its way", "message_type": "outgoing",
        "private": false, "source_id": null, "account": {"id": 3}, "inbox": {"id": 7},
        "conversation": {"contact_inbox": {"source_id": source_id}}})
}

#[tokio::test]
async fn what_an_agent_writes_in_the_crm_is_stored_to_be_sent_once() {
    let stage = Stage::start().await;
    stage
        .declare("crm.acme.desk", &crm_link("desk", None))
        .await;
    stage.configuration_is("crm_links", "desk").await;
    let hook = "/hooks/chatwoot/acme/desk/hook-token";
    for _twice in 0..2 {
        let answer = stage
            .call("POST", hook, None, Some(agent_message(42, "15550001")))
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }
    let commands = stage.stored(OUTBOUND).await;
    assert_eq!(
        (commands.len(), &commands[0]["content"]["body"]),
        (1, &json!("*On* its way"))
    );
    assert_eq!(
        commands[0]["origin"],
        json!({"by": "agent", "link": "desk", "message": "42"})
    );
    assert_eq!(stage.stored(UPDATES).await.len(), 1);
    let echo = json!({"event": "message_updated", "id": 42});
    assert_eq!(
        stage.call("POST", hook, None, Some(echo)).await.status,
        StatusCode::OK
    );
    let mut file = agent_message(43, "15550001");
    file["attachments"] = json!([{"id": 1}]);
    let mut long = agent_message(44, "15550001");
    long["content"] = json!("x".repeat(4097));
    let nobody = agent_message(45, "somebody");
    for refused in [file, long, nobody] {
        stage
            .call("POST", hook, None, Some(refused))
            .await
            .is_problem(StatusCode::UNPROCESSABLE_ENTITY, "unsendable");
    }
    assert_eq!(stage.stored(OUTBOUND).await.len(), 1);
}

#[tokio::test]
async fn a_webhook_at_a_wrong_address_or_without_its_signature_stores_nothing() {
    let stage = Stage::start().await;
    stage
        .declare("crm.acme.desk", &crm_link("desk", None))
        .await;
    stage
        .declare("crm.acme.signed", &crm_link("signed", Some("whook-secret")))
        .await;
    stage.configuration_is("crm_links", "signed").await;
    for path in [
        "acme/desk/wrong",
        "globex/desk/hook-token",
        "acme/other/hook-token",
        "a.b/desk/hook-token",
    ] {
        let answer = stage
            .call(
                "POST",
                &format!("/hooks/chatwoot/{path}"),
                None,
                Some(agent_message(1, "15550001")),
            )
            .await;
        answer.is_problem(StatusCode::NOT_FOUND, "not-found");
    }
    let signed = "/hooks/chatwoot/acme/signed/hook-token";
    let answer = stage
        .call("POST", signed, None, Some(agent_message(1, "15550001")))
        .await;
    answer.is_problem(StatusCode::UNAUTHORIZED, "forged");
    let large = stage
        .raw("POST", signed, None, &[], "x".repeat(70_000))
        .await;
    large.is_problem(StatusCode::PAYLOAD_TOO_LARGE, "too-large");
    assert_eq!(stage.stored(OUTBOUND).await.len(), 0);
}

#[tokio::test]
async fn a_served_request_is_finished_after_the_signal() {
    let stage = Stage::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/openapi.json", listener.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(ackline_api::serve(listener, stage.service(), async move {
        drop(stopped.await)
    }));
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap();
    let document: Value = client.get(url).send().await.unwrap().json().await.unwrap();
    assert!(document["paths"]["/v1/messages"]["post"].is_object());
    drop(client);
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(10), served)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[test]
fn the_committed_document_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/openapi.json");
    let document = ackline_api::document().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &document).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == document,
        "run `UPDATE_OPENAPI=1 cargo test -p ackline-workers --test api` and commit the result"
    );
}

#[tokio::test]
async fn a_key_sealed_under_the_tenants_data_key_opens() {
    let stage = Stage::start().await;
    let key = "sealed-key-sealed-key-sealed";
    stage
        .declare("key.acme.sealed", &sealed(&stage, "acme", key))
        .await;
    stage.configuration_is("api_keys", "sealed").await;
    assert_eq!(stage.get("/v1/bots", key).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_key_reads_and_sends_unless_it_is_declared_to_do_more() {
    let stage = Stage::start().await;
    let key = "plain-key-plain-key-plain-key";
    stage
        .declare(
            "key.acme.plain",
            &json!({"id": "plain", "tenant": "acme", "key": key}),
        )
        .await;
    stage.configuration_is("api_keys", "plain").await;
    assert_eq!(stage.get("/v1/flows", key).await.status, StatusCode::OK);
    stage
        .put("/v1/flows/f", key, &flow())
        .await
        .is_problem(StatusCode::FORBIDDEN, "forbidden");
    stage
        .get("/v1/tuning", key)
        .await
        .is_problem(StatusCode::FORBIDDEN, "forbidden");
}
