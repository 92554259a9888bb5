//! A Chatwoot with a memory: it takes only what Chatwoot's own API description allows, and fails on demand.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::TcpListener;

pub const ACCOUNT: u64 = 3;
pub const INBOX: u64 = 7;
pub const TOKEN: &str = "user-token";

/// What goes wrong with the next request whose method and path hold these words.
pub enum Fault {
    Refuse(u16),
    /// It is done, and the answer is an error all the same.
    DoAndFail(u16),
}

#[derive(Default)]
pub struct Memory {
    pub contacts: Vec<Value>,
    pub conversations: Vec<Value>,
    pub messages: Vec<(u64, Value)>,
    /// Method and path of every request.
    pub calls: Vec<String>,
    pub faults: VecDeque<(&'static str, Fault)>,
    /// Whether it is of a version that takes the status of a message, and which it was given.
    pub takes_status: bool,
    pub statuses: Vec<(String, Value)>,
    /// Name, type and content of every file.
    pub files: Vec<(String, String, String)>,
    pub refuses_files: bool,
}

#[derive(Clone, Default)]
pub struct Fake(Arc<Mutex<Memory>>);

impl Fake {
    pub async fn start() -> (Self, String) {
        let fake = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "http://{}/app/accounts/3/dashboard",
            listener.local_addr().unwrap()
        );
        let app = Router::new().fallback(serve).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (fake, url)
    }

    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap()
    }

    pub fn will(&self, words: &'static str, fault: Fault) {
        self.memory().faults.push_back((words, fault));
    }

    /// How many requests were made since the last call of this.
    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.memory().calls)
    }

    /// Content, type and source id of the messages of all conversations.
    pub fn transcript(&self) -> Vec<(u64, String, String, String)> {
        let text = |message: &Value, name: &str| message[name].as_str().unwrap().to_owned();
        let line = |(conversation, message): &(u64, Value)| {
            (
                *conversation,
                text(message, "message_type"),
                text(message, "content"),
                text(message, "source_id"),
            )
        };
        self.memory().messages.iter().map(line).collect()
    }
}

async fn serve(
    State(fake): State<Fake>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut memory = fake.memory();
    let call = format!("{method} {}", uri.path());
    memory.calls.push(call.clone());
    let fault = match memory.faults.front() {
        Some((words, _)) if call.contains(words) => {
            memory.faults.pop_front().map(|(_, fault)| fault)
        }
        _ => None,
    };
    if let Some(Fault::Refuse(status)) = fault {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    let (status, answer) = memory.answer(&method, uri.path(), &headers, &body);
    let status = match fault {
        Some(Fault::DoAndFail(status)) => status,
        _ => status,
    };
    (StatusCode::from_u16(status).unwrap(), axum::Json(answer)).into_response()
}

impl Memory {
    fn answer(
        &mut self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> (u16, Value) {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if path.starts_with("/api/") && header("api_access_token") != Some(TOKEN) {
            return (401, json!({}));
        }
        let kind = header("content-type").unwrap_or_default();
        let body = match kind.strip_prefix("multipart/form-data; boundary=") {
            Some(_) if self.refuses_files => return (422, json!({})),
            Some(boundary) => self.form(boundary, body),
            None if method != Method::GET && kind != "application/json" => {
                return (415, json!({}));
            }
            None => serde_json::from_slice(body).unwrap_or_default(),
        };
        let account = format!("/api/v1/accounts/{ACCOUNT}/");
        let parts: Vec<&str> = path
            .strip_prefix(&account)
            .unwrap_or(path)
            .split('/')
            .collect();
        match (method.as_str(), parts.as_slice()) {
            ("POST", ["", "public", "api", "v1", "inboxes", "abc", "contacts"]) => {
                self.contact(&body)
            }
            ("GET", ["contacts", contact, "conversations"]) => {
                let own = self
                    .conversations
                    .iter()
                    .filter(|c| c["contact_id"].as_str() == Some(contact));
                (200, json!({"payload": own.collect::<Vec<_>>()}))
            }
            ("PUT", ["contacts", contact]) => {
                let contact: usize = contact.parse().unwrap();
                self.contacts[contact - 1]["name"] = body["name"].clone();
                (204, Value::Null)
            }
            ("POST", ["conversations"]) => self.conversation(&body),
            ("GET", ["conversations", id, "messages"]) => {
                let own = self
                    .messages
                    .iter()
                    .filter(|(c, _)| c.to_string() == *id)
                    .map(|(_, message)| message);
                (200, json!({"meta": {}, "payload": own.collect::<Vec<_>>()}))
            }
            ("POST", ["conversations", id, "messages"]) => self.message(id, body),
            ("PATCH", ["conversations", _, "messages", id]) if self.takes_status => {
                self.statuses.push(((*id).to_owned(), body));
                (200, json!({}))
            }
            _ => (404, json!({})),
        }
    }

    /// The fields of a form, with `private` and what it quotes as Rails reads them; files are kept.
    fn form(&mut self, boundary: &str, body: &[u8]) -> Value {
        let text = String::from_utf8_lossy(body).into_owned();
        let mut fields = serde_json::Map::new();
        for part in text.split(&format!("--{boundary}")) {
            let Some((head, content)) = part.split_once("\r\n\r\n") else {
                continue;
            };
            let content = content.strip_suffix("\r\n").unwrap_or(content);
            let quoted = |name: &str| {
                let (_, rest) = head.split_once(&format!(" {name}=\""))?;
                Some(rest.split('"').next()?.to_owned())
            };
            let name = quoted("name").unwrap();
            if let Some(filename) = quoted("filename") {
                assert_eq!(name, "attachments[]");
                let kind = head.split("Content-Type: ").nth(1).unwrap().trim();
                self.files
                    .push((filename, kind.to_owned(), content.to_owned()));
                continue;
            }
            let value = match name.as_str() {
                "private" | "content_attributes" => serde_json::from_str(content).unwrap(),
                _ => json!(content),
            };
            fields.insert(name, value);
        }
        fields.insert("has_files".into(), json!(true));
        Value::Object(fields)
    }

    fn contact(&mut self, body: &Value) -> (u16, Value) {
        let phone = &body["phone_number"];
        let valid = phone.is_null() || phone.as_str().is_some_and(|phone| phone.starts_with('+'));
        if !valid || !body["source_id"].is_string() || !body["identifier"].is_string() {
            return (422, json!({}));
        }
        if let Some(known) = self
            .contacts
            .iter()
            .find(|c| c["source_id"] == body["source_id"])
        {
            return (200, known.clone());
        }
        let mut contact = body.clone();
        contact["id"] = json!(self.contacts.len() + 1);
        self.contacts.push(contact.clone());
        (200, contact)
    }

    fn conversation(&mut self, body: &Value) -> (u16, Value) {
        let texts = ["source_id", "inbox_id", "contact_id"]
            .iter()
            .all(|name| body[*name].is_string());
        if !texts || body["inbox_id"].as_str() != Some(&INBOX.to_string()) {
            return (422, json!({}));
        }
        let mut conversation = body.clone();
        // An id once given is not given again.
        let id = self.calls.len() as u64 + 100;
        conversation["id"] = json!(id);
        conversation["inbox_id"] = json!(INBOX);
        self.conversations.push(conversation.clone());
        (200, conversation)
    }

    fn message(&mut self, conversation: &str, body: Value) -> (u16, Value) {
        let conversation: u64 = conversation.parse().unwrap();
        if !self.conversations.iter().any(|c| c["id"] == conversation) {
            return (404, json!({}));
        }
        let content = body["has_files"] == true
            || body["content"]
                .as_str()
                .is_some_and(|content| !content.is_empty());
        if !content || !body["content_type"].is_null() {
            return (422, json!({}));
        }
        self.messages.push((conversation, body));
        (200, json!({"id": self.messages.len()}))
    }
}
