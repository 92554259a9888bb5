//! What the outcome of a call does.

use super::{Next, WaitOn, Walk, Walked, failure, render};
use crate::agent::Role;
use crate::definition::AgentMode;
use crate::limits::{self, json_bytes};
use crate::node::{Agent, Http, Kind, Node};
use crate::update::CallOutcome;
use ackline_message::text;
use ackline_shared::command::Content;
use serde_json::Value;

/// Messages one answer of a model is split over.
const BUBBLES_MAX: usize = 3;
/// Bytes kept of one value of a response.
const SAVED_BYTES_MAX: usize = 8 * 1024;

impl<'f> Walk<'f> {
    pub(super) fn resume(&mut self, outcome: &CallOutcome) -> Walked<()> {
        if !self.fits() {
            return self.over("restarted");
        }
        let flow = self.flow;
        let wait = self.session.wait.take();
        let Some(node) = wait.and_then(|wait| flow.node(&wait.node)) else {
            return failure("the node that called is gone");
        };
        let next = match &node.kind {
            Kind::Http(http) => self.respond(http, outcome)?,
            Kind::Agent(agent) => self.speak(node, agent, outcome)?,
            _ => return failure(format!("the node `{}` makes no calls", node.id)),
        };
        self.leave(node, next)
    }

    fn respond(&mut self, http: &Http, outcome: &CallOutcome) -> Walked<Next> {
        let (code, body) = match outcome {
            CallOutcome::Http { code, body } => (*code, body),
            CallOutcome::Timeout => return super::exit("timeout"),
            CallOutcome::Failed { .. } | CallOutcome::Reply { .. } => {
                return super::exit("http_error");
            }
        };
        if let Some(variable) = &http.save_status {
            self.set(variable, Value::from(code))?;
        }
        for (variable, pointer) in &http.save {
            let value = body.pointer(pointer).map_or(Value::Null, bounded);
            self.set(variable, value)?;
        }
        super::exit(if (200..300).contains(&code) {
            "ok"
        } else {
            "http_error"
        })
    }

    fn speak(&mut self, node: &'f Node, agent: &Agent, outcome: &CallOutcome) -> Walked<Next> {
        let answer = match outcome {
            CallOutcome::Reply { text } if !text.trim().is_empty() => {
                limits::cut_bytes(text.trim(), limits::RENDERED_BYTES_MAX)
            }
            _ => {
                let fallback = agent.fallback.as_ref();
                let content =
                    fallback.and_then(|fallback| render::text(fallback, false, &self.scope()));
                self.send(content)?;
                return match agent.mode {
                    _ if node.exit("error").is_some() => super::exit("error"),
                    AgentMode::Once => super::exit("next"),
                    AgentMode::Chat => Ok(self.listen(node)),
                };
            }
        };
        self.session
            .memory
            .remember(Role::Assistant, answer, agent.memory_turns);
        if let Some(variable) = &agent.variable {
            self.set(variable, bounded(&Value::from(answer)))?;
        }
        for body in limits::split(answer, text::BODY_CHARS_MAX, BUBBLES_MAX) {
            self.send(Some(Content::Text {
                body,
                preview_url: false,
            }))?;
        }
        self.session.answers += 1;
        match agent.mode {
            AgentMode::Once => super::exit("next"),
            AgentMode::Chat if self.session.answers >= agent.answers_max => super::exit("done"),
            AgentMode::Chat => Ok(self.listen(node)),
        }
    }

    fn listen(&mut self, node: &Node) -> Next {
        self.wait(node, WaitOn::Reply);
        Next::Wait
    }
}

/// Cuts a text, and leaves out anything else, beyond what one value may take.
fn bounded(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::from(limits::cut_bytes(text, SAVED_BYTES_MAX)),
        value if json_bytes(value) > SAVED_BYTES_MAX => Value::Null,
        value => value.clone(),
    }
}
