//! Compares what the configured durability promises with what NATS does, before anything is served.
//!
//! The stream says how many replicas it has; only the server's monitoring address says whether every write
//! is synced. Without one the promise is the operator's, and `/readyz` says that it is not verified.

use ackline_shared::nats::api::Ask;
use ackline_shared::nats::preparation::stream_info;
use ackline_shared::nats::{Durability, NatsSettings};
use ackline_shared::subjects::UPDATES;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

const REPLICAS_MIN: usize = 3;
const MONITOR_TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What a stream's settings say about the promise.
#[derive(Debug, Deserialize)]
struct Kept {
    num_replicas: usize,
    #[serde(default)]
    allow_atomic: bool,
    #[serde(default)]
    persist_mode: Option<String>,
}

/// What is known of the promise; shared by all threads.
#[derive(Debug, Default)]
pub struct DurabilityCheck {
    verified: AtomicBool,
    groups: AtomicBool,
}

/// The promise cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurabilityError {
    #[error(
        "nats.durability = \"replicated\" needs 3 replicas, and the stream {UPDATES} has {0}; raise its replicas on a cluster of three servers or more, or promise less"
    )]
    Replicas(usize),
    /// The server acknowledges before it syncs.
    #[error(
        "nats.durability = \"{0}\" is promised, but nats-server does not sync every write; add `sync_interval: always` to its jetstream block and restart it, or set nats.durability = \"stored\""
    )]
    Unsynced(Durability),
    /// The edge forgets before the server syncs.
    #[error(
        "nats.durability = \"logged\" is promised, and spool.keep ({kept:?}) is not longer than nats-server's sync_interval ({interval:?}); raise the one or lower the other"
    )]
    Kept {
        /// How long the edge keeps what was acknowledged.
        kept: Duration,
        /// How long the server may take to sync it.
        interval: Duration,
    },
    /// The stream acknowledges before it writes.
    #[error(
        "the stream {UPDATES} has persist_mode async: it acknowledges before it writes; create it anew without"
    )]
    Async,
}

impl DurabilityCheck {
    /// Whether NATS was seen to do what is promised.
    pub fn is_verified(&self) -> bool {
        self.verified.load(Ordering::Relaxed)
    }

    /// Whether updates are committed in groups: one server that syncs, and a stream that takes batches.
    pub fn in_groups(&self) -> bool {
        self.groups.load(Ordering::Relaxed)
    }

    /// Looks at the stream and the server, which syncs within what is `kept` at the edge; an error means that the promise is broken for certain.
    pub async fn verify(
        &self,
        asker: &impl Ask,
        settings: &NatsSettings,
        server_id: &str,
        kept: Duration,
    ) -> Result<(), DurabilityError> {
        let mode = settings.durability;
        let config = stream_info::<Kept>(asker, UPDATES)
            .await
            .ok()
            .map(|stream| stream.config);
        if let Some(config) = &config {
            if config.persist_mode.as_deref() == Some("async") {
                return Err(DurabilityError::Async);
            }
            if mode == Durability::Replicated && config.num_replicas < REPLICAS_MIN {
                return Err(DurabilityError::Replicas(config.num_replicas));
            }
        }
        let one_server = config
            .as_ref()
            .is_some_and(|config| config.num_replicas == 1 && config.allow_atomic);
        self.groups
            .store(mode == Durability::Synced && one_server, Ordering::Relaxed);
        let verified = match (mode, &settings.monitor_url) {
            (Durability::Stored, _) => config.is_some(),
            (mode, Some(monitor)) => {
                // Of several servers, the monitored one need not be ours.
                let expected = (!settings.url.are_several()).then_some(server_id);
                let said = timeout(MONITOR_TIMEOUT, ask(monitor))
                    .await
                    .unwrap_or_else(|_| Err("no answer".into()));
                match said {
                    Ok(jsz) => judge((mode, kept), &jsz, expected)? && config.is_some(),
                    Err(reason) => {
                        tracing::warn!(%reason, "nats.monitor_url does not say how durable NATS is");
                        false
                    }
                }
            }
            (_, None) => false,
        };
        if !verified {
            tracing::warn!(durability = %mode, "what a 200 promises is not verified; set nats.monitor_url");
        }
        self.verified.store(verified, Ordering::Relaxed);
        Ok(())
    }
}

/// Whether the server's word proves the promise; it leaves `sync_always` out when it is off.
fn judge(
    (mode, kept): (Durability, Duration),
    jsz: &Value,
    expected: Option<&str>,
) -> Result<bool, DurabilityError> {
    let Some(config) = jsz.get("config").filter(|config| config.is_object()) else {
        return Ok(false);
    };
    let found = jsz.get("server_id").and_then(Value::as_str);
    if expected.is_some_and(|expected| found != Some(expected)) {
        tracing::warn!("nats.monitor_url is that of another server than nats.url");
        return Ok(false);
    }
    let interval = config
        .get("sync_interval")
        .and_then(Value::as_u64)
        .map(Duration::from_nanos);
    if mode == Durability::Logged
        && config.get("sync_always").and_then(Value::as_bool) != Some(true)
    {
        return match interval {
            Some(interval) if kept > interval => Ok(true),
            Some(interval) => Err(DurabilityError::Kept { kept, interval }),
            None => Ok(false),
        };
    }
    match config.get("sync_always").and_then(Value::as_bool) {
        Some(true) => Ok(true),
        _ => Err(DurabilityError::Unsynced(mode)),
    }
}

type Unanswered = Box<dyn std::error::Error + Send + Sync>;

async fn ask(monitor: &str) -> Result<Value, Unanswered> {
    let url = Url::parse(monitor)?;
    let (Some(host), "http") = (url.host_str(), url.scheme()) else {
        return Err("it must be http://host:port".into());
    };
    let port = url.port_or_known_default().unwrap_or(80);
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let path = format!("{}/jsz?config=1", url.path().trim_end_matches('/'));
    let request = Request::get(path)
        .header(HOST, format!("{host}:{port}"))
        .body(Empty::<Bytes>::new())?;
    let answer = client.send_request(request).await?;
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("it answered {status}").into());
    }
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await?
        .to_bytes();
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_same_server_that_syncs_proves_the_promise() {
        let jsz = |id: &str, config: Value| json!({"server_id": id, "config": config});
        let on = json!({"sync_always": true});
        for (jsz, expected, verdict) in [
            (jsz("A", on.clone()), Some("A"), Ok(true)),
            (jsz("B", on.clone()), Some("A"), Ok(false)),
            (jsz("B", on), None, Ok(true)),
            (
                jsz("A", json!({})),
                Some("A"),
                Err(DurabilityError::Unsynced(Durability::Synced)),
            ),
            (jsz("B", json!({})), Some("A"), Ok(false)),
            (json!({"disabled": true}), Some("A"), Ok(false)),
        ] {
            assert_eq!(
                judge((Durability::Synced, Duration::ZERO), &jsz, expected),
                verdict,
                "{jsz}"
            );
        }
        let (kept, short) = (Duration::from_secs(150), Duration::from_secs(120));
        let interval = json!({"sync_interval": 120_000_000_000_u64});
        for (kept, jsz, verdict) in [
            (kept, jsz("A", interval.clone()), Ok(true)),
            (
                short,
                jsz("A", interval),
                Err(DurabilityError::Kept {
                    kept: short,
                    interval: short,
                }),
            ),
            (short, jsz("A", json!({"sync_always": true})), Ok(true)),
            (kept, jsz("A", json!({})), Ok(false)),
        ] {
            assert_eq!(
                judge((Durability::Logged, kept), &jsz, None),
                verdict,
                "{jsz}"
            );
        }
    }
}
