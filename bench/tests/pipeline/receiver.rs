//! An HTTP server that keeps what it is sent, byte for byte, and answers or passes it on.

use ackline_bench::journal::{Ask, Journal, Numbered, Weigh};
use ackline_bench::serve::Server;
use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

const BODY_BYTES_MAX: usize = 4 << 20;
const WITHIN: Duration = Duration::from_secs(30);

/// One request and how it was answered.
#[derive(Debug)]
pub struct Received {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
    pub status: StatusCode,
    pub answer: String,
}

impl Weigh for Received {
    fn bytes(&self) -> usize {
        self.body.len() + self.answer.len()
    }
}

pub struct Receiver {
    shared: Arc<Shared>,
    server: Server,
}

struct Shared {
    journal: Journal<Received>,
    /// Where requests go on to; without it each is answered 204.
    upstream: Option<String>,
    client: reqwest::Client,
    /// Messages that are answered 503 instead.
    failures: AtomicU32,
}

impl Receiver {
    pub async fn start() -> Self {
        Self::build(None, 0).await
    }

    /// Passes requests on, but answers the first so many that create a message with 503.
    pub async fn before(upstream: &str, failures: u32) -> Self {
        Self::build(Some(upstream.to_owned()), failures).await
    }

    async fn build(upstream: Option<String>, failures: u32) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(WITHIN)
            .build()
            .unwrap();
        let journal = Journal::new(10_000, 64 << 20);
        let shared = Arc::new(Shared {
            journal,
            upstream,
            client,
            failures: AtomicU32::new(failures),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let router = Router::new().fallback(keep).with_state(shared.clone());
        Self {
            shared,
            server: Server::start(listener, router).unwrap(),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.server.addr())
    }

    /// Waits for so many matching requests since the start.
    pub async fn wait(
        &self,
        count: usize,
        matches: impl Fn(&Received) -> bool,
    ) -> Vec<Numbered<Received>> {
        let ask = Ask {
            at_least: count,
            wait: WITHIN,
            ..Ask::default()
        };
        let found = self.shared.journal.read(ask, matches).await.entries;
        assert!(
            found.len() >= count,
            "{} of {count} requests within {WITHIN:?}: {found:#?}",
            found.len()
        );
        found
    }

    pub async fn all(&self) -> Vec<Numbered<Received>> {
        self.wait(0, |_| true).await
    }
}

async fn keep(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, BODY_BYTES_MAX).await.unwrap();
    let (method, path) = (head.method.clone(), head.uri.to_string());
    let creates = method == "POST" && path.ends_with("/messages");
    let fails = creates
        && shared
            .failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok();
    let (status, answer) = match &shared.upstream {
        _ if fails => (StatusCode::SERVICE_UNAVAILABLE, Bytes::new()),
        None => (StatusCode::NO_CONTENT, Bytes::new()),
        Some(upstream) => {
            let mut headers = head.headers.clone();
            headers.remove("host");
            headers.remove("content-length");
            let request = shared
                .client
                .request(method.clone(), format!("{upstream}{path}"))
                .headers(headers);
            let response = request.body(body.clone()).send().await.unwrap();
            (response.status(), response.bytes().await.unwrap())
        }
    };
    shared.journal.record(Received {
        method: method.to_string(),
        path,
        headers: shown(&head.headers),
        body: String::from_utf8_lossy(&body).into_owned(),
        status,
        answer: String::from_utf8_lossy(&answer).into_owned(),
    });
    (status, [("content-type", "application/json")], answer).into_response()
}

fn shown(headers: &HeaderMap) -> BTreeMap<String, String> {
    let text =
        |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}
