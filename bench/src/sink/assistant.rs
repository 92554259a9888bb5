//! What a customer's systems answer: an order lookup and a scripted, OpenAI-compatible assistant.
//!
//! Both are deterministic: the same request gets the same answer.

use super::faults::Planned;
use super::{ChatCompletion, Entry, OrderLookup, Sink};
use ackline_shared::ids::short_hash;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::{Value, json};
use std::sync::Arc;

const ORDERS: [(&str, &str, Option<&str>); 3] = [
    ("1001", "shipped", Some("tomorrow before noon")),
    ("1002", "processing", Some("in three days")),
    ("1003", "delivered", None),
];

pub async fn order(
    State(sink): State<Arc<Sink>>,
    Path(number): Path<String>,
    Extension(planned): Extension<Planned>,
) -> (StatusCode, Json<Value>) {
    let found = ORDERS.iter().find(|(order, ..)| *order == number);
    let (status, body) = match found {
        Some((order, status, eta)) => (
            StatusCode::OK,
            json!({"order": order, "status": status, "eta": eta}),
        ),
        None => (StatusCode::NOT_FOUND, json!({"error": "no such order"})),
    };
    let injected = planned.injected();
    sink.journal.record(Entry::Order(OrderLookup {
        order: number,
        status: planned.status(status),
        injected,
    }));
    (status, Json(body))
}

pub async fn complete(
    State(sink): State<Arc<Sink>>,
    Extension(planned): Extension<Planned>,
    body: Bytes,
) -> (StatusCode, Json<Value>) {
    let request: Option<Value> = serde_json::from_slice(&body).ok();
    let (status, answer, body) = match request.as_ref().map(completion) {
        Some(Ok((answer, body))) => (StatusCode::OK, Some(answer), body),
        Some(Err(problem)) => (StatusCode::BAD_REQUEST, None, refusal(problem)),
        None => (
            StatusCode::BAD_REQUEST,
            None,
            refusal("the body is not JSON"),
        ),
    };
    let (seen, injected) = (planned.status(status), planned.injected());
    sink.journal.record(Entry::Chat(ChatCompletion {
        request,
        answer,
        status: seen,
        injected,
    }));
    (status, Json(body))
}

fn completion(request: &Value) -> Result<(String, Value), &'static str> {
    let model = request
        .get("model")
        .and_then(Value::as_str)
        .ok_or("`model` is required")?;
    let messages = request
        .get("messages")
        .and_then(Value::as_array)
        .ok_or("`messages` is required")?;
    if request.get("stream").and_then(Value::as_bool) == Some(true) {
        return Err("this assistant does not stream; leave `stream` out");
    }
    let asked = messages
        .iter()
        .rev()
        .find(|message| message.get("role") == Some(&json!("user")));
    let asked = asked
        .and_then(|message| message.get("content"))
        .and_then(text)
        .ok_or("no user message")?;
    let said = reply(&asked);
    let prompt: usize = messages
        .iter()
        .filter_map(|message| text(message.get("content")?))
        .map(|t| tokens(&t))
        .sum();
    let completion = tokens(&said);
    let id = format!("chatcmpl-{}", short_hash(request.to_string().as_bytes()));
    let body = json!({
        "id": id, "object": "chat.completion", "created": 0, "model": model,
        "choices": [{
            "index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop",
        }],
        "usage": {
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        },
    });
    Ok((said, body))
}

/// The script: a few topics by keyword, otherwise the question is repeated back.
fn reply(asked: &str) -> String {
    let lower = asked.to_lowercase();
    let about = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if about(&["hour", "open", "close"]) {
        "We are open Monday to Saturday, 9:00 to 18:00.".to_owned()
    } else if about(&["return", "refund"]) {
        "You can return anything within 30 days. Shall I start a return for you?".to_owned()
    } else if about(&["ship", "deliver", "order"]) {
        "Send me your order number and I will look up where it is.".to_owned()
    } else if about(&["human", "agent", "person"]) {
        "I will ask a colleague to take over.".to_owned()
    } else {
        let asked: String = asked.chars().take(200).collect();
        format!("You asked: \"{asked}\". I do not know that yet, but a colleague will.")
    }
}

/// The text of a message's content, plain or in parts.
fn text(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
            Some(texts.collect::<Vec<_>>().join(" "))
        }
        _ => None,
    }
}

/// About four characters a token, as real models have in English.
fn tokens(text: &str) -> usize {
    text.chars().count().div_ceil(4)
}

fn refusal(problem: &str) -> Value {
    json!({"error": {"message": problem, "type": "invalid_request_error", "param": null, "code": null}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_depends_on_the_last_user_message_only() {
        let request = json!({"model": "m", "messages": [
            {"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "hi"},
            {"role": "user", "content": [{"type": "text", "text": "When do you open?"}]}]});
        let (said, body) = completion(&request).unwrap();
        assert!(said.contains("9:00"));
        assert_eq!(body["usage"]["prompt_tokens"], 2 + 2 + 1 + 5);
        assert_eq!(completion(&request).unwrap().1, body);
    }

    #[test]
    fn an_unusable_request_is_told_apart() {
        assert!(completion(&json!({"model": "m", "messages": []})).is_err());
        let streamed =
            json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "x"}]});
        assert!(completion(&streamed).is_err());
    }
}
