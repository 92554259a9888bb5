//! The design most bots have today: a handler whose 200 waits for the system behind it.
//!
//! The handler is a process of its own; the system behind it, which can be out, belongs to the scenario.

use super::rig::{APP_SECRET, PATH, free_address};
use super::served::Served;
use crate::serve::Server;
use ackline_shared::secret::Secret;
use ackline_shared::signature::{SigningKey, verify};
use anyhow::{Context, Result};
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use bytes::Bytes;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

/// How many deliveries the handler works on at once: a pool of this size is a common default.
pub const WORKERS: usize = 32;
/// What the handler waits for the system behind it before it gives up.
pub const GIVES_UP: Duration = Duration::from_secs(3);
/// What the system behind takes while it is up.
pub const DOWNSTREAM_TAKES: Duration = Duration::from_millis(20);

/// Starts the handler in front of a system.
pub async fn start(root: &Path, downstream: SocketAddr) -> Result<Served> {
    Served::start(root, "process-first", &[downstream.to_string()]).await
}

struct Handler {
    keys: [SigningKey; 1],
    workers: Semaphore,
    http: reqwest::Client,
    downstream: String,
}

impl Handler {
    async fn answer(&self, headers: &HeaderMap, body: Bytes) -> StatusCode {
        let signature = headers
            .get("x-hub-signature-256")
            .map(|value| value.as_bytes());
        if verify(&self.keys, signature, &body).is_err() {
            return StatusCode::UNAUTHORIZED;
        }
        let Ok(_worker) = self.workers.acquire().await else {
            return StatusCode::SERVICE_UNAVAILABLE;
        };
        match self
            .http
            .post(&self.downstream)
            .timeout(GIVES_UP)
            .body(body)
            .send()
            .await
        {
            Ok(answer) if answer.status().is_success() => StatusCode::OK,
            Ok(_) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Serves until the process ends.
///
/// # Errors
/// When the socket cannot be bound.
pub async fn serve(address: SocketAddr, downstream: SocketAddr) -> Result<()> {
    crate::serve::install_tls_provider();
    let handler = Arc::new(Handler {
        keys: [SigningKey::new(&Secret::new(APP_SECRET.to_owned()))],
        workers: Semaphore::new(WORKERS),
        http: reqwest::Client::builder().no_proxy().build()?,
        downstream: format!("http://{downstream}/"),
    });
    let receive = move |headers: HeaderMap, body: Bytes| {
        let handler = handler.clone();
        async move { handler.answer(&headers, body).await }
    };
    let router = Router::new()
        .route("/healthz", get(|| async {}))
        .route(PATH, post(receive));
    let listener = TcpListener::bind(address)
        .await
        .context("binding the handler")?;
    let _server = Server::start(listener, router)?;
    crate::serve::stop_signal()
        .await
        .context("waiting for the word to stop")
}

/// The system behind the handler: answers after a while, or, while it is out, not at all.
#[derive(Debug)]
pub struct Downstream {
    server: Server,
    out: watch::Sender<bool>,
}

impl Downstream {
    /// Starts it on a free port.
    pub async fn start() -> Result<Self> {
        let (out, is_out) = watch::channel(false);
        let process = move || {
            let mut is_out = is_out.clone();
            async move {
                // Whoever could end the outage being gone, nobody waits for the answer either.
                drop(is_out.wait_for(|out| !out).await);
                sleep(DOWNSTREAM_TAKES).await;
            }
        };
        let listener = TcpListener::bind(free_address().await?)
            .await
            .context("binding the downstream")?;
        Ok(Self {
            server: Server::start(listener, Router::new().route("/", post(process)))?,
            out,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Switches it off for a while, counted from now.
    pub async fn go_out(&self, from: Duration, to: Duration) {
        sleep(from).await;
        self.out.send_replace(true);
        sleep(to.saturating_sub(from)).await;
        self.out.send_replace(false);
    }
}
