//! What operators turn by the API, and how far their keys reach.

use crate::api::stage::{ACME, OPERATOR, OWN_OPERATOR, RESELLER, Stage};
use axum::http::StatusCode;
use serde_json::{Value, json};

#[tokio::test]
async fn what_is_turned_is_checked_revised_and_audited() {
    let stage = Stage::start().await;
    let (pool, tenant) = (
        "/v1/tuning/pools/relay",
        "/v1/tuning/pools/relay/tenants/acme",
    );
    stage
        .get("/v1/tuning", ACME)
        .await
        .is_problem(StatusCode::FORBIDDEN, "forbidden");
    stage
        .put(pool, ACME, &json!({"paused": true}))
        .await
        .is_problem(StatusCode::FORBIDDEN, "forbidden");
    stage
        .get(pool, OPERATOR)
        .await
        .is_problem(StatusCode::NOT_FOUND, "not-found");

    let made = stage
        .put(
            pool,
            OPERATOR,
            &json!({"concurrency": 8, "lanes": {"sts": 3}}),
        )
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let tag = made.header("etag").unwrap().to_owned();
    let stale = [("if-match", "\"999\"")];
    let refused = stage
        .send(
            "PUT",
            pool,
            Some(OPERATOR),
            &stale,
            Some(json!({"paused": true})),
        )
        .await;
    refused.is_problem(StatusCode::PRECONDITION_FAILED, "precondition-failed");
    let fresh = [("if-match", tag.as_str())];
    let changed = stage
        .send(
            "PUT",
            pool,
            Some(OPERATOR),
            &fresh,
            Some(json!({"paused": true})),
        )
        .await;
    assert_eq!(
        (changed.status, &changed.json["paused"]),
        (StatusCode::OK, &json!(true))
    );

    let wrong = json!({"concurrency": 0, "lanes": {"bulk": 1}});
    let refused = stage.put(pool, OPERATOR, &wrong).await;
    refused.is_problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
    assert_eq!(refused.json["errors"][1]["at"], "/lanes/bulk");
    for (range, part) in [
        ("8..128", "set concurrency=128 with it"),
        ("0..8", "0 is outside 1 to 4096"),
        ("9..8", "more than the most"),
        ("sometimes", "such as 8..64"),
    ] {
        let refused = stage.put(pool, OPERATOR, &json!({"adaptive": range})).await;
        refused.is_problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
        assert_eq!(refused.json["errors"][0]["at"], "/adaptive");
        assert!(refused.text.contains(part), "{}", refused.text);
    }
    stage
        .put(pool, OPERATOR, &json!({"pasued": true}))
        .await
        .is_problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
    stage
        .put("/v1/tuning/pools/rely", OPERATOR, &json!({}))
        .await
        .is_problem(StatusCode::NOT_FOUND, "not-found");
    let nobody = "/v1/tuning/pools/relay/tenants/nobody";
    stage
        .put(nobody, OPERATOR, &json!({"weight": 1}))
        .await
        .is_problem(StatusCode::NOT_FOUND, "not-found");
    let discard = json!({"mode": "discard", "confirm": "globex"});
    stage
        .put(tenant, OPERATOR, &discard)
        .await
        .is_problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
    assert_eq!(
        stage.get(pool, OPERATOR).await.json,
        changed.json,
        "nothing was changed"
    );

    let discard = json!({"mode": "discard", "confirm": "acme"});
    assert_eq!(
        stage.put(tenant, OPERATOR, &discard).await.status,
        StatusCode::CREATED
    );
    assert_eq!(stage.get(tenant, OPERATOR).await.json["mode"], "discard");
    assert_eq!(
        stage
            .call("DELETE", tenant, Some(OPERATOR), None)
            .await
            .status,
        StatusCode::NO_CONTENT
    );
    stage
        .get(tenant, OPERATOR)
        .await
        .is_problem(StatusCode::NOT_FOUND, "not-found");

    let adaptive = json!({"adaptive": "8..128", "concurrency": 128});
    assert_eq!(
        stage.put(pool, OPERATOR, &adaptive).await.status,
        StatusCode::OK
    );
    assert_eq!(stage.get(pool, OPERATOR).await.json["adaptive"], "8..128");

    let audit = stage.get("/v1/tuning/audit", OPERATOR).await.json;
    let reported: Vec<_> = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (&one["from"], &one["to"]))
        .collect();
    assert_eq!(reported.len(), 5, "{audit}");
    assert_eq!(reported[0], (&json!({"paused": true}), &adaptive));
    assert_eq!(reported[1], (&json!({"mode": "discard"}), &json!({})));
    assert_eq!(
        reported[3],
        (
            &json!({"concurrency": 8, "lanes": {"sts": 3}}),
            &json!({"paused": true})
        )
    );
    assert!(
        audit["items"][0]["at"].is_string() && audit["items"][0]["by"] == "key:acme/operator",
        "{audit}"
    );
    let items = stage.get("/v1/tuning", OPERATOR).await.json["items"].clone();
    assert_eq!(items.as_array().unwrap().len(), 6, "{items}");
}

#[tokio::test]
async fn an_operator_turns_what_its_key_reaches_and_nothing_else() {
    let stage = Stage::start().await;
    let (pool, acme) = (
        "/v1/tuning/pools/relay",
        "/v1/tuning/pools/relay/tenants/acme",
    );
    let globex = "/v1/tuning/pools/relay/tenants/globex";
    let paused = json!({"paused": true});
    for key in [OWN_OPERATOR, RESELLER] {
        stage
            .put(pool, key, &paused)
            .await
            .is_problem(StatusCode::FORBIDDEN, "platform-only");
        stage
            .get(pool, key)
            .await
            .is_problem(StatusCode::FORBIDDEN, "platform-only");
        stage
            .get("/v1/pools", key)
            .await
            .is_problem(StatusCode::FORBIDDEN, "platform-only");
        stage
            .get("/v1/pools/relay", key)
            .await
            .is_problem(StatusCode::FORBIDDEN, "platform-only");
        stage
            .call("DELETE", pool, Some(key), None)
            .await
            .is_problem(StatusCode::FORBIDDEN, "platform-only");
        stage
            .put(globex, key, &paused)
            .await
            .is_problem(StatusCode::NOT_FOUND, "not-found");
        stage
            .get(globex, key)
            .await
            .is_problem(StatusCode::NOT_FOUND, "not-found");
    }
    assert_eq!(
        stage.put(acme, OWN_OPERATOR, &paused).await.status,
        StatusCode::CREATED
    );
    let share = stage
        .put(acme, OWN_OPERATOR, &json!({"weight": 1000}))
        .await;
    share.is_problem(StatusCode::FORBIDDEN, "platform-only");
    assert_eq!(
        stage.put(globex, OPERATOR, &paused).await.status,
        StatusCode::CREATED
    );
    let reported = |answer: Value| {
        let items = answer["items"].as_array().unwrap().clone();
        items
            .iter()
            .map(|one| one["tenant"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        reported(stage.get("/v1/tuning/audit", OWN_OPERATOR).await.json),
        ["acme"]
    );
    assert_eq!(
        reported(stage.get("/v1/tuning/audit", OPERATOR).await.json),
        ["globex", "acme"]
    );
    let gone = stage.call("DELETE", acme, Some(OWN_OPERATOR), None).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT, "{}", gone.text);

    // What the platform holds, no tenant sets going again; one of its brand may be turned by the reseller.
    assert_eq!(
        stage.put(acme, OPERATOR, &paused).await.status,
        StatusCode::CREATED
    );
    let lifted = stage.call("DELETE", acme, Some(OWN_OPERATOR), None).await;
    lifted.is_problem(StatusCode::FORBIDDEN, "platform-only");
    for tenant in ["acme", "globex"] {
        let branded = json!({"id": tenant, "name": tenant, "brand": "resale"});
        stage.declare(&format!("tenant.{tenant}"), &branded).await;
    }
    stage
        .declare(
            "key.acme.done",
            &json!({"id": "done", "tenant": "acme", "key": "x"}),
        )
        .await;
    stage.configuration_is("api_keys", "done").await;
    stage
        .get(globex, OWN_OPERATOR)
        .await
        .is_problem(StatusCode::NOT_FOUND, "not-found");
    assert_eq!(stage.get(globex, RESELLER).await.json["paused"], true);
    let lifted = stage.call("DELETE", globex, Some(RESELLER), None).await;
    lifted.is_problem(StatusCode::FORBIDDEN, "platform-only");
}
