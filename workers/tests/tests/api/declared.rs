//! Every kind of declared entity by the API: shown without its secrets, and deleted by whose it is.

use crate::api::stage::{ACME, GLOBEX, READER, SENDER, Stage, crm_link};
use ackline_catalog::part::Part;
use ackline_catalog::samples;
use ackline_shared::ids::TenantId;
use ackline_shared::registry::Snapshot;
use axum::http::StatusCode;
use serde_json::{Value, json};

const ROOT: &str = "root-root-root-root-root-root";
const BRANDED: &str = "brand-brand-brand-brand-brand";

/// A key of acme's that reads and manages.
fn key(id: &str, text: &str, reach: &str) -> Value {
    json!({"id": id, "tenant": "acme", "key": text, "scopes": ["read", "manage"], "reach": reach})
}

async fn stage() -> Stage {
    let stage = Stage::start().await;
    stage
        .declare_and_wait("key.acme.root", &key("root", ROOT, "platform"))
        .await;
    stage
}

fn relay(id: &str, tenant: &str) -> Value {
    json!({"id": id, "tenant": tenant, "url": "https://bot.example", "app_secret": "s3cret"})
}

/// Where a part of acme's stands.
fn path(part: &Part) -> String {
    let id = part.key().rsplit('.').next().unwrap().to_owned();
    let section = part.kind().section.replace('_', "-");
    format!("/v1/{section}/{id}")
}

#[tokio::test]
async fn every_kind_is_shown_without_its_secrets_and_goes_when_nothing_refers_to_it() {
    let stage = stage().await;
    let parts = Part::all_of(&samples::document());
    for part in &parts {
        let sealed = part.clone().seal(&stage.data_key, None).unwrap();
        let value = serde_json::from_slice(&sealed).unwrap();
        stage.declare_and_wait(&part.key(), &value).await;
    }
    for part in &parts {
        let shown = stage.get(&path(part), ROOT).await;
        assert_eq!(
            shown.status,
            StatusCode::OK,
            "{}: {}",
            path(part),
            shown.text
        );
        assert!(shown.header("etag").is_some());
        let list = path(part).rsplit_once('/').unwrap().0.to_owned();
        let list = stage.get(&list, ROOT).await;
        assert!(list.text.contains(&format!(
            "\"id\":\"{}\"",
            shown.json["id"].as_str().unwrap()
        )));
        for text in [&shown.text, &list.text] {
            assert!(!text.contains("sealed:"), "{text}");
            assert!(!part.has_secrets() || text.contains("[secret]"), "{text}");
        }
    }
    // What others refer to comes before them in the order of writing, but for numbers.
    let tries = async || {
        let mut said = Vec::new();
        for part in parts.iter().rev() {
            let answer = stage.call("DELETE", &path(part), Some(ROOT), None).await;
            if answer.status == StatusCode::CONFLICT {
                answer.is_problem(StatusCode::CONFLICT, "in-use");
                said.push(answer.json["detail"].as_str().unwrap().to_owned());
            }
        }
        said
    };
    let first = tries().await;
    let is_said = |what: &str| first.iter().any(|words| words.starts_with(what));
    assert!(
        is_said("phone number 106540352242922 is used by bot acme/shop;"),
        "{first:?}"
    );
    assert!(
        is_said("app main is used by phone number 106540352242922;"),
        "{first:?}"
    );
    let second = tries().await;
    assert!(
        second
            .iter()
            .all(|words| words.starts_with("tenant ") || words.starts_with("brand ")),
        "{second:?}"
    );
    for part in &parts {
        let is_left = ["tenant", "brand"].contains(&part.kind().family);
        let found = stage.get(&path(part), ROOT).await.status;
        assert_eq!(found == StatusCode::OK, is_left, "{}", path(part));
    }
}

#[tokio::test]
async fn an_entity_is_deleted_as_its_author_last_saw_it() {
    let stage = stage().await;
    stage
        .declare_and_wait("relay.acme.r", &relay("r", "acme"))
        .await;
    let tag = stage
        .get("/v1/relays/r", ACME)
        .await
        .header("etag")
        .unwrap()
        .to_owned();
    stage
        .declare_and_wait("relay.acme.r", &relay("r", "acme"))
        .await;
    let delete = async |tag: &str| {
        let headers = [("if-match", tag)];
        stage
            .send("DELETE", "/v1/relays/r", Some(ACME), &headers, None)
            .await
    };
    delete(&tag)
        .await
        .is_problem(StatusCode::PRECONDITION_FAILED, "precondition-failed");
    let tag = stage
        .get("/v1/relays/r", ACME)
        .await
        .header("etag")
        .unwrap()
        .to_owned();
    assert_eq!(delete(&tag).await.status, StatusCode::NO_CONTENT);
    delete("*")
        .await
        .is_problem(StatusCode::PRECONDITION_FAILED, "precondition-failed");
    stage
        .call("DELETE", "/v1/relays/r", Some(ACME), None)
        .await
        .is_problem(StatusCode::NOT_FOUND, "not-found");
}

#[tokio::test]
async fn a_key_sees_and_deletes_what_its_reach_covers() {
    let stage = stage().await;
    let tenant = |id: &str, brand: Option<&str>| json!({"id": id, "name": id, "brand": brand, "egress_allow": ["10.0.0.1"]});
    for (entry, value) in [
        ("brand.b", json!({"id": "b", "name": "B"})),
        ("tenant.acme", tenant("acme", Some("b"))),
        ("tenant.globex", tenant("globex", Some("b"))),
        ("tenant.initech", tenant("initech", None)),
        ("relay.acme.r", relay("r", "acme")),
        ("relay.globex.r", relay("r", "globex")),
        ("relay.initech.r", relay("r", "initech")),
        (
            "app.shared",
            json!({"id": "shared", "secrets": ["s"], "verify_token": "t"}),
        ),
        (
            "app.own",
            json!({"id": "own", "tenant": "acme", "secrets": ["s"], "verify_token": "t"}),
        ),
        ("key.acme.branded", key("branded", BRANDED, "brand")),
    ] {
        stage.declare_and_wait(entry, &value).await;
    }
    let delete = async |path: &str, key: &str| stage.call("DELETE", path, Some(key), None).await;
    let missing = (StatusCode::NOT_FOUND, "not-found");
    let platform = (StatusCode::FORBIDDEN, "platform-only");
    for (path, key, (status, name)) in [
        ("/v1/relays/r", READER, (StatusCode::FORBIDDEN, "forbidden")),
        ("/v1/relays/r?tenant=acme", GLOBEX, missing),
        ("/v1/relays/r?tenant=initech", BRANDED, missing),
        ("/v1/relays/r?tenant=nobody", ACME, missing),
        ("/v1/phone-numbers/1001", GLOBEX, missing),
        ("/v1/apps/own", GLOBEX, missing),
        ("/v1/apps/shared", BRANDED, missing),
        ("/v1/api-keys/root", ACME, platform),
        ("/v1/api-keys/root", BRANDED, platform),
        ("/v1/tenants/acme", ACME, platform),
        ("/v1/tenants/globex", BRANDED, platform),
        ("/v1/brands/b", BRANDED, platform),
        ("/v1/brands/b", ROOT, (StatusCode::CONFLICT, "in-use")),
        ("/v1/tenants/globex", ROOT, (StatusCode::CONFLICT, "in-use")),
        (
            "/v1/apps/own?tenant=acme",
            ACME,
            (StatusCode::BAD_REQUEST, "malformed"),
        ),
        // A slip of the pen must not delete what is the caller's own.
        (
            "/v1/relays/r?tennant=globex",
            ACME,
            (StatusCode::BAD_REQUEST, "malformed"),
        ),
    ] {
        delete(path, key).await.is_problem(status, name);
    }
    stage
        .get("/v1/relays", SENDER)
        .await
        .is_problem(StatusCode::FORBIDDEN, "forbidden");
    stage
        .get("/v1/relays?tenant=acme", GLOBEX)
        .await
        .is_problem(StatusCode::NOT_FOUND, "not-found");
    let count = async |path: &str, key: &str| {
        stage.get(path, key).await.json["items"]
            .as_array()
            .unwrap()
            .len()
    };
    for (path, key, expected) in [
        ("/v1/relays", ACME, 1),
        ("/v1/relays?tenant=globex", BRANDED, 1),
        ("/v1/tenants", ACME, 1),
        ("/v1/tenants", BRANDED, 2),
        ("/v1/tenants", ROOT, 3),
        ("/v1/apps", ACME, 1),
        ("/v1/apps", GLOBEX, 0),
        ("/v1/apps", ROOT, 2),
        ("/v1/brands", BRANDED, 0),
        ("/v1/phone-numbers?tenant=globex", ROOT, 1),
    ] {
        assert_eq!(count(path, key).await, expected, "{path}");
    }
    let destinations =
        async |key: &str| stage.get("/v1/tenants/acme", key).await.json["egress_allow"].clone();
    assert_eq!(
        destinations(ACME).await,
        Value::Null,
        "only the operator's to see"
    );
    assert_eq!(destinations(ROOT).await, json!(["10.0.0.1"]));
    for (path, key) in [
        ("/v1/relays/r?tenant=globex", BRANDED),
        ("/v1/relays/r?tenant=initech", ROOT),
        ("/v1/tenants/initech", ROOT),
        ("/v1/apps/own", ACME),
        ("/v1/api-keys/branded", BRANDED),
        ("/v1/apps/shared", ROOT),
    ] {
        assert_eq!(
            delete(path, key).await.status,
            StatusCode::NO_CONTENT,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_list_leads_through_everything_once() {
    let stage = stage().await;
    for n in 0..5 {
        let id = format!("r{n}");
        stage
            .declare_and_wait(&format!("relay.acme.{id}"), &relay(&id, "acme"))
            .await;
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = stage
            .get(&format!("/v1/relays?limit=2{cursor}"), ACME)
            .await
            .json;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        seen.extend(
            items
                .iter()
                .map(|item| item["id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, ["r0", "r1", "r2", "r3", "r4"]);
    stage
        .get("/v1/relays?cursor=!", ACME)
        .await
        .is_problem(StatusCode::BAD_REQUEST, "malformed");
}

#[tokio::test]
async fn what_is_deleted_has_no_effect_any_more() {
    let stage = stage().await;
    let tenant = TenantId::new("acme").unwrap();
    let hook = "/hooks/chatwoot/acme/desk/hook-token";
    for (entry, value) in [
        ("relay.acme.r", relay("r", "acme")),
        ("crm.acme.desk", crm_link("desk", None)),
        ("datakey.initech", json!("sealed:v1:AAAA")),
        ("tenant.initech", json!({"id": "initech", "name": "I"})),
    ] {
        stage.declare_and_wait(entry, &value).await;
    }
    let mut registry = stage.platform.registry.clone();
    assert_ne!(
        stage.post(hook, "", &json!({})).await.status,
        StatusCode::NOT_FOUND
    );
    for path in [
        "/v1/phone-numbers/1001",
        "/v1/relays/r",
        "/v1/crm-links/desk",
        "/v1/tenants/initech",
        "/v1/api-keys/reader",
    ] {
        let answer = stage.call("DELETE", path, Some(ROOT), None).await;
        assert_eq!(
            answer.status,
            StatusCode::NO_CONTENT,
            "{path}: {}",
            answer.text
        );
    }
    // What memory shows follows the bucket, in every process alike: edge and pools read it in the same way.
    let gone = |snapshot: &Snapshot| {
        Snapshot::owned(&snapshot.relays, "relay", &tenant).count() == 0
            && snapshot.phone_numbers.len() == 1
            && snapshot.data_key("initech").is_none()
            && !snapshot.api_keys.contains_key("key.acme.reader")
    };
    while !gone(&registry.snapshot()) {
        assert!(registry.changed().await);
    }
    stage
        .get("/v1/relays", READER)
        .await
        .is_problem(StatusCode::UNAUTHORIZED, "unauthorized");
    stage
        .post(hook, "", &json!({}))
        .await
        .is_problem(StatusCode::NOT_FOUND, "not-found");
    let message = json!({"to": {"user_id": "US.1"}, "content": {"type": "text", "body": "x"}});
    let answer = stage.post("/v1/messages", ACME, &message).await;
    assert_eq!(
        answer.status,
        StatusCode::UNPROCESSABLE_ENTITY,
        "it has no number: {}",
        answer.text
    );
}
