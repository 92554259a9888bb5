//! What the tests of the API stand on: a nats-server, a declared installation, a database and the service.

use ackline_api::{ApiSettings, ApiState, PrivateState, build, build_private, register_unreadable};
use ackline_catalog::quota::Limits;
use ackline_engine::state::Target;
use ackline_fleet::board::Board;
use ackline_fleet::scaling::Targets;
use ackline_fleet::surroundings::surroundings;
use ackline_ownership::standing::Standing;
use ackline_replay::{DeadLetters, PoolRules};
use ackline_runtime::dedupe::ConversationRecord;
use ackline_runtime::job::{Answered, Marks, Work};
use ackline_runtime::log::Log;
use ackline_runtime::metrics::Metrics;
use ackline_runtime::platform::Platform;
use ackline_runtime::settings::Concurrency;
use ackline_shared::config::Reader;
use ackline_shared::envelope::Head;
use ackline_shared::ids::TenantId;
use ackline_shared::model::SecretField;
use ackline_shared::nats::{self, BucketBytes, Durability, NatsSettings, ServerUrls};
use ackline_shared::registry::Registry;
use ackline_shared::secret::Secret;
use ackline_shared::subjects::{self, UPDATES, header};
use ackline_shared::testing::NatsServer;
use ackline_shared::vault::VaultKey;
use ackline_store::Journal;
use async_nats::HeaderMap;
use async_nats::connection::State;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;
use tower::ServiceExt;

pub const ACME: &str = "acme-key-acme-key-acme-key";
pub const READER: &str = "read-key-read-key-read-key";
pub const SENDER: &str = "send-key-send-key-send-key";
pub const OPERATOR: &str = "operator-key-operator-key";
pub const OWN_OPERATOR: &str = "own-operator-key-own-operator";
pub const RESELLER: &str = "reseller-key-reseller-key";
pub const GLOBEX: &str = "globex-key-globex-key-globex";

const DEADLINE: Duration = Duration::from_secs(20);

pub struct Stage {
    server: NatsServer,
    _directory: TempDir,
    pub platform: Platform,
    pub journal: Journal,
    pub board: Board,
    pub standing: Standing,
    service: Router,
    pub data_key: VaultKey,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    headers: axum::http::HeaderMap,
    pub text: String,
    pub json: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[track_caller]
    pub fn is_problem(&self, status: StatusCode, name: &str) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{}",
            self.text
        );
        assert_eq!(
            self.json["type"],
            format!("urn:ackline:problem:{name}"),
            "{}",
            self.text
        );
        assert_eq!(self.json["status"], status.as_u16());
        assert!(
            self.json["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty())
        );
    }
}

/// An API key of a tenant as it is stored.
pub fn sealed(stage: &Stage, tenant: &str, key: &str) -> Value {
    let sealed = stage.data_key.seal(tenant, &Secret::new(key.to_owned()));
    json!({"id": "sealed", "tenant": tenant, "key": SecretField::sealed(&sealed)})
}

/// The app that serves the numbers of several tenants.
pub fn shared_app() -> Value {
    json!({"id": "app", "secrets": ["a-secret-that-tenants-share"], "verify_token": "t"})
}

/// A link of acme's to a CRM.
pub fn crm_link(id: &str, webhook_secret: Option<&str>) -> Value {
    let mut link = json!({"id": id, "tenant": "acme", "kind": "chatwoot", "url": "https://chat.example",
        "account_id": 3, "inbox_id": 7, "inbox_identifier": "abc", "access_token": "t", "hook_token": "hook-token"});
    if let Some(secret) = webhook_secret {
        link["webhook_secret"] = secret.into();
    }
    link
}

impl Stage {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut ApiSettings)) -> Self {
        let server = NatsServer::start().unwrap();
        let nats_settings = NatsSettings {
            url: ServerUrls::new(server.url()),
            credentials_file: None,
            monitor_url: None,
            durability: Durability::Stored,
            partitions: 4,
            max_age: Duration::from_secs(3600),
            dead_max_age: Duration::from_secs(3600),
            stream_bytes_max: 64 << 20,
            bucket_bytes: BucketBytes::default(),
            duplicate_window: Duration::from_secs(120),
            session_max_age: Duration::from_secs(3600),
            lease_ttl: Duration::from_secs(2),
        };
        let client = nats::connect(&nats_settings, "test").await.unwrap();
        let context = nats::jetstream(client);
        let buckets = nats::prepare(&context, &nats_settings).await.unwrap();
        let (master, data_key) = (VaultKey::generate(), VaultKey::generate());
        for (key, value) in installation(&master, &data_key) {
            buckets
                .config
                .put(&key, value.to_string().into())
                .await
                .unwrap();
        }
        let registry = Registry::watch(buckets.config.clone(), context.client());
        assert!(registry.loaded(DEADLINE).await);
        let platform = Platform::new(Log::new(context, 4), registry, buckets, master);

        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(&format!("sqlite://{}/j.db", directory.path().display()))
            .await
            .unwrap();
        let mut settings = ApiSettings {
            listen: "127.0.0.1:0".parse().unwrap(),
            private_listen: "127.0.0.1:0".parse().unwrap(),
            public_url: "http://127.0.0.1".into(),
            body_bytes_max: 64 << 10,
            request_timeout: Duration::from_secs(10),
            requests_per_second: 1000,
            requests_burst: 1000,
            rest_after_agent: Duration::from_secs(3600),
        };
        change(&mut settings);
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let standing = Standing::default();
        let board = Board::new("test", metrics, standing.clone());
        let targets = Targets {
            drain: Duration::from_secs(30),
            min: 0,
            max: 10,
        };
        let state = ApiState {
            platform: platform.clone(),
            journal: journal.clone(),
            settings,
            board: board.clone(),
            targets,
            concurrency: Concurrency::read(&mut Reader::load(None, [])),
            limits: Limits::read(&mut Reader::load(
                None,
                [("ACKLINE_LIMITS_BOTS_MAX".into(), "5".into())],
            )),
            pools: PoolRules {
                target: ackline_pools::target,
                refusal: ackline_pools::refusal,
            },
        };
        let service = build(state);
        Self {
            board,
            standing,
            server,
            _directory: directory,
            platform,
            journal,
            service,
            data_key,
        }
    }

    pub fn service(&self) -> Router {
        self.service.clone()
    }

    pub async fn get(&self, path: &str, key: &str) -> Answer {
        self.call("GET", path, Some(key), None).await
    }

    pub async fn post(&self, path: &str, key: &str, body: &Value) -> Answer {
        self.call("POST", path, Some(key), Some(body.clone())).await
    }

    pub async fn put(&self, path: &str, key: &str, body: &Value) -> Answer {
        self.call("PUT", path, Some(key), Some(body.clone())).await
    }

    pub async fn call(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: Option<Value>,
    ) -> Answer {
        self.send(method, path, key, &[], body).await
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let mut headers = headers.to_vec();
        if body.is_some() {
            headers.push(("content-type", "application/json; charset=utf-8"));
        }
        self.raw(
            method,
            path,
            key,
            &headers,
            body.map(|body| body.to_string()).unwrap_or_default(),
        )
        .await
    }

    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        headers: &[(&str, &str)],
        body: String,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        answer(self.service(), request.body(Body::from(body)).unwrap()).await
    }

    pub async fn private(&self, path: &str) -> Answer {
        let things = Counter::<u64>::default();
        things.inc_by(3);
        let mut metrics = prometheus_client::registry::Registry::default();
        metrics.register("things", "Counts things", things);
        let state = PrivateState {
            platform: self.platform.clone(),
            journal: Some(self.journal.clone()),
            standing: self.standing.clone(),
            board: self.board.clone(),
            surroundings: surroundings(usize::MAX >> 1, None),
            upkeep: ackline_runtime::upkeep::Upkeep::default(),
            unreadable: register_unreadable(&mut metrics),
            metrics: Arc::new(metrics),
        };
        answer(
            build_private(state),
            Request::get(path).body(Body::empty()).unwrap(),
        )
        .await
    }

    /// The payloads of a stream.
    pub async fn stored(&self, stream: &str) -> Vec<Value> {
        self.works(stream)
            .await
            .iter()
            .map(|work| serde_json::from_slice(&work.payload).unwrap())
            .collect()
    }

    /// The same work for one target.
    pub fn work_for(&self, work: &Work, target: Arc<Target>) -> Work {
        Work {
            head: work.head.clone(),
            payload: work.payload.clone(),
            sequence: work.sequence,
            target,
            attempt: 1,
            last_attempt: false,
            overdue: false,
            marks: Marks::default(),
            record: ConversationRecord::default(),
            answered: Answered::default(),
        }
    }

    /// What a stream holds, as a pool is given it.
    pub async fn works(&self, stream: &str) -> Vec<Work> {
        let stream = self
            .platform
            .log
            .context()
            .get_stream(stream)
            .await
            .unwrap();
        let state = stream.cached_info().state.clone();
        let mut works = Vec::new();
        for sequence in state.first_sequence.max(1)..=state.last_sequence {
            let message = stream.direct_get(sequence).await.unwrap();
            let head = Head::read(&message.subject, &message.headers).unwrap();
            let payload = message.payload;
            works.push(Work {
                head: Arc::new(head),
                payload,
                sequence,
                attempt: 1,
                last_attempt: false,
                target: Arc::default(),
                answered: Answered::default(),
                overdue: false,
                marks: Marks::default(),
                record: ConversationRecord::default(),
            });
        }
        works
    }

    /// Does what the journal's pool does.
    pub async fn journal_catches_up(&self) {
        let works = self.works(UPDATES).await;
        assert_eq!(self.journal.write_batch(&works).await.unwrap(), []);
    }

    pub async fn purge(&self, stream: &str) {
        self.platform
            .log
            .context()
            .get_stream(stream)
            .await
            .unwrap()
            .purge()
            .await
            .unwrap();
    }

    pub async fn dead_letter(&self, tenant: &str, pool: &str, n: u32) {
        let mut headers = HeaderMap::new();
        headers.insert(header::MSG_ID, format!("dead:{n}"));
        headers.insert(header::KIND, "message.text");
        headers.insert(header::SIGNATURE, "sha256=00");
        headers.insert(header::DEAD_REASON, "gone");
        headers.insert(header::DEAD_ATTEMPTS, "6");
        headers.insert(header::DEAD_AT, "1750030073000");
        let subject = subjects::dead(pool.parse().unwrap(), &TenantId::new(tenant).unwrap());
        self.platform
            .log
            .write_raw(subject, headers, json!({"n": n}).to_string().into())
            .await
            .unwrap();
    }

    pub async fn declare(&self, key: &str, value: &Value) {
        self.platform
            .buckets
            .config
            .put(key, value.to_string().into())
            .await
            .unwrap();
    }

    /// Declares something and waits until it has reached the configuration in memory.
    pub async fn declare_and_wait(&self, key: &str, value: &Value) {
        let mut registry = self.platform.registry.clone();
        let before = registry.snapshot().version;
        self.declare(key, value).await;
        let changed =
            async { while registry.snapshot().version <= before && registry.changed().await {} };
        timeout(DEADLINE, changed).await.unwrap();
    }

    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(self.platform.log.clone(), &self.platform.buckets)
    }

    /// Waits until acme's entity has reached the configuration in memory.
    pub async fn configuration_is(&self, family: &str, id: &str) {
        let mut registry = self.platform.registry.clone();
        let there = async {
            loop {
                let snapshot = registry.snapshot();
                let found = match family {
                    "crm_links" => snapshot.crm_links.contains_key(&format!("crm.acme.{id}")),
                    "bots" => snapshot.bots.contains_key(&format!("bot.acme.{id}")),
                    "flows" => snapshot.flows.contains_key(&format!("flow.acme.{id}")),
                    _ => snapshot.api_keys.contains_key(&format!("key.acme.{id}")),
                };
                if found || !registry.changed().await {
                    return found;
                }
            }
        };
        assert!(timeout(DEADLINE, there).await.unwrap());
    }

    /// Kills the server and waits until the client knows.
    pub async fn nats_goes_away(&mut self) {
        let client = self.platform.log.context().client();
        self.server.kill();
        let away = async {
            while client.connection_state() == State::Connected {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, away).await.unwrap();
    }

    pub fn nats_stands_still(&self) {
        self.server.freeze().unwrap();
    }
}

fn installation(master: &VaultKey, data_key: &VaultKey) -> Vec<(String, Value)> {
    let mut entries = Vec::new();
    for tenant in ["acme", "globex"] {
        entries.push((
            format!("tenant.{tenant}"),
            json!({"id": tenant, "name": tenant}),
        ));
        entries.push((
            format!("datakey.{tenant}"),
            json!(data_key.seal_under(master, tenant)),
        ));
    }
    for (id, tenant) in [("1001", "acme"), ("2001", "globex")] {
        let phone =
            json!({"id": id, "tenant": tenant, "app": "app", "waba_id": "W", "access_token": "t"});
        entries.push((format!("phone.{id}"), phone));
    }
    let keys = [
        ("all", "acme", ACME, json!(["read", "send", "manage"])),
        ("reader", "acme", READER, json!(["read"])),
        ("sender", "acme", SENDER, json!(["send"])),
        ("operator", "acme", OPERATOR, json!(["operate"])),
        ("own-operator", "acme", OWN_OPERATOR, json!(["operate"])),
        ("reseller", "acme", RESELLER, json!(["operate"])),
        ("short", "acme", "too-short", json!(["read"])),
        ("all", "globex", GLOBEX, json!(["read", "send", "manage"])),
    ];
    for (id, tenant, key, scopes) in keys {
        let mut value = json!({"id": id, "tenant": tenant, "key": key, "scopes": scopes});
        match id {
            "operator" => value["reach"] = "platform".into(),
            "reseller" => value["reach"] = "brand".into(),
            _ => {}
        }
        entries.push((format!("key.{tenant}.{id}"), value));
    }
    entries
}

async fn answer(service: Router, request: Request<Body>) -> Answer {
    let response = service.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, 16 << 20).await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    Answer {
        status: parts.status,
        headers: parts.headers,
        text,
        json,
    }
}
