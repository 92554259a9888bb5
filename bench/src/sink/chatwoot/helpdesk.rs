//! What the stand-in's account holds: contacts, their one conversation each, and messages.
//!
//! `contact_inboxes.source_id` is the one unique key; messages may repeat theirs, as in Chatwoot.

use crate::journal::unix_micros;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const KEPT_MAX: usize = 100_000;
const CONTENT_CHARS_MAX: usize = 150_000;
const PAGE: usize = 20;
const PAGE_AFTER: usize = 100;

/// Why a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The token is missing or wrong.
    #[error("Invalid Access Token")]
    Token,
    /// Nothing of that id here.
    #[error("Resource could not be found")]
    NotFound,
    #[error("the body is not JSON")]
    Unreadable,
    /// Not `+` and up to 15 digits.
    #[error("Phone number should be in e164 format")]
    Phone,
    /// A contact call without its key.
    #[error("Source can't be blank")]
    NoSource,
    /// A message nobody could read.
    #[error("Content is too long or message_type is none")]
    Message,
    #[error("the stand-in is full")]
    Full,
}

impl Refused {
    /// The status Chatwoot answers with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Unreadable => StatusCode::BAD_REQUEST,
            Self::Phone | Self::NoSource | Self::Message => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Full => StatusCode::INSUFFICIENT_STORAGE,
        }
    }
}

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageType {
    Incoming,
    Outgoing,
}

impl MessageType {
    /// The name in requests and webhooks.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Incoming => "incoming",
            Self::Outgoing => "outgoing",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Message {
    /// Its id in the account.
    pub id: u64,
    pub conversation_id: u64,
    pub message_type: MessageType,
    pub content: String,
    /// The outside's id of it.
    pub source_id: Option<String>,
    /// What is known of each of its files.
    pub files: Vec<Value>,
    private: bool,
    content_attributes: Value,
    status: String,
    created_s: u64,
}

impl Message {
    /// The message as the API shows it: types are numbers, times unix seconds.
    pub fn show(&self) -> Value {
        let kind = if self.message_type == MessageType::Incoming {
            0
        } else {
            1
        };
        json!({
            "id": self.id, "content": self.content, "conversation_id": self.conversation_id,
            "message_type": kind, "content_type": "text", "content_attributes": self.content_attributes,
            "private": self.private, "source_id": self.source_id, "status": self.status,
            "created_at": self.created_s, "attachments": self.files,
        })
    }
}

#[derive(Debug)]
struct Contact {
    name: String,
    identifier: Option<String>,
    phone_number: Option<String>,
    attributes: Map<String, Value>,
}

#[derive(Debug)]
struct Conversation {
    contact_id: u64,
    source_id: String,
    status: String,
}

/// The contents of the account.
#[derive(Debug)]
pub struct Helpdesk {
    inbox_id: u64,
    last_id: u64,
    contacts: BTreeMap<u64, Contact>,
    contact_of_source: BTreeMap<String, u64>,
    conversations: BTreeMap<u64, Conversation>,
    messages: BTreeMap<u64, Message>,
}

impl Helpdesk {
    /// An account with one empty inbox.
    pub fn new(inbox_id: u64) -> Self {
        Self {
            inbox_id,
            last_id: 0,
            contacts: BTreeMap::new(),
            contact_of_source: BTreeMap::new(),
            conversations: BTreeMap::new(),
            messages: BTreeMap::new(),
        }
    }

    fn next_id(&mut self) -> Result<u64, Refused> {
        let held = self.contacts.len() + self.conversations.len() + self.messages.len();
        if held >= KEPT_MAX {
            return Err(Refused::Full);
        }
        self.last_id += 1;
        Ok(self.last_id)
    }

    /// The public contact call: finds by source id, then by identifier or phone, else creates.
    pub fn upsert(&mut self, body: &Value) -> Result<Value, Refused> {
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        let source_id = text("source_id")
            .filter(|source| !source.is_empty())
            .ok_or(Refused::NoSource)?;
        if let Some(found) = self.contact_of(&source_id) {
            return Ok(found);
        }
        let (identifier, phone_number) = (text("identifier"), text("phone_number"));
        if phone_number.as_deref().is_some_and(|phone| !is_e164(phone)) {
            return Err(Refused::Phone);
        }
        let same = |contact: &Contact| {
            (identifier.is_some() && contact.identifier == identifier)
                || (phone_number.is_some() && contact.phone_number == phone_number)
        };
        let known = self
            .contacts
            .iter()
            .find(|(_, contact)| same(contact))
            .map(|(id, _)| *id);
        let id = match known {
            Some(id) => id,
            None => {
                let id = self.next_id()?;
                let name = text("name").unwrap_or_default();
                let contact = Contact {
                    name,
                    identifier,
                    phone_number,
                    attributes: Map::new(),
                };
                self.contacts.insert(id, contact);
                id
            }
        };
        self.contact_of_source.insert(source_id.clone(), id);
        self.contact_of(&source_id).ok_or(Refused::NotFound)
    }

    /// The contact behind a source id.
    pub fn contact_of(&self, source_id: &str) -> Option<Value> {
        let id = *self.contact_of_source.get(source_id)?;
        let mut shown = self.contact(id).ok()?.get("payload").cloned()?;
        if let Some(fields) = shown.as_object_mut() {
            fields.insert("source_id".to_owned(), json!(source_id));
        }
        Some(shown)
    }

    pub fn contact(&self, id: u64) -> Result<Value, Refused> {
        let contact = self.contacts.get(&id).ok_or(Refused::NotFound)?;
        Ok(json!({"payload": {
            "id": id, "name": contact.name, "identifier": contact.identifier,
            "phone_number": contact.phone_number, "custom_attributes": contact.attributes,
        }}))
    }

    pub fn change(&mut self, id: u64, body: &Value) -> Result<Value, Refused> {
        let contact = self.contacts.get_mut(&id).ok_or(Refused::NotFound)?;
        if let Some(name) = body.get("name").and_then(Value::as_str) {
            contact.name = name.to_owned();
        }
        if let Some(phone) = body.get("phone_number").and_then(Value::as_str) {
            if !is_e164(phone) {
                return Err(Refused::Phone);
            }
            contact.phone_number = Some(phone.to_owned());
        }
        if let Some(attributes) = body.get("custom_attributes").and_then(Value::as_object) {
            contact.attributes.extend(attributes.clone());
        }
        self.contact(id)
    }

    /// Contacts with a substring in name, phone or identifier.
    pub fn search(&self, text: &str) -> Value {
        let text = text.to_lowercase();
        let has = |field: &str| field.to_lowercase().contains(&text);
        self.list(|contact| {
            has(&contact.name)
                || contact.phone_number.as_deref().is_some_and(has)
                || contact.identifier.as_deref().is_some_and(has)
        })
    }

    /// Contacts equal in one attribute; only the first condition's first value counts.
    pub fn filter(&self, body: &Value) -> Value {
        let condition = body.pointer("/payload/0").cloned().unwrap_or_default();
        let key = condition
            .get("attribute_key")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let wanted = condition
            .pointer("/values/0")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_lowercase();
        self.list(|contact| {
            let value = match key {
                "name" => Some(contact.name.as_str()),
                "identifier" => contact.identifier.as_deref(),
                "phone_number" => contact.phone_number.as_deref(),
                _ => None,
            };
            value.is_some_and(|value| value.to_lowercase() == wanted)
        })
    }

    fn list(&self, wanted: impl Fn(&Contact) -> bool) -> Value {
        let found = self
            .contacts
            .iter()
            .filter(|(_, contact)| wanted(contact))
            .take(15);
        let shown: Vec<Value> = found
            .filter_map(|(id, _)| self.contact(*id).ok()?.get("payload").cloned())
            .collect();
        json!({"meta": {"count": shown.len()}, "payload": shown})
    }

    pub fn conversations(&self, contact_id: u64) -> Result<Value, Refused> {
        self.contact(contact_id)?;
        let of = self
            .conversations
            .iter()
            .filter(|(_, held)| held.contact_id == contact_id);
        let shown: Vec<Value> = of
            .rev()
            .take(PAGE)
            .filter_map(|(id, _)| self.conversation(*id).ok())
            .collect();
        Ok(json!({ "payload": shown }))
    }

    /// A conversation by its display id.
    pub fn conversation(&self, id: u64) -> Result<Value, Refused> {
        let held = self.conversations.get(&id).ok_or(Refused::NotFound)?;
        let sender = self
            .contact(held.contact_id)?
            .get("payload")
            .cloned()
            .unwrap_or_default();
        Ok(json!({
            "id": id, "inbox_id": self.inbox_id, "status": held.status, "can_reply": true,
            "channel": "Channel::Api", "contact_inbox": {"source_id": held.source_id},
            "meta": {"sender": sender}, "labels": [], "custom_attributes": {}, "additional_attributes": {},
        }))
    }

    /// Starts a conversation, or gives the one the source id already has.
    pub fn converse(&mut self, body: &Value) -> Result<Value, Refused> {
        if number(body, "inbox_id").is_some_and(|inbox| inbox != self.inbox_id) {
            return Err(Refused::NotFound);
        }
        let source = body
            .get("source_id")
            .and_then(Value::as_str)
            .map(str::to_owned);
        let by_contact = || {
            let contact = number(body, "contact_id")?;
            self.contact_of_source
                .iter()
                .find(|(_, id)| **id == contact)
                .map(|(source, _)| source.clone())
        };
        let source_id = source.or_else(by_contact).ok_or(Refused::NotFound)?;
        let contact_id = *self
            .contact_of_source
            .get(&source_id)
            .ok_or(Refused::NotFound)?;
        let last = self
            .conversations
            .iter()
            .rev()
            .find(|(_, held)| held.source_id == source_id);
        if let Some((id, _)) = last {
            return self.conversation(*id);
        }
        let status = body
            .get("status")
            .and_then(Value::as_str)
            .unwrap_or("open")
            .to_owned();
        let id = self.next_id()?;
        self.conversations.insert(
            id,
            Conversation {
                contact_id,
                source_id,
                status,
            },
        );
        self.conversation(id)
    }

    /// The newest messages of a conversation, or those after an id, oldest first.
    pub fn messages(&self, conversation_id: u64, after: Option<u64>) -> Result<Value, Refused> {
        self.conversation(conversation_id)?;
        let all: Vec<&Message> = self
            .messages
            .values()
            .filter(|message| message.conversation_id == conversation_id)
            .collect();
        let page: Vec<Value> = match after {
            Some(after) => all
                .iter()
                .filter(|message| message.id > after)
                .take(PAGE_AFTER)
                .map(|m| m.show())
                .collect(),
            None => all
                .iter()
                .skip(all.len().saturating_sub(PAGE))
                .map(|message| message.show())
                .collect(),
        };
        Ok(json!({"meta": {}, "payload": page}))
    }

    /// Stores a message; tells whether another with its source id was there before.
    pub fn post(&mut self, conversation_id: u64, body: &Value) -> Result<(Message, bool), Refused> {
        let held = self
            .conversations
            .get_mut(&conversation_id)
            .ok_or(Refused::NotFound)?;
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        let message_type = match text("message_type").as_deref() {
            Some("incoming") => MessageType::Incoming,
            Some("outgoing") | None => MessageType::Outgoing,
            Some(_) => return Err(Refused::Message),
        };
        let content = text("content").unwrap_or_default();
        if content.chars().count() > CONTENT_CHARS_MAX {
            return Err(Refused::Message);
        }
        if message_type == MessageType::Incoming && held.status == "resolved" {
            "open".clone_into(&mut held.status);
        }
        let source_id = text("source_id");
        let duplicate = source_id.is_some()
            && self
                .messages
                .values()
                .any(|message| message.source_id == source_id);
        let message = Message {
            id: self.next_id()?,
            conversation_id,
            message_type,
            content,
            source_id,
            files: body
                .get("attachments")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default(),
            private: body
                .get("private")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            content_attributes: body
                .get("content_attributes")
                .cloned()
                .unwrap_or_else(|| json!({})),
            status: "sent".to_owned(),
            created_s: unix_micros() / 1_000_000,
        };
        self.messages.insert(message.id, message.clone());
        Ok((message, duplicate))
    }

    /// Stores what an agent writes to a person.
    pub fn answer(&mut self, source_id: &str, content: &str) -> Option<Message> {
        let found = self
            .conversations
            .iter()
            .rev()
            .find(|(_, held)| held.source_id == source_id);
        let conversation = *found?.0;
        let body = json!({"content": content, "message_type": "outgoing"});
        self.post(conversation, &body)
            .ok()
            .map(|(message, _)| message)
    }

    /// Sets the status of a person's conversation, and gives the webhook that tells of it.
    pub fn turn(&mut self, source_id: &str, status: &str) -> Option<Value> {
        let found = self
            .conversations
            .iter_mut()
            .rev()
            .find(|(_, held)| held.source_id == source_id);
        let (id, held) = found?;
        let id = *id;
        let before = std::mem::replace(&mut held.status, status.to_owned());
        let mut report = self.conversation(id).ok()?;
        let fields = report.as_object_mut()?;
        fields.insert("event".to_owned(), json!("conversation_status_changed"));
        let changed = json!([{"status": {"previous_value": before, "current_value": status}}]);
        fields.insert("changed_attributes".to_owned(), changed);
        Some(report)
    }

    /// Sets a message's delivery status; only `read` resists going back to `delivered`.
    pub fn set_status(
        &mut self,
        conversation_id: u64,
        id: u64,
        body: &Value,
    ) -> Result<Value, Refused> {
        let message = self
            .messages
            .get_mut(&id)
            .filter(|held| held.conversation_id == conversation_id);
        let message = message.ok_or(Refused::NotFound)?;
        if let Some(status) = body.get("status").and_then(Value::as_str)
            && !(message.status == "read" && status == "delivered")
        {
            status.clone_into(&mut message.status);
            let error = body.get("external_error").filter(|_| status == "failed");
            if let Some(attributes) = message.content_attributes.as_object_mut() {
                match error {
                    Some(error) => attributes.insert("external_error".to_owned(), error.clone()),
                    None => attributes.remove("external_error"),
                };
            }
        }
        Ok(message.show())
    }

    /// What an agent does who sends a failed message again: it is as if it had never failed.
    pub fn retry(&mut self, id: u64) -> Option<Message> {
        let message = self.messages.get_mut(&id)?;
        "sent".clone_into(&mut message.status);
        message.content_attributes = json!({});
        Some(message.clone())
    }

    pub fn message(&self, id: u64) -> Option<Message> {
        self.messages.get(&id).cloned()
    }

    /// The webhook that tells of a message: its own fields on top, types as words.
    pub fn report(&self, message: &Message, account_id: u64) -> Value {
        let conversation = self
            .conversation(message.conversation_id)
            .unwrap_or_default();
        let contact = conversation
            .pointer("/meta/sender")
            .cloned()
            .unwrap_or_default();
        let sender = match message.message_type {
            MessageType::Incoming => contact,
            MessageType::Outgoing => {
                json!({"id": 1, "name": "Agent", "email": "agent@example.com", "type": "user"})
            }
        };
        json!({
            "event": "message_created", "id": message.id, "content": message.content, "content_type": "text",
            "content_attributes": message.content_attributes, "additional_attributes": {},
            "message_type": message.message_type.as_str(), "private": message.private,
            "source_id": message.source_id, "attachments": message.files, "created_at": message.created_s, "sender": sender,
            "inbox": {"id": self.inbox_id, "name": "WhatsApp"}, "account": {"id": account_id, "name": "Acme"},
            "conversation": conversation,
        })
    }
}

fn is_e164(phone: &str) -> bool {
    let digits = phone.strip_prefix('+').unwrap_or_default();
    (2..=15).contains(&digits.len())
        && !digits.starts_with('0')
        && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// A number given as one or as text; Rails takes both.
fn number(body: &Value, name: &str) -> Option<u64> {
    let value = body.get(name)?;
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn helpdesk_with(source_id: &str) -> (Helpdesk, u64) {
        let mut helpdesk = Helpdesk::new(1);
        let body = json!({"source_id": source_id, "identifier": source_id, "name": "Ada"});
        helpdesk.upsert(&body).unwrap();
        let conversation = helpdesk
            .converse(&json!({"source_id": source_id, "inbox_id": "1"}))
            .unwrap();
        (helpdesk, conversation["id"].as_u64().unwrap())
    }

    #[test]
    fn a_source_id_has_one_contact_and_one_conversation_however_often_it_is_asked_for() {
        let (mut helpdesk, conversation) = helpdesk_with("4915112345678");
        let again = json!({"source_id": "4915112345678", "name": "Eve"});
        assert_eq!(helpdesk.upsert(&again).unwrap()["name"], "Ada");
        let contact = helpdesk.contact_of("4915112345678").unwrap()["id"].clone();
        let same = helpdesk
            .converse(&json!({"contact_id": contact.to_string(), "inbox_id": 1}))
            .unwrap();
        assert_eq!(same["id"], conversation);
        assert_eq!(
            helpdesk.conversations(contact.as_u64().unwrap()).unwrap()["payload"][0]["id"],
            conversation
        );
    }

    #[test]
    fn a_message_posted_twice_is_stored_twice_and_told_apart() {
        let (mut helpdesk, conversation) = helpdesk_with("US.1");
        let body = json!({"content": "hi", "message_type": "incoming", "source_id": "wamid.1"});
        assert!(!helpdesk.post(conversation, &body).unwrap().1);
        assert!(helpdesk.post(conversation, &body).unwrap().1);
        let page = helpdesk.messages(conversation, None).unwrap();
        assert_eq!(page["payload"].as_array().unwrap().len(), 2);
        assert_eq!(helpdesk.post(99, &body).unwrap_err(), Refused::NotFound);
    }

    #[test]
    fn an_agents_answer_is_reported_without_a_source_id() {
        let (mut helpdesk, conversation) = helpdesk_with("US.1");
        let message = helpdesk.answer("US.1", "With you in a minute").unwrap();
        let report = helpdesk.report(&message, 1);
        assert_eq!(report["message_type"], "outgoing");
        assert_eq!(report["source_id"], Value::Null);
        assert_eq!(report["conversation"]["contact_inbox"]["source_id"], "US.1");
        assert_eq!(report["conversation"]["id"], conversation);
        assert!(helpdesk.answer("US.2", "hello?").is_none());
    }

    #[test]
    fn a_phone_number_that_is_none_is_refused() {
        let mut helpdesk = Helpdesk::new(1);
        let body = json!({"source_id": "a", "phone_number": "0151"});
        assert_eq!(helpdesk.upsert(&body).unwrap_err().status(), 422);
    }
}
