//! Traces: edge, pool and downstream of one update joined by its `traceparent`, exported by OTLP over HTTP.
//!
//! Off unless an endpoint is configured. Which updates are traced is decided by the trace id alone, so every
//! process decides alike and a trace is whole. Spans wait in a bounded queue; when it is full they are dropped
//! and counted, and no job waits. A span holds ids, kinds and verdicts, and nothing that people wrote. Other
//! parties' endpoints are not told our ids.

pub mod context;
pub mod export;

pub use context::{Context, current, downstream};
pub use export::TraceSettings;

use ackline_shared::envelope::Head;
use ackline_shared::subjects::Pool;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Where spans go; cheap to clone. The default sends none.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    spans: mpsc::Sender<Span>,
    /// Traces whose id ends below this are followed.
    below: u64,
    dropped: Counter,
}

/// An attempt that is traced.
#[derive(Debug, Clone)]
pub struct Attempt {
    context: Context,
    parent: [u8; 8],
    begun: SystemTime,
}

impl Traces {
    /// Begins an attempt at an update; `None` when its trace is not followed.
    pub fn begin(&self, head: &Head) -> Option<Attempt> {
        self.0.as_ref()?;
        let (trace, parent) = parse(head.traceparent.as_deref()?)?;
        self.follows(&trace).then(|| Attempt {
            context: Context {
                traces: self.clone(),
                trace,
                span: rand::random(),
            },
            parent,
            begun: SystemTime::now(),
        })
    }

    /// Tells of the edge's work on an update: from the moment it had the delivery until the update was stored.
    pub fn edge(&self, head: &Head, stored: SystemTime) {
        let Some((trace, span)) = head
            .traceparent
            .as_deref()
            .and_then(parse)
            .filter(|(trace, _)| self.follows(trace))
        else {
            return;
        };
        let received = UNIX_EPOCH + Duration::from_millis(head.received_ms);
        self.send(Span {
            attributes: attributes(head),
            status: Some(well()),
            ..span_of(
                trace,
                span,
                None,
                "ingress receive",
                SpanKind::Server,
                (received, stored.max(received)),
            )
        });
    }

    fn follows(&self, trace: &[u8; 16]) -> bool {
        let Some(inner) = &self.0 else { return false };
        let [.., a, b, c, d, e, f, g, h] = *trace;
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) < inner.below
    }

    fn send(&self, span: Span) {
        if let Some(inner) = &self.0
            && inner.spans.try_send(span).is_err()
        {
            inner.dropped.inc();
        }
    }
}

impl Attempt {
    /// What the attempt's work hands on to what it asks of others.
    pub fn context(&self) -> Context {
        self.context.clone()
    }

    /// Ends the attempt with its verdict.
    pub fn end(self, pool: Pool, head: &Head, attempt: u32, verdict: &str, reason: Option<&str>) {
        let Context {
            traces,
            trace,
            span,
        } = self.context;
        let name = format!("{pool} {verdict}");
        let mut attributes = attributes(head);
        attributes.push(text("ackline.pool", pool.as_str()));
        attributes.push(text("ackline.verdict", verdict));
        attributes.push(number("ackline.attempt", attempt.into()));
        let status = match reason {
            Some(reason) => badly(reason.to_owned()),
            None => well(),
        };
        traces.send(Span {
            attributes,
            status: Some(status),
            ..span_of(
                trace,
                span,
                Some(self.parent),
                &name,
                SpanKind::Consumer,
                (self.begun, SystemTime::now()),
            )
        });
    }
}

fn span_of(
    trace: [u8; 16],
    span: [u8; 8],
    parent: Option<[u8; 8]>,
    name: &str,
    kind: SpanKind,
    (begun, ended): (SystemTime, SystemTime),
) -> Span {
    Span {
        trace_id: trace.to_vec(),
        span_id: span.to_vec(),
        parent_span_id: parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        name: name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: nanoseconds(begun),
        end_time_unix_nano: nanoseconds(ended),
        ..Span::default()
    }
}

fn attributes(head: &Head) -> Vec<KeyValue> {
    vec![
        text("ackline.tenant", head.tenant.as_str()),
        text("ackline.kind", &head.kind),
        text("messaging.message.id", &head.id.in_log()),
        number("ackline.partition", head.partition.0.into()),
    ]
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn well() -> Status {
    Status {
        code: StatusCode::Ok.into(),
        ..Status::default()
    }
}

fn badly(message: String) -> Status {
    Status {
        code: StatusCode::Error.into(),
        message,
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    u64::try_from(
        time.duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos(),
    )
    .unwrap_or(u64::MAX)
}

fn parse(traceparent: &str) -> Option<([u8; 16], [u8; 8])> {
    let mut parts = traceparent.split('-');
    let (_version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    let (trace, span) = (bytes(trace)?, bytes(span)?);
    (trace != [0; 16] && span != [0; 8]).then_some((trace, span))
}

fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    if hex.len() != N * 2 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; N];
    for (index, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_or_left_alone() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let (trace, span) = parse(good).unwrap();
        assert_eq!((trace[0], trace[15], span[7]), (0x0a, 0x9c, 0x31));
        for bad in [
            "",
            "00",
            "00-0af7-b7ad-01",
            &good.replace("b7ad6b7169203331", "0000000000000000"),
            &good.replace("0af7", "+af7"),
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_share_of_traces_is_decided_by_their_id_alone() {
        let (spans, _kept) = mpsc::channel(1);
        let below = export::share(0.25);
        let traces = Traces(Some(Arc::new(Inner {
            spans,
            below,
            dropped: Counter::default(),
        })));
        let followed = (0..4000_u64).filter(|n| {
            let mut trace = [1; 16];
            trace[8..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            traces.follows(&trace)
        });
        assert!((900..1100).contains(&followed.count()));
        assert_eq!((export::share(0.0), export::share(1.0)), (0, u64::MAX));
    }
}
