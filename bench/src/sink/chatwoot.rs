//! A stand-in for Chatwoot's API channel: one account with one inbox that is locked to a single conversation.
//!
//! It keeps to what Chatwoot does and what bridges stumble over: the public contact call finds by source id,
//! messages have no idempotency, every stored message is reported back once by an unordered webhook that is
//! not retried, our own messages included. An agent is played by [`Sink::agent_answers`].

mod helpdesk;
mod hook;

pub use helpdesk::Message;

use super::faults::Planned;
use super::{CrmCall, Entry, Sink, lock};
use ackline_shared::secret::Secret;
use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, Multipart, OriginalUri, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use helpdesk::{Helpdesk, Refused};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const BODY_MAX: usize = 48 * 1024 * 1024;

/// How the stand-in is set up.
#[derive(Debug, Clone)]
pub struct Options {
    pub account_id: u64,
    pub inbox_id: u64,
    pub inbox_identifier: String,
    /// The token the application API accepts.
    pub access_token: Secret<String>,
    /// Where messages are reported, when anywhere.
    pub webhook_url: Option<Secret<String>>,
    /// Signs the reports; absent as in versions that sign nothing.
    pub webhook_secret: Option<Secret<String>>,
}

/// What became of an agent's answer.
#[derive(Debug, Clone, Serialize)]
pub struct Answered {
    /// Chatwoot's id of the message.
    pub message_id: u64,
    /// The conversation it was written in.
    pub conversation_id: u64,
    /// How the webhook was answered; absent when it was not.
    pub status: Option<u16>,
}

/// The account with what is in it.
#[derive(Debug)]
pub struct Chatwoot {
    options: Options,
    helpdesk: Mutex<Helpdesk>,
    reporter: hook::Reporter,
}

impl Chatwoot {
    pub(super) fn new(options: Options) -> anyhow::Result<Self> {
        let reporter = hook::Reporter::new()?;
        Ok(Self {
            helpdesk: Mutex::new(Helpdesk::new(options.inbox_id)),
            options,
            reporter,
        })
    }

    fn report(&self, message: &Message) -> Value {
        lock(&self.helpdesk).report(message, self.options.account_id)
    }

    /// The report of a message that changed; the same but for its name, and without the status.
    fn report_change(&self, message: &Message) -> Value {
        let mut report = self.report(message);
        if let Some(event) = report.get_mut("event") {
            *event = json!("message_updated");
        }
        report
    }
}

impl Sink {
    /// Writes an agent's answer to a person and reports it as Chatwoot does; `None` when nothing is known of them.
    pub async fn agent_answers(
        self: &Arc<Self>,
        source_id: &str,
        content: &str,
    ) -> Option<Answered> {
        let chatwoot = self.chatwoot.clone()?;
        let message = lock(&chatwoot.helpdesk).answer(source_id, content)?;
        let report = chatwoot.report(&message);
        let status = chatwoot.reporter.post(&chatwoot.options, &report).await;
        self.record_crm(CrmCall {
            status,
            ..CrmCall::hook(&message)
        });
        Some(Answered {
            message_id: message.id,
            conversation_id: message.conversation_id,
            status,
        })
    }

    /// Sends a message of an agent's again and reports it as Chatwoot does: the status answered.
    pub async fn agent_retries(self: &Arc<Self>, message: u64) -> Option<u16> {
        let chatwoot = self.chatwoot.clone()?;
        let message = lock(&chatwoot.helpdesk).retry(message)?;
        let report = chatwoot.report_change(&message);
        chatwoot.reporter.post(&chatwoot.options, &report).await
    }

    /// Resolves a person's conversation and reports it as Chatwoot does: the status answered, if there is one of each.
    pub async fn agent_resolves(&self, source_id: &str) -> Option<u16> {
        let chatwoot = self.chatwoot.clone()?;
        let report = lock(&chatwoot.helpdesk).turn(source_id, "resolved")?;
        chatwoot.reporter.post(&chatwoot.options, &report).await
    }

    fn record_crm(&self, call: CrmCall) {
        self.journal.record(Entry::Crm(call));
    }
}

impl CrmCall {
    fn hook(message: &Message) -> Self {
        Self {
            method: "POST".to_owned(),
            path: "(webhook)".to_owned(),
            status: None,
            injected: false,
            conversation_id: Some(message.conversation_id),
            message_type: Some(message.message_type.as_str().to_owned()),
            source_id: message.source_id.clone(),
            content: Some(message.content.clone()),
            files: message.files.len(),
            duplicate: false,
        }
    }
}

/// The routes; Chatwoot lives at an origin's root.
pub fn router() -> Router<Arc<Sink>> {
    Router::new()
        .route(
            "/public/api/v1/inboxes/{identifier}/contacts",
            post(public_contact),
        )
        .route(
            "/public/api/v1/inboxes/{identifier}/contacts/{source_id}",
            get(public_show),
        )
        .route(
            "/api/v1/accounts/{account}/{*rest}",
            get(application)
                .post(application)
                .put(application)
                .patch(application),
        )
}

struct Call {
    sink: Arc<Sink>,
    chatwoot: Arc<Chatwoot>,
    planned: Planned,
    method: Method,
    path: String,
}

impl Call {
    /// Records the call with its outcome and answers it.
    fn finish(self, outcome: Result<Done, Refused>) -> Response {
        let (status, body, seen, changed) = match outcome {
            Ok(done) => (StatusCode::OK, done.body, done.message, done.changed),
            Err(refused) => (
                refused.status(),
                json!({ "error": refused.to_string() }),
                None,
                None,
            ),
        };
        self.sink.record_crm(CrmCall {
            method: self.method.to_string(),
            path: self.path,
            status: self.planned.status(status),
            injected: self.planned.injected(),
            conversation_id: seen.as_ref().map(|(message, _)| message.conversation_id),
            message_type: seen
                .as_ref()
                .map(|(message, _)| message.message_type.as_str().to_owned()),
            source_id: seen
                .as_ref()
                .and_then(|(message, _)| message.source_id.clone()),
            content: seen.as_ref().map(|(message, _)| message.content.clone()),
            files: seen.as_ref().map_or(0, |(message, _)| message.files.len()),
            duplicate: seen.as_ref().is_some_and(|(_, duplicate)| *duplicate),
        });
        if let Some(message) = changed {
            let chatwoot = self.chatwoot.clone();
            let report = chatwoot.report_change(&message);
            tokio::spawn(async move { chatwoot.reporter.post(&chatwoot.options, &report).await });
        }
        if let Some((message, _)) = seen {
            let (sink, chatwoot) = (self.sink, self.chatwoot);
            let report = chatwoot.report(&message);
            tokio::spawn(async move {
                let status = chatwoot.reporter.post(&chatwoot.options, &report).await;
                sink.record_crm(CrmCall {
                    status,
                    ..CrmCall::hook(&message)
                });
            });
        }
        (status, Json(body)).into_response()
    }
}

struct Done {
    body: Value,
    /// A message that was stored, and whether its source id was there before.
    message: Option<(Message, bool)>,
    /// A message that was changed.
    changed: Option<Message>,
}

impl From<Value> for Done {
    fn from(body: Value) -> Self {
        Self {
            body,
            message: None,
            changed: None,
        }
    }
}

fn unknown() -> Response {
    let body = json!({"error": "no Chatwoot is set up here"});
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}

async fn public_contact(
    State(sink): State<Arc<Sink>>,
    Path(identifier): Path<String>,
    Extension(planned): Extension<Planned>,
    OriginalUri(uri): OriginalUri,
    body: Bytes,
) -> Response {
    let Some(chatwoot) = sink.chatwoot.clone() else {
        return unknown();
    };
    let outcome = read(&body).and_then(|body| {
        if identifier != chatwoot.options.inbox_identifier {
            return Err(Refused::NotFound);
        }
        Ok(lock(&chatwoot.helpdesk).upsert(&body)?.into())
    });
    Call {
        sink,
        chatwoot,
        planned,
        method: Method::POST,
        path: uri.path().to_owned(),
    }
    .finish(outcome)
}

async fn public_show(
    State(sink): State<Arc<Sink>>,
    Path((identifier, source_id)): Path<(String, String)>,
    Extension(planned): Extension<Planned>,
    OriginalUri(uri): OriginalUri,
) -> Response {
    let Some(chatwoot) = sink.chatwoot.clone() else {
        return unknown();
    };
    let found = lock(&chatwoot.helpdesk).contact_of(&source_id);
    let known = identifier == chatwoot.options.inbox_identifier;
    let outcome = found
        .filter(|_| known)
        .map(Done::from)
        .ok_or(Refused::NotFound);
    Call {
        sink,
        chatwoot,
        planned,
        method: Method::GET,
        path: uri.path().to_owned(),
    }
    .finish(outcome)
}

async fn application(
    State(sink): State<Arc<Sink>>,
    Path((account, rest)): Path<(u64, String)>,
    Query(query): Query<BTreeMap<String, String>>,
    Extension(planned): Extension<Planned>,
    OriginalUri(uri): OriginalUri,
    request: Request,
) -> Response {
    let Some(chatwoot) = sink.chatwoot.clone() else {
        return unknown();
    };
    let (head, body) = request.into_parts();
    let body = to_bytes(body, BODY_MAX).await.unwrap_or_default();
    let body = fields(&head, body).await;
    let token = head
        .headers
        .get("api_access_token")
        .and_then(|token| token.to_str().ok());
    let outcome = if token != Some(chatwoot.options.access_token.expose()) {
        Err(Refused::Token)
    } else if account != chatwoot.options.account_id {
        Err(Refused::NotFound)
    } else {
        let parts: Vec<&str> = rest.split('/').collect();
        route(
            &mut lock(&chatwoot.helpdesk),
            &head.method,
            &parts,
            &query,
            &body,
        )
    };
    Call {
        sink,
        chatwoot,
        planned,
        method: head.method,
        path: uri.path().to_owned(),
    }
    .finish(outcome)
}

/// A form as the JSON it stands for: `attachments` lists its files, and other fields are texts or what they spell.
async fn fields(head: &Parts, body: Bytes) -> Bytes {
    let request = Request::from_parts(head.clone(), body.clone().into());
    let Ok(mut form) = Multipart::from_request(request, &()).await else {
        return body;
    };
    let (mut fields, mut files) = (Map::new(), Vec::new());
    while let Ok(Some(field)) = form.next_field().await {
        let name = field.name().unwrap_or_default().to_owned();
        let file = field.file_name().map(str::to_owned);
        let kind = field.content_type().map(str::to_owned);
        let bytes = field.bytes().await.unwrap_or_default();
        if name == "attachments[]" {
            files.push(json!({"file_name": file, "content_type": kind, "file_size": bytes.len()}));
            continue;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let value = match name.as_str() {
            "private" | "content_attributes" => serde_json::from_str(&text).unwrap_or_default(),
            _ => Value::String(text),
        };
        fields.insert(name, value);
    }
    fields.insert("attachments".to_owned(), Value::Array(files));
    Value::Object(fields).to_string().into()
}

fn route(
    helpdesk: &mut Helpdesk,
    method: &Method,
    parts: &[&str],
    query: &BTreeMap<String, String>,
    body: &Bytes,
) -> Result<Done, Refused> {
    let id = |text: &str| text.parse::<u64>().map_err(|_| Refused::NotFound);
    match (method.as_str(), parts) {
        ("POST", ["contact_inboxes", "filter"]) => {
            let body = read(body)?;
            let source = body
                .get("source_id")
                .and_then(Value::as_str)
                .ok_or(Refused::NotFound)?;
            Ok(helpdesk.contact_of(source).ok_or(Refused::NotFound)?.into())
        }
        ("GET", ["contacts", "search"]) => Ok(helpdesk
            .search(query.get("q").map(String::as_str).unwrap_or_default())
            .into()),
        ("POST", ["contacts", "filter"]) => Ok(helpdesk.filter(&read(body)?).into()),
        ("GET", ["contacts", contact]) => Ok(helpdesk.contact(id(contact)?)?.into()),
        ("PUT", ["contacts", contact]) => Ok(helpdesk.change(id(contact)?, &read(body)?)?.into()),
        ("GET", ["contacts", contact, "conversations"]) => {
            Ok(helpdesk.conversations(id(contact)?)?.into())
        }
        ("POST", ["conversations"]) => Ok(helpdesk.converse(&read(body)?)?.into()),
        ("GET", ["conversations", conversation]) => {
            Ok(helpdesk.conversation(id(conversation)?)?.into())
        }
        ("GET", ["conversations", conversation, "messages"]) => {
            let after = query.get("after").and_then(|after| after.parse().ok());
            Ok(helpdesk.messages(id(conversation)?, after)?.into())
        }
        ("POST", ["conversations", conversation, "messages"]) => {
            let (message, duplicate) = helpdesk.post(id(conversation)?, &read(body)?)?;
            Ok(Done {
                body: message.show(),
                message: Some((message, duplicate)),
                changed: None,
            })
        }
        ("PATCH", ["conversations", conversation, "messages", message]) => {
            let message = id(message)?;
            Ok(Done {
                body: helpdesk.set_status(id(conversation)?, message, &read(body)?)?,
                message: None,
                changed: helpdesk.message(message),
            })
        }
        _ => Err(Refused::NotFound),
    }
}

fn read(body: &Bytes) -> Result<Value, Refused> {
    serde_json::from_slice(body).map_err(|_| Refused::Unreadable)
}
