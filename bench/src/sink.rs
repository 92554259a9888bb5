//! A customer's side: a webhook receiver that verifies signatures, an existing bot, a Chatwoot, an order
//! lookup, and a scripted assistant.
//!
//! The receiver verifies with the public `standardwebhooks` crate, so that it shares no code with the
//! sender it checks.

mod assistant;
mod bot;
mod chatwoot;
mod control;
mod faults;
mod receiver;

#[cfg(test)]
mod tests;

pub use bot::update_ids;
pub use chatwoot::{Answered, Options as ChatwootOptions};
pub use control::JournalQuery;
pub use faults::Fault;
pub use receiver::Verdict;

use crate::journal::{Journal, Weigh};
use crate::serve::{Server, install_tls_provider};
use ackline_shared::secret::Secret;
use anyhow::Context;
use axum::routing::{get, post};
use axum::{Router, middleware};
use faults::Faults;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;

const JOURNAL_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How a sink is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens; port 0 picks a free one.
    pub bind: SocketAddr,
    /// The `whsec_…` secrets of each `/webhooks/{name}`; any of a name's verifies.
    pub secrets: BTreeMap<String, Vec<Secret<String>>>,
    /// The app secrets of each bot at `/relay/{name}`; any of a name's verifies.
    pub bots: BTreeMap<String, Vec<Secret<String>>>,
    /// The stand-in for Chatwoot, when there is one.
    pub chatwoot: Option<ChatwootOptions>,
    pub journal_entries_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            bind,
            secrets: BTreeMap::new(),
            bots: BTreeMap::new(),
            chatwoot: None,
            journal_entries_max: 100_000,
        }
    }
}

/// One request the sink saw.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    Webhook(ReceivedWebhook),
    Order(OrderLookup),
    Chat(ChatCompletion),
    /// A webhook of Meta's at an existing bot.
    Relay(RelayedWebhook),
    /// A call of the CRM, or a webhook of its.
    Crm(CrmCall),
}

/// A webhook of Meta's as an existing bot got it.
#[derive(Debug, Serialize)]
pub struct RelayedWebhook {
    /// The `{name}` it was posted to.
    pub name: String,
    /// Whether Meta's signature is good.
    pub verified: bool,
    pub reason: Option<String>,
    /// Whether verified webhooks with the same updates were answered 2xx before.
    pub duplicate: bool,
    /// Message ids, and `id:status` of statuses.
    pub update_ids: Vec<String>,
    /// The status answered; absent when the connection was closed.
    pub status: Option<u16>,
    /// Whether a fault decided the answer.
    pub injected: bool,
    /// The Content-Length it came with.
    pub content_length: Option<u64>,
    pub body_bytes: usize,
    /// The bytes, when they are UTF-8.
    pub body: Option<String>,
}

/// A call of the CRM, or a webhook of its (path `(webhook)`).
#[derive(Debug, Serialize)]
pub struct CrmCall {
    pub method: String,
    pub path: String,
    /// The status answered; absent when there was no answer.
    pub status: Option<u16>,
    /// Whether a fault decided the answer.
    pub injected: bool,
    /// The conversation of a message.
    pub conversation_id: Option<u64>,
    /// `incoming` or `outgoing`, for a message.
    pub message_type: Option<String>,
    /// The message's id outside the CRM.
    pub source_id: Option<String>,
    pub content: Option<String>,
    /// How many files came with it.
    pub files: usize,
    /// Whether a message with this source id was stored before.
    pub duplicate: bool,
}

/// A webhook as it arrived.
#[derive(Debug, Serialize)]
pub struct ReceivedWebhook {
    /// The `{name}` it was posted to.
    pub name: String,
    pub webhook_id: Option<String>,
    /// Whether its signature is good.
    pub verified: bool,
    pub reason: Option<String>,
    /// Whether a verified webhook with the same id was answered 200 before.
    pub duplicate: bool,
    /// The status answered; absent when the connection was closed.
    pub status: Option<u16>,
    /// Whether a fault decided the answer.
    pub injected: bool,
    /// The body when it is JSON.
    pub body: Option<Value>,
    pub body_bytes: usize,
}

#[derive(Debug, Serialize)]
pub struct OrderLookup {
    pub order: String,
    pub status: Option<u16>,
    /// Whether a fault decided the answer.
    pub injected: bool,
}

#[derive(Debug, Serialize)]
pub struct ChatCompletion {
    pub request: Option<Value>,
    pub answer: Option<String>,
    pub status: Option<u16>,
    /// Whether a fault decided the answer.
    pub injected: bool,
}

impl Weigh for Entry {
    fn bytes(&self) -> usize {
        512 + match self {
            Self::Webhook(webhook) => webhook.body_bytes * 2,
            Self::Order(order) => order.order.len(),
            Self::Relay(relayed) => relayed.body_bytes,
            Self::Crm(call) => call.content.as_ref().map_or(0, String::len),
            Self::Chat(chat) => chat
                .request
                .as_ref()
                .map_or(0, |request| request.to_string().len() * 2),
        }
    }
}

#[derive(Debug)]
pub struct Sink {
    journal: Journal<Entry>,
    faults: Mutex<Faults>,
    secrets: Mutex<BTreeMap<String, Vec<Secret<String>>>>,
    bots: Mutex<BTreeMap<String, Vec<Secret<String>>>>,
    chatwoot: Option<Arc<chatwoot::Chatwoot>>,
    taken: Mutex<HashSet<(String, String)>>,
}

impl Sink {
    pub fn journal(&self) -> &Journal<Entry> {
        &self.journal
    }

    /// Replaces the secrets of a name; an empty list makes the name unknown.
    pub fn set_secrets(&self, name: &str, secrets: Vec<Secret<String>>) {
        let mut known = lock(&self.secrets);
        if secrets.is_empty() {
            known.remove(name)
        } else {
            known.insert(name.to_owned(), secrets)
        };
    }

    /// Makes the next requests fail as described.
    pub fn add_fault(&self, fault: Fault) -> Result<(), faults::BadFault> {
        lock(&self.faults).add(fault)
    }
}

/// A running sink; dropping it ends its server.
#[derive(Debug)]
pub struct Running {
    pub addr: SocketAddr,
    sink: Arc<Sink>,
    server: Server,
}

pub async fn start(options: Options) -> anyhow::Result<Running> {
    install_tls_provider();
    let listener = TcpListener::bind(options.bind);
    let listener = listener
        .await
        .with_context(|| format!("cannot listen on {}", options.bind))?;
    let sink = Arc::new(Sink {
        journal: Journal::new(options.journal_entries_max, JOURNAL_BYTES_MAX),
        faults: Mutex::default(),
        secrets: Mutex::new(options.secrets),
        bots: Mutex::new(options.bots),
        chatwoot: options
            .chatwoot
            .map(chatwoot::Chatwoot::new)
            .transpose()?
            .map(Arc::new),
        taken: Mutex::default(),
    });
    let customer = Router::new()
        .route("/webhooks/{name}", post(receiver::receive))
        .route("/relay/{name}", post(bot::receive))
        .merge(chatwoot::router())
        .nest("/chatwoot", chatwoot::router())
        .route("/orders/{number}", get(assistant::order))
        .route("/v1/chat/completions", post(assistant::complete))
        .layer(middleware::from_fn_with_state(sink.clone(), faults::inject));
    let router = customer
        .nest("/_sink", control::router())
        .with_state(sink.clone());
    let server = Server::start(listener, router)?;
    Ok(Running {
        addr: server.addr(),
        sink,
        server,
    })
}

impl Running {
    /// The base address, such as `http://127.0.0.1:8083`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The sink, to be driven without HTTP.
    pub fn sink(&self) -> &Arc<Sink> {
        &self.sink
    }

    /// Ends the server within its drain deadline.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
