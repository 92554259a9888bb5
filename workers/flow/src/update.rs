//! What the engine is told: a message, the result of a call it asked for, or that a flow shall start.

use super::limits::{
    INCOMING_BYTES_MAX, MORE_BYTES_MAX, VARIABLE_DEPTH_MAX, cut_bytes, json_bytes,
};
use super::value::Variables;
use ackline_shared::ids::UpdateId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// One input of the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "update", rename_all = "snake_case")]
pub enum Update {
    /// A person wrote or pressed something.
    Message(Message),
    EffectDone {
        /// The effect that asked for it.
        effect_id: String,
        outcome: CallOutcome,
    },
    /// The flow shall start without a message, with these variables over its own.
    Start {
        id: UpdateId,
        /// Who the conversation is with.
        contact: Contact,
        variables: Variables,
    },
}

/// A message as the engine sees it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Meta's id of the message.
    pub id: UpdateId,
    /// Meta's type: `text`, `image`, `interactive`, `button`, …
    pub kind: String,
    /// What was typed: a text's body or a caption; empty when there is none.
    pub text: String,
    /// What a pressed button or list row carries.
    pub payload_id: Option<String>,
    /// What a pressed button or list row says.
    pub title: Option<String>,
    /// What else it holds, by name: `media`, `details`, `context`, `referral`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub more: Map<String, Value>,
    /// What it holds in words, where there is neither text nor title.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub line: String,
    pub contact: Contact,
}

/// Who the conversation is with.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Contact {
    /// The name of their profile.
    pub name: Option<String>,
    /// Their phone number, when known.
    pub phone: Option<String>,
    /// Their business-scoped user id, when known.
    pub user_id: Option<String>,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum CallOutcome {
    /// An HTTP request was answered.
    Http {
        code: u16,
        /// The body as JSON, or as a text when it is none, or null when it was too large.
        body: Value,
    },
    Reply {
        text: String,
    },
    /// Nothing came within the deadline.
    Timeout,
    /// It could not be done.
    Failed {
        /// Why, in words fit for a log.
        reason: String,
    },
}

impl Update {
    /// Identifies the update for dedupe; a call has one result, whatever is delivered.
    pub fn id(&self) -> UpdateId {
        match self {
            Self::Message(message) => message.id.clone(),
            Self::EffectDone { effect_id, .. } => UpdateId::new(&format!("{effect_id}:done")),
            Self::Start { id, .. } => id.clone(),
        }
    }
}

impl Message {
    /// What the person said: the typed text, or the title of what was pressed.
    pub fn said(&self) -> &str {
        let text = if self.text.trim().is_empty() {
            self.title.as_deref().unwrap_or_default()
        } else {
            &self.text
        };
        cut_bytes(text, INCOMING_BYTES_MAX)
    }

    /// The message as templates see it.
    pub fn to_value(&self) -> Value {
        let mut members = self.more.clone();
        let told = [
            ("text", Value::from(self.said())),
            ("kind", Value::from(self.kind.as_str())),
            ("title", Value::from(self.title.as_deref())),
            ("payload", Value::from(self.payload_id.as_deref())),
        ];
        members.extend(told.map(|(name, value)| (name.to_owned(), value)));
        Value::Object(members)
    }

    /// A copy whose texts are bounded, fit to be kept in a session.
    pub fn bounded(&self) -> Self {
        let short = |text: &str, bytes| printable(cut_bytes(text, bytes));
        Self {
            id: self.id.clone(),
            kind: short(&self.kind, 64),
            text: short(&self.text, INCOMING_BYTES_MAX),
            payload_id: self
                .payload_id
                .as_deref()
                .map(|payload| short(payload, 512)),
            title: self.title.as_deref().map(|title| short(title, 256)),
            more: bounded_members(&self.more),
            line: short(&self.line, INCOMING_BYTES_MAX),
            contact: self.contact.bounded(),
        }
    }
}

/// What fits of the members, the shorter ones first; a form or an order may be as long as people like.
fn bounded_members(members: &Map<String, Value>) -> Map<String, Value> {
    let mut sized: Vec<_> = members
        .iter()
        .filter(|(_, value)| is_shallow(value, VARIABLE_DEPTH_MAX))
        .map(|(name, value)| (json_bytes(value) + json_bytes(name), name, value))
        .collect();
    sized.sort_by_key(|(bytes, ..)| *bytes);
    let mut left = MORE_BYTES_MAX;
    let fit = sized.into_iter().map_while(|(bytes, name, value)| {
        left = left.checked_sub(bytes)?;
        Some((name.clone(), value.clone()))
    });
    fit.collect()
}

/// Whether a value is nested in at most so many levels.
fn is_shallow(value: &Value, levels: usize) -> bool {
    let Some(inner) = levels.checked_sub(1) else {
        return false;
    };
    match value {
        Value::Array(list) => list.iter().all(|value| is_shallow(value, inner)),
        Value::Object(members) => members.values().all(|value| is_shallow(value, inner)),
        _ => true,
    }
}

impl Contact {
    fn bounded(&self) -> Self {
        let short =
            |text: &Option<String>| text.as_deref().map(|text| printable(cut_bytes(text, 256)));
        Self {
            name: short(&self.name),
            phone: short(&self.phone),
            user_id: short(&self.user_id),
        }
    }

    /// The contact as templates see it.
    pub fn to_value(&self) -> Value {
        let bounded = self.bounded();
        serde_json::json!({ "name": bounded.name, "phone": bounded.phone, "user_id": bounded.user_id })
    }
}

/// Shows the id only: what people say does not belong into logs.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// Shows nothing: who people are does not belong into logs.
impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contact").finish_non_exhaustive()
    }
}

/// Replaces control characters, which JSON would write six times as long.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' && c != '\t' {
                ' '
            } else {
                c
            }
        })
        .collect()
}
