//! What the simulator's journal holds: webhook attempts, Graph calls, and messages as people see them.

use super::signing::Signature;
use crate::journal::Weigh;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// Longest body kept with an entry; a longer one is left out and only its size told.
pub const BODY_BYTES_MAX: usize = 16 * 1024;

/// Most message ids kept with a webhook attempt.
pub const MESSAGE_IDS_MAX: usize = 32;

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// One attempt to deliver a webhook.
    Webhook(WebhookAttempt),
    /// One call of the Graph API.
    Graph(GraphCall),
    /// One message in a conversation.
    Message(SeenMessage),
}

/// How an attempt ended and what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Delivered,
    /// Anything else; it is posted again.
    Retrying,
    /// Anything else; it is not posted again.
    GivenUp,
}

/// One attempt to deliver a webhook.
#[derive(Debug, Serialize)]
pub struct WebhookAttempt {
    pub delivery: u64,
    pub attempt: u32,
    /// The conversation, when all updates are of one.
    pub conversation: Option<String>,
    /// The messages its updates are about, up to [`MESSAGE_IDS_MAX`].
    pub message_ids: Arc<[String]>,
    pub signature: Signature,
    /// How many updates it carries.
    pub updates: usize,
    pub body_bytes: usize,
    /// The body as sent, up to [`BODY_BYTES_MAX`].
    pub body: Option<String>,
    pub status: Option<u16>,
    /// Why there was no answer.
    pub error: Option<String>,
    /// How long the answer took, in microseconds.
    pub duration_us: u64,
    pub outcome: Outcome,
}

/// One call of the Graph API.
#[derive(Debug, Serialize)]
pub struct GraphCall {
    pub method: String,
    pub path: String,
    /// The conversation of a send or read receipt.
    pub conversation: Option<String>,
    /// The message accepted or marked read.
    pub message_id: Option<String>,
    /// The body, when it is JSON of up to [`BODY_BYTES_MAX`].
    pub body: Option<Value>,
    /// The status answered; absent when the connection was dropped.
    pub status: Option<u16>,
    /// Meta's error code, when it is an error.
    pub code: Option<u32>,
    /// Whether a rule decided the answer.
    pub injected: bool,
    pub answer: Option<Value>,
    /// How long it took, in microseconds.
    pub duration_us: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Author {
    User,
    Business,
}

/// One message as the person on the phone sees it.
#[derive(Debug, Serialize)]
pub struct SeenMessage {
    /// The person, by user id.
    pub conversation: String,
    pub phone_number_id: String,
    pub author: Author,
    pub message_id: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// What it says in one line.
    pub text: String,
    pub biz_opaque_callback_data: Option<String>,
    /// The content in Meta's shape.
    pub content: Option<Value>,
}

impl Entry {
    /// The conversation it belongs to.
    pub fn conversation(&self) -> Option<&str> {
        match self {
            Self::Webhook(webhook) => webhook.conversation.as_deref(),
            Self::Graph(call) => call.conversation.as_deref(),
            Self::Message(message) => Some(&message.conversation),
        }
    }

    /// The name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Graph(_) => "graph",
            Self::Message(_) => "message",
        }
    }

    /// Whether it is about a message.
    pub fn concerns(&self, message_id: &str) -> bool {
        match self {
            Self::Webhook(webhook) => webhook.message_ids.iter().any(|id| id == message_id),
            Self::Graph(call) => call.message_id.as_deref() == Some(message_id),
            Self::Message(message) => message.message_id == message_id,
        }
    }

    /// The webhook delivery it belongs to.
    pub fn delivery(&self) -> Option<u64> {
        match self {
            Self::Webhook(webhook) => Some(webhook.delivery),
            _ => None,
        }
    }
}

impl Weigh for Entry {
    fn bytes(&self) -> usize {
        let json = |value: &Option<Value>| {
            value
                .as_ref()
                .map_or(0, |value| value.to_string().len() * 2)
        };
        512 + match self {
            Self::Webhook(webhook) => webhook.body.as_ref().map_or(0, String::len),
            Self::Graph(call) => json(&call.body) + json(&call.answer),
            Self::Message(message) => message.text.len() + json(&message.content),
        }
    }
}
