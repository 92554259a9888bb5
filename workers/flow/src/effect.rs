//! What the engine asks the shell to do. Every effect has a key that is unique in its session, so that
//! doing it twice can be recognised.

use super::agent::Turn;
use super::definition::{EndpointConfig, Method};
use ackline_message::Content;
use ackline_shared::ids::short_hash;
use ackline_shared::stored;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// Send a message to the person.
    Send { key: String, content: Content },
    /// Call something and bring back its outcome.
    Call {
        /// `<update id>:<n>`; the outcome names it.
        effect_id: String,
        call: Call,
    },
    /// Record that a run began.
    Started { run: String, flow: String },
    /// Record that a run ended.
    Completed {
        run: String,
        flow: String,
        /// `completed`, `failed`, `restarted`, `stopped`, or what an `end` node says.
        outcome: String,
        /// Why it failed, in words for the flow's owner.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// The variables it ended with.
        variables: Value,
    },
}

/// A call of the world outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
pub enum Call {
    Http(HttpCall),
    /// A completion by a language model.
    Agent(AgentCall),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HttpCall {
    pub method: Method,
    /// The address; the shell decides whether it may be reached.
    pub url: String,
    pub headers: Vec<(String, HeaderValue)>,
    pub body: Option<String>,
    /// How long to wait for the whole answer.
    pub timeout_ms: u64,
}

/// The value of a header; a secret is named here and only known to the shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HeaderValue {
    Text(String),
    /// A secret of the tenant.
    Secret {
        secret: String,
        /// What stands before it, such as `Bearer `.
        #[serde(default)]
        prefix: String,
    },
}

/// A completion by a language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentCall {
    /// The model and where it is reached.
    #[serde(deserialize_with = "stored::tolerant")]
    pub endpoint: EndpointConfig,
    /// What it is told about its task.
    pub system: String,
    /// The conversation so far; the last turn is the person's.
    pub messages: Vec<Turn>,
    pub max_tokens: u32,
    /// How long to wait for the whole answer.
    pub timeout_ms: u64,
}

/// Longest id of a send command.
const SEND_ID_BYTES_MAX: usize = 128;

/// The id of the send command for an effect's key: the same key gives the same id, short enough to travel.
pub fn send_id(key: &str) -> String {
    if key.len() <= SEND_ID_BYTES_MAX {
        key.to_owned()
    } else {
        format!("f:{}", short_hash(key.as_bytes()))
    }
}

impl Call {
    /// How long the call may take.
    pub fn timeout_ms(&self) -> u64 {
        match self {
            Self::Http(call) => call.timeout_ms,
            Self::Agent(call) => call.timeout_ms,
        }
    }
}

impl Effect {
    /// The key that makes the effect recognisable.
    pub fn key(&self) -> String {
        match self {
            Self::Send { key, .. } => key.clone(),
            Self::Call { effect_id, .. } => effect_id.clone(),
            Self::Started { run, .. } => format!("{run}:started"),
            Self::Completed { run, .. } => format!("{run}:completed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::send_id;

    #[test]
    fn a_send_id_is_the_key_or_a_hash_of_it() {
        assert_eq!(send_id("wamid.A:0"), "wamid.A:0");
        let long = "x".repeat(200);
        assert!(send_id(&long).len() <= 128);
        assert_ne!(send_id(&long), send_id(&format!("{long}y")));
    }
}
