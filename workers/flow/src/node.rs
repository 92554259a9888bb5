//! Nodes as the engine walks them: compiled texts and expressions, and targets that are known to exist.

use super::answer::Accept;
use super::definition::{AgentMode, Method};
use super::effect::HeaderValue;
use super::expression::Expression;
use super::template::{Encoding, Template};
use super::value::Scope;
use serde_json::Value;
use std::collections::BTreeMap;

/// One node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its id in the flow.
    pub id: String,
    /// What it does.
    pub kind: Kind,
    /// Where its exits lead.
    pub exits: BTreeMap<String, String>,
}

/// What a node does.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Sends a text.
    Text(Text),
    /// Sends an image.
    Image(Image),
    /// Offers options.
    Choice(Choice),
    /// Asks for a value.
    Ask(Ask),
    /// Chooses a branch.
    Condition(Vec<(String, Expression)>),
    /// Sets variables.
    Set(Vec<(String, Expression)>),
    /// Calls a web address.
    Http(Http),
    /// Lets a model answer.
    Agent(Agent),
    /// Goes on elsewhere.
    Goto,
    /// Ends the run.
    End {
        /// Its outcome.
        outcome: String,
    },
}

/// A text to send.
#[derive(Debug, Clone)]
pub struct Text {
    /// The text.
    pub body: Template,
    /// Whether the first link is shown.
    pub preview_url: bool,
}

/// An image to send.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its address.
    pub link: Template,
    /// Text below it.
    pub caption: Option<Template>,
}

/// Options to offer.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Which node kind it was written as.
    pub kind: &'static str,
    /// Whether it is shown as buttons; as a list otherwise.
    pub as_buttons: bool,
    /// Text above.
    pub body: Template,
    /// Line on top.
    pub header: Option<Template>,
    /// Line below.
    pub footer: Option<Template>,
    /// What opens the list.
    pub button: Option<Template>,
    /// The options.
    pub options: Vec<ChoiceOption>,
    /// Where the chosen value is kept.
    pub variable: Option<String>,
    /// Text above when asked again.
    pub retry: Option<Template>,
    /// Answers taken.
    pub attempts: u32,
}

/// One option.
#[derive(Debug, Clone)]
pub struct ChoiceOption {
    /// Names its exit.
    pub id: String,
    /// What it says.
    pub title: Template,
    /// More about it.
    pub description: Option<Template>,
    /// What is kept.
    pub value: Option<Template>,
}

/// A question for a value.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Which node kind it was written as.
    pub kind: &'static str,
    /// The question.
    pub body: Template,
    /// What is accepted.
    pub accept: Accept,
    /// Where it is kept.
    pub variable: String,
    /// Said when it is not accepted.
    pub retry: Option<Template>,
    /// Answers taken.
    pub attempts: u32,
}

/// An HTTP request to make.
#[derive(Debug, Clone)]
pub struct Http {
    /// The method.
    pub method: Method,
    /// The address.
    pub url: Template,
    /// Headers.
    pub headers: Vec<(String, Header)>,
    /// The body.
    pub body: Option<Body>,
    /// How long it may take.
    pub timeout_ms: u64,
    /// JSON pointers by variable.
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

/// A header's value.
#[derive(Debug, Clone)]
pub enum Header {
    /// A text.
    Text(Template),
    /// A secret, passed on by name.
    Secret(HeaderValue),
}

/// A request's body.
#[derive(Debug, Clone)]
pub enum Body {
    /// A text.
    Text(Template),
    /// JSON.
    Json(JsonBody),
}

/// JSON whose texts are templates.
#[derive(Debug, Clone)]
pub enum JsonBody {
    /// A text.
    Text(Template),
    /// A list.
    List(Vec<JsonBody>),
    /// An object.
    Object(Vec<(String, JsonBody)>),
    /// Anything else, as it is.
    Plain(Value),
}

/// A model that answers.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Base address of its API.
    pub base_url: Template,
    /// Its name there.
    pub model: Template,
    /// Name of the secret that holds the key.
    pub api_key: Option<String>,
    /// Its task.
    pub system: Template,
    /// How long it stays.
    pub mode: AgentMode,
    /// Said on entering.
    pub greeting: Option<Template>,
    /// Said when no answer comes.
    pub fallback: Option<Template>,
    /// Folded words that leave a chat.
    pub exit_keywords: Vec<String>,
    /// Turns it is shown.
    pub memory_turns: usize,
    /// Answers of one chat.
    pub answers_max: u32,
    /// How long an answer may take.
    pub timeout_ms: u64,
    /// Tokens of an answer.
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
