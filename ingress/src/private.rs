//! Health and metrics for the operator, on a port of their own.
//!
//! `/readyz` fails only where another edge could do better, or where there is nothing to serve: before the first routing
//! table, while nothing is declared, while JetStream has lost its streams, and while draining. A lost NATS is shown and
//! keeps the edge in rotation, answering 503, so that an outage of the broker never empties the balancer; nor do
//! warnings, such as of a `max_payload` that the longest updates do not fit.

use crate::budget::Budget;
use crate::http::server::Answer;
use crate::http::tls::Tls;
use crate::metrics::Metrics;
use crate::routing::Routing;
use crate::store::durability::DurabilityCheck;
use crate::store::spool::Spool;
use crate::store::spool::state::Depth;
use crate::store::wire::Wire;
use crate::store::wire::status::ConnectionStatus;
use ackline_shared::nats::Durability;
use ackline_shared::nats::preparation::Health;
use ackline_shared::surroundings::Surroundings;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// What the private port shows.
#[derive(Debug, Clone)]
pub struct Private {
    /// The connections its threads publish on.
    pub wires: Vec<Arc<Wire>>,
    /// The local log, if there is one.
    pub spool: Option<Spool>,
    pub body_bytes: Arc<Budget>,
    /// Whether the streams are there.
    pub streams: Arc<Health>,
    pub routing: Arc<Routing>,
    pub metrics: Arc<Metrics>,
    pub durability: Durability,
    /// Whether it is known to.
    pub durability_check: Arc<DurabilityCheck>,
    pub tls: Option<Arc<Tls>>,
    /// What it needs of the machine and of NATS.
    pub surroundings: Arc<Surroundings>,
    /// Whether the process is ending.
    pub draining: watch::Receiver<bool>,
}

impl Private {
    pub fn answer(&self, method: &Method, path: &str) -> Answer {
        if method != Method::GET && method != Method::HEAD {
            let mut response = text(
                StatusCode::METHOD_NOT_ALLOWED,
                "method not allowed\n".to_owned(),
            );
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/livez" => text(StatusCode::OK, "alive\n".to_owned()),
            "/readyz" => self.readiness(),
            "/metrics" => self.measurements(),
            _ => text(
                StatusCode::NOT_FOUND,
                "try /livez, /readyz or /metrics\n".to_owned(),
            ),
        }
    }

    fn readiness(&self) -> Answer {
        let table = self.routing.table();
        let draining = *self.draining.borrow();
        let declared = table.as_ref().is_some_and(|table| table.is_declared());
        let lost = self.streams.is_lost();
        let ready = declared && !lost && !draining;
        let unreadable = table
            .as_ref()
            .map(|table| table.unreadable())
            .unwrap_or_default();
        let (apps, numbers) = table
            .as_ref()
            .map(|table| table.sizes())
            .unwrap_or_default();
        let body = json!({
            "ready": ready,
            "draining": draining,
            "durability": self.durability.as_str(),
            "durability_verified": self.durability_check.is_verified(),
            "nats": self.status().as_str(),
            "max_payload": self.surroundings.message_bytes_max(),
            "warnings": self.surroundings.warnings().into_iter().map(|warning| warning.text).collect::<Vec<_>>(),
            "streams": self.streams.words(),
            "spool": self.spool.as_ref().map(spool_status),
            "routing": {
                "loaded": table.is_some(),
                "declared": declared,
                "version": table.as_ref().map(|table| table.version),
                "apps": apps,
                "numbers": numbers,
                "unreadable": unreadable,
            },
            "tls": self.tls.as_ref().map(|tls| tls.status(SystemTime::now())),
            "version": env!("CARGO_PKG_VERSION"),
        });
        let status = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        typed(status, format!("{body}\n"), "application/json")
    }

    /// Connected when all are; else what the first of the others says.
    fn status(&self) -> ConnectionStatus {
        let mut statuses = self.wires.iter().map(|wire| wire.status());
        statuses
            .find(|status| *status != ConnectionStatus::Up)
            .unwrap_or(ConnectionStatus::Up)
    }

    fn measurements(&self) -> Answer {
        let metrics = &self.metrics;
        metrics
            .in_flight
            .set(signed(self.wires.iter().map(|wire| wire.in_flight()).sum()));
        metrics.body_bytes.set(signed(self.body_bytes.held()));
        metrics
            .nats_connected
            .set(i64::from(self.status() == ConnectionStatus::Up));
        if let Some(spool) = &self.spool {
            let depth = spool.depth();
            metrics
                .spool_records
                .set(i64::try_from(depth.records).unwrap_or(i64::MAX));
            metrics
                .spool_bytes
                .set(i64::try_from(depth.held_bytes).unwrap_or(i64::MAX));
            metrics
                .spool_oldest_seconds
                .set(i64::try_from(oldest_seconds(&depth)).unwrap_or(i64::MAX));
        }
        let table = self.routing.table();
        metrics.entries_unreadable.set(signed(
            table.as_ref().map_or(0, |table| table.unreadable().len()),
        ));
        let version = table.map_or(0, |table| table.version);
        metrics
            .routing_version
            .set(i64::try_from(version).unwrap_or(i64::MAX));
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        typed(StatusCode::OK, metrics.encode(), kind)
    }
}

fn spool_status(spool: &Spool) -> Value {
    let depth = spool.depth();
    json!({
        "always": spool.is_always(),
        "state": depth.state.as_str(),
        "records": depth.records,
        "bytes": depth.bytes,
        "disk_bytes": depth.held_bytes,
        "oldest_seconds": oldest_seconds(&depth),
        "fault": depth.fault,
        "blocked": depth.blocked,
    })
}

fn oldest_seconds(depth: &Depth) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    let came = depth.oldest_ms.map(u128::from).unwrap_or(now);
    u64::try_from(now.saturating_sub(came) / 1000).unwrap_or(u64::MAX)
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn text(status: StatusCode, body: String) -> Answer {
    typed(status, body, "text/plain; charset=utf-8")
}

fn typed(status: StatusCode, body: String, kind: &'static str) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
