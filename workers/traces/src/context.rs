//! The trace that the running attempt belongs to, carried along by the task and by nothing else.

use super::{Traces, badly, number, span_of, text, well};
use ackline_shared::ids::hex;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use std::time::SystemTime;

tokio::task_local! {
    static CURRENT: Context;
}

/// A place in a trace.
#[derive(Debug, Clone)]
pub struct Context {
    pub(super) traces: Traces,
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
}

impl Context {
    /// Does work as part of this place.
    pub async fn around<T>(context: Option<Self>, work: impl Future<Output = T>) -> T {
        match context {
            Some(context) => CURRENT.scope(context, work).await,
            None => work.await,
        }
    }

    fn traceparent(&self) -> String {
        format!("00-{}-{}-01", hex(&self.trace), hex(&self.span))
    }
}

/// The `traceparent` for what the running attempt writes; `None` when it is not traced.
pub fn current() -> Option<String> {
    CURRENT.try_with(Context::traceparent).ok()
}

/// Makes a request to another party, told as a span of the running attempt: `name` without personal data, and
/// the answer's status, or why there is none.
pub async fn downstream<T>(
    name: &str,
    host: &str,
    work: impl Future<Output = T>,
    reported: impl FnOnce(&T) -> Result<u16, String>,
) -> T {
    let Ok(context) = CURRENT.try_with(Clone::clone) else {
        return work.await;
    };
    let begun = SystemTime::now();
    let result = work.await;
    let (trace, parent) = (context.trace, context.span);
    let mut span = span_of(
        trace,
        rand::random(),
        Some(parent),
        name,
        SpanKind::Client,
        (begun, SystemTime::now()),
    );
    span.attributes.push(text("server.address", host));
    span.status = Some(match reported(&result) {
        Ok(status) => {
            span.attributes
                .push(number("http.response.status_code", status.into()));
            if status < 400 {
                well()
            } else {
                badly(String::new())
            }
        }
        Err(message) => badly(message),
    });
    context.traces.send(span);
    result
}
