//! An agent node's memory and its requests, as data: what a chat-completions endpoint is sent and what is
//! read from its answer. Nothing here calls anything.

use super::effect::AgentCall;
use super::limits::{INCOMING_BYTES_MAX, MEMORY_BYTES_MAX, cut_bytes, json_bytes};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One message of a conversation with a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    pub role: Role,
    pub content: String,
}

/// Who says something to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    User,
    Assistant,
}

/// The turns a session remembers, oldest first, bounded in number and bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Memory(Vec<Turn>);

impl Memory {
    /// Remembers a turn and forgets the oldest beyond `turns_max`.
    pub fn remember(&mut self, role: Role, content: &str, turns_max: usize) {
        self.0.push(Turn {
            role,
            content: cut_bytes(content, INCOMING_BYTES_MAX).to_owned(),
        });
        while self.0.len() > 1
            && (self.0.len() > turns_max || json_bytes(&self.0) > MEMORY_BYTES_MAX)
        {
            self.0.remove(0);
        }
    }

    /// The turns a model is shown: from the oldest of the person's on, as some endpoints ask for.
    pub fn shown(&self) -> Vec<Turn> {
        self.0
            .iter()
            .skip_while(|turn| turn.role == Role::Assistant)
            .cloned()
            .collect()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// The address of the completions below an endpoint's base address.
pub fn completions_url(base_url: &str) -> String {
    format!("{}/chat/completions", base_url.trim_end_matches('/'))
}

/// The body of a chat-completions request; the same call gives the same bytes.
pub fn request_body(call: &AgentCall) -> Value {
    let mut messages = vec![json!({ "role": "system", "content": call.system })];
    messages.extend(
        call.messages
            .iter()
            .map(|turn| json!({ "role": turn.role, "content": turn.content })),
    );
    json!({ "model": call.endpoint.model, "messages": messages, "max_tokens": call.max_tokens, "stream": false })
}

/// Reads the answer of a chat-completions response; none when there is no text in it.
pub fn read_reply(response: &Value) -> Option<String> {
    let content = response.pointer("/choices/0/message/content")?;
    let text = match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part.get("text")?.as_str())
            .collect(),
        _ => return None,
    };
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::EndpointConfig;

    #[test]
    fn memory_keeps_the_newest_turns_within_its_bounds() {
        let mut memory = Memory::default();
        for turn in 0..50 {
            memory.remember(
                if turn % 2 == 0 {
                    Role::User
                } else {
                    Role::Assistant
                },
                &turn.to_string(),
                5,
            );
        }
        let shown: Vec<String> = memory
            .shown()
            .into_iter()
            .map(|turn| turn.content)
            .collect();
        assert_eq!(shown, ["46", "47", "48", "49"]);
        for _ in 0..50 {
            memory.remember(Role::User, &"\u{1}".repeat(10_000), 40);
            assert!(json_bytes(&memory) <= MEMORY_BYTES_MAX.max(INCOMING_BYTES_MAX * 6 + 64));
        }
    }

    #[test]
    fn a_request_is_an_ordinary_chat_completion() {
        let call = AgentCall {
            endpoint: EndpointConfig {
                base_url: "http://m/v1/".into(),
                model: "m1".into(),
                api_key: None,
            },
            system: "Be kind.".into(),
            messages: vec![Turn {
                role: Role::User,
                content: "Hi".into(),
            }],
            max_tokens: 5,
            timeout_ms: 1,
        };
        assert_eq!(
            completions_url(&call.endpoint.base_url),
            "http://m/v1/chat/completions"
        );
        assert_eq!(
            request_body(&call),
            json!({"model": "m1", "max_tokens": 5, "stream": false, "messages": [
                {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]})
        );
    }

    #[test]
    fn an_answer_without_text_is_no_answer() {
        let response = |content: Value| json!({"choices": [{"message": {"content": content}}]});
        assert_eq!(
            read_reply(&response(json!(" Hello "))),
            Some("Hello".to_owned())
        );
        assert_eq!(
            read_reply(&response(
                json!([{"type": "text", "text": "Hel"}, {"text": "lo"}])
            )),
            Some("Hello".into())
        );
        for empty in [json!(null), json!("  "), json!([])] {
            assert_eq!(read_reply(&response(empty)), None);
        }
        assert_eq!(read_reply(&json!({"error": "x"})), None);
    }
}
