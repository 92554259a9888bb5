//! Traces of attempts, as a collector gets them.

use super::stage::{DEADLINE, Stage, TRACEPARENT};
use ackline_ownership::standing::Standing;
use ackline_runtime::job::{Job, LaneSource, Verdict, Work};
use ackline_runtime::metrics::Metrics;
use ackline_shared::config::Reader;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, Class, Pool};
use ackline_traces::{TraceSettings, Traces};
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prometheus_client::registry::Registry;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// Asks somebody who answers 503, and says so; keeps the trace it would hand on.
struct Asking(mpsc::Sender<Option<String>>);

impl Job for Asking {
    const POOL: Pool = Pool::Relay;

    fn lanes() -> Vec<LaneSource> {
        let filters = |partition| vec![subjects::update_filter(partition, Class::Message)];
        vec![LaneSource {
            name: "msg",
            stream: subjects::UPDATES,
            filters,
            weight: 1,
        }]
    }

    async fn run(&self, _work: &Work) -> Verdict {
        let status =
            ackline_traces::downstream("HTTP POST", "bot.example", async { 503 }, |status| {
                Ok(*status)
            })
            .await;
        self.0.send(ackline_traces::current()).await.unwrap();
        Verdict::dead(format!("answered {status}"))
    }
}

/// A collector that passes on what it is sent.
async fn collector() -> (String, mpsc::Receiver<Span>) {
    let (sender, spans) = mpsc::channel(64);
    let take = move |body: Bytes| {
        let sender = sender.clone();
        async move {
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            for span in request
                .resource_spans
                .into_iter()
                .flat_map(|resource| resource.scope_spans)
            {
                for span in span.spans {
                    sender.send(span).await.unwrap();
                }
            }
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/traces", post(take));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, spans)
}

fn settings(url: &str, permille: &str) -> TraceSettings {
    let own = [
        ("ACKLINE_TELEMETRY_OTLP_ENDPOINT", url),
        ("ACKLINE_TELEMETRY_OTLP_PERMILLE", permille),
    ];
    let mut reader = Reader::load(
        None,
        own.map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let settings = TraceSettings::read(&mut reader);
    reader.finish().unwrap();
    settings
}

fn hex(bytes: &[u8]) -> String {
    ackline_shared::ids::hex(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_and_what_it_asks_are_joined_to_the_edges_trace() {
    let _another_provider_is_as_good = rustls::crypto::ring::default_provider().install_default();
    let stage = Stage::start(Snapshot::default()).await;
    let (url, mut spans) = collector().await;
    let mut registry = Registry::default();
    let (traces, exporter) = Traces::open(&settings(&url, "1000"), "one", &mut registry).unwrap();
    let (_end, shutdown) = watch::channel(false);
    tokio::spawn(exporter.run(shutdown));
    let (sender, mut handed_on) = mpsc::channel(1);
    let metrics = Metrics::register(&mut registry).with_traces(traces);
    let (_stop, _running) = stage.run_seen(Asking(sender), "one", metrics, Standing::default());
    stage.publish("US.1", "m1", "x").await;
    let mut reported = Vec::new();
    while reported.len() < 2 {
        reported.push(timeout(DEADLINE, spans.recv()).await.unwrap().unwrap());
    }
    let attempt = reported
        .iter()
        .find(|span| span.name == "relay dead")
        .unwrap();
    let request = reported
        .iter()
        .find(|span| span.name == "HTTP POST")
        .unwrap();
    let [_, trace, edge, _] = TRACEPARENT.split('-').collect::<Vec<_>>()[..] else {
        panic!("four parts")
    };
    assert_eq!(
        (
            hex(&attempt.trace_id).as_str(),
            hex(&attempt.parent_span_id).as_str()
        ),
        (trace, edge)
    );
    assert_eq!(
        (&request.trace_id, &request.parent_span_id),
        (&attempt.trace_id, &attempt.span_id)
    );
    assert_eq!(attempt.status.as_ref().unwrap().message, "answered 503");
    let status = request
        .attributes
        .iter()
        .find(|field| field.key == "http.response.status_code")
        .unwrap();
    assert_eq!(
        status.value.as_ref().unwrap().value,
        Some(Value::IntValue(503))
    );
    assert!(attempt.start_time_unix_nano <= request.start_time_unix_nano);
    assert!(request.end_time_unix_nano <= attempt.end_time_unix_nano);
    let handed_on = timeout(DEADLINE, handed_on.recv())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(
        handed_on,
        format!("00-{trace}-{}-01", hex(&attempt.span_id))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_spans_and_no_job() {
    let stage = Stage::start(Snapshot::default()).await;
    let mut registry = Registry::default();
    // Nothing takes spans out of the queue here, as while a collector hangs.
    let (traces, _exporter) = Traces::open(
        &settings("http://127.0.0.1:9", "1000"),
        "one",
        &mut registry,
    )
    .unwrap();
    let (sender, mut handed_on) = mpsc::channel(1);
    let metrics = Metrics::register(&mut registry).with_traces(traces);
    let (_stop, _running) = stage.run_seen(Asking(sender), "one", metrics, Standing::default());
    for n in 0..20 {
        stage.publish("US.1", &format!("m{n}"), "x").await;
        assert!(
            timeout(DEADLINE, handed_on.recv())
                .await
                .unwrap()
                .unwrap()
                .is_some()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sampled_is_not_traced() {
    let stage = Stage::start(Snapshot::default()).await;
    let mut registry = Registry::default();
    assert!(Traces::open(&settings("", "1000"), "one", &mut registry).is_none());
    let (traces, _exporter) =
        Traces::open(&settings("http://127.0.0.1:9", "0"), "one", &mut registry).unwrap();
    let (sender, mut handed_on) = mpsc::channel(1);
    let metrics = Metrics::register(&mut registry).with_traces(traces);
    let (_stop, _running) = stage.run_seen(Asking(sender), "one", metrics, Standing::default());
    stage.publish("US.1", "m1", "x").await;
    assert_eq!(
        timeout(DEADLINE, handed_on.recv()).await.unwrap().unwrap(),
        None
    );
}
