//! What a message of the person does, by where the conversation stands.

use super::choice;
use super::limits::HELD_MAX;
use super::node::{Node, OlderPress};
use super::session::{Status, WaitOn};
use super::step::{Next, Walk, Walked, failure};
use super::trigger;
use super::update::{CallOutcome, Message};
use super::value::Variables;

impl<'f> Walk<'f> {
    pub(crate) fn hear(&mut self, message: &Message) -> Walked<()> {
        self.session.contact = message.contact.to_value();
        self.session.message = message.to_value();
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
    pub(crate) fn hear_held(&mut self, message: &Message) -> Walked<()> {
        if self.session.is_over() && trigger::claim(self.flow, message).is_some() {
            self.session.status = Status::New;
        }
        let node = self
            .session
            .wait
            .as_ref()
            .and_then(|wait| self.flow.node(&wait.node));
        let is_agent = node.is_some_and(|node| node.kind.hears_all_but().is_some());
        let is_menu = || matches!(self.older_press(message), Some((_, OlderPress::Menu(_))));
        if self.session.status == Status::New || is_agent || is_menu() {
            return self.hear(message);
        }
        self.session.counters.dropped += 1;
        Ok(())
    }

    /// The next message that came meanwhile; what was written to an agent in several goes is one message.
    pub(crate) fn next_held(&mut self) -> Option<Message> {
        let mut message = self.session.held.pop_front()?;
        let node = self
            .session
            .wait
            .as_ref()
            .and_then(|wait| self.flow.node(&wait.node));
        let Some(exit_words) = node.and_then(|node| node.kind.hears_all_but()) else {
            return Some(message);
        };
        let flow = self.flow;
        let interrupts = flow.interrupts.iter().map(|(words, _)| words);
        let words: Vec<&[String]> = [&flow.stop, &flow.restart]
            .into_iter()
            .chain(interrupts)
            .map(Vec::as_slice)
            .chain([exit_words])
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
    pub(crate) fn fits(&mut self) -> bool {
        let wait = self.session.wait.as_ref();
        let same = |node: &Node| wait.is_some_and(|wait| wait.node_kind == node.kind_name);
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
            Some((node, OlderPress::Menu(option))) => {
                let next = node.kind.choose(self, option)?;
                return self.leave(node, next);
            }
            // A second tap on a question already answered is no answer to the next one.
            Some((_, OlderPress::Answered)) => return Ok(()),
            Some((_, OlderPress::No)) | None => {}
        }
        let Some(wait) = self.session.wait.clone() else {
            return failure("the session waits for nothing");
        };
        let Some(node) = flow.node(&wait.node) else {
            return failure("the node that waited is gone");
        };
        let next = node.kind.hear(self, node, message)?;
        self.leave(node, next)
    }

    /// The node of an earlier wait whose option was pressed, and what that means.
    fn older_press(&self, message: &Message) -> Option<(&'f Node, OlderPress)> {
        let payload = message.payload_id.as_deref().map(choice::read_payload);
        let now = self.session.wait.as_ref().map(|wait| wait.id.as_str());
        let (option, wait) = payload.filter(|(_, wait)| *wait != now)?;
        let node = self.flow.node(self.session.recent_node(wait?)?)?;
        Some((node, node.kind.older_press(option)))
    }

    /// Asks again, or gives up after so many answers.
    pub(crate) fn refuse(
        &mut self,
        attempts_max: u32,
        again: ackline_message::Content,
    ) -> Walked<Next> {
        let Some(wait) = self.session.wait.as_mut() else {
            return failure("the session waits for nothing");
        };
        wait.attempts += 1;
        if wait.attempts >= attempts_max {
            return Ok(Next::Exit("invalid".to_owned()));
        }
        self.send(Some(again))?;
        Ok(Next::Wait)
    }
}
