//! The abuser: its clients, its signature, and one function for each kind of request.

use super::attacks::Attack;
use super::body;
use super::sockets::FROM;
use super::stage::{ABUSER, ABUSER_KEY, ABUSER_SECRET};
use super::tally::Tally;
use super::victim::client;
use ackline_shared::secret::Secret;
use ackline_shared::signature::SigningKey;
use ackline_shared::subjects::header;
use anyhow::Result;
use bytes::Bytes;
use reqwest::{Method, Response};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The path of its own app's webhook.
pub const PATH: &str = "/webhooks/meta/globex";
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Attacker {
    pub edge: SocketAddr,
    /// Where the REST API is.
    pub api: SocketAddr,
    pub tally: Tally,
    http: reqwest::Client,
    key: SigningKey,
    next: AtomicUsize,
}

impl Attacker {
    pub fn new(edge: SocketAddr, api: SocketAddr) -> Result<Self> {
        Ok(Self {
            edge,
            api,
            tally: Tally::default(),
            http: client(FROM.octets(), ANSWERED_WITHIN).build()?,
            key: SigningKey::new(&Secret::new(ABUSER_SECRET.to_owned())),
            next: AtomicUsize::new(0),
        })
    }

    /// A number that was not given before.
    pub fn next(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The signature of its app over a body.
    pub fn sign(&self, body: &[u8]) -> String {
        self.key.sign(body)
    }

    /// Sends a webhook to its own app, rightly signed.
    pub async fn deliver(&self, attack: Attack, what: &'static str, body: String) {
        let signature = self.sign(body.as_bytes());
        self.post(attack, what, body, signature).await;
    }

    /// Sends a webhook with a signature that is none.
    pub async fn forge(&self, attack: Attack, what: &'static str) {
        let body = body::text(
            ABUSER,
            "W2",
            "US.forged",
            &format!("forged.{}", self.next()),
            "Hello",
        );
        self.post(attack, what, body, format!("sha256={}", "0".repeat(64)))
            .await;
    }

    async fn post(&self, attack: Attack, what: &'static str, body: String, signature: String) {
        let url = format!("http://{}{PATH}", self.edge);
        let request = self
            .http
            .post(url)
            .header(header::SIGNATURE, signature)
            .body(Bytes::from(body));
        self.read(attack, what, request.send().await).await;
    }

    /// Asks the REST API and reads the whole answer.
    pub async fn ask(
        &self,
        attack: Attack,
        what: &'static str,
        (method, path): (Method, &str),
        body: Option<String>,
    ) -> Option<Bytes> {
        self.ask_as(ABUSER_KEY, attack, what, (method, path), body)
            .await
    }

    /// The same with any key.
    pub async fn ask_as(
        &self,
        key: &str,
        attack: Attack,
        what: &'static str,
        (method, path): (Method, &str),
        body: Option<String>,
    ) -> Option<Bytes> {
        let mut request = self
            .http
            .request(method, format!("http://{}{path}", self.api))
            .bearer_auth(key);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        self.read(attack, what, request.send().await).await
    }

    /// Its conversation with a person, once the read model has it.
    pub async fn conversation(&self, attack: Attack, person: &str) -> Option<String> {
        let path = "/v1/conversations?limit=200";
        let page = self
            .ask(attack, "list of conversations", (Method::GET, path), None)
            .await?;
        let page: Value = serde_json::from_slice(&page).ok()?;
        let items = page.get("items")?.as_array()?;
        let own = items
            .iter()
            .find(|item| item.get("user_id").is_some_and(|user| user == person))?;
        own.get("id")?.as_str().map(str::to_owned)
    }

    async fn read(
        &self,
        attack: Attack,
        what: &'static str,
        answered: reqwest::Result<Response>,
    ) -> Option<Bytes> {
        let said = match answered {
            Ok(response) => {
                let status = response.status();
                response.bytes().await.map(|body| (status, body))
            }
            Err(error) => Err(error),
        };
        match said {
            Ok((status, body)) => {
                self.tally.note(attack, what, status.as_str());
                status.is_success().then_some(body)
            }
            Err(error) if error.is_timeout() => {
                self.tally.note(attack, what, "no answer in time");
                None
            }
            Err(_) => {
                self.tally.note(attack, what, "connection closed");
                None
            }
        }
    }
}
