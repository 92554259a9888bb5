//! An agent node's memory and its requests, as data: what a chat-completions endpoint is sent and what is
//! read from its answer. Nothing here calls anything.

use super::definition::{EndpointConfig, TokensField};
use super::effect::AgentCall;
use super::limits::{INCOMING_BYTES_MAX, MEMORY_BYTES_MAX, cut_bytes, json_bytes};
use super::reasoning;
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

/// The field in which an endpoint is told how long an answer may be: as declared, or else by the model's name.
///
/// OpenAI's newer models refuse the older field, and most other endpoints do not know the newer one.
pub fn tokens_field(endpoint: &EndpointConfig) -> TokensField {
    endpoint.tokens_field.unwrap_or_else(|| {
        let model = endpoint.model.rsplit('/').next().unwrap_or_default();
        let generation = |family: &str| {
            let rest = model.strip_prefix(family)?;
            let digits = rest.find(|c: char| !c.is_ascii_digit());
            rest.get(..digits.unwrap_or(rest.len()))?
                .parse::<u32>()
                .ok()
        };
        let is_newer = generation("o").is_some_and(|generation| generation >= 1)
            || generation("gpt-").is_some_and(|generation| generation >= 5);
        match is_newer {
            true => TokensField::MaxCompletionTokens,
            false => TokensField::MaxTokens,
        }
    })
}

/// The other field, where a refused request says that it was for this one.
pub fn other_tokens_field(status: u16, field: TokensField, response: &str) -> Option<TokensField> {
    let other = match field {
        TokensField::MaxTokens => TokensField::MaxCompletionTokens,
        TokensField::MaxCompletionTokens => TokensField::MaxTokens,
    };
    let is_refused = matches!(status, 400 | 422) && response.contains(field.as_str());
    is_refused.then_some(other)
}

/// The body of a chat-completions request; the same call gives the same bytes.
pub fn request_body(call: &AgentCall, tokens: TokensField) -> Value {
    let mut messages = vec![json!({ "role": "system", "content": call.system })];
    messages.extend(
        call.messages
            .iter()
            .map(|turn| json!({ "role": turn.role, "content": turn.content })),
    );
    json!({ "model": call.endpoint.model, "messages": messages, tokens.as_str(): call.max_tokens, "stream": false })
}

/// Reads the answer of a chat-completions response, without the model's thinking; none when there is no text in it.
pub fn read_reply(response: &Value) -> Option<String> {
    let content = response.pointer("/choices/0/message/content")?;
    let text = match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(part_text).collect(),
        _ => return None,
    };
    let text = reasoning::removed(&text);
    (!text.is_empty()).then_some(text)
}

/// The text of a part; parts of other types hold the thinking, or what is no text.
fn part_text(part: &Value) -> Option<&str> {
    let kind = part.get("type").and_then(Value::as_str);
    let is_text = kind.is_none_or(|kind| matches!(kind, "text" | "output_text"));
    part.get("text")?.as_str().filter(|_| is_text)
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
                tokens_field: None,
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
            request_body(&call, tokens_field(&call.endpoint)),
            json!({"model": "m1", "max_tokens": 5, "stream": false, "messages": [
                {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]})
        );
    }

    #[test]
    fn the_field_of_the_tokens_is_declared_or_known_by_the_model() {
        let field = |model: &str, declared| {
            tokens_field(&EndpointConfig {
                base_url: "http://m/v1".into(),
                model: model.into(),
                api_key: None,
                tokens_field: declared,
            })
            .as_str()
        };
        for model in [
            "o1",
            "o3-mini",
            "gpt-5.1",
            "gpt-5-nano",
            "openai/gpt-6",
            "o4-mini",
        ] {
            assert_eq!(field(model, None), "max_completion_tokens", "{model}");
        }
        for model in [
            "gpt-4o",
            "gpt-3.5-turbo",
            "olmo-2",
            "llama-3.3",
            "o",
            "mistral-large",
            "m",
        ] {
            assert_eq!(field(model, None), "max_tokens", "{model}");
        }
        assert_eq!(field("gpt-5", Some(TokensField::MaxTokens)), "max_tokens");

        let refused = r#"{"error":{"param":"max_tokens","code":"unsupported_parameter"}}"#;
        let other = other_tokens_field(400, TokensField::MaxTokens, refused);
        assert_eq!(other, Some(TokensField::MaxCompletionTokens));
        let strict = r#"{"detail":[{"loc":["body","max_completion_tokens"]}]}"#;
        let other = other_tokens_field(422, TokensField::MaxCompletionTokens, strict);
        assert_eq!(other, Some(TokensField::MaxTokens));
        assert_eq!(
            other_tokens_field(400, TokensField::MaxTokens, "model"),
            None
        );
        assert_eq!(
            other_tokens_field(500, TokensField::MaxTokens, refused),
            None
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
        let parts = json!([{"type": "thinking", "thinking": []}, {"type": "reasoning", "text": "hm"},
            {"type": "text", "text": "Hello"}]);
        assert_eq!(read_reply(&response(parts)), Some("Hello".into()));
        let thought = response(json!("<think>Greet.</think>Hello"));
        assert_eq!(read_reply(&thought), Some("Hello".into()));
        for empty in [json!(null), json!("  "), json!([]), json!("<think>cut")] {
            assert_eq!(read_reply(&response(empty)), None);
        }
        assert_eq!(read_reply(&json!({"error": "x"})), None);
    }
}
