//! Whoever makes messages takes and refuses the same ones: the API, the replies pool and flows.

use super::stage::{ACME, Stage};
use ackline_flow::Compiled;
use ackline_message::graph_body;
use ackline_message::{Origin, Recipient, SendCommand};
use ackline_shared::ids::{PhoneNumberId, TenantId, is_token};
use axum::http::StatusCode;
use serde_json::{Value, json};

/// A content, and whether WhatsApp takes it.
type Case = (Value, bool);

fn text() -> Value {
    json!({"type": "text", "body": "hi", "preview_url": true})
}

fn image() -> Value {
    json!({"type": "image", "link": "https://a.example/x.png", "caption": "c"})
}

fn media() -> Value {
    json!({"type": "image", "id": "17"})
}

fn buttons(count: usize) -> Value {
    let button = |at: usize| json!({"id": format!("b{at}"), "title": format!("Button {at}")});
    let buttons: Vec<_> = (0..count).map(button).collect();
    json!({"type": "buttons", "body": "b", "header": "h", "footer": "f", "buttons": buttons})
}

fn list(count: usize) -> Value {
    let row = |at: usize| json!({"id": format!("r{at}"), "title": format!("Row {at}"), "description": "d"});
    let rows: Vec<_> = (0..count).map(row).collect();
    json!({"type": "list", "body": "b", "header": "h", "footer": "f", "button": "Open", "sections": [{"rows": rows}]})
}

fn sections() -> Value {
    let mut list = list(1);
    let row = json!({"id": "other", "title": "Other"});
    list["sections"][0]["title"] = json!("First");
    let second = json!({"title": "Second", "rows": [row]});
    list["sections"].as_array_mut().unwrap().push(second);
    list
}

fn template() -> Value {
    let parameters = json!([{"type": "text", "text": "Ana"}]);
    json!({"type": "template", "name": "hello", "language": "en_US", "components": [
        {"type": "body", "parameters": parameters},
        {"type": "button", "sub_type": "url", "index": "0", "parameters": parameters},
    ]})
}

fn with(mut content: Value, pointer: &str, value: Value) -> Value {
    *content.pointer_mut(pointer).unwrap() = value;
    content
}

fn without(mut content: Value, field: &str) -> Value {
    content.as_object_mut().unwrap().shift_remove(field);
    content
}

/// Each text empty, at its limit, and one over it.
fn texts() -> Vec<Case> {
    let limits = [
        (text(), "/body", 4096),
        (image(), "/caption", 1024),
        (buttons(2), "/body", 1024),
        (buttons(2), "/header", 60),
        (buttons(2), "/footer", 60),
        (buttons(2), "/buttons/1/id", 256),
        (buttons(2), "/buttons/1/title", 20),
        (list(2), "/body", 4096),
        (list(2), "/header", 60),
        (list(2), "/footer", 60),
        (list(2), "/button", 20),
        (list(2), "/sections/0/rows/1/id", 200),
        (list(2), "/sections/0/rows/1/title", 24),
        (list(2), "/sections/0/rows/1/description", 72),
        (sections(), "/sections/1/title", 24),
        (template(), "/name", 512),
        (template(), "/language", 20),
    ];
    let mut cases = Vec::new();
    for (content, pointer, max) in limits {
        let mut case = |value: String, is_taken| {
            cases.push((with(content.clone(), pointer, json!(value)), is_taken));
        };
        for character in ["x", "\u{e9}", "\u{1f600}"] {
            case(character.repeat(max), true);
            case(character.repeat(max + 1), false);
        }
        case(String::new(), false);
        case(" \n".into(), false);
    }
    cases
}

/// What is right and wrong besides lengths.
fn shapes() -> Vec<Case> {
    let link = |link: &str| with(image(), "/link", json!(link));
    let component = |value| with(template(), "/components/1", value);
    let row = json!({"id": "r0", "title": "Again"});
    vec![
        (text(), true),
        (image(), true),
        (without(image(), "caption"), true),
        (media(), true),
        (without(media(), "id"), false),
        (with(media(), "/id", json!("")), false),
        (link("HTTPS://a.example/x.png"), true),
        (link("http://a.example/x.png"), false),
        (link("https://a.example/a b.png"), false),
        (link("https://"), false),
        (link("file:///etc/passwd"), false),
        (link("x.png"), false),
        (buttons(0), false),
        (buttons(1), true),
        (buttons(3), true),
        (buttons(4), false),
        (without(without(buttons(1), "header"), "footer"), true),
        (with(buttons(2), "/buttons/1/id", json!("b0")), false),
        (
            with(buttons(2), "/buttons/1/title", json!("Button 0")),
            false,
        ),
        (list(0), false),
        (list(1), true),
        (list(10), true),
        (list(11), false),
        (with(list(1), "/sections", json!([])), false),
        (with(list(2), "/sections/0/rows/1/id", json!("r0")), false),
        (sections(), true),
        (with(sections(), "/sections/1/title", json!(null)), false),
        (with(sections(), "/sections/1/rows", json!([])), false),
        (with(sections(), "/sections/1/rows/0", row), false),
        (template(), true),
        (without(template(), "components"), true),
        (component(json!({"type": "body"})), true),
        (component(json!({"parameters": []})), false),
        (component(json!("body")), false),
        (component(json!({"type": "button", "index": "0"})), false),
        (
            component(json!({"type": "body", "parameters": ["Ana"]})),
            false,
        ),
    ]
}

/// The node that sends a content, where there is one: ids of options also name exits.
fn node(content: &Value) -> Option<Value> {
    let options = |options: &Value| -> Option<Value> {
        let mut ids = options
            .as_array()?
            .iter()
            .map(|option| option["id"].as_str());
        ids.all(|id| id.is_some_and(is_token))
            .then(|| options.clone())
    };
    let mut node = content.clone();
    let fields = node.as_object_mut()?;
    fields.shift_remove("type");
    let kind = content["type"].as_str()?;
    match kind {
        "text" => {}
        "image" if content["link"].is_string() => {}
        "buttons" => {
            let buttons = fields.shift_remove("buttons")?;
            fields.insert("options".into(), options(&buttons)?);
        }
        "list" => {
            let sections = fields.shift_remove("sections")?;
            let [section] = sections.as_array()?.as_slice() else {
                return None;
            };
            if section.get("title").is_some() {
                return None;
            }
            fields.insert("options".into(), options(&section["rows"])?);
        }
        _ => return None,
    }
    fields.insert("kind".into(), json!(format!("message.{kind}")));
    fields.insert("exits".into(), json!({"next": "end"}));
    Some(node)
}

fn flow(node: &Value) -> Value {
    json!({"format": 1, "name": "f", "entry": [{"on": "any"}], "start": "a",
        "nodes": {"a": node, "end": {"kind": "end"}}})
}

fn command(content: &Value) -> SendCommand {
    SendCommand {
        id: "api_1".into(),
        tenant: TenantId::new("acme").unwrap(),
        phone_number_id: PhoneNumberId::new("1001").unwrap(),
        to: Recipient {
            user_id: Some("US.1".into()),
            phone: None,
        },
        content: serde_json::from_value(content.clone()).unwrap(),
        reply_to: None,
        origin: Origin::Api {
            key: "k".into(),
            request: None,
        },
        created_ms: 1,
    }
}

#[tokio::test]
async fn api_pool_and_flows_take_the_same_contents() {
    let stage = Stage::start().await;
    let mut nodes = 0;
    for (content, is_taken) in texts().into_iter().chain(shapes()) {
        let body = json!({"to": {"user_id": "US.1"}, "content": content});
        let answer = stage.post("/v1/messages", ACME, &body).await;
        let sent = graph_body(&command(&content));
        if is_taken {
            assert_eq!(answer.status, StatusCode::ACCEPTED, "{content} {answer:?}");
            assert_eq!(sent.err(), None, "{content}");
        } else {
            answer.is_problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
            let reason = sent.unwrap_err().to_string();
            for error in answer.json["errors"].as_array().unwrap() {
                let detail = error["detail"].as_str().unwrap();
                assert!(reason.contains(detail), "{detail:?} is not in {reason:?}");
            }
        }
        if let Some(node) = node(&content) {
            nodes += 1;
            let compiled = Compiled::from_json(&flow(&node));
            assert_eq!(compiled.is_ok(), is_taken, "{node} {:?}", compiled.err());
        }
    }
    assert!(nodes > 90, "{nodes} of the contents are sent by flows");
}

#[tokio::test]
async fn api_and_pool_take_the_same_recipients() {
    let stage = Stage::start().await;
    let endless = format!("US.{}", "1".repeat(133));
    for (to, is_taken) in [
        (json!({"user_id": "US.13491208655302741918"}), true),
        (json!({"user_id": "US.ENT.1"}), true),
        (json!({"user_id": "US.1", "phone": "+491701234567"}), true),
        (json!({"phone": "491701234567"}), true),
        (json!({"phone": "+12345"}), true),
        (json!({"phone": "+123456789012345"}), true),
        (json!({"phone": "+1234567890123456"}), false),
        (json!({"phone": "1234"}), false),
        (json!({"phone": "0049170123"}), false),
        (json!({"phone": "+49 170 123"}), false),
        (json!({"user_id": "US.1", "phone": ""}), false),
        (json!({"user_id": "491701234567"}), false),
        (json!({"user_id": "US. 1"}), false),
        (json!({"user_id": endless}), false),
        (json!({}), false),
    ] {
        let body = json!({"to": to, "content": text()});
        let answer = stage.post("/v1/messages", ACME, &body).await;
        let command = SendCommand {
            to: serde_json::from_value(to.clone()).unwrap(),
            ..command(&text())
        };
        let is_accepted = answer.status == StatusCode::ACCEPTED;
        assert_eq!(
            (is_accepted, graph_body(&command).is_ok()),
            (is_taken, is_taken),
            "{to} {answer:?}"
        );
    }
}
