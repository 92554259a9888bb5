//! The engine's one step: a session and an update give a session and effects.
//!
//! It is pure and total. It reads no clock, draws nothing at random, calls nothing and never panics, so
//! doing it twice gives the same bytes; that is what lets the shell repeat it after a lost write. An
//! update already processed, and an outcome nobody waits for, change nothing.

use super::compiled::Compiled;
use super::effect::{Call, Effect};
use super::limits::{self, EFFECT_BYTES_MAX, SENDS_MAX, STEPS_MAX, VARIABLE_BYTES_MAX, json_bytes};
use super::node::Node;
use super::render;
use super::session::{Session, Status, Wait, WaitOn};
use super::update::{CallOutcome, Update};
use super::value::{RESERVED, Scope, Variables, is_name, is_shallow};
use ackline_message::Content;
use ackline_shared::ids::{UpdateId, short_hash};
use serde_json::{Value, json};

/// Expressions evaluated in one call of [`step`].
const EVALUATIONS_MAX: usize = 1_000;
/// Bytes of effects beyond which the variables of an ended run are left out of its record.
const COMPLETED_BYTES_MAX: usize = EFFECT_BYTES_MAX + VARIABLE_BYTES_MAX;
/// How long after its deadline a call's outcome is still awaited.
const GRACE_MS: u64 = 15_000;
/// Bytes kept of one value of a response.
const SAVED_BYTES_MAX: usize = 8 * 1024;

/// Takes one update; `now_ms` is the time in unix milliseconds.
pub fn step(
    flow: &Compiled,
    session: Session,
    update: &Update,
    now_ms: u64,
) -> (Session, Vec<Effect>) {
    let id = update.id();
    if let Some(effects) = session.replay(&id) {
        return (session, effects);
    }
    let concerns = match update {
        Update::EffectDone { effect_id, .. } => {
            session.pending_effect() == Some(effect_id.as_str())
        }
        Update::Message(_) => !session.is_over(),
        Update::Start { .. } => session.status == Status::New,
    };
    if !concerns {
        return (session, Vec::new());
    }
    let mut walk = Walk::new(flow, session, id, now_ms);
    walk.take(update);
    walk.finish()
}

/// One call of [`step`] under way.
pub(crate) struct Walk<'f> {
    pub(crate) flow: &'f Compiled,
    pub(crate) session: Session,
    update: UpdateId,
    pub(crate) now_ms: u64,
    now: Value,
    run: Value,
    effects: Vec<Effect>,
    bytes: usize,
    steps: usize,
    sends: usize,
    evaluations: usize,
}

/// How a node is left.
pub(crate) enum Next {
    Exit(String),
    Wait,
    /// By the end of the run.
    Over(String),
}

/// Why a run cannot go on, in words for the flow's owner.
pub(crate) struct Failure(String);

pub(crate) type Walked<T> = Result<T, Failure>;

pub(crate) fn failure<T>(reason: impl Into<String>) -> Walked<T> {
    Err(Failure(reason.into()))
}

pub(crate) fn exit(name: &str) -> Walked<Next> {
    Ok(Next::Exit(name.to_owned()))
}

impl<'f> Walk<'f> {
    fn new(flow: &'f Compiled, session: Session, update: UpdateId, now_ms: u64) -> Self {
        let run = json!({ "id": session.run, "flow": session.flow });
        let now = Value::from(now_ms);
        let effects = Vec::new();
        Self {
            flow,
            session,
            update,
            now_ms,
            now,
            run,
            effects,
            bytes: 0,
            steps: 0,
            sends: 0,
            evaluations: 0,
        }
    }

    fn take(&mut self, update: &Update) {
        let mut walked = match update {
            Update::Start {
                contact, variables, ..
            } => {
                self.session.contact = contact.to_value();
                self.begin(variables)
                    .and_then(|()| self.run_from(&self.flow.start))
            }
            Update::Message(message) => self.hear(&message.bounded()),
            Update::EffectDone { outcome, .. } => self.resume(outcome),
        };
        while walked.is_ok() && self.session.pending_effect().is_none() {
            let Some(message) = self.next_held() else {
                break;
            };
            walked = self.hear_held(&message);
        }
        if let Err(Failure(reason)) = walked {
            self.fail(&reason);
        }
    }

    fn finish(mut self) -> (Session, Vec<Effect>) {
        self.session.counters.steps += self.steps as u64;
        self.session.counters.sends += self.sends as u64;
        self.session.remember(self.update, &self.effects);
        (self.session, self.effects)
    }

    /// Begins a run with the flow's variables and `variables` over them.
    pub(crate) fn begin(&mut self, variables: &Variables) -> Walked<()> {
        let session = &mut self.session;
        session.epoch += 1;
        session.version = self.flow.version.clone();
        session.run = short_hash(
            format!(
                "{}\n{}\n{}",
                session.flow,
                session.epoch,
                self.update.as_str()
            )
            .as_bytes(),
        );
        session.status = Status::Waiting;
        session.wait = None;
        session.variables = self.flow.variables.clone();
        session.unanswered = None;
        session.memory.clear();
        session.answers = 0;
        self.run = json!({ "id": session.run, "flow": session.flow });
        let (run, flow) = (session.run.clone(), session.flow.clone());
        self.effects.push(Effect::Started { run, flow });
        for (name, value) in variables {
            if is_name(name) && !RESERVED.contains(&name.as_str()) {
                self.set(name, value.clone())?;
            }
        }
        Ok(())
    }

    /// Enters nodes from `start` on until one waits or the run is over.
    pub(crate) fn run_from(&mut self, start: &str) -> Walked<()> {
        let mut next = start;
        loop {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return failure(format!(
                    "more than {STEPS_MAX} nodes were entered without waiting"
                ));
            }
            let flow = self.flow;
            let Some(node) = flow.node(next) else {
                return failure(format!("the node `{next}` does not exist"));
            };
            let exit = match node.kind.enter(self, node)? {
                Next::Exit(exit) => exit,
                Next::Wait => return Ok(()),
                Next::Over(outcome) => return self.over(&outcome),
            };
            match target(node, &exit)? {
                Some(target) => next = target,
                None => return self.over("completed"),
            }
        }
    }

    /// Goes on from a node that waited.
    pub(crate) fn leave(&mut self, node: &'f Node, next: Next) -> Walked<()> {
        match next {
            Next::Wait => Ok(()),
            Next::Over(outcome) => self.over(&outcome),
            Next::Exit(exit) => {
                self.session.wait = None;
                match target(node, &exit)? {
                    Some(target) => self.run_from(target),
                    None => self.over("completed"),
                }
            }
        }
    }

    /// Goes on from a node whose call has an outcome.
    pub(crate) fn resume(&mut self, outcome: &CallOutcome) -> Walked<()> {
        if !self.fits() {
            return self.over("restarted");
        }
        let flow = self.flow;
        let wait = self.session.wait.take();
        let Some(node) = wait.and_then(|wait| flow.node(&wait.node)) else {
            return failure("the node that called is gone");
        };
        let next = node.kind.resume(self, node, outcome)?;
        self.leave(node, next)
    }

    /// Ends the run as planned.
    fn over(&mut self, outcome: &str) -> Walked<()> {
        self.complete(outcome, None);
        Ok(())
    }

    pub(crate) fn complete(&mut self, outcome: &str, reason: Option<String>) {
        let session = &mut self.session;
        session.status = if outcome == "failed" {
            Status::Failed
        } else {
            Status::Ended
        };
        session.wait = None;
        session.unanswered = None;
        self.bytes += json_bytes(&session.variables);
        let variables = match self.bytes <= COMPLETED_BYTES_MAX {
            true => Value::Object(session.variables.clone()),
            false => Value::Null,
        };
        let (run, flow) = (session.run.clone(), session.flow.clone());
        self.effects.push(Effect::Completed {
            run,
            flow,
            outcome: outcome.to_owned(),
            reason,
            variables,
        });
    }

    /// Ends the run as failed, with the flow's last words.
    fn fail(&mut self, reason: &str) {
        let words = self.flow.fallback.as_ref();
        if let Some(content) = words.and_then(|words| render::text(words, false, &self.scope())) {
            let key = self.next_key();
            self.effects.push(Effect::Send { key, content });
            self.sends += 1;
        }
        self.session.counters.dropped += self.session.held.len() as u64;
        self.session.held.clear();
        self.complete("failed", Some(reason.to_owned()));
    }

    pub(crate) fn scope(&self) -> Scope<'_> {
        Scope {
            variables: &self.session.variables,
            contact: &self.session.contact,
            message: &self.session.message,
            run: &self.run,
            now: &self.now,
        }
    }

    /// Keeps a variable; what nests too deeply to be stored is kept as null.
    pub(crate) fn set(&mut self, name: &str, value: Value) -> Walked<()> {
        let value = if is_shallow(&value) {
            value
        } else {
            Value::Null
        };
        self.session.variables.insert(name.to_owned(), value);
        if json_bytes(&self.session.variables) > VARIABLE_BYTES_MAX {
            self.session.variables.insert(name.to_owned(), Value::Null);
            return failure(format!(
                "the variables take more than {VARIABLE_BYTES_MAX} bytes with `{name}`"
            ));
        }
        Ok(())
    }

    pub(crate) fn send(&mut self, content: Option<Content>) -> Walked<()> {
        let Some(content) = content else {
            return Ok(());
        };
        self.sends += 1;
        if self.sends > SENDS_MAX {
            return failure(format!(
                "more than {SENDS_MAX} messages were sent without waiting"
            ));
        }
        let key = self.next_key();
        self.push(Effect::Send { key, content })
    }

    /// Asks for a call and waits for its outcome.
    pub(crate) fn call(&mut self, node: &Node, call: Call) -> Walked<Next> {
        let effect_id = self.next_key();
        let deadline_ms = self
            .now_ms
            .saturating_add(call.timeout_ms())
            .saturating_add(GRACE_MS);
        self.wait(
            node,
            WaitOn::Effect {
                effect_id: effect_id.clone(),
                deadline_ms,
            },
        );
        self.session.counters.calls += 1;
        self.push(Effect::Call { effect_id, call })?;
        Ok(Next::Wait)
    }

    /// Waits at a node; gives the wait's id.
    pub(crate) fn wait(&mut self, node: &Node, on: WaitOn) -> String {
        self.session.turn += 1;
        let run = limits::cut_bytes(&self.session.run, 8);
        let id = format!("{run}.{}", self.session.turn);
        let wait = Wait {
            id: id.clone(),
            node: node.id.clone(),
            node_kind: node.kind_name.to_owned(),
            on,
            attempts: 0,
        };
        if wait.on == WaitOn::Reply {
            self.session.note_wait(&wait);
            self.session.unanswered = None;
        }
        self.session.wait = Some(wait);
        id
    }

    fn push(&mut self, effect: Effect) -> Walked<()> {
        self.bytes += json_bytes(&effect);
        if self.bytes > EFFECT_BYTES_MAX {
            return failure(format!(
                "more than {EFFECT_BYTES_MAX} bytes were sent without waiting"
            ));
        }
        self.effects.push(effect);
        Ok(())
    }

    /// The key of the next effect: its place among the effects of this update.
    fn next_key(&self) -> String {
        self.update.effect(self.effects.len()).as_str().to_owned()
    }

    pub(crate) fn evaluation(&mut self) -> Walked<()> {
        self.evaluations += 1;
        if self.evaluations > EVALUATIONS_MAX {
            return failure(format!(
                "more than {EVALUATIONS_MAX} expressions were evaluated without waiting"
            ));
        }
        Ok(())
    }
}

/// Where an exit leads: its own target, or that of the exit that stands in for it. None ends the run.
fn target<'n>(node: &'n Node, exit: &str) -> Walked<Option<&'n str>> {
    let stand_in = match exit {
        "invalid" => Some("else"),
        "timeout" => Some("http_error"),
        exit if exit.contains(':') => Some("else"),
        _ => None,
    };
    if let Some(target) = node.exit(exit).or_else(|| node.exit(stand_in?)) {
        return Ok(Some(target));
    }
    match exit {
        "invalid" => failure(format!("no answer to `{}` was accepted", node.id)),
        "http_error" | "timeout" => failure(format!("the request of `{}` failed", node.id)),
        _ => Ok(None),
    }
}

/// Cuts a text, and leaves out anything else, beyond what one value may take.
pub(crate) fn bounded(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::from(limits::cut_bytes(text, SAVED_BYTES_MAX)),
        value if json_bytes(value) > SAVED_BYTES_MAX => Value::Null,
        value => value.clone(),
    }
}
