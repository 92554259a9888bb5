//! `http`: calls a web address.

use super::Compiles;
use crate::builder::Builder;
use crate::definition::Method;
use crate::effect::{Call, HeaderValue, HttpCall};
use crate::node::{Node, NodeKind, fixed};
use crate::report::{self, Report};
use crate::step::{Next, Walk, Walked, bounded, exit};
use crate::template::{Encoding, Template};
use crate::update::CallOutcome;
use crate::value::{Scope, is_shallow};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::Arc;

const HEADERS_MAX: usize = 20;
const BODY_TEXTS_MAX: usize = 100;
const SAVES_MAX: usize = 50;
/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 32 * 1024;
const URL_BYTES_MAX: usize = 4 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    method: Method,
    /// The address; slots after its beginning are percent-encoded.
    url: String,
    /// Headers: a text, or `{"secret": name, "prefix": text}`.
    #[serde(default)]
    headers: Map<String, Value>,
    /// The body: a text, or JSON whose texts are templates.
    #[serde(default)]
    body: Option<Value>,
    /// Seconds until the exit `timeout`, at most 30.
    #[serde(default = "timeout_default")]
    timeout_seconds: u32,
    /// JSON pointers into the response by the variable they fill.
    #[serde(default)]
    save: Map<String, Value>,
    /// The variable that keeps the status code.
    #[serde(default)]
    save_status: Option<String>,
}

fn timeout_default() -> u32 {
    10
}

/// An HTTP request to make.
#[derive(Debug)]
struct Http {
    method: Method,
    url: Template,
    headers: Vec<(String, Header)>,
    body: Option<Body>,
    /// How long it may take.
    timeout_ms: u64,
    save: Vec<(String, String)>,
    /// Where the status code is kept.
    save_status: Option<String>,
}

#[derive(Debug)]
enum Header {
    Text(Template),
    /// A secret, passed on by name.
    Secret(HeaderValue),
}

#[derive(Debug)]
enum Body {
    Text(Template),
    Json(JsonBody),
}

/// JSON whose texts are templates.
#[derive(Debug)]
enum JsonBody {
    Text(Template),
    List(Vec<JsonBody>),
    Object(Vec<(String, JsonBody)>),
    /// Anything else, as it is.
    Plain(Value),
}

pub fn compile(_: &str, config: Value, builder: &mut Builder) -> Compiles {
    let config = serde_json::from_value(config)?;
    Ok(Arc::new(build(config, builder)))
}

fn build(config: Config, builder: &mut Builder) -> Http {
    if config.headers.len() > HEADERS_MAX || config.save.len() > SAVES_MAX {
        builder.problem(
            report::LIMIT,
            format!("there are more than {HEADERS_MAX} headers or {SAVES_MAX} saved values"),
        );
    }
    let headers: Vec<_> = config
        .headers
        .iter()
        .filter_map(|(name, value)| compile_header(name, value, builder))
        .collect();
    let mut save = Vec::new();
    for (variable, pointer) in &config.save {
        builder.variable("save", variable);
        match pointer.as_str() {
            Some(pointer) if pointer.is_empty() || pointer.starts_with('/') => {
                save.push((variable.clone(), pointer.to_owned()));
            }
            _ => builder.problem(
                report::CONFIG,
                format!("`save`: `{variable}` needs a JSON pointer such as `/order/status`"),
            ),
        }
    }
    if let Some(variable) = &config.save_status {
        builder.variable("save_status", variable);
    }
    Http {
        method: config.method,
        url: builder.address("url", &config.url),
        headers,
        body: config.body.as_ref().map(|body| compile_body(body, builder)),
        timeout_ms: u64::from(builder.ranged("timeout_seconds", config.timeout_seconds, 1, 30))
            * 1_000,
        save,
        save_status: config.save_status,
    }
}

fn compile_header(name: &str, value: &Value, builder: &mut Builder) -> Option<(String, Header)> {
    let is_name = !name.is_empty()
        && name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !is_name {
        builder.problem(
            report::CONFIG,
            format!("`{name}` cannot name a header; use letters, digits, `-` and `_`"),
        );
        return None;
    }
    let header = match value {
        Value::String(text) => Header::Text(builder.text(name, text)),
        secret => {
            let Ok(secret @ HeaderValue::Secret { .. }) = serde_json::from_value(secret.clone())
            else {
                let message = format!(
                    "the header `{name}` is a text or {{\"secret\": name, \"prefix\": text}}"
                );
                builder.problem(report::CONFIG, message);
                return None;
            };
            Header::Secret(secret)
        }
    };
    Some((name.to_owned(), header))
}

fn compile_body(source: &Value, builder: &mut Builder) -> Body {
    if let Value::String(text) = source {
        return Body::Text(builder.template("body", text).unwrap_or_default());
    }
    if !is_shallow(source) {
        builder.problem(report::LIMIT, "`body` nests too deeply; flatten it");
        return Body::Json(JsonBody::Plain(Value::Null));
    }
    let mut texts = 0;
    let body = compile_json(source, &mut texts, builder);
    if texts > BODY_TEXTS_MAX {
        builder.problem(
            report::LIMIT,
            format!("`body` has more than {BODY_TEXTS_MAX} texts; shorten it"),
        );
    }
    Body::Json(body)
}

fn compile_json(source: &Value, texts: &mut usize, builder: &mut Builder) -> JsonBody {
    match source {
        Value::String(text) => {
            *texts += 1;
            JsonBody::Text(builder.template("body", text).unwrap_or_default())
        }
        Value::Array(list) => JsonBody::List(
            list.iter()
                .map(|item| compile_json(item, texts, builder))
                .collect(),
        ),
        Value::Object(map) => JsonBody::Object(
            map.iter()
                .map(|(name, item)| (name.clone(), compile_json(item, texts, builder)))
                .collect(),
        ),
        plain => JsonBody::Plain(plain.clone()),
    }
}

impl NodeKind for Http {
    fn exits(&self) -> Vec<String> {
        fixed(&["ok", "http_error", "timeout"])
    }

    fn onward(&self) -> Option<&'static str> {
        Some("ok")
    }

    fn check(&self, node: &Node, report: &mut Report) {
        if node.exit("http_error").is_none() {
            report.add(
                report::UNHANDLED,
                Some(&node.id),
                "wire `http_error`: the run fails when the request does",
            );
        }
    }

    fn enter(&self, walk: &mut Walk<'_>, node: &Node) -> Walked<Next> {
        let scope = walk.scope();
        let Some(url) = self.url.render_url(&scope) else {
            return exit("http_error");
        };
        let body = self
            .body
            .as_ref()
            .map(|body| body.render(self.encoding(), &scope));
        let is_web = url.starts_with("https://") || url.starts_with("http://");
        if !is_web
            || url.len() > URL_BYTES_MAX
            || body
                .as_ref()
                .is_some_and(|body| body.len() > BODY_BYTES_MAX)
        {
            return exit("http_error");
        }
        let headers = self.headers.iter().map(|(name, header)| {
            let value = match header {
                // A line break would end the header and begin another.
                Header::Text(text) => {
                    HeaderValue::Text(text.render(&scope).replace(|c: char| c.is_control(), " "))
                }
                Header::Secret(secret) => secret.clone(),
            };
            (name.clone(), value)
        });
        let headers = headers.collect();
        let call = HttpCall {
            method: self.method,
            url,
            headers,
            body,
            timeout_ms: self.timeout_ms,
        };
        walk.call(node, Call::Http(call))
    }

    fn resume(&self, walk: &mut Walk<'_>, _: &Node, outcome: &CallOutcome) -> Walked<Next> {
        let (code, body) = match outcome {
            CallOutcome::Http { code, body } => (*code, body),
            CallOutcome::Timeout => return exit("timeout"),
            CallOutcome::Failed { .. } | CallOutcome::Reply { .. } => {
                return exit("http_error");
            }
        };
        if let Some(variable) = &self.save_status {
            walk.set(variable, Value::from(code))?;
        }
        for (variable, pointer) in &self.save {
            let value = body.pointer(pointer).map_or(Value::Null, bounded);
            walk.set(variable, value)?;
        }
        exit(if (200..300).contains(&code) {
            "ok"
        } else {
            "http_error"
        })
    }
}

impl Http {
    /// How the body is read; without a content type it goes as JSON.
    pub fn encoding(&self) -> Encoding {
        let is_type = |(name, _): &&(String, Header)| name.eq_ignore_ascii_case("content-type");
        match self.headers.iter().find(is_type) {
            Some((_, Header::Text(text))) => Encoding::of(text.as_static().unwrap_or_default()),
            Some((_, Header::Secret(_))) => Encoding::Plain,
            None => Encoding::Json,
        }
    }
}

impl Body {
    /// Renders the body's bytes, a text as its content type is read.
    fn render(&self, encoding: Encoding, scope: &Scope<'_>) -> String {
        match self {
            Self::Text(template) => template.render_as(encoding, scope),
            Self::Json(json) => json.render(scope).to_string(),
        }
    }
}

impl JsonBody {
    fn render(&self, scope: &Scope<'_>) -> Value {
        match self {
            Self::Text(template) => template.render_value(scope),
            Self::List(list) => list.iter().map(|item| item.render(scope)).collect(),
            Self::Object(fields) => fields
                .iter()
                .map(|(name, item)| (name.clone(), item.render(scope)))
                .collect(),
            Self::Plain(value) => value.clone(),
        }
    }
}
