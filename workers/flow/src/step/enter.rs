//! What each kind of node does when it is entered.

use super::{Next, Walk, Walked, exit, render};
use crate::agent::Role;
use crate::definition::EndpointConfig;
use crate::effect::{AgentCall, Call, HeaderValue, HttpCall};
use crate::node::{Agent, Header, Http, Kind, Node};
use crate::session::WaitOn;
use crate::update::Message;
use serde_json::Value;

/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 32 * 1024;
const URL_BYTES_MAX: usize = 4 * 1024;

impl Walk<'_> {
    pub(super) fn enter(&mut self, node: &Node) -> Walked<Next> {
        match &node.kind {
            Kind::Text(text) => {
                let content = render::text_node(text, &self.scope());
                self.send(content)?;
                exit("next")
            }
            Kind::Image(image) => {
                let content = render::image(image, &self.scope());
                self.send(content)?;
                exit("next")
            }
            Kind::Choice(choice) if !node.waits() => {
                let content = render::choice(choice, &choice.body, None, &self.scope());
                self.send(Some(content))?;
                exit("next")
            }
            Kind::Choice(choice) => {
                let wait = self.wait(node, WaitOn::Reply);
                let content = render::choice(choice, &choice.body, Some(&wait), &self.scope());
                self.send(Some(content))?;
                Ok(Next::Wait)
            }
            Kind::Ask(ask) => {
                self.wait(node, WaitOn::Reply);
                let content = render::text(&ask.body, false, &self.scope());
                self.send(content)?;
                Ok(Next::Wait)
            }
            Kind::Condition(branches) => {
                for (id, expression) in branches {
                    self.evaluation()?;
                    // What cannot be evaluated does not hold; `else` is there for the unexpected.
                    if expression.holds(&self.scope()).unwrap_or(false) {
                        return exit(&format!("branch:{id}"));
                    }
                }
                exit("else")
            }
            Kind::Set(assignments) => {
                for (name, expression) in assignments {
                    self.evaluation()?;
                    let value = expression.evaluate(&self.scope()).unwrap_or(Value::Null);
                    self.set(name, value)?;
                }
                exit("next")
            }
            Kind::Http(http) => self.request(node, http),
            Kind::Agent(agent) => {
                self.session.answers = 0;
                if let Some(message) = self.session.unanswered.take() {
                    return self.ask_agent(node, agent, &message);
                }
                self.wait(node, WaitOn::Reply);
                let greeting = agent.greeting.as_ref();
                let content =
                    greeting.and_then(|greeting| render::text(greeting, false, &self.scope()));
                self.send(content)?;
                Ok(Next::Wait)
            }
            Kind::Goto => exit("next"),
            Kind::End { outcome } => Ok(Next::Over(outcome.clone())),
        }
    }

    fn request(&mut self, node: &Node, http: &Http) -> Walked<Next> {
        let scope = self.scope();
        let Some(url) = http.url.render_url(&scope) else {
            return exit("http_error");
        };
        let body = http
            .body
            .as_ref()
            .map(|body| body.render(http.encoding(), &scope));
        let is_web = url.starts_with("https://") || url.starts_with("http://");
        if !is_web
            || url.len() > URL_BYTES_MAX
            || body
                .as_ref()
                .is_some_and(|body| body.len() > BODY_BYTES_MAX)
        {
            return exit("http_error");
        }
        let headers = http.headers.iter().map(|(name, header)| {
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
            method: http.method,
            url,
            headers,
            body,
            timeout_ms: http.timeout_ms,
        };
        self.call(node, Call::Http(call))
    }

    /// Passes a message of the person to the model.
    pub(super) fn ask_agent(
        &mut self,
        node: &Node,
        agent: &Agent,
        message: &Message,
    ) -> Walked<Next> {
        let said = message.said().trim();
        let said = if said.is_empty() {
            format!("[{}]", message.kind)
        } else {
            said.to_owned()
        };
        self.session
            .memory
            .remember(Role::User, &said, agent.memory_turns);
        let scope = self.scope();
        let call = AgentCall {
            endpoint: EndpointConfig {
                base_url: agent.base_url.render_url(&scope).unwrap_or_default(),
                model: agent.model.render(&scope),
                api_key: agent.api_key.clone(),
            },
            system: agent.system.render(&scope),
            messages: self.session.memory.shown(),
            max_tokens: agent.max_tokens,
            timeout_ms: agent.timeout_ms,
        };
        self.call(node, Call::Agent(call))
    }
}
