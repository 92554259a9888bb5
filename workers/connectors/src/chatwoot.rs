//! Chatwoot's API channel: contacts by its public API, conversations and messages by its application API.
//!
//! Calls are chosen so that finding again and creating are one: the public contact call returns the contact
//! that already has this source id, and an inbox locked to a single conversation returns the one it has.
//! Messages have no idempotency there, so whether one is stored can be asked by its source id.

use super::entry::{CrmEntry, CrmFile, Direction, Person};
use super::form::Form;
use super::{Crm, CrmError, Posted, Thread};
use ackline_egress::{Egress, EgressAnswer, EgressRequest, Outcome};
use ackline_runtime::job::{Trouble, TroubleKind};
use ackline_shared::model::CrmLink;
use ackline_shared::secret::Secret;
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};
use std::time::{Duration, SystemTime};
use url::Url;

/// A page of messages or conversations, as large as Chatwoot makes them.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Chatwoot stops taking messages of a conversation after 200 in a minute.
const FLOOD_WAIT: Duration = Duration::from_secs(60);
const FLOOD_WORDS: &[u8] = b"Too many messages";

/// One inbox of one account.
#[derive(Debug)]
pub struct Chatwoot<'a> {
    egress: &'a Egress,
    link: &'a CrmLink,
    token: HeaderValue,
    origin: Url,
    timeout: Duration,
}

impl<'a> Chatwoot<'a> {
    /// Prepares calls for a link; only the origin of its URL counts, so that one copied from the dashboard works.
    pub fn new(
        egress: &'a Egress,
        link: &'a CrmLink,
        token: &Secret<String>,
        timeout: Duration,
    ) -> Result<Self, CrmError> {
        let token = HeaderValue::from_str(token.expose().trim()).map(|mut value| {
            value.set_sensitive(true);
            value
        });
        let token =
            token.map_err(|_| misconfigured("its access_token holds characters no token has"))?;
        let mut origin =
            Url::parse(&link.url).map_err(|_| misconfigured("its url cannot be read"))?;
        origin.set_path("");
        origin.set_query(None);
        origin.set_fragment(None);
        Ok(Self {
            egress,
            link,
            token,
            origin,
            timeout,
        })
    }

    async fn contact(&self, person: &Person, source_id: &str) -> Result<u64, CrmError> {
        let phone = person.phone.as_ref().map(|phone| format!("+{phone}"));
        let name = person
            .name
            .as_deref()
            .or(phone.as_deref())
            .unwrap_or("WhatsApp user");
        let mut body = json!({"source_id": source_id, "identifier": source_id, "name": name});
        if let (Some(fields), Some(phone)) = (body.as_object_mut(), phone) {
            fields.insert("phone_number".to_owned(), json!(phone));
        }
        let path = [
            "public",
            "api",
            "v1",
            "inboxes",
            &self.link.inbox_identifier,
            "contacts",
        ];
        let mut answer = self.call(Method::POST, &path, Some(&body)).await?;
        if answer.status.as_u16() == 422
            && let Some(fields) = body.as_object_mut()
            && fields.remove("phone_number").is_some()
        {
            // Chatwoot refuses numbers it cannot parse; the person is still found by source id.
            answer = self.call(Method::POST, &path, Some(&body)).await?;
        }
        id(&expect("contacts", answer)?).ok_or_else(|| unreadable("contacts"))
    }

    /// The conversation the contact already has in this inbox, unless it is resolved.
    async fn open_conversation(
        &self,
        contact: u64,
        source_id: &str,
    ) -> Result<Option<u64>, CrmError> {
        let contact = contact.to_string();
        let answer = self
            .call(
                Method::GET,
                &self.account(&["contacts", &contact, "conversations"]),
                None,
            )
            .await?;
        if answer.status.is_client_error() {
            // A bot's token may not read contacts; the call that creates finds the conversation, too.
            return Ok(None);
        }
        let body = expect("conversations", answer)?;
        let ours = |conversation: &&Value| {
            let source = conversation
                .pointer("/contact_inbox/source_id")
                .and_then(Value::as_str);
            conversation.get("inbox_id").and_then(Value::as_u64) == Some(self.link.inbox_id)
                && conversation.get("status").and_then(Value::as_str) != Some("resolved")
                && source.is_none_or(|source| source == source_id)
        };
        Ok(list(&body).iter().find(ours).and_then(id))
    }

    async fn create_conversation(&self, contact: u64, source_id: &str) -> Result<u64, CrmError> {
        // Ids as texts: Rails takes both, and Chatwoot's own description asks for texts here.
        let body = json!({
            "source_id": source_id, "inbox_id": self.link.inbox_id.to_string(),
            "contact_id": contact.to_string(), "status": "open",
        });
        let answer = self
            .call(Method::POST, &self.account(&["conversations"]), Some(&body))
            .await?;
        id(&expect("conversations", answer)?).ok_or_else(|| unreadable("conversations"))
    }

    fn account<'p>(&self, rest: &[&'p str]) -> Vec<std::borrow::Cow<'p, str>> {
        let head = [
            "api".into(),
            "v1".into(),
            "accounts".into(),
            self.link.account_id.to_string().into(),
        ];
        head.into_iter()
            .chain(rest.iter().map(|&part| part.into()))
            .collect()
    }

    async fn call<P: AsRef<str>>(
        &self,
        method: Method,
        path: &[P],
        body: Option<&Value>,
    ) -> Result<EgressAnswer, CrmError> {
        let body = body.map(|body| ("application/json".to_owned(), body.to_string().into()));
        self.send(method, path, body.unwrap_or_default()).await
    }

    /// Makes a request with a body and its type.
    async fn send<P: AsRef<str>>(
        &self,
        method: Method,
        path: &[P],
        (kind, body): (String, Bytes),
    ) -> Result<EgressAnswer, CrmError> {
        let mut url = self.origin.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(path);
        }
        let mut headers = HeaderMap::new();
        if path.first().is_some_and(|first| first.as_ref() == "api") {
            headers.insert("api_access_token", self.token.clone());
        }
        if let Some(kind) = HeaderValue::from_str(&kind)
            .ok()
            .filter(|kind| !kind.is_empty())
        {
            headers.insert(CONTENT_TYPE, kind);
        }
        let request = EgressRequest {
            method,
            url: url.into(),
            headers,
            body,
            timeout: self.timeout,
            response_bytes_max: ANSWER_BYTES_MAX,
        };
        self.egress.request(request).await.map_err(|error| {
            let is_permanent = error.is_permanent();
            let reason = format!("Chatwoot: {error}");
            let Outcome::Trouble(trouble) = Outcome::from(error) else {
                return CrmError::Again { reason };
            };
            let trouble = Trouble { reason, ..trouble };
            if is_permanent {
                let hint = "is it a public https address, or in the tenant's egress_allow?";
                misconfigured(format!("{}; {hint}", trouble.reason))
            } else if trouble.after_sending {
                CrmError::Unsure(trouble)
            } else {
                CrmError::Down(trouble)
            }
        })
    }
}

impl Crm for Chatwoot<'_> {
    async fn open(&self, person: &Person, source_id: &str) -> Result<Thread, CrmError> {
        let contact = self.contact(person, source_id).await?;
        let conversation = match self.open_conversation(contact, source_id).await? {
            Some(conversation) => conversation,
            None => self.create_conversation(contact, source_id).await?,
        };
        Ok(Thread {
            contact,
            conversation,
        })
    }

    async fn post(&self, thread: Thread, entry: &CrmEntry) -> Result<Posted, CrmError> {
        let conversation = thread.conversation.to_string();
        let path = self.account(&["conversations", &conversation, "messages"]);
        let answer = match &entry.file {
            Some(file) => {
                self.send(Method::POST, &path, with_file(entry, file))
                    .await?
            }
            None => {
                self.call(Method::POST, &path, Some(&message(entry)))
                    .await?
            }
        };
        let stored = in_conversation("messages", answer)?;
        Ok(Posted {
            message: id(&stored),
        })
    }

    async fn find(&self, thread: Thread, source_id: &str) -> Result<Option<Posted>, CrmError> {
        let conversation = thread.conversation.to_string();
        let path = self.account(&["conversations", &conversation, "messages"]);
        let answer = self.call(Method::GET, &path, None).await?;
        let body = in_conversation("messages", answer)?;
        let source =
            |message: &&Value| message.get("source_id").and_then(Value::as_str) == Some(source_id);
        let found = list(&body).iter().find(source);
        Ok(found.map(|message| Posted {
            message: id(message),
        }))
    }

    async fn fail(&self, conversation: u64, message: u64, words: &str) -> Result<bool, CrmError> {
        let (conversation, message) = (conversation.to_string(), message.to_string());
        let path = self.account(&["conversations", &conversation, "messages", &message]);
        let body = json!({"status": "failed", "external_error": words});
        let answer = self.call(Method::PATCH, &path, Some(&body)).await?;
        match answer.status.as_u16() {
            200..=299 => Ok(true),
            // Versions before 4.2 have no such call, and a bot's token may not make it.
            400 | 401 | 403 | 404 | 405 | 422 => Ok(false),
            _ => Err(failure("messages", &answer)),
        }
    }

    async fn rename(&self, thread: Thread, name: &str) -> Result<(), CrmError> {
        let contact = thread.contact.to_string();
        let path = self.account(&["contacts", &contact]);
        let answer = self
            .call(Method::PUT, &path, Some(&json!({"name": name})))
            .await?;
        if answer.status.is_success() {
            Ok(())
        } else {
            Err(failure("contacts", &answer))
        }
    }
}

/// The message as Chatwoot takes it; the source id in the creating call is what makes our echo recognisable.
fn message(entry: &CrmEntry) -> Value {
    let mut body = Map::new();
    body.insert("content".into(), json!(entry.content));
    let direction = match entry.direction {
        Direction::Incoming => "incoming",
        Direction::Outgoing | Direction::Note => "outgoing",
    };
    body.insert("message_type".into(), json!(direction));
    body.insert("private".into(), json!(entry.direction == Direction::Note));
    body.insert("source_id".into(), json!(entry.source_id));
    let quoted = match (entry.quotes, &entry.in_reply_to) {
        // What an agent wrote has no id of Meta's there.
        (Some(message), _) => Some(json!({"in_reply_to": message})),
        (None, Some(wamid)) => Some(json!({"in_reply_to_external_id": wamid})),
        (None, None) => None,
    };
    if let Some(quoted) = quoted {
        body.insert("content_attributes".into(), quoted);
    }
    Value::Object(body)
}

/// The message with a file: its fields are texts then, and the caption stands for what is read of it.
fn with_file(entry: &CrmEntry, file: &CrmFile) -> (String, Bytes) {
    let mut form = Form::new(rand::random());
    let mut fields = message(entry);
    if let Some(content) = fields.get_mut("content") {
        *content = json!(entry.caption.as_deref().unwrap_or_default());
    }
    for (name, value) in fields.as_object().into_iter().flatten() {
        match value {
            Value::String(text) => form.text(name, text),
            other => form.text(name, &other.to_string()),
        }
    }
    form.file("attachments[]", file);
    let (kind, body) = form.finish();
    (kind, body.into())
}

/// The body of a good answer.
fn expect(what: &'static str, answer: EgressAnswer) -> Result<Value, CrmError> {
    if !answer.status.is_success() {
        return Err(failure(what, &answer));
    }
    serde_json::from_slice(&answer.body).map_err(|_| unreadable(what))
}

/// The same for calls below a conversation, which may have been deleted.
fn in_conversation(what: &'static str, answer: EgressAnswer) -> Result<Value, CrmError> {
    if answer.status.as_u16() == 404 {
        Err(CrmError::Gone)
    } else {
        expect(what, answer)
    }
}

/// What a bad answer means. Chatwoot's words may hold personal data and are not repeated.
fn failure(what: &'static str, answer: &EgressAnswer) -> CrmError {
    let status = answer.status.as_u16();
    let after = answer.retry_after(SystemTime::now());
    let reason = format!("Chatwoot answered {status} to {what}");
    let flooded = || {
        answer
            .body
            .windows(FLOOD_WORDS.len())
            .any(|window| window == FLOOD_WORDS)
    };
    let trouble = |kind| {
        let (breaker, after_sending, is_unanswered) = (0, true, false);
        Trouble {
            reason: reason.clone(),
            breaker,
            kind,
            after,
            after_sending,
            is_unanswered,
        }
    };
    match status {
        429 => CrmError::Down(trouble(TroubleKind::Busy)),
        422 if flooded() => CrmError::Flooded {
            reason,
            after: FLOOD_WAIT,
        },
        408 | 500..=599 => CrmError::Unsure(trouble(TroubleKind::Down)),
        401 | 403 => misconfigured(format!(
            "{reason}: its access_token is not accepted for this account"
        )),
        404 => misconfigured(format!(
            "{reason}: check its url (origin only), account_id, inbox_id and inbox_identifier"
        )),
        300..=399 => misconfigured(format!("{reason}, a redirect: check its url")),
        400 | 413 | 415 | 422 => CrmError::Refused { reason },
        _ => CrmError::Down(trouble(TroubleKind::Down)),
    }
}

fn misconfigured(reason: impl Into<String>) -> CrmError {
    CrmError::Misconfigured {
        reason: reason.into(),
    }
}

/// A good status with a body that says nothing; what was asked for may have been done.
fn unreadable(what: &'static str) -> CrmError {
    let reason = format!("Chatwoot's answer to {what} cannot be read");
    CrmError::Unsure(Trouble {
        after_sending: true,
        is_unanswered: false,
        ..Trouble::down(reason)
    })
}

fn id(value: &Value) -> Option<u64> {
    value.get("id").and_then(Value::as_u64)
}

/// Lists come bare or inside `payload`.
fn list(body: &Value) -> &[Value] {
    let list = body
        .as_array()
        .or_else(|| body.get("payload").and_then(Value::as_array));
    list.map(Vec::as_slice).unwrap_or_default()
}
