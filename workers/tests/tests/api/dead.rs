//! Dead letters and replays over the API.

use crate::api::stage::{ACME, GLOBEX, READER, Stage, shared_app};
use crate::letter::{head, letter};
use ackline_egress::{AllowList, Egress, EgressSettings};
use ackline_pools::relay::RelayJob;
use ackline_replay::letters::ReplayRequest;
use ackline_replay::{Action, Filter, ReplayJob, Source, State, job, terms};
use ackline_runtime::job::{Job, Verdict};
use ackline_shared::envelope::Head;
use ackline_shared::ids::{AppId, PhoneNumberId, TenantId};
use ackline_shared::secret::Secret;
use ackline_shared::signature::SigningKey;
use ackline_shared::subjects::{Pool, UPDATES};
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[tokio::test]
async fn a_dead_letter_says_why_and_what_it_was() {
    let stage = Stage::start().await;
    stage.dead_letter("acme", "relay", 7).await;
    let letter = stage.get("/v1/dead-letters", ACME).await.json["items"][0].clone();
    assert_eq!(
        (&letter["pool"], &letter["reason"], &letter["attempts"]),
        (&json!("relay"), &json!("gone"), &json!(6))
    );
    assert_eq!(
        (&letter["at"], &letter["payload"]),
        (&json!("2025-06-15T23:27:53Z"), &json!({"n": 7}))
    );
    assert!(
        letter["headers"]
            .as_object()
            .unwrap()
            .keys()
            .all(|name| !name.contains("Signature")),
        "{letter}"
    );
}

#[tokio::test]
async fn dead_letters_are_found_counted_and_looked_at_by_their_tenant_alone() {
    let stage = Stage::start().await;
    for n in 1..=4 {
        stage
            .dead_letter("acme", if n == 4 { "crm" } else { "relay" }, n)
            .await;
    }
    let sequences = async |query: &str| {
        let page = stage
            .get(&format!("/v1/dead-letters?{query}"), ACME)
            .await
            .json;
        let items = page["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["sequence"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(sequences("").await, [4, 3, 2, 1], "newest first");
    assert_eq!(
        sequences("pool=relay&reason=GONE&kind=message.*&text=%22n%22:2").await,
        [2]
    );
    assert_eq!(
        sequences("from=2025-06-15T23:27:54Z").await,
        Vec::<u64>::new()
    );
    assert_eq!(sequences("state=replayed").await, Vec::<u64>::new());
    let count = stage
        .get("/v1/dead-letters/count?pool=relay", ACME)
        .await
        .json;
    assert_eq!(
        (&count["total"], &count["complete"]),
        (&json!(3), &json!(true))
    );
    let letter = stage.get("/v1/dead-letters/2", ACME).await.json;
    assert_eq!(
        (&letter["letter"]["state"], &letter["letter"]["payload"]),
        (&json!("open"), &json!({"n": 2}))
    );
    assert_eq!(
        letter["replay"]["possible"],
        json!(false),
        "it does not say where it came from"
    );
    assert_eq!(
        stage.get("/v1/dead-letters/count", GLOBEX).await.json["total"],
        0
    );
    stage
        .get("/v1/dead-letters/2", GLOBEX)
        .await
        .is_problem(StatusCode::NOT_FOUND, "not-found");
    stage
        .get("/v1/dead-letters/0", ACME)
        .await
        .is_problem(StatusCode::NOT_FOUND, "not-found");
    for bad in [
        "from=yesterday",
        "state=lost",
        "pool=swimming",
        "colour=red",
    ] {
        let answer = stage.get(&format!("/v1/dead-letters?{bad}"), ACME).await;
        answer.is_problem(StatusCode::BAD_REQUEST, "malformed");
    }
}

#[tokio::test]
async fn a_replay_is_ordered_by_who_may_and_stopped_by_its_tenant_alone() {
    let stage = Stage::start().await;
    stage.dead_letter("acme", "relay", 1).await;
    stage
        .post("/v1/dead-letters/replay", READER, &json!({}))
        .await
        .is_problem(StatusCode::FORBIDDEN, "forbidden");
    let dry = stage
        .post(
            "/v1/dead-letters/replay",
            ACME,
            &json!({"all": true, "dry_run": true}),
        )
        .await;
    assert_eq!(
        (dry.status, &dry.json["total"]),
        (StatusCode::OK, &json!(1))
    );
    assert!(
        dry.json["newest_received_at"].is_string() && dry.json["expired"] == 0,
        "{}",
        dry.text
    );
    let seen = json!({"filter": {"pool": "relay"}, "count": dry.json["total"]});
    let ordered = stage.post("/v1/dead-letters/replay", ACME, &seen).await;
    assert_eq!(
        (ordered.status, &ordered.json["state"]),
        (StatusCode::ACCEPTED, &json!("waiting"))
    );
    assert_eq!(
        (&ordered.json["expected"], &ordered.json["by"]),
        (&json!(1), &json!("key all"))
    );
    let location = ordered.header("location").unwrap().to_owned();
    assert_eq!(
        stage.get(&location, READER).await.json["id"],
        ordered.json["id"]
    );
    stage
        .get(&location, GLOBEX)
        .await
        .is_problem(StatusCode::NOT_FOUND, "not-found");
    let cancel = format!("{location}/cancel");
    stage
        .post(&cancel, GLOBEX, &json!({}))
        .await
        .is_problem(StatusCode::NOT_FOUND, "not-found");
    assert_eq!(
        stage.post(&cancel, ACME, &json!({})).await.json["state"],
        "cancelled"
    );
    assert_eq!(
        stage.get("/v1/replays", ACME).await.json["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        stage.get("/v1/replays", GLOBEX).await.json,
        json!({"items": []})
    );

    let refused = async |path: &str, body: Value, at: &str| {
        let answer = stage.post(path, ACME, &body).await;
        answer.is_problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
        assert_eq!(answer.json["errors"][0]["at"], at, "{body} {}", answer.text);
    };
    for path in ["/v1/dead-letters/discard", "/v1/dead-letters/replay"] {
        refused(path, json!({"count": 1}), "/filter").await;
        refused(path, json!({"count": 1, "filter": {}}), "/filter").await;
        refused(
            path,
            json!({"count": 1, "all": true, "filter": {"pool": "relay"}}),
            "/all",
        )
        .await;
        refused(path, json!({"count": 2, "all": true}), "/count").await;
    }
    refused(
        "/v1/dead-letters/replay",
        json!({"dry_run": true}),
        "/filter",
    )
    .await;
    refused("/v1/dead-letters/replay", json!({"all": true}), "/count").await;
    refused(
        "/v1/dead-letters/1/replay",
        json!({"payload": {"n": 2}}),
        "",
    )
    .await;
    refused(
        "/v1/dead-letters/replay",
        json!({"rate_per_second": 0}),
        "/rate_per_second",
    )
    .await;
    refused(
        "/v1/dead-letters/replay",
        json!({"target": "bot", "all": true}),
        "/target",
    )
    .await;
    refused(
        "/v1/replays",
        json!({"pool": "relay", "target": "bot", "from": "7d"}),
        "/target",
    )
    .await;
    refused(
        "/v1/replays",
        json!({"pool": "flows", "from": "7d"}),
        "/answer_people",
    )
    .await;
    refused(
        "/v1/replays",
        json!({"pool": "replies", "from": "7d"}),
        "/pool",
    )
    .await;
    let past = stage
        .post(
            "/v1/replays",
            ACME,
            &json!({"pool": "relay", "from": "7d", "dry_run": true}),
        )
        .await;
    assert_eq!(
        (past.status, &past.json["total"]),
        (StatusCode::OK, &json!(0))
    );
}

/// A bot of somebody's, with the signature of everything that it got.
async fn bot() -> (String, Arc<Mutex<Vec<Option<String>>>>) {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let taken: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
    let kept = taken.clone();
    let take = move |headers: HeaderMap| async move {
        let signature = headers
            .get("x-hub-signature-256")
            .map(|value| value.to_str().unwrap().to_owned());
        kept.lock().unwrap().push(signature);
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(take)).await });
    (url, taken)
}

/// What Meta would post about a message to a business number.
fn delivery(number: &str) -> Value {
    let value = json!({"metadata": {"phone_number_id": number}, "messages": [{"id": "wamid.F", "from_user_id": "US.9"}]});
    json!({"object": "whatsapp_business_account",
        "entry": [{"id": "W", "changes": [{"field": "messages", "value": value}]}]})
}

/// Stores a letter that globex's bot refused, of a message that the shared app brought.
async fn refused_by_globex(stage: &Stage, n: u32) {
    let head = Head {
        tenant: TenantId::new("globex").unwrap(),
        app: AppId::new("app").ok(),
        phone: PhoneNumberId::new("2001").ok(),
        signature: Some("sha256=from-meta".into()),
        ..head(&format!("wamid.{n}"))
    };
    let (subject, headers) = letter(
        Pool::Relay,
        &head,
        &format!("{UPDATES}:{n}"),
        "relay bot: answered 400",
    );
    let payload = delivery("2001").to_string();
    stage
        .platform
        .log
        .write_raw(subject, headers, payload.into())
        .await
        .unwrap();
}

/// Works on everything that is stored, as the relay pool would.
async fn relayed(stage: &Stage) -> Vec<Verdict> {
    let settings = EgressSettings {
        allow: AllowList::parse(["127.0.0.1"]).unwrap(),
        allow_http: false,
        connect_timeout: Duration::from_secs(5),
    };
    let job = RelayJob::new(
        stage.platform.clone(),
        Egress::new(&settings).unwrap(),
        Duration::from_secs(5),
    );
    let mut verdicts = Vec::new();
    for work in stage.works(UPDATES).await {
        for target in job.targets(&work.head) {
            let work = stage.work_for(&work, target);
            verdicts.push(job.run(&work).await);
        }
    }
    verdicts
}

#[tokio::test]
async fn nobody_gets_a_delivery_of_their_own_making_signed_with_a_secret_that_others_share() {
    let stage = Stage::start().await;
    let (url, taken) = bot().await;
    let relay = |extra: Value| {
        let mut relay = json!({"id": "bot", "tenant": "globex", "url": url});
        relay
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        relay
    };
    stage.declare_and_wait("app.app", &shared_app()).await;
    stage
        .declare_and_wait("relay.globex.bot", &relay(json!({})))
        .await;
    refused_by_globex(&stage, 1).await;
    let forged = json!({"payload": delivery("1001")});
    for owner in [None, Some("acme")] {
        let mut app = shared_app();
        owner
            .into_iter()
            .for_each(|owner| app["tenant"] = owner.into());
        stage.declare_and_wait("app.app", &app).await;
        let refused = stage
            .post("/v1/dead-letters/1/replay", GLOBEX, &forged)
            .await;
        refused.is_problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
        assert!(
            refused
                .text
                .contains("give the relay an app_secret of its own"),
            "{}",
            refused.text
        );
    }
    assert!(stage.stored(UPDATES).await.is_empty());

    // The same when it is carried out, as it is for a job that was stored before the configuration changed.
    let dead_letters = stage.dead_letters();
    let source = Source::Letter {
        sequence: 1,
        payload: Some(forged["payload"].to_string()),
    };
    let request = ReplayRequest {
        expected: 1,
        ..terms::letters(Action::Replay, source, "test".into(), None)
    };
    let job = dead_letters.start(request).await.unwrap();
    dead_letters.carry_out(&job.id).await.unwrap();
    let verdicts = relayed(&stage).await;
    let [Verdict::Dead { reason }] = &verdicts[..] else {
        panic!("{verdicts:?}")
    };
    assert!(
        reason.contains("give the relay an app_secret of its own"),
        "{reason}"
    );
    assert!(
        taken.lock().unwrap().is_empty(),
        "nothing signed left, and nothing unsigned either"
    );

    // What is said to be done about it works: a secret of the relay's own.
    refused_by_globex(&stage, 2).await;
    stage
        .declare_and_wait(
            "relay.globex.bot",
            &relay(json!({"app_secret": "globex-knows-this"})),
        )
        .await;
    let ordered = stage
        .post("/v1/dead-letters/2/replay", GLOBEX, &forged)
        .await;
    assert_eq!(ordered.status, StatusCode::ACCEPTED, "{}", ordered.text);
    dead_letters
        .carry_out(ordered.json["id"].as_str().unwrap())
        .await
        .unwrap();
    assert_eq!(relayed(&stage).await, [Verdict::Done, Verdict::Done]);
    let key = SigningKey::new(&Secret::new("globex-knows-this".to_owned()));
    let own = Some(key.sign(forged["payload"].to_string().as_bytes()));
    assert_eq!(*taken.lock().unwrap(), [own.clone(), own]);
}

#[tokio::test]
async fn a_tenants_jobs_are_kept_apart_and_the_oldest_ended_ones_are_forgotten() {
    let stage = Stage::start().await;
    let (dead_letters, replays) = (stage.dead_letters(), &stage.platform.buckets.replays);
    let tenant = |name: &str| TenantId::new(name).unwrap();
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    let request = |tenant: &TenantId| {
        terms::letters(
            Action::Discard,
            Source::Letters(Filter::default()),
            "t".into(),
            Some(tenant.clone()),
        )
    };
    let open = dead_letters.start(request(&acme)).await.unwrap();
    let put = async |key: String, job: &ReplayJob| {
        replays
            .put(key, serde_json::to_vec(job).unwrap().into())
            .await
            .unwrap();
    };
    for (owner, count) in [(&acme, 230_u64), (&globex, 30)] {
        for n in 0..count {
            let id = ReplayJob::new_id(Action::Replay, Some(owner), n.to_be_bytes());
            let job = ReplayJob {
                id,
                tenant: Some(owner.clone()),
                created_ms: n,
                state: State::Done,
                ..open.clone()
            };
            put(
                format!("order.{}.{}", job::owner(Some(owner)), job.id),
                &job,
            )
            .await;
        }
    }
    let older = ReplayJob {
        id: "rp_0011".into(),
        ..open.clone()
    };
    put("order.rp_0011".into(), &older).await;
    assert_eq!(
        dead_letters.jobs_of(Some(&acme)).await.unwrap().len(),
        232,
        "with that of an older version"
    );
    assert_eq!(
        stage.get("/v1/replays/rp_0011", ACME).await.json["id"],
        "rp_0011"
    );

    let newest = dead_letters.start(request(&acme)).await.unwrap();
    let kept = dead_letters.jobs_of(Some(&acme)).await.unwrap();
    assert_eq!(kept.len(), 200);
    for job in [&open, &older, &newest] {
        assert!(
            kept.iter().any(|kept| kept.id == job.id),
            "what has not ended stays"
        );
    }
    let oldest = kept.iter().map(|job| job.created_ms).min();
    assert_eq!(oldest, Some(33), "{} are known", kept.len());
    let all = dead_letters.jobs().await.unwrap().len();
    assert_eq!(
        (
            all,
            dead_letters.jobs_of(Some(&globex)).await.unwrap().len()
        ),
        (230, 30)
    );
    assert_eq!(dead_letters.jobs_of(None).await.unwrap(), []);
    let stopped = stage
        .call(
            "POST",
            &format!("/v1/replays/{}/cancel", newest.id),
            Some(ACME),
            None,
        )
        .await;
    assert_eq!(
        (stopped.status, &stopped.json["state"]),
        (StatusCode::ACCEPTED, &json!("cancelled"))
    );
}
