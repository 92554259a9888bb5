//! What a tenant declares by the API: how much it may be, and how it goes away.

use crate::api::stage::{ACME, GLOBEX, READER, Stage};
use axum::http::StatusCode;
use serde_json::{Value, json};

fn flow() -> Value {
    json!({"definition": {
        "format": 1, "name": "Hello", "start": "a", "entry": [{"on": "any"}], "ui": {"a": [10, 20]},
        "nodes": {"a": {"kind": "message.text", "body": "Hi", "exits": {"next": "e"}}, "e": {"kind": "end"}},
    }})
}

#[tokio::test]
async fn a_tenant_declares_so_much_and_no_more_however_many_ask_at_once() {
    let stage = Stage::start().await;
    assert_eq!(
        stage.put("/v1/flows/f", ACME, &flow()).await.status,
        StatusCode::CREATED
    );
    let bot = json!({"name": "B", "flows": ["f"]});
    let paths: Vec<String> = (0..12).map(|n| format!("/v1/bots/b{n}")).collect();
    let answers =
        futures_util::future::join_all(paths.iter().map(|path| stage.put(path, ACME, &bot))).await;
    let (made, refused): (Vec<_>, Vec<_>) = answers
        .iter()
        .partition(|answer| answer.status == StatusCode::CREATED);
    assert_eq!(
        (made.len(), refused.len()),
        (5, 7),
        "limits.bots_max is 5 here"
    );
    for answer in refused {
        answer.is_problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
        assert_eq!(
            answer.json["errors"][0]["code"], "limits.bots_max",
            "{}",
            answer.text
        );
    }
    let there = paths
        .iter()
        .zip(&answers)
        .find(|(_, answer)| answer.status == StatusCode::CREATED);
    let changed = stage.put(there.unwrap().0, ACME, &bot).await;
    assert_eq!(changed.status, StatusCode::OK, "a change is no growth");
    assert_eq!(
        stage.put("/v1/flows/f", GLOBEX, &flow()).await.status,
        StatusCode::CREATED,
        "another tenant"
    );
    let usage = async {
        let mut registry = stage.platform.registry.clone();
        loop {
            let usage = stage.get("/v1/usage", READER).await.json["declared"].clone();
            if usage["bots"] == json!({"used": 5, "limit": 5}) || !registry.changed().await {
                return usage;
            }
        }
    };
    let usage = tokio::time::timeout(std::time::Duration::from_secs(20), usage)
        .await
        .unwrap();
    assert_eq!(usage["flows"], json!({"used": 1, "limit": 500}));
    assert!(usage["bytes"]["used"].as_u64().unwrap() > 500, "{usage}");
}

#[tokio::test]
async fn a_flow_comes_back_with_the_drawing_that_memory_does_not_hold() {
    let stage = Stage::start().await;
    stage.put("/v1/flows/f", ACME, &flow()).await;
    assert_eq!(
        stage.get("/v1/flows/f", ACME).await.json["definition"],
        flow()["definition"]
    );
    stage.configuration_is("flows", "f").await;
    let held = stage.platform.snapshot().flows["flow.acme.f"].clone();
    assert!(
        !held.text().contains("ui") && held.text().contains("Hi"),
        "{}",
        held.text()
    );
}

#[tokio::test]
async fn nobody_lists_destinations_by_the_api() {
    let stage = Stage::start().await;
    let document = stage.get("/openapi.json", ACME).await;
    assert!(
        !document.text.contains("egress"),
        "only `ackline apply` writes destinations"
    );
    let tenant = json!({"id": "acme", "name": "A", "egress_allow": ["10.0.0.1"]});
    stage
        .put("/v1/tenants/acme", ACME, &tenant)
        .await
        .is_problem(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed");
    let operations = &document.json["paths"]["/v1/tenants/{id}"];
    assert!(operations["get"].is_object() && operations["delete"].is_object());
    assert!(operations["put"].is_null() && operations["post"].is_null());
}

#[tokio::test]
async fn a_page_of_large_messages_ends_early_and_its_cursor_goes_on() {
    let stage = Stage::start().await;
    for n in 0..100 {
        let body = format!("{n}{}", "é€".repeat(2000));
        let message = json!({"to": {"user_id": "US.1"}, "content": {"type": "text", "body": body}});
        assert_eq!(
            stage.post("/v1/messages", ACME, &message).await.status,
            StatusCode::ACCEPTED
        );
    }
    stage.journal_catches_up().await;
    let conversation = stage.get("/v1/conversations", ACME).await.json["items"][0]["id"].clone();
    let path = format!(
        "/v1/conversations/{}/messages?limit=200",
        conversation.as_str().unwrap()
    );
    let (mut cursor, mut pages, mut seen) = (String::new(), 0, Vec::new());
    loop {
        let page = stage.get(&format!("{path}{cursor}"), ACME).await;
        assert!(page.text.len() < 3 << 19, "{}", page.text.len());
        pages += 1;
        let items = page.json["items"].as_array().unwrap();
        assert!(
            items.iter().all(|item| item["content"]["type"] == "text"),
            "{}",
            items[0]
        );
        seen.extend(
            items
                .iter()
                .map(|item| item["id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page.json["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    let all = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(
        (all, seen.len(), pages > 1),
        (100, 100, true),
        "{pages} pages"
    );
}

#[tokio::test]
async fn bots_and_flows_are_deleted_as_their_author_last_saw_them_and_not_while_they_are_used() {
    let stage = Stage::start().await;
    let delete = async |path: &str, tag: &[(&str, &str)]| {
        stage.send("DELETE", path, Some(ACME), tag, None).await
    };
    let bot = json!({"name": "B", "flows": ["f"]});
    stage.put("/v1/flows/f", ACME, &flow()).await;
    for id in ["one", "two"] {
        stage.put(&format!("/v1/bots/{id}"), ACME, &bot).await;
    }
    let used = delete("/v1/flows/f", &[]).await;
    used.is_problem(StatusCode::CONFLICT, "in-use");
    let detail = used.json["detail"].as_str().unwrap();
    assert!(detail.contains("one") && detail.contains("two"), "{detail}");
    stage
        .call("DELETE", "/v1/bots/one", Some(READER), None)
        .await
        .is_problem(StatusCode::FORBIDDEN, "forbidden");
    stage
        .call("DELETE", "/v1/bots/one", Some(GLOBEX), None)
        .await
        .is_problem(StatusCode::NOT_FOUND, "not-found");

    let tag = stage
        .get("/v1/bots/one", ACME)
        .await
        .header("etag")
        .unwrap()
        .to_owned();
    stage.put("/v1/bots/one", ACME, &bot).await;
    delete("/v1/bots/one", &[("if-match", &tag)])
        .await
        .is_problem(StatusCode::PRECONDITION_FAILED, "precondition-failed");
    let tag = stage
        .get("/v1/bots/one", ACME)
        .await
        .header("etag")
        .unwrap()
        .to_owned();
    assert_eq!(
        delete("/v1/bots/one", &[("if-match", &tag)]).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        delete("/v1/bots/two", &[]).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        delete("/v1/flows/f", &[("if-match", "*")]).await.status,
        StatusCode::NO_CONTENT
    );
    for path in ["/v1/bots/one", "/v1/bots/two", "/v1/flows/f"] {
        delete(path, &[])
            .await
            .is_problem(StatusCode::NOT_FOUND, "not-found");
        stage
            .get(path, ACME)
            .await
            .is_problem(StatusCode::NOT_FOUND, "not-found");
    }
    assert_eq!(
        stage.put("/v1/flows/f", ACME, &flow()).await.status,
        StatusCode::CREATED,
        "and made anew"
    );
}
