//! A simulator of Meta: webhooks in, Graph API out, and everything in between that goes wrong for real.
//!
//! It behaves like the documented platform where documentation exists, and takes a choice, stated where it
//! is taken, where none does. It never looks inside what it is pointed at.

mod compose;
mod control;
mod delivery;
mod entry;
mod errors;
mod escape;
mod graph;
mod incoming;
mod ladder;
mod media;
mod mint;
mod objects;
mod pacing;
mod payload;
mod people;
pub(crate) mod retry;
mod routing;
mod rules;
mod send;
mod signing;
mod simulator;
mod validate;

#[cfg(test)]
mod tests;

pub use compose::{BadBatch, Batch, ChangeSpec, EntrySpec, StatusSpec};
pub use control::JournalQuery;
pub use delivery::Refused;
pub use entry::{Author, Entry, GraphCall, Outcome, SeenMessage, WebhookAttempt};
pub use escape::to_wire;
pub use incoming::{Content, IncomingMessage, Sender};
pub use ladder::Ladder;
pub use pacing::Limits;
pub use payload::StatusKind;
pub use routing::{Hand, HandoverSpec};
pub use rules::{Drop, Rule};
pub use signing::{Signature, Signer};
pub use simulator::{Accepted, Handshake, NotPosted, Posting, Simulator};

use crate::journal::Journal;
use crate::serve::{Server, install_tls_provider};
use ackline_shared::secret::Secret;
use anyhow::Context;
use axum::Router;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A business number the simulator knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number {
    /// Meta's id of the number.
    pub phone_number_id: String,
    /// The business account it belongs to.
    pub waba_id: String,
    /// The number as people see it, in digits.
    pub display_phone_number: String,
    pub verified_name: String,
}

/// How a simulator is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens; port 0 picks a free one.
    pub bind: SocketAddr,
    /// Where webhooks go; can be set later.
    pub webhook_url: Option<String>,
    pub app_secret: Secret<String>,
    /// Sent in the GET handshake.
    pub verify_token: Secret<String>,
    /// The access tokens the Graph API accepts.
    pub tokens: Vec<Secret<String>>,
    /// The numbers; the first is the default of incoming messages.
    pub numbers: Vec<Number>,
    /// The version in [`Running::graph_url`]; every version is accepted.
    pub graph_version: String,
    /// Multiplies the webhook retry schedule (1.0 is seven days).
    pub retry_scale: f64,
    /// How long an attempt may wait for its answer; not scaled.
    pub attempt_timeout: Duration,
    /// Webhook attempts at the same time.
    pub in_flight_max: usize,
    /// Webhook deliveries not yet ended.
    pub pending_max: usize,
    /// Sending limits and their clock.
    pub pacing: Limits,
    /// The statuses that follow a send.
    pub ladder: Ladder,
    /// Refuses free-form messages outside the 24-hour window (131047); the window follows the pacing clock.
    pub enforce_window: bool,
    /// The templates that exist; absent accepts any name, otherwise others are 132001.
    pub templates: Option<Vec<String>>,
    pub journal_entries_max: usize,
    pub journal_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        let secret = |text: &str| Secret::new(text.to_owned());
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            webhook_url: None,
            app_secret: secret("simulated-app-secret"),
            verify_token: secret("simulated-verify-token"),
            tokens: vec![secret("simulated-access-token")],
            numbers: vec![Number::new("100000000000101", "200000000000201")],
            graph_version: "v26.0".to_owned(),
            retry_scale: 1.0,
            attempt_timeout: Duration::from_secs(10),
            in_flight_max: 64,
            pending_max: 50_000,
            pacing: Limits::default(),
            ladder: Ladder::default(),
            enforce_window: false,
            templates: None,
            journal_entries_max: 200_000,
            journal_bytes_max: 256 * 1024 * 1024,
        }
    }
}

/// A running simulator; dropping it ends its deliveries and its server.
#[derive(Debug)]
pub struct Running {
    pub addr: SocketAddr,
    graph_version: String,
    simulator: Arc<Simulator>,
    server: Server,
    stop: watch::Sender<bool>,
}

pub async fn start(options: Options) -> anyhow::Result<Running> {
    install_tls_provider();
    let listener = TcpListener::bind(options.bind);
    let listener = listener
        .await
        .with_context(|| format!("cannot listen on {}", options.bind))?;
    let addr = listener.local_addr()?;
    let (stop, stopped) = watch::channel(false);
    let journal = Arc::new(Journal::new(
        options.journal_entries_max,
        options.journal_bytes_max,
    ));
    let client = delivery::client(options.attempt_timeout)?;
    let courier = Arc::new(delivery::Courier::new(
        client.clone(),
        Signer::new(&options.app_secret),
        journal.clone(),
        retry::Schedule::new(options.retry_scale),
        delivery::Bounds {
            in_flight_max: options.in_flight_max,
            pending_max: options.pending_max,
        },
        stopped.clone(),
    ));
    courier.set_target(options.webhook_url.clone());
    let graph_version = options.graph_version.clone();
    let base_url = format!("http://{addr}");
    let parts = simulator::Parts {
        options,
        courier,
        client,
        journal,
        base_url,
        stop: stopped,
    };
    let simulator = Arc::new(Simulator::new(parts));
    let router = Router::new()
        .nest("/_sim", control::router())
        .fallback(graph::call)
        .with_state(simulator.clone());
    let server = Server::start(listener, router)?;
    Ok(Running {
        addr,
        graph_version,
        simulator,
        server,
        stop,
    })
}

impl Running {
    /// The base address, such as `http://127.0.0.1:8082`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The Graph API's base address with its version.
    pub fn graph_url(&self) -> String {
        format!("{}/{}", self.url(), self.graph_version)
    }

    /// The simulator, to be driven without HTTP.
    pub fn simulator(&self) -> &Arc<Simulator> {
        &self.simulator
    }

    /// Ends deliveries at once and the server within its drain deadline.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.server.stop().await;
    }
}
