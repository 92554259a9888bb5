//! `agent`: lets a language model answer.

use super::Compiles;
use crate::agent::Role;
use crate::builder::Builder;
use crate::definition::{EndpointConfig, TokensField};
use crate::effect::{AgentCall, Call};
use crate::limits;
use crate::node::{Node, NodeKind, fixed};
use crate::render;
use crate::report::{self, Report};
use crate::session::WaitOn;
use crate::step::{Next, Walk, Walked, bounded, exit};
use crate::template::Template;
use crate::trigger;
use crate::update::{CallOutcome, Message};
use ackline_message::Content;
use ackline_message::{length, markdown, text};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

/// Characters of what a model is told about its task.
const SYSTEM_CHARS_MAX: usize = 8_192;
/// Messages one answer of a model is split over.
const BUBBLES_MAX: usize = 3;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The model and where it is reached.
    endpoint: EndpointConfig,
    /// What the model is told about its task.
    system: String,
    /// Whether it answers one message or stays in conversation.
    #[serde(default)]
    mode: Mode,
    /// Sent on entering, when the message that led here is already answered.
    #[serde(default)]
    greeting: Option<String>,
    /// Sent when no answer comes.
    #[serde(default)]
    fallback: Option<String>,
    /// Words that leave a `chat` by the exit `done`.
    #[serde(default)]
    exit_keywords: Vec<String>,
    /// Messages of both sides that the model is shown, at most 40.
    #[serde(default = "memory_default")]
    memory_turns: u32,
    /// Answers of one `chat` before the exit `done`, at most 200.
    #[serde(default = "answers_default")]
    answers_max: u32,
    /// Seconds until the exit `error`, at most 120.
    #[serde(default = "timeout_default")]
    timeout_seconds: u32,
    /// Tokens of one answer, at most 4,000.
    #[serde(default = "tokens_default")]
    max_tokens: u32,
    /// Where the last answer is kept.
    #[serde(default)]
    variable: Option<String>,
}

/// How long an agent node keeps the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Answers one message, then leaves by `next`.
    #[default]
    Once,
    /// Answers until an exit keyword, then leaves by `done`.
    Chat,
}

fn timeout_default() -> u32 {
    30
}

fn memory_default() -> u32 {
    12
}

fn answers_default() -> u32 {
    50
}

fn tokens_default() -> u32 {
    600
}

#[derive(Debug)]
struct Agent {
    /// Base address of its API.
    base_url: Template,
    model: Template,
    /// Name of the secret that holds the key.
    api_key: Option<String>,
    tokens_field: Option<TokensField>,
    system: Template,
    mode: Mode,
    greeting: Option<Template>,
    /// Said when no answer comes.
    fallback: Option<Template>,
    /// Folded words that leave a chat.
    exit_keywords: Vec<String>,
    memory_turns: usize,
    answers_max: u32,
    /// How long an answer may take.
    timeout_ms: u64,
    max_tokens: u32,
    /// Where the last answer is kept.
    variable: Option<String>,
}

pub fn compile(_: &str, config: Value, builder: &mut Builder) -> Compiles {
    let config = serde_json::from_value(config)?;
    Ok(Arc::new(build(config, builder)))
}

fn build(config: Config, builder: &mut Builder) -> Agent {
    if let Some(variable) = &config.variable {
        builder.variable("variable", variable);
    }
    Agent {
        base_url: builder.address("endpoint.base_url", &config.endpoint.base_url),
        model: builder.text("endpoint.model", &config.endpoint.model),
        api_key: config.endpoint.api_key,
        tokens_field: config.endpoint.tokens_field,
        system: compile_system(&config.system, builder),
        mode: config.mode,
        greeting: builder.optional_sent_text("greeting", config.greeting.as_deref()),
        fallback: builder.optional_sent_text("fallback", config.fallback.as_deref()),
        exit_keywords: builder.keywords("exit_keywords", &config.exit_keywords, false),
        memory_turns: builder.ranged("memory_turns", config.memory_turns, 1, 40) as usize,
        answers_max: builder.ranged("answers_max", config.answers_max, 1, 200),
        timeout_ms: u64::from(builder.ranged("timeout_seconds", config.timeout_seconds, 1, 120))
            * 1_000,
        max_tokens: builder.ranged("max_tokens", config.max_tokens, 1, 4_000),
        variable: config.variable,
    }
}

fn compile_system(source: &str, builder: &mut Builder) -> Template {
    let system = builder.text("system", source);
    let chars = length(&system.fixed_text());
    if chars > SYSTEM_CHARS_MAX {
        let message = format!("`system` has {chars} characters, {SYSTEM_CHARS_MAX} are allowed");
        builder.problem(report::LIMIT, message);
    }
    system
}

impl NodeKind for Agent {
    fn exits(&self) -> Vec<String> {
        match self.mode {
            Mode::Once => fixed(&["next", "error"]),
            Mode::Chat => fixed(&["done", "error"]),
        }
    }

    fn onward(&self) -> Option<&'static str> {
        match self.mode {
            Mode::Once => Some("next"),
            Mode::Chat => (!self.exit_keywords.is_empty()).then_some("done"),
        }
    }

    fn waits(&self, _: &Node) -> bool {
        true
    }

    fn check(&self, node: &Node, report: &mut Report) {
        if self.fallback.is_none() && node.exit("error").is_none() {
            report.add(
                report::UNHANDLED,
                Some(&node.id),
                "give a `fallback` or wire `error`: the person hears nothing when the model fails",
            );
        }
    }

    fn enter(&self, walk: &mut Walk<'_>, node: &Node) -> Walked<Next> {
        walk.session.answers = 0;
        if let Some(message) = walk.session.unanswered.take() {
            return self.ask(walk, node, &message);
        }
        walk.wait(node, WaitOn::Reply);
        let greeting = self.greeting.as_ref();
        let content = greeting.and_then(|greeting| render::text(greeting, false, &walk.scope()));
        walk.send(content)?;
        Ok(Next::Wait)
    }

    fn hear(&self, walk: &mut Walk<'_>, node: &Node, message: &Message) -> Walked<Next> {
        let is_exit =
            self.mode == Mode::Chat && trigger::is_keyword(message.said(), &self.exit_keywords);
        if is_exit {
            exit("done")
        } else {
            self.ask(walk, node, message)
        }
    }

    fn resume(&self, walk: &mut Walk<'_>, node: &Node, outcome: &CallOutcome) -> Walked<Next> {
        let answer = match outcome {
            CallOutcome::Reply { text } if !text.trim().is_empty() => {
                limits::cut_bytes(text.trim(), limits::RENDERED_BYTES_MAX)
            }
            _ => {
                let fallback = self.fallback.as_ref();
                let content =
                    fallback.and_then(|fallback| render::text(fallback, false, &walk.scope()));
                walk.send(content)?;
                return match self.mode {
                    _ if node.exit("error").is_some() => exit("error"),
                    Mode::Once => exit("next"),
                    Mode::Chat => Ok(listen(walk, node)),
                };
            }
        };
        walk.session
            .memory
            .remember(Role::Assistant, answer, self.memory_turns);
        // The model and the flow keep its own words, which may be data; the person reads them in WhatsApp's marks.
        if let Some(variable) = &self.variable {
            walk.set(variable, bounded(&Value::from(answer)))?;
        }
        let said = markdown::to_whatsapp(answer);
        for body in limits::split(&said, text::BODY_CHARS_MAX, BUBBLES_MAX) {
            walk.send(Some(Content::Text {
                body,
                preview_url: false,
            }))?;
        }
        walk.session.answers += 1;
        match self.mode {
            Mode::Once => exit("next"),
            Mode::Chat if walk.session.answers >= self.answers_max => exit("done"),
            Mode::Chat => Ok(listen(walk, node)),
        }
    }

    fn hears_all_but(&self) -> Option<&[String]> {
        Some(&self.exit_keywords)
    }
}

impl Agent {
    /// Passes a message of the person to the model.
    fn ask(&self, walk: &mut Walk<'_>, node: &Node, message: &Message) -> Walked<Next> {
        let said = message.said().trim();
        let said = match said.is_empty() {
            true => message.line.as_str(),
            false => said,
        };
        walk.session
            .memory
            .remember(Role::User, said, self.memory_turns);
        let scope = walk.scope();
        let call = AgentCall {
            endpoint: EndpointConfig {
                base_url: self.base_url.render_url(&scope).unwrap_or_default(),
                model: self.model.render(&scope),
                api_key: self.api_key.clone(),
                tokens_field: self.tokens_field,
            },
            system: self.system.render(&scope),
            messages: walk.session.memory.shown(),
            max_tokens: self.max_tokens,
            timeout_ms: self.timeout_ms,
        };
        walk.call(node, Call::Agent(call))
    }
}

fn listen(walk: &mut Walk<'_>, node: &Node) -> Next {
    walk.wait(node, WaitOn::Reply);
    Next::Wait
}
