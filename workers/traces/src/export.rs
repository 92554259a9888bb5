//! Sends spans to a collector in batches; what it does not take in time is lost and counted.

use super::{Inner, Traces, text};
use ackline_shared::config::Reader;
use ackline_shared::shutdown::{Shutdown, ended};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use prost::Message;
use reqwest::Client;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

const QUEUED_MAX: usize = 8192;
const BATCH_MAX: usize = 512;
const LINGER: Duration = Duration::from_secs(1);
const POST_TIMEOUT: Duration = Duration::from_secs(5);

/// Where spans go, and how many.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceSettings {
    /// Base of the collector's OTLP over HTTP; `None` for no traces.
    pub endpoint: Option<String>,
    /// Share of updates that are traced.
    pub share: f64,
}

impl TraceSettings {
    /// Reads the `[telemetry]` section's part.
    pub fn read(reader: &mut Reader) -> Self {
        let endpoint = reader.optional_text("telemetry.otlp_endpoint");
        let is_url = |text: &String| text.starts_with("http://") || text.starts_with("https://");
        if endpoint.as_ref().is_some_and(|text| !is_url(text)) {
            reader.mistake("telemetry.otlp_endpoint", "is not an http or https address");
        }
        let permille =
            u32::try_from(reader.count("telemetry.otlp_permille", 0..=1000)).unwrap_or(0);
        Self {
            endpoint,
            share: f64::from(permille) / 1000.0,
        }
    }
}

/// Sends spans until the signal.
#[derive(Debug)]
pub struct Exporter {
    url: String,
    instance: String,
    spans: mpsc::Receiver<Span>,
    dropped: Counter,
}

impl Traces {
    /// Makes what collects spans and what sends them; `None` when no endpoint is configured.
    pub fn open(
        settings: &TraceSettings,
        instance: &str,
        registry: &mut Registry,
    ) -> Option<(Self, Exporter)> {
        let url = format!(
            "{}/v1/traces",
            settings.endpoint.as_ref()?.trim_end_matches('/')
        );
        let (sender, spans) = mpsc::channel(QUEUED_MAX);
        let dropped = Counter::default();
        registry.register(
            "ackline_spans_dropped",
            "Spans that no collector took in time",
            dropped.clone(),
        );
        let inner = Inner {
            spans: sender,
            below: share(settings.share),
            dropped: dropped.clone(),
        };
        Some((
            Self(Some(Arc::new(inner))),
            Exporter {
                url,
                instance: instance.to_owned(),
                spans,
                dropped,
            },
        ))
    }
}

/// The bound of trace ids that are followed.
pub(super) fn share(share: f64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a range; the cast saturates"
    )]
    let below = (share.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
    below
}

impl Exporter {
    /// Runs until the signal, then sends what is left.
    pub async fn run(mut self, mut shutdown: Shutdown) {
        let client = match Client::builder().no_proxy().timeout(POST_TIMEOUT).build() {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(%error, "traces cannot be sent");
                return;
            }
        };
        let mut is_ending = false;
        while !is_ending {
            let mut batch = Vec::new();
            tokio::select! {
                () = ended(&mut shutdown) => is_ending = true,
                count = self.spans.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 {
                        return;
                    }
                    let _nothing_more_came = timeout(LINGER, self.fill(&mut batch)).await;
                }
            }
            while batch.len() < BATCH_MAX
                && let Ok(span) = self.spans.try_recv()
            {
                batch.push(span);
            }
            if !batch.is_empty() {
                self.post(&client, batch).await;
            }
        }
    }

    async fn fill(&mut self, batch: &mut Vec<Span>) {
        while batch.len() < BATCH_MAX {
            let room = BATCH_MAX - batch.len();
            if self.spans.recv_many(batch, room).await == 0 {
                sleep(LINGER).await;
            }
        }
    }

    async fn post(&self, client: &Client, spans: Vec<Span>) {
        let count = u64::try_from(spans.len()).unwrap_or_default();
        let resource = Resource {
            attributes: vec![
                text("service.name", "ackline"),
                text("service.version", env!("CARGO_PKG_VERSION")),
                text("service.instance.id", &self.instance),
            ],
            ..Resource::default()
        };
        let resource_spans = vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }];
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let post = client
            .post(&self.url)
            .header("content-type", "application/x-protobuf")
            .body(body);
        let lost = match post.send().await {
            Ok(answer) if answer.status().is_success() => return,
            Ok(answer) => answer.status().to_string(),
            Err(error) => error.without_url().to_string(),
        };
        self.dropped.inc_by(count);
        tracing::debug!(lost, count, "the collector did not take the spans");
    }
}
