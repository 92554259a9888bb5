//! A nats-server with the streams and buckets, and a platform on it.

use ackline_engine::backoff::Backoff;
use ackline_engine::state::Policy;
use ackline_ownership::membership::Membership;
use ackline_ownership::standing::Standing;
use ackline_runtime::job::Job;
use ackline_runtime::log::Log;
use ackline_runtime::metrics::Metrics;
use ackline_runtime::open_breakers::OpenBreakers;
use ackline_runtime::platform::Platform;
use ackline_runtime::pool::{self, Host};
use ackline_runtime::settings::PoolSettings;
use ackline_runtime::upkeep;
use ackline_shared::clock::now_ms;
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{ConversationKey, PhoneNumberId, TenantId, UpdateId};
use ackline_shared::nats::{self, BucketBytes, Durability, NatsSettings, ServerUrls};
use ackline_shared::registry::{Registry, Snapshot};
use ackline_shared::subjects::{self, Class, Partition, header};
use ackline_shared::testing::{NatsOptions, NatsServer};
use ackline_shared::vault::VaultKey;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use futures_util::{StreamExt, TryStreamExt};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The longest any test waits for anything.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How long a process counts as alive.
pub const LEASE_TTL: Duration = Duration::from_secs(2);

/// The trace of everything that is stored.
pub const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A pool running in the test; dropping the sender ends it too.
pub type RunningPool = (watch::Sender<bool>, JoinHandle<()>);

pub struct Stage {
    server: NatsServer,
    pub platform: Platform,
}

impl Stage {
    pub async fn start(snapshot: Snapshot) -> Self {
        Self::start_with(snapshot, NatsOptions::default()).await
    }

    /// The same on a nats-server with options.
    pub async fn start_with(snapshot: Snapshot, options: NatsOptions) -> Self {
        let server = NatsServer::start_with(options).unwrap();
        let settings = settings(server.url());
        let client = nats::connect(&settings, "test").await.unwrap();
        let context = nats::jetstream(client);
        let buckets = nats::prepare(&context, &settings).await.unwrap();
        let registry = Registry::fixed(snapshot);
        let platform = Platform::new(
            Log::new(context, 4),
            registry,
            buckets,
            VaultKey::generate(),
        );
        Self { server, platform }
    }

    /// The settings of the connection.
    pub fn settings(&self) -> NatsSettings {
        settings(self.server.url())
    }

    /// Where other processes find the server.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Kills nats-server.
    pub fn kill_server(&mut self) {
        self.server.kill();
    }

    /// Kills nats-server, starts it again and waits until we are connected.
    pub async fn restart_server(&mut self) {
        self.restart_server_after(Duration::ZERO).await;
    }

    /// The same, with the server away for a while.
    pub async fn restart_server_after(&mut self, away: Duration) {
        let client = self.platform.log.context().client();
        let connects = client.statistics().connects.load(Ordering::Relaxed);
        self.server.kill();
        tokio::time::sleep(away).await;
        self.server.restart().unwrap();
        let connected = async {
            while client.statistics().connects.load(Ordering::Relaxed) == connects {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, connected)
            .await
            .expect("a new connection");
    }

    /// The same, with everything gone that the server stored.
    pub async fn wipe_server(&mut self) {
        let client = self.platform.log.context().client();
        let connects = client.statistics().connects.load(Ordering::Relaxed);
        self.server.wipe().unwrap();
        self.server.restart().unwrap();
        timeout(DEADLINE, upkeep::reconnected(&client, connects))
            .await
            .expect("a new connection");
    }

    pub fn run<J: Job>(&self, job: J, instance: &str) -> RunningPool {
        self.run_on(self.platform.clone(), job, instance)
    }

    /// The same on the platform of another process.
    pub fn run_on<J: Job>(&self, platform: Platform, job: J, instance: &str) -> RunningPool {
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        self.run_as(
            platform,
            job,
            instance,
            (metrics, Standing::default()),
            |_| {},
        )
    }

    /// Runs a pool with settings of the test's own.
    pub fn run_with<J: Job>(
        &self,
        job: J,
        instance: &str,
        adjust: impl FnOnce(&mut PoolSettings),
    ) -> RunningPool {
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        self.run_as(
            self.platform.clone(),
            job,
            instance,
            (metrics, Standing::default()),
            adjust,
        )
    }

    /// Runs a pool whose metrics and standing are looked at.
    pub fn run_seen<J: Job>(
        &self,
        job: J,
        instance: &str,
        metrics: Metrics,
        standing: Standing,
    ) -> RunningPool {
        self.run_as(
            self.platform.clone(),
            job,
            instance,
            (metrics, standing),
            |_| {},
        )
    }

    /// Runs a pool on a platform, seen from outside, with settings of the test's own.
    pub fn run_as<J: Job>(
        &self,
        platform: Platform,
        job: J,
        instance: &str,
        (metrics, standing): (Metrics, Standing),
        adjust: impl FnOnce(&mut PoolSettings),
    ) -> RunningPool {
        let (stop, shutdown) = watch::channel(false);
        let membership = Membership::join(
            platform.log.context(),
            &platform.buckets,
            instance,
            LEASE_TTL,
        );
        let breakers = OpenBreakers::default();
        let host = Host {
            platform,
            metrics,
            standing,
            membership,
            breakers,
            shutdown,
        };
        let mut settings = PoolSettings {
            window: 256,
            window_bytes_max: 8 << 20,
            tenant_in_flight_max: 8,
            ack_wait: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(5),
            concurrency: 8,
            adaptive: None,
            attempts_max: 3,
            backoff: Backoff {
                initial: Duration::from_millis(20),
                max: Duration::from_millis(50),
            },
            attempt_timeout: Duration::from_secs(5),
            give_up_after: Duration::from_secs(2),
            spill_share: 25,
            park_after: Duration::from_secs(60),
            breaker: Policy::default(),
        };
        adjust(&mut settings);
        (stop, tokio::spawn(pool::run(job, settings, host)))
    }

    /// Stores a message of somebody to the number `100`.
    pub async fn publish(&self, conversation: &str, id: &str, payload: impl Into<bytes::Bytes>) {
        self.store("acme", conversation, id, payload.into()).await;
    }

    /// Stores a message to a tenant's number, in the same partition.
    pub async fn publish_to(
        &self,
        tenant: &str,
        conversation: &str,
        id: &str,
        payload: impl Into<bytes::Bytes>,
    ) {
        self.store(tenant, conversation, id, payload.into()).await;
    }

    /// Stores it with another head.
    pub async fn publish_as(
        &self,
        change: impl FnOnce(Head) -> Head,
        conversation: &str,
        id: &str,
        payload: impl Into<bytes::Bytes>,
    ) {
        self.put(
            &change(head(Partition(1), conversation, id)),
            payload.into(),
        )
        .await;
    }

    /// Stores it again, once the stream has forgotten its id.
    pub async fn publish_again(
        &self,
        conversation: &str,
        id: &str,
        payload: impl Into<bytes::Bytes>,
    ) {
        let payload = payload.into();
        let stored = async { while self.store("acme", conversation, id, payload.clone()).await {} };
        timeout(DEADLINE, stored)
            .await
            .expect("the duplicate window ends");
    }

    /// Stores a message in a partition of its own choosing.
    pub async fn publish_in(&self, partition: u16, conversation: &str, id: &str) {
        self.store_in(Partition(partition), "acme", conversation, id, "ok".into())
            .await;
    }

    /// The same with Meta's signature, so that it can be relayed; the payload is the id.
    pub async fn publish_signed(&self, partition: u16, conversation: &str, id: &str) {
        let signature = Some("sha256=00".to_owned());
        let head = Head {
            signature,
            ..head(Partition(partition), conversation, id)
        };
        self.put(&head, id.to_owned().into()).await;
    }

    /// Tells whether the stream knew the id.
    async fn store(
        &self,
        tenant: &str,
        conversation: &str,
        id: &str,
        payload: bytes::Bytes,
    ) -> bool {
        self.store_in(Partition(1), tenant, conversation, id, payload)
            .await
    }

    async fn store_in(
        &self,
        partition: Partition,
        tenant: &str,
        conversation: &str,
        id: &str,
        payload: bytes::Bytes,
    ) -> bool {
        let tenant = TenantId::new(tenant).unwrap();
        self.put(
            &Head {
                tenant,
                ..head(partition, conversation, id)
            },
            payload,
        )
        .await
    }

    async fn put(&self, head: &Head, payload: bytes::Bytes) -> bool {
        let context = self.platform.log.context();
        let receipt = context
            .publish_with_headers(head.subject(), head.to_headers(), payload)
            .await
            .unwrap();
        receipt.await.unwrap().duplicate
    }

    /// Waits until a consumer has acknowledged everything up to a sequence.
    pub async fn acknowledged(&self, consumer: &str, sequence: u64) {
        let stream = self
            .platform
            .log
            .context()
            .get_stream(subjects::UPDATES)
            .await
            .unwrap();
        let reached = async {
            loop {
                let info = stream.consumer_info(consumer).await;
                if info.is_ok_and(|info| info.ack_floor.stream_sequence >= sequence) {
                    return;
                }
            }
        };
        timeout(DEADLINE, reached)
            .await
            .expect("an acknowledgement in time");
    }

    /// Waits until a stream holds between so many messages.
    pub async fn holds(&self, stream: &str, count: std::ops::RangeInclusive<u64>) {
        let stream = self
            .platform
            .log
            .context()
            .get_stream(stream)
            .await
            .unwrap();
        let mut last = None;
        let reached = async {
            while !last.is_some_and(|last| count.contains(&last)) {
                last = Some(stream.get_info().await.unwrap().state.messages);
            }
        };
        let is_reached = timeout(DEADLINE, reached).await.is_ok();
        if !is_reached {
            let subjects: Vec<_> = stream
                .info_with_subjects(">")
                .await
                .unwrap()
                .try_collect()
                .await
                .unwrap();
            panic!("{last:?} messages, not {count:?}: {subjects:?}");
        }
    }

    /// The first messages of a stream, in order, once there are this many.
    pub async fn messages(&self, stream: &str, filter: &str, count: usize) -> Vec<Message> {
        self.messages_of(stream, vec![filter.to_owned()], count)
            .await
    }

    /// The same over several filters.
    pub async fn messages_of(
        &self,
        stream: &str,
        filters: Vec<String>,
        count: usize,
    ) -> Vec<Message> {
        let stream = self
            .platform
            .log
            .context()
            .get_stream(stream)
            .await
            .unwrap();
        let config = OrderedConfig {
            filter_subjects: filters,
            ..OrderedConfig::default()
        };
        let mut incoming = stream
            .create_consumer(config)
            .await
            .unwrap()
            .messages()
            .await
            .unwrap();
        let mut messages = Vec::new();
        while messages.len() < count {
            let next = timeout(DEADLINE, incoming.next())
                .await
                .expect("a message in time");
            messages.push(next.unwrap().unwrap());
        }
        messages
    }

    /// The reasons among the dead letters, once there are this many.
    pub async fn dead_letters(&self, count: usize) -> Vec<String> {
        let letters = self
            .messages(subjects::DEAD, &subjects::dead_filter(None, None), count)
            .await;
        let reason = |letter: &Message| {
            let headers = letter.headers.clone().unwrap();
            assert!(
                headers
                    .get(header::DEAD_ORIGIN)
                    .unwrap()
                    .as_str()
                    .starts_with(subjects::UPDATES)
            );
            headers.get(header::DEAD_REASON).unwrap().to_string()
        };
        letters.iter().map(reason).collect()
    }
}

fn settings(url: String) -> NatsSettings {
    NatsSettings {
        url: ServerUrls::new(url),
        credentials_file: None,
        monitor_url: None,
        durability: Durability::Stored,
        partitions: 4,
        max_age: Duration::from_secs(3600),
        dead_max_age: Duration::from_secs(3600),
        stream_bytes_max: 64 << 20,
        bucket_bytes: BucketBytes::default(),
        duplicate_window: Duration::from_millis(100),
        session_max_age: Duration::from_secs(3600),
        lease_ttl: LEASE_TTL,
    }
}

/// A message of somebody to the number `100`.
pub fn head(partition: Partition, conversation: &str, id: &str) -> Head {
    Head {
        id: UpdateId::new(id),
        tenant: TenantId::new("acme").unwrap(),
        partition,
        family: Family::Update(Class::Message),
        kind: "message.text".into(),
        app: None,
        phone: PhoneNumberId::new("100").ok(),
        conversation: ConversationKey::user(conversation),
        received_ms: now_ms(),
        signature: None,
        traceparent: Some(TRACEPARENT.to_owned()),
        field: None,
        replay: None,
    }
}
