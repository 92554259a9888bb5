//! What a message of the person does, by where the conversation stands.

use super::{Message, Next, Status, WaitOn, Walk, Walked, choice, exit, failure, render};
use crate::compile::trigger;
use crate::definition::AgentMode;
use crate::limits::HELD_MAX;
use crate::node::{Choice, Kind, Node};
use crate::template::Template;
use crate::update::CallOutcome;
use crate::value::Variables;
use serde_json::{Value, json};

/// What a press on a message shown before the present question means.
enum OlderPress<'f> {
    /// A menu still leads where it says.
    Menu(&'f Node, usize),
    /// A question that was already answered.
    Answered,
    No,
}

/// What was typed; a press on a button is no answer to a question for a value.
fn typed(message: &Message) -> &str {
    if message.payload_id.is_some() {
        ""
    } else {
        message.said()
    }
}

impl<'f> Walk<'f> {
    pub(super) fn hear(&mut self, message: &Message) -> Walked<()> {
        self.session.contact = message.contact.to_value();
        self.session.message = json!({
            "text": message.said(), "kind": message.kind, "title": message.title, "payload": message.payload_id
        });
        if self.session.status == Status::New {
            return self.start_with(message);
        }
        if !self.fits() {
            self.complete("restarted", None);
            return self.start_with(message);
        }
        if self.interrupt(message)? {
            return Ok(());
        }
        match self.session.wait.as_ref().map(|wait| wait.on.clone()) {
            Some(WaitOn::Reply) => self.answer(message),
            Some(WaitOn::Effect { deadline_ms, .. }) => {
                self.hold(message);
                if self.now_ms > deadline_ms {
                    self.resume(&CallOutcome::Timeout)
                } else {
                    Ok(())
                }
            }
            None => failure("the session waits for nothing"),
        }
    }

    /// Hears a message that came while a call was under way.
    ///
    /// It is for an agent, a menu shown before, or the start of another run; it is no answer to a question
    /// that the person had not seen when they wrote it.
    pub(super) fn hear_held(&mut self, message: &Message) -> Walked<()> {
        if self.session.is_over() && trigger::claim(self.flow, message).is_some() {
            self.session.status = Status::New;
        }
        let node = self
            .session
            .wait
            .as_ref()
            .and_then(|wait| self.flow.node(&wait.node));
        let is_agent = node.is_some_and(|node| matches!(node.kind, Kind::Agent(_)));
        let is_menu = || matches!(self.older_press(message), OlderPress::Menu(..));
        if self.session.status == Status::New || is_agent || is_menu() {
            return self.hear(message);
        }
        self.session.counters.dropped += 1;
        Ok(())
    }

    /// The next message that came meanwhile; what was written to an agent in several goes is one message.
    pub(super) fn next_held(&mut self) -> Option<Message> {
        let mut message = self.session.held.pop_front()?;
        let node = self
            .session
            .wait
            .as_ref()
            .and_then(|wait| self.flow.node(&wait.node));
        let Some(Kind::Agent(agent)) = node.map(|node| &node.kind) else {
            return Some(message);
        };
        let flow = self.flow;
        let interrupts = flow.interrupts.iter().map(|(words, _)| words);
        let words: Vec<&Vec<String>> = [&flow.stop, &flow.restart, &agent.exit_keywords]
            .into_iter()
            .chain(interrupts)
            .collect();
        let is_plain = |message: &Message| {
            message.payload_id.is_none()
                && !words
                    .iter()
                    .any(|words| trigger::is_keyword(message.said(), words))
        };
        while is_plain(&message) && self.session.held.front().is_some_and(is_plain) {
            let Some(next) = self.session.held.pop_front() else {
                break;
            };
            message.text = format!("{}\n{}", message.said(), next.said());
        }
        Some(message)
    }

    fn start_with(&mut self, message: &Message) -> Walked<()> {
        self.begin(&Variables::new())?;
        self.session.unanswered = Some(message.clone());
        self.run_from(&self.flow.start)
    }

    /// Whether the run can go on in this version of the flow; it adopts the version when it can.
    pub(super) fn fits(&mut self) -> bool {
        let wait = self.session.wait.as_ref();
        let same = |node: &Node| wait.is_some_and(|wait| wait.node_kind == node.kind_name());
        let fits = wait
            .and_then(|wait| self.flow.node(&wait.node))
            .is_some_and(same);
        if fits && self.session.version != self.flow.version {
            self.session.version.clone_from(&self.flow.version);
        }
        fits
    }

    /// Words that count wherever the conversation stands; tells whether the message was one.
    fn interrupt(&mut self, message: &Message) -> Walked<bool> {
        let flow = self.flow;
        if message.payload_id.is_some() {
            return Ok(false);
        }
        let said = message.said();
        if trigger::is_keyword(said, &flow.stop) {
            self.drop_held();
            self.complete("stopped", None);
        } else if trigger::is_keyword(said, &flow.restart) {
            self.drop_held();
            self.complete("restarted", None);
            self.begin(&Variables::new())?;
            self.run_from(&flow.start)?;
        } else if let Some((_, target)) = flow
            .interrupts
            .iter()
            .find(|(words, _)| trigger::is_keyword(said, words))
        {
            self.drop_held();
            self.session.wait = None;
            self.session.unanswered = None;
            self.run_from(target)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn drop_held(&mut self) {
        self.session.counters.dropped += self.session.held.len() as u64;
        self.session.held.clear();
    }

    fn hold(&mut self, message: &Message) {
        if self.session.held.len() >= HELD_MAX {
            self.session.held.pop_back();
            self.session.counters.dropped += 1;
        }
        self.session.held.push_back(message.clone());
    }

    fn answer(&mut self, message: &Message) -> Walked<()> {
        let flow = self.flow;
        match self.older_press(message) {
            OlderPress::Menu(node, option) => return self.choose(node, option),
            // A second tap on a question already answered is no answer to the next one.
            OlderPress::Answered => return Ok(()),
            OlderPress::No => {}
        }
        let Some(wait) = self.session.wait.clone() else {
            return failure("the session waits for nothing");
        };
        let Some(node) = flow.node(&wait.node) else {
            return failure("the node that waited is gone");
        };
        match &node.kind {
            Kind::Choice(choice) => match self.picked(choice, &wait.id, message) {
                Some(option) => self.choose(node, option),
                None if node.exit("else").is_some() => {
                    if let Some(variable) = &choice.variable {
                        self.set(variable, Value::from(message.said()))?;
                    }
                    // Nobody took it as an answer, so an agent further on may.
                    self.session.unanswered = Some(message.clone());
                    self.leave(node, Next::Exit("else".to_owned()))
                }
                None => {
                    let again = choice.retry.as_ref().unwrap_or(&choice.body);
                    let content = render::choice(choice, again, Some(&wait.id), &self.scope());
                    self.refuse(node, choice.attempts, content)
                }
            },
            Kind::Ask(ask) => match ask.accept.read(typed(message)) {
                Some(value) => {
                    self.set(&ask.variable, value)?;
                    self.leave(node, Next::Exit("next".to_owned()))
                }
                None => {
                    let again: &Template = ask.retry.as_ref().unwrap_or(&ask.body);
                    match render::text(again, false, &self.scope()) {
                        Some(content) => self.refuse(node, ask.attempts, content),
                        None => failure(format!("the question of `{}` is empty", node.id)),
                    }
                }
            },
            Kind::Agent(agent) => {
                let is_exit = agent.mode == AgentMode::Chat
                    && trigger::is_keyword(message.said(), &agent.exit_keywords);
                let next = if is_exit {
                    exit("done")
                } else {
                    self.ask_agent(node, agent, message)
                };
                self.leave(node, next?)
            }
            _ => failure(format!("the node `{}` does not wait", node.id)),
        }
    }

    fn older_press(&self, message: &Message) -> OlderPress<'f> {
        let payload = message.payload_id.as_deref().map(choice::read_payload);
        let now = self.session.wait.as_ref().map(|wait| wait.id.as_str());
        let Some((option, Some(wait))) = payload.filter(|(_, wait)| *wait != now) else {
            return OlderPress::No;
        };
        let node = self
            .session
            .recent_node(wait)
            .and_then(|node| self.flow.node(node));
        let Some((node, Kind::Choice(choice))) = node.map(|node| (node, &node.kind)) else {
            return OlderPress::No;
        };
        match choice
            .options
            .iter()
            .position(|candidate| candidate.id == option)
        {
            Some(index) if choice.kind != "ask.choice" => OlderPress::Menu(node, index),
            _ => OlderPress::Answered,
        }
    }

    fn picked(&self, choice: &Choice, wait: &str, message: &Message) -> Option<usize> {
        let pressed = message.payload_id.as_deref().and_then(|payload| {
            let (option, of) = choice::read_payload(payload);
            let is_current = of.is_none_or(|of| of == wait);
            let id = if is_current { option } else { return None };
            choice
                .options
                .iter()
                .position(|candidate| candidate.id == id)
        });
        pressed.or_else(|| {
            let titles = render::titles(choice, &self.scope());
            let ids = choice.options.iter().map(|option| option.id.as_str());
            let options: Vec<(&str, &str)> = ids.zip(titles.iter().map(String::as_str)).collect();
            choice::pick(&options, message.said())
        })
    }

    fn choose(&mut self, node: &'f Node, index: usize) -> Walked<()> {
        let Kind::Choice(choice) = &node.kind else {
            return failure("only a choice has options");
        };
        let Some(option) = choice.options.get(index) else {
            return failure("the option is gone");
        };
        if let Some(variable) = &choice.variable {
            let kept = option
                .value
                .as_ref()
                .unwrap_or(&option.title)
                .render_value(&self.scope());
            self.set(variable, kept)?;
        }
        self.leave(node, Next::Exit(format!("option:{}", option.id)))
    }

    /// Asks again, or gives up after so many answers.
    fn refuse(
        &mut self,
        node: &'f Node,
        attempts_max: u32,
        again: ackline_shared::command::Content,
    ) -> Walked<()> {
        let Some(wait) = self.session.wait.as_mut() else {
            return failure("the session waits for nothing");
        };
        wait.attempts += 1;
        if wait.attempts >= attempts_max {
            return self.leave(node, Next::Exit("invalid".to_owned()));
        }
        self.send(Some(again))
    }
}
