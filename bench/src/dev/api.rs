//! The REST API as a customer's program uses it.

use ackline_shared::secret::Secret;
use anyhow::{Context, Result, bail};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);
/// The API limits a key's requests; whoever asks a lot has to wait when told to.
const TRIES_MAX: u32 = 10;
const WAIT_MAX: Duration = Duration::from_secs(3);

/// A tenant's access to the API.
#[derive(Debug)]
pub struct Api {
    http: reqwest::Client,
    origin: String,
    key: Secret<String>,
}

impl Api {
    /// Prepares calls with a key.
    pub fn new(http: reqwest::Client, origin: String, key: Secret<String>) -> Self {
        Self { http, origin, key }
    }

    /// Sends a message; gives its id.
    pub async fn send(&self, message: &Value) -> Result<String> {
        let (status, body) = self
            .call(Method::POST, &["v1", "messages"], &[], Some(message))
            .await?;
        if status != StatusCode::ACCEPTED {
            bail!("POST /v1/messages answered {status}: {body}");
        }
        text(&body, "id").context("the answer to POST /v1/messages has no id")
    }

    /// Reads a message by our id or Meta's; `None` while it is not known.
    pub async fn message(&self, id: &str) -> Result<Option<Value>> {
        let (status, body) = self
            .call(Method::GET, &["v1", "messages", id], &[], None)
            .await?;
        match status {
            StatusCode::OK => Ok(Some(body)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => bail!("GET /v1/messages/… answered {status}: {body}"),
        }
    }

    /// Every message of every conversation.
    pub async fn messages(&self) -> Result<Vec<Value>> {
        let mut messages = Vec::new();
        for conversation in self.all(&["v1", "conversations"], &[]).await? {
            let id = text(&conversation, "id").context("a conversation has no id")?;
            messages.extend(
                self.all(&["v1", "conversations", &id, "messages"], &[])
                    .await?,
            );
        }
        Ok(messages)
    }

    /// The dead letters of a pool.
    pub async fn dead_letters(&self, pool: &str) -> Result<Vec<Value>> {
        self.all(&["v1", "dead-letters"], &[("pool", pool)]).await
    }

    async fn all(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut query = query.to_vec();
            query.push(("limit", "200"));
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let (status, body) = self.call(Method::GET, path, &query, None).await?;
            if status != StatusCode::OK {
                bail!("GET /{} answered {status}: {body}", path.join("/"));
            }
            items.extend(
                body.get("items")
                    .and_then(Value::as_array)
                    .cloned()
                    .unwrap_or_default(),
            );
            cursor = text(&body, "next_cursor");
            if cursor.is_none() {
                return Ok(items);
            }
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value)> {
        let mut url = reqwest::Url::parse_with_params(&self.origin, query)?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(path);
        }
        let mut tries = 0;
        loop {
            let request = self.http.request(method.clone(), url.clone());
            let request = request.bearer_auth(self.key.expose()).timeout(TIMEOUT);
            let request = match body {
                Some(body) => request.json(body),
                None => request,
            };
            let response = request.send().await.context("calling the API")?;
            let status = response.status();
            tries += 1;
            if status != StatusCode::TOO_MANY_REQUESTS || tries == TRIES_MAX {
                return Ok((status, response.json().await.unwrap_or_default()));
            }
            tokio::time::sleep(wait(&response)).await;
        }
    }
}

/// What Retry-After asks for, within bounds.
fn wait(response: &reqwest::Response) -> Duration {
    let header = response.headers().get(reqwest::header::RETRY_AFTER);
    let seconds = header
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .unwrap_or(1);
    Duration::from_secs(seconds).min(WAIT_MAX)
}

/// A text member of an object.
pub fn text(value: &Value, name: &str) -> Option<String> {
    value.get(name).and_then(Value::as_str).map(str::to_owned)
}
