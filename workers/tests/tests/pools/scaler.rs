//! KEDA's external scaler, asked by a real gRPC client.

use super::stage::DEADLINE;
use ackline_fleet::board::Board;
use ackline_fleet::scaling::Targets;
use ackline_ownership::standing::Standing;
use ackline_runtime::metrics::Metrics;
use ackline_runtime::status::{LaneLag, Load, PoolStatus, Snapshot};
use ackline_shared::subjects::Pool;
use ackline_workers::scaler::Scaler;
use ackline_workers::scaler::wire::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, SERVICE,
    ScaledObjectRef,
};
use prometheus_client::registry::Registry;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

struct Client {
    grpc: Grpc<Channel>,
    board: Board,
    _end: watch::Sender<bool>,
}

impl Client {
    /// Connects to the scaler of a process that owns nothing itself.
    async fn connect() -> Self {
        let board = Board::new(
            "follower",
            Metrics::register(&mut Registry::default()),
            Standing::default(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, shutdown) = watch::channel(false);
        let targets = Targets {
            drain: Duration::from_secs(30),
            min: 0,
            max: 10,
        };
        tokio::spawn(Scaler::new(board.clone(), targets).serve(listener, shutdown));
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .connect()
            .await
            .unwrap();
        Self {
            grpc: Grpc::new(channel),
            board,
            _end: end,
        }
    }

    async fn ask<Q, A>(&mut self, call: &str, question: Q) -> Result<A, Status>
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        self.grpc.ready().await.unwrap();
        let path = format!("/{SERVICE}/{call}").parse().unwrap();
        let answer = self
            .grpc
            .unary(Request::new(question), path, ProstCodec::<Q, A>::new());
        Ok(timeout(DEADLINE, answer).await.unwrap()?.into_inner())
    }

    async fn wanted(&mut self, pools: &str) -> i64 {
        let question = GetMetricsRequest {
            scaled_object_ref: Some(of(pools)),
            metric_name: "ackline_workers_wanted".to_owned(),
        };
        let answer: GetMetricsResponse = self.ask("GetMetrics", question).await.unwrap();
        assert_eq!(answer.metric_values.len(), 1);
        answer.metric_values[0].metric_value
    }
}

fn of(pools: &str) -> ScaledObjectRef {
    let scaler_metadata = [("pools".to_owned(), pools.to_owned())].into();
    ScaledObjectRef {
        name: "workers".to_owned(),
        namespace: "default".to_owned(),
        scaler_metadata,
    }
}

/// What another process says: 8 jobs of 100 ms at once, and this much unread.
fn word(unread: u64, at_ms: u64) -> Snapshot {
    let mut relay = PoolStatus {
        pool: Pool::Relay.as_str().to_owned(),
        state: "working".to_owned(),
        partitions: 32,
        owned: (0..32).collect(),
        concurrency: 8,
        load: Load {
            running: 8,
            ..Load::default()
        },
        lanes: vec![LaneLag {
            lane: "msg".into(),
            unread,
            in_work: 8,
            oldest_ms: 40_000,
            partition: Some(1),
        }],
        ..PoolStatus::default()
    };
    relay.service.record(Duration::from_millis(100));
    relay.rates.finished = 60.0;
    Snapshot {
        instance: "worker".to_owned(),
        version: "0.1.0".to_owned(),
        started_ms: 0,
        at_ms,
        pools: vec![relay],
        unowned: Vec::new(),
        dead: None,
    }
}

#[tokio::test]
async fn a_follower_answers_with_what_all_processes_say() {
    let mut client = Client::connect().await;
    let spec: GetMetricSpecResponse = client.ask("GetMetricSpec", of("relay")).await.unwrap();
    assert_eq!(
        (
            spec.metric_specs[0].metric_name.as_str(),
            spec.metric_specs[0].target_size
        ),
        ("ackline_workers_wanted", 1)
    );
    assert_eq!(client.wanted("relay").await, 0);
    let idle: IsActiveResponse = client.ask("IsActive", of("relay")).await.unwrap();
    assert!(!idle.result);
    // 60 a second and 1,920 to be worked off in 30 s are 124 a second; one process is good for 64.
    client.board.hear(word(1_920, 1));
    assert_eq!(client.wanted("flows, relay").await, 2);
    assert_eq!(client.wanted("flows").await, 0);
    client.board.hear(word(1_000_000, 2));
    assert_eq!(client.wanted("all").await, 10);
    let busy: IsActiveResponse = client.ask("IsActive", of("relay")).await.unwrap();
    assert!(busy.result);
}

#[tokio::test]
async fn a_stream_tells_of_activity_when_it_begins() {
    let mut client = Client::connect().await;
    client.grpc.ready().await.unwrap();
    let path = format!("/{SERVICE}/StreamIsActive").parse().unwrap();
    let codec = ProstCodec::<ScaledObjectRef, IsActiveResponse>::new();
    let opened = client
        .grpc
        .server_streaming(Request::new(of("relay")), path, codec)
        .await
        .unwrap();
    let mut answers: Streaming<IsActiveResponse> = opened.into_inner();
    let first = timeout(DEADLINE, answers.message()).await.unwrap().unwrap();
    assert_eq!(first, Some(IsActiveResponse { result: false }));
    client.board.hear(word(5, 1));
    let second = timeout(DEADLINE, answers.message()).await.unwrap().unwrap();
    assert_eq!(second, Some(IsActiveResponse { result: true }));
}

#[tokio::test]
async fn a_declaration_without_a_known_pool_is_refused_in_words() {
    let mut client = Client::connect().await;
    let refused = client
        .ask::<_, IsActiveResponse>("IsActive", of("relays"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("relays"), "{refused}");
    let refused = client
        .ask::<_, IsActiveResponse>("IsActive", ScaledObjectRef::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let unknown = client
        .ask::<_, IsActiveResponse>("StreamMetricSpec", of("relay"))
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
}
