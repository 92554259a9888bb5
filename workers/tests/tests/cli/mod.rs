//! The operator's command line against a real nats-server and a stub of the Graph API.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod config;
mod dead;
mod race;
mod seen;
mod unrouted;

use ackline_cli::agree::{Nobody, Person};
use ackline_cli::settings::Settings;
use ackline_cli::{EXIT_FAILED, EXIT_OK, Outcome};
use ackline_runtime::status::held::Turned;
use ackline_runtime::status::{PoolStatus, TenantStatus};
use ackline_shared::config::EXIT_CONFIG;
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{AppId, ConversationKey, TenantId, UpdateId};
use ackline_shared::nats;
use ackline_shared::subjects::{self, Class, Partition, Pool, SpillQueue, header};
use ackline_shared::testing::{NatsOptions, NatsServer, workspace_dir};
use async_nats::jetstream;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use dead::give_up;
use futures_util::StreamExt;
use seen::{speak, standing_by};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const SECRETS: [&str; 8] = [
    "demo-app-secret",
    "demo-verify-token",
    "demo-access-token",
    "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "demo-chatwoot-token",
    "demo-hook-token",
    "demo-api-key",
    "fresh-app-secret",
];

struct Terminal {
    server: NatsServer,
    environment: Vec<(String, String)>,
    files: tempfile::TempDir,
}

impl Terminal {
    fn open() -> Self {
        let options = NatsOptions {
            sync_always: false,
            extra_config: "http: \"127.0.0.1:-1\"".to_owned(),
        };
        let server = NatsServer::start_with(options).unwrap();
        let environment = [
            ("ACKLINE_NATS_URL", server.url().as_str()),
            ("ACKLINE_NATS_STREAM_BYTES_MAX", "64MiB"),
            ("ACKLINE_NATS_SESSION_BYTES_MAX", "64MiB"),
            ("ACKLINE_NATS_DURABILITY", "stored"),
            ("ACKLINE_SECRETS_MASTER_KEY", MASTER_KEY),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        Self {
            server,
            environment,
            files: tempfile::tempdir().unwrap(),
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    fn monitor_url(&self) -> String {
        let log = self.server.log();
        let (_, rest) = log.split_once("Starting http monitor on ").unwrap();
        format!("http://{}", rest.split_whitespace().next().unwrap())
    }

    /// What a command says when nobody can be asked.
    async fn ask(&self, arguments: &[&str]) -> Outcome {
        self.ask_somebody(arguments, &mut Nobody).await
    }

    async fn ask_somebody(&self, arguments: &[&str], person: &mut impl Person) -> Outcome {
        let arguments = ["ackline"]
            .iter()
            .chain(arguments)
            .map(std::ffi::OsString::from);
        let outcome =
            ackline_cli::run_live(arguments, &self.environment, &mut Vec::new(), person).await;
        for secret in SECRETS {
            assert!(
                !outcome.out.contains(secret) && !outcome.err.contains(secret),
                "{secret} in {outcome:?}"
            );
        }
        outcome
    }

    /// What `ackline tail` writes while it runs.
    async fn tail(&self, arguments: &[&str]) -> String {
        let arguments = ["ackline", "tail"]
            .iter()
            .chain(arguments)
            .map(std::ffi::OsString::from);
        let mut live = Vec::new();
        let outcome =
            ackline_cli::run_live(arguments, &self.environment, &mut live, &mut Nobody).await;
        assert_eq!(outcome, Outcome::default());
        String::from_utf8(live).unwrap()
    }

    /// The demo's document with something replaced in it.
    fn document(&self, from: &str, to: &str) -> String {
        let text = std::fs::read_to_string(demo()).unwrap();
        assert!(text.contains(from), "{from} is not in the demo's document");
        let flow = workspace_dir().join("deploy/dev/flows/welcome.json");
        let text = text
            .replacen(from, to, 1)
            .replace("flows/welcome.json", flow.to_str().unwrap());
        let path = self.files.path().join("edited.toml");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    async fn context(&self) -> jetstream::Context {
        jetstream::new(async_nats::connect(self.server.url()).await.unwrap())
    }
}

fn demo() -> PathBuf {
    workspace_dir().join("deploy/dev/demo.toml")
}

#[tokio::test]
async fn applying_the_demo_twice_changes_nothing_the_second_time() {
    let terminal = Terminal::open();
    let demo = demo();
    let file = demo.to_str().unwrap();
    let dry = terminal.ask(&["apply", file, "--dry-run"]).await;
    assert_eq!(dry.code, 2, "{dry:?}");
    assert!(
        dry.out.contains("+ tenant acme\n") && dry.out.contains("nothing was written"),
        "{dry:?}"
    );
    assert!(
        terminal
            .context()
            .await
            .get_key_value("config")
            .await
            .is_err(),
        "a dry run created the bucket"
    );

    let first = terminal.ask(&["apply", file]).await;
    assert_eq!((first.code, first.err.as_str()), (0, ""), "{first:?}");
    assert!(
        first.out.ends_with("added 15, changed 0, removed 0\n"),
        "{first:?}"
    );
    let second = terminal.ask(&["apply", file]).await;
    assert_eq!(
        (second.code, second.out.as_str()),
        (0, "nothing to change\n"),
        "{second:?}"
    );
    let dry = terminal.ask(&["apply", file, "--dry-run"]).await;
    assert_eq!(dry.code, 0, "{dry:?}");
}

#[tokio::test]
async fn a_changed_secret_is_told_by_name_and_what_is_gone_goes_only_with_prune() {
    let terminal = Terminal::open();
    terminal.ask(&["apply", demo().to_str().unwrap()]).await;
    let rotated = terminal.document(
        "[\"demo-app-secret\"]",
        "[\"fresh-app-secret\", \"demo-app-secret\"]",
    );
    let outcome = terminal.ask(&["apply", &rotated]).await;
    assert_eq!(
        outcome.out,
        "~ app main\n    secret 1 changed\n    secret 2 added\nadded 0, changed 1, removed 0\n"
    );

    let moved = terminal.document("id = \"existing-bot\"", "id = \"new-bot\"");
    let kept = terminal.ask(&["apply", &moved]).await;
    assert!(kept.out.contains("+ relay globex/new-bot\n"), "{kept:?}");
    assert!(
        kept.out
            .contains("= relay globex/existing-bot: stored, the file's own and not in it"),
        "{kept:?}"
    );
    let nobody = terminal.ask(&["apply", &moved, "--prune"]).await;
    assert_eq!(
        (nobody.code, nobody.out.as_str()),
        (EXIT_CONFIG, ""),
        "{nobody:?}"
    );
    assert!(nobody.err.contains("no terminal to ask at"), "{nobody:?}");
    let pruned = terminal
        .ask(&["apply", &moved, "--prune", "--yes", "--json"])
        .await;
    let report: Value = serde_json::from_str(&pruned.out).unwrap();
    assert_eq!(
        report["changes"],
        json!([{"action": "remove", "what": "relay", "name": "globex/existing-bot", "details": []}])
    );
    assert_eq!(
        terminal.ask(&["apply", &moved, "--prune"]).await.out,
        "nothing to change\n"
    );
}

#[tokio::test]
async fn bad_input_and_another_master_key_change_nothing() {
    let mut terminal = Terminal::open();
    let wrong = terminal.document("tenant = \"globex\"", "tenant = \"initech\"\nshards = 3");
    let outcome = terminal.ask(&["apply", &wrong]).await;
    assert_eq!(
        (outcome.code, outcome.out.as_str()),
        (64, ""),
        "{outcome:?}"
    );
    assert!(
        outcome.err.contains("nothing was changed") && outcome.err.contains("shards"),
        "{outcome:?}"
    );
    assert_eq!(terminal.ask(&["apply", "/nowhere.toml"]).await.code, 64);

    terminal.ask(&["apply", demo().to_str().unwrap()]).await;
    terminal.set(
        "ACKLINE_SECRETS_MASTER_KEY",
        "HwAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg=",
    );
    let outcome = terminal.ask(&["apply", demo().to_str().unwrap()]).await;
    assert_eq!(outcome.code, 1);
    assert!(
        outcome.err.contains("master key does not open"),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn without_nats_both_commands_fail_with_one_clear_sentence() {
    let mut terminal = Terminal::open();
    terminal.server.kill();
    let outcome = terminal.ask(&["apply", demo().to_str().unwrap()]).await;
    assert_eq!(outcome.code, 1);
    assert!(
        outcome.err.contains("is nats-server running there?"),
        "{outcome:?}"
    );
    let outcome = terminal.ask(&["doctor"]).await;
    assert_eq!(outcome.code, 1);
    assert!(outcome.out.contains("→ start nats-server"), "{outcome:?}");
}

async fn graph() -> String {
    let number = |Path(id): Path<String>, headers: HeaderMap| async move {
        let token = headers
            .get("authorization")
            .map(|value| value.to_str().unwrap().to_owned());
        if id == "106540352242922" && token.as_deref() == Some("Bearer demo-access-token") {
            let body =
                json!({"id": id, "display_phone_number": "+1 555 0100", "verified_name": "Acme"});
            return (StatusCode::OK, Json(body));
        }
        let message = format!("Malformed access token {token:?}");
        (
            StatusCode::UNAUTHORIZED,
            Json(json!({"error": {"code": 190, "message": message}})),
        )
    };
    let account = |Path(id): Path<String>| async move {
        let apps = if id == "102290129340398" {
            json!([{"whatsapp_business_api_data": {}}])
        } else {
            json!([])
        };
        Json(json!({ "data": apps }))
    };
    let router = Router::new()
        .route("/v26.0/{id}", get(number))
        .route("/v26.0/{id}/subscribed_apps", get(account));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

fn level<'a>(findings: &'a [Value], check: &str) -> &'a str {
    let found = findings.iter().find(|finding| finding["check"] == check);
    found.unwrap_or_else(|| panic!("no check {check} in {findings:#?}"))["level"]
        .as_str()
        .unwrap()
}

async fn publish(context: &jetstream::Context, tenant: TenantId, class: Class) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis();
    let head = Head {
        id: UpdateId::new(&format!("update of {tenant}")),
        tenant,
        partition: Partition(1),
        family: Family::Update(class),
        kind: "message.text".to_owned(),
        app: Some(AppId::new("main").unwrap()),
        phone: None,
        conversation: ConversationKey::none(),
        received_ms: u64::try_from(now).unwrap(),
        signature: None,
        traceparent: None,
        field: None,
        replay: None,
    };
    publish_head(context, &head, "{}").await;
}

async fn publish_head(context: &jetstream::Context, head: &Head, payload: &'static str) {
    let published = context
        .publish_with_headers(head.subject(), head.to_headers(), payload.into())
        .await;
    published.unwrap().await.unwrap();
}

#[tokio::test]
async fn what_a_server_lost_with_its_store_is_applied_again_whole() {
    let mut terminal = Terminal::open();
    let demo = demo();
    let file = demo.to_str().unwrap();
    assert_eq!(terminal.ask(&["apply", file]).await.code, EXIT_OK);
    terminal.server.wipe().unwrap();
    terminal.server.restart().unwrap();
    let again = terminal.ask(&["apply", file]).await;
    assert!(
        again.out.ends_with("added 15, changed 0, removed 0\n"),
        "{again:?}"
    );
    assert!(
        terminal
            .ask(&["apply", file])
            .await
            .out
            .contains("nothing to change")
    );
}

#[tokio::test]
async fn a_tail_follows_updates_through_the_stages_without_naming_people() {
    let terminal = Terminal::open();
    terminal.ask(&["apply", demo().to_str().unwrap()]).await;
    let context = terminal.context().await;
    let acme = TenantId::new("acme").unwrap();
    publish(&context, acme.clone(), Class::Message).await;
    publish(&context, TenantId::new("globex").unwrap(), Class::Message).await;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert(header::DEAD_REASON, "refused: 400");
    headers.insert(header::DEAD_ATTEMPTS, "3");
    headers.insert(header::CONVERSATION, "p:49170123");
    let dead = subjects::dead(Pool::Relay, &acme);
    context
        .publish_with_headers(dead, headers, "{}".into())
        .await
        .unwrap()
        .await
        .unwrap();
    for (conversation, id) in [(None, "moved-1"), (Some("00ff".to_owned()), "parked-1")] {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(header::SPILL_ID, id);
        headers.insert(header::KIND, "message.text");
        headers.insert(header::CONVERSATION, "p:49170123");
        let (partition, lane, tenant) = (Partition(1), "msg".to_owned(), acme.clone());
        let line = SpillQueue {
            partition,
            lane,
            tenant,
            conversation,
        }
        .subject(Pool::Relay);
        context
            .publish_with_headers(line, headers, "{}".into())
            .await
            .unwrap()
            .await
            .unwrap();
    }
    // A pool that tells whoever asks.
    let mut asked = context
        .client()
        .subscribe(subjects::FOLLOW_FILTER)
        .await
        .unwrap();
    let client = context.client();
    tokio::spawn(async move {
        let tenant = subjects::followed(&asked.next().await.unwrap().subject).unwrap();
        let reported = json!({"pool": "relay", "id": "m1", "kind": "message.text", "conversation": "p:49170123",
            "phone": null, "verdict": "retry", "reason": "503", "attempt": 2, "took_ms": 12, "at_ms": 1});
        client
            .publish(subjects::reports(&tenant), reported.to_string().into())
            .await
            .unwrap();
    });
    let outcome = terminal
        .tail(&[
            "--tenant", "acme", "--since", "1h", "--count", "5", "--for", "20s",
        ])
        .await;
    let lines: Vec<&str> = outcome
        .lines()
        .map(|line| line.split_once("  ").unwrap().1)
        .collect();
    assert_eq!(lines.len(), 5, "{outcome}");
    // What the pool told is the oldest by far, the rest is as it was stored.
    assert!(
        lines[0].starts_with("relay retry") && lines[0].ends_with("12 ms, attempt 2: 503"),
        "{outcome}"
    );
    assert!(
        lines[1].starts_with("received ") && lines[1].ends_with("partition 1"),
        "{outcome}"
    );
    assert!(
        lines[2].starts_with("relay given up") && lines[2].ends_with("refused: 400 (attempts: 3)"),
        "{outcome}"
    );
    assert!(
        lines[3].starts_with("relay in line") && lines[3].contains(" moved-1 "),
        "{outcome}"
    );
    assert!(
        lines[4].starts_with("relay parked") && lines[4].contains(" parked-1 "),
        "{outcome}"
    );
    assert!(
        !outcome.contains("49170123") && !outcome.contains("globex"),
        "{outcome}"
    );
    let one = [
        "--since",
        "1h",
        "--for",
        "20s",
        "--json",
        "--conversation",
        "p:49170123",
        "--show-personal",
    ];
    let shown = terminal
        .tail(&[&["--tenant", "acme", "--count", "3"], &one[..]].concat())
        .await;
    let steps: Vec<Value> = shown
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut stages: Vec<&str> = steps
        .iter()
        .map(|step| step["stage"].as_str().unwrap())
        .collect();
    stages.sort_unstable();
    assert_eq!(
        stages,
        ["given up", "in line", "parked"],
        "only what is of the conversation: {shown}"
    );
    assert!(
        steps
            .iter()
            .all(|step| step["conversation"] == "p:49170123"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_tail_of_a_tenant_that_nobody_declared_is_a_mistake() {
    let terminal = Terminal::open();
    let early = terminal
        .ask(&["tail", "--tenant", "acme", "--for", "20s"])
        .await;
    assert_eq!(
        (early.code, early.err.contains("nothing is set up")),
        (EXIT_FAILED, true),
        "{early:?}"
    );
    terminal.ask(&["apply", demo().to_str().unwrap()]).await;
    let wrong = terminal
        .ask(&["tail", "--tenant", "acmee", "--for", "20s"])
        .await;
    assert_eq!(wrong.code, EXIT_CONFIG);
    assert!(
        wrong
            .err
            .contains("no tenant `acmee`; `ackline tenants` shows"),
        "{wrong:?}"
    );
    assert_eq!(
        terminal
            .ask(&["tail", "--tenant", "_unrouted", "--for", "1ms"])
            .await
            .code,
        EXIT_OK
    );
}

#[tokio::test]
async fn the_doctor_tells_what_works_and_what_does_not() {
    let mut terminal = Terminal::open();
    terminal.set("ACKLINE_META_GRAPH_URL", &graph().await);
    terminal.ask(&["apply", demo().to_str().unwrap()]).await;
    let context = terminal.context().await;
    let doctor = async |terminal: &Terminal| -> (u8, Vec<Value>) {
        let turned = Turned {
            paused: true,
            by: "cli:jo".to_owned(),
            ..Turned::default()
        };
        let acme = TenantStatus::of(TenantId::new("acme").unwrap());
        let tenants = vec![TenantStatus {
            turned: Some(turned),
            ..acme
        }];
        let flows = PoolStatus {
            tenants,
            tenants_held: 1,
            ..standing_by(Pool::Flows)
        };
        let speaking = speak(context.client(), vec![flows]);
        let outcome = terminal.ask(&["doctor", "--json"]).await;
        speaking.abort();
        (outcome.code, serde_json::from_str(&outcome.out).unwrap())
    };

    let before: Vec<Value> =
        serde_json::from_str(&terminal.ask(&["doctor", "--json"]).await.out).unwrap();
    assert_eq!(level(&before, "pools"), "warn");
    let sessions = context
        .get_key_value(subjects::BUCKET_SESSIONS)
        .await
        .unwrap();
    let owner = json!({"v": 1, "who": "person", "since_ms": 1, "set_ms": 1, "why": "x"});
    let record = json!({"schema": 1, "owner": owner}).to_string();
    sessions.put("flows.acme.x", record.into()).await.unwrap();
    let (code, findings) = doctor(&terminal).await;
    assert_eq!(code, 1);
    let owners = findings
        .iter()
        .find(|finding| finding["check"] == "conversations")
        .unwrap();
    assert_eq!(
        owners["message"],
        "of 1 that flows know, 1 are a person's (1 without an end) and 0 another responder's; flows rest there"
    );
    for (check, expected) in [
        ("nats", "ok"),
        ("stream UPDATES", "ok"),
        ("stream OUTBOUND", "ok"),
        ("stream DEAD", "ok"),
        ("stream SPILL", "ok"),
        ("lines", "ok"),
        ("downstreams", "ok"),
        ("tenant acme in flows", "warn"),
        ("buckets", "ok"),
        ("partitions", "ok"),
        ("max_payload", "ok"),
        ("clock", "ok"),
        ("durability", "warn"),
        ("master key", "ok"),
        ("app main", "ok"),
        ("number 106540352242922", "ok"),
        ("number 106540352242923", "fail"),
        ("account 102290129340398", "ok"),
        ("account 102290129340399", "fail"),
        ("webhooks main", "warn"),
        ("unrouted", "ok"),
        ("dead letters", "ok"),
        ("handling", "ok"),
        ("pool flows", "warn"),
        ("pool relay", "warn"),
    ] {
        assert_eq!(level(&findings, check), expected, "{check}");
    }

    terminal.set("ACKLINE_NATS_MONITOR_URL", &terminal.monitor_url());
    publish(&context, TenantId::new("acme").unwrap(), Class::Message).await;
    publish(&context, TenantId::unrouted(), Class::Account).await;
    give_up(&context, 1).await;
    let (_, findings) = doctor(&terminal).await;
    let dead = findings
        .iter()
        .find(|finding| finding["check"] == "dead letters")
        .unwrap();
    let said = dead["message"].as_str().unwrap();
    assert!(
        said.starts_with("1 open in relay (1 refused), the oldest given up "),
        "{said}"
    );
    for (check, expected) in [
        ("durability", "ok"),
        ("webhooks main", "ok"),
        ("unrouted", "warn"),
        ("dead letters", "warn"),
    ] {
        assert_eq!(level(&findings, check), expected, "{check}");
    }

    assert_eq!(
        terminal
            .ask(&["dead", "discard", "--all", "--yes"])
            .await
            .code,
        EXIT_OK
    );
    terminal.set("ACKLINE_NATS_DURABILITY", "synced");
    let (_, findings) = doctor(&terminal).await;
    assert_eq!(level(&findings, "durability"), "fail");
    assert_eq!(
        level(&findings, "dead letters"),
        "ok",
        "what is settled needs nobody"
    );
    let only = terminal.ask(&["doctor", "--fix-hints"]).await;
    assert!(
        only.out.contains("sync_interval: always") && !only.out.contains("ok    nats"),
        "{}",
        only.out
    );
}

#[tokio::test]
async fn pools_are_turned_from_the_command_line_and_nothing_wrong_gets_through() {
    let terminal = Terminal::open();
    let early = terminal.ask(&["pause", "relay"]).await;
    assert_eq!(
        (early.code, early.err.contains("not set up")),
        (EXIT_FAILED, true),
        "{early:?}"
    );
    let context = terminal.context().await;
    let settings = Settings::load(None, &terminal.environment).unwrap();
    let buckets = nats::prepare(&context, &settings.nats).await.unwrap();
    buckets
        .config
        .put("tenant.acme", r#"{"id":"acme","name":"Acme"}"#.into())
        .await
        .unwrap();

    let turned = terminal
        .ask(&[
            "tune",
            "relay",
            "concurrency=8",
            "lanes.sts=3",
            "--by",
            "ann",
        ])
        .await;
    assert_eq!(
        turned.out, "relay: as configured -> concurrency=8 lanes.sts=3\n",
        "{turned:?}"
    );
    let paused = terminal.ask(&["pause", "relay", "--json"]).await;
    let paused: Value = serde_json::from_str(&paused.out).unwrap();
    assert_eq!(
        paused["to"],
        json!({"concurrency": 8, "lanes": {"sts": 3}, "paused": true})
    );
    assert_eq!(terminal.ask(&["resume", "relay"]).await.code, EXIT_OK);

    for (arguments, part) in [
        (
            &["tune", "rely", "paused=true"][..],
            "there are flows, replies",
        ),
        (&["tune", "relay", "concurrency=0"], "outside 1 to 4096"),
        (
            &["tune", "relay", "lanes.bulk=1"],
            "no such lane; there are msg",
        ),
        (&["tune", "relay", "speed=1"], "no such key of a pool"),
        (
            &["tune", "relay", "adaptive=8..64"],
            "more than the pool's concurrency of 8; lower it, or set",
        ),
        (
            &["tune", "relay", "adaptive=0..8"],
            "0 is outside 1 to 4096",
        ),
        (
            &["tune", "relay", "adaptive=8..4"],
            "the least, 8, is more than the most, 4",
        ),
        (&["tune", "relay", "adaptive=on"], "such as 8..64, or off"),
        (&["tune", "journal", "concurrency=2"], "works in batches"),
        (
            &["tune", "relay", "--tenant", "nobody", "weight=2"],
            "there is no tenant `nobody`",
        ),
        (
            &["discard", "relay", "--tenant", "acme", "--confirm", "acm"],
            "--confirm acme",
        ),
        (&["discard", "relay"], "say whose"),
    ] {
        let refused = terminal.ask(arguments).await;
        assert_eq!(refused.code, 64, "{refused:?}");
        assert!(
            refused.err.contains(part) && refused.err.contains("nothing was changed"),
            "{refused:?}"
        );
    }

    let discard = terminal
        .ask(&["discard", "relay", "--tenant", "acme", "--confirm", "acme"])
        .await;
    assert_eq!(
        discard.out,
        "relay of acme: as configured -> mode=discard\n"
    );
    let shown = terminal.ask(&["tune", "relay"]).await.out;
    assert!(
        shown.starts_with("relay: concurrency=8 lanes.sts=3")
            && shown.contains("acme: mode=discard"),
        "{shown}"
    );
    assert_eq!(
        terminal
            .ask(&["resume", "relay", "--tenant", "acme"])
            .await
            .code,
        EXIT_OK
    );
    assert_eq!(
        terminal.ask(&["tune", "relay", "--reset"]).await.code,
        EXIT_OK
    );
    assert_eq!(
        terminal
            .ask(&["tune", "relay"])
            .await
            .out
            .split("  (by")
            .next(),
        Some("relay: as configured")
    );
    let history = terminal.ask(&["tune", "relay", "--history"]).await.out;
    assert_eq!(history.lines().count(), 6, "{history}");
    assert!(
        history.lines().last().unwrap().contains("cli:ann"),
        "{history}"
    );
}
