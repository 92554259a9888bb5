//! Nodes as the engine walks them: compiled texts and expressions, and targets that are known to exist.

use super::answer::Accept;
use super::definition::{AgentMode, Method};
use super::effect::HeaderValue;
use super::expression::Expression;
use super::template::{Encoding, Template};
use super::value::Scope;
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
pub struct Node {
    /// Its id in the flow.
    pub id: String,
    pub kind: Kind,
    pub exits: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub enum Kind {
    Text(Text),
    Image(Image),
    Choice(Choice),
    Ask(Ask),
    Condition(Vec<(String, Expression)>),
    Set(Vec<(String, Expression)>),
    Http(Http),
    Agent(Agent),
    Goto,
    End { outcome: String },
}

#[derive(Debug, Clone)]
pub struct Text {
    pub body: Template,
    /// Whether the first link is shown.
    pub preview_url: bool,
}

#[derive(Debug, Clone)]
pub struct Image {
    pub link: Template,
    pub caption: Option<Template>,
}

#[derive(Debug, Clone)]
pub struct Choice {
    /// Which node kind it was written as.
    pub kind: &'static str,
    /// Whether it is shown as buttons; as a list otherwise.
    pub as_buttons: bool,
    pub body: Template,
    pub header: Option<Template>,
    pub footer: Option<Template>,
    pub button: Option<Template>,
    pub options: Vec<ChoiceOption>,
    /// Where the chosen value is kept.
    pub variable: Option<String>,
    /// Text above when asked again.
    pub retry: Option<Template>,
    pub attempts: u32,
}

#[derive(Debug, Clone)]
pub struct ChoiceOption {
    pub id: String,
    pub title: Template,
    pub description: Option<Template>,
    pub value: Option<Template>,
}

/// A question for a value.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Which node kind it was written as.
    pub kind: &'static str,
    pub body: Template,
    pub accept: Accept,
    pub variable: String,
    /// Said when it is not accepted.
    pub retry: Option<Template>,
    pub attempts: u32,
}

/// An HTTP request to make.
#[derive(Debug, Clone)]
pub struct Http {
    pub method: Method,
    pub url: Template,
    pub headers: Vec<(String, Header)>,
    pub body: Option<Body>,
    /// How long it may take.
    pub timeout_ms: u64,
    pub save: Vec<(String, String)>,
    /// Where the status code is kept.
    pub save_status: Option<String>,
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

#[derive(Debug, Clone)]
pub enum Header {
    Text(Template),
    /// A secret, passed on by name.
    Secret(HeaderValue),
}

#[derive(Debug, Clone)]
pub enum Body {
    Text(Template),
    Json(JsonBody),
}

/// JSON whose texts are templates.
#[derive(Debug, Clone)]
pub enum JsonBody {
    Text(Template),
    List(Vec<JsonBody>),
    Object(Vec<(String, JsonBody)>),
    /// Anything else, as it is.
    Plain(Value),
}

#[derive(Debug, Clone)]
pub struct Agent {
    /// Base address of its API.
    pub base_url: Template,
    pub model: Template,
    /// Name of the secret that holds the key.
    pub api_key: Option<String>,
    pub system: Template,
    pub mode: AgentMode,
    pub greeting: Option<Template>,
    /// Said when no answer comes.
    pub fallback: Option<Template>,
    /// Folded words that leave a chat.
    pub exit_keywords: Vec<String>,
    pub memory_turns: usize,
    pub answers_max: u32,
    /// How long an answer may take.
    pub timeout_ms: u64,
    pub max_tokens: u32,
    /// Where the last answer is kept.
    pub variable: Option<String>,
}

impl Node {
    /// Where an exit leads, when it is wired.
    pub fn exit(&self, name: &str) -> Option<&str> {
        self.exits.get(name).map(String::as_str)
    }

    /// Whether every way through it takes a message of the person.
    pub fn waits(&self) -> bool {
        match &self.kind {
            Kind::Choice(_) => self.exit("next").is_none(),
            Kind::Ask(_) | Kind::Agent(_) => true,
            Kind::Text(_)
            | Kind::Image(_)
            | Kind::Condition(_)
            | Kind::Set(_)
            | Kind::Http(_)
            | Kind::Goto
            | Kind::End { .. } => false,
        }
    }

    /// The names its exits may have, those first that it should have.
    pub fn exit_names(&self) -> Vec<String> {
        let fixed = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        match &self.kind {
            Kind::Text(_) | Kind::Image(_) | Kind::Set(_) | Kind::Goto => fixed(&["next"]),
            Kind::Choice(choice) => {
                let options = choice
                    .options
                    .iter()
                    .map(|option| format!("option:{}", option.id));
                let pass: &[&str] = if choice.kind == "ask.choice" {
                    &[]
                } else {
                    &["next"]
                };
                options
                    .chain(fixed(&["else", "invalid"]))
                    .chain(fixed(pass))
                    .collect()
            }
            Kind::Ask(_) => fixed(&["next", "invalid"]),
            Kind::Condition(branches) => {
                let names = branches.iter().map(|(id, _)| format!("branch:{id}"));
                names.chain(fixed(&["else"])).collect()
            }
            Kind::Http(_) => fixed(&["ok", "http_error", "timeout"]),
            Kind::Agent(Agent {
                mode: AgentMode::Once,
                ..
            }) => fixed(&["next", "error"]),
            Kind::Agent(Agent {
                mode: AgentMode::Chat,
                ..
            }) => fixed(&["done", "error"]),
            Kind::End { .. } => Vec::new(),
        }
    }

    /// The kind as the definition spells it.
    pub fn kind_name(&self) -> &'static str {
        match &self.kind {
            Kind::Text(_) => "message.text",
            Kind::Image(_) => "message.image",
            Kind::Choice(choice) => choice.kind,
            Kind::Ask(ask) => ask.kind,
            Kind::Condition(_) => "condition",
            Kind::Set(_) => "set",
            Kind::Http(_) => "http",
            Kind::Agent(_) => "agent",
            Kind::Goto => "goto",
            Kind::End { .. } => "end",
        }
    }
}

impl Body {
    /// Renders the body's bytes, a text as its content type is read.
    pub fn render(&self, encoding: Encoding, scope: &Scope<'_>) -> String {
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
