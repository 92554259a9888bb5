//! A node as the engine walks it, and what each kind of node can do.

use super::report::Report;
use super::step::{Next, Walk, Walked, failure};
use super::update::{CallOutcome, Message};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub struct Node {
    /// Its id in the flow.
    pub id: String,
    /// The kind as the definition spells it.
    pub kind_name: &'static str,
    pub(crate) kind: Arc<dyn NodeKind>,
    pub exits: BTreeMap<String, String>,
}

impl Node {
    /// Where an exit leads, when it is wired.
    pub fn exit(&self, name: &str) -> Option<&str> {
        self.exits.get(name).map(String::as_str)
    }

    /// Whether every way through it takes a message of the person.
    pub fn waits(&self) -> bool {
        self.kind.waits(self)
    }
}

/// What a press on a message shown before the present question means.
pub(crate) enum OlderPress {
    /// A menu still leads where the option says.
    Menu(usize),
    /// A question that was already answered.
    Answered,
    No,
}

/// What a kind of node does. A kind is one file below `nodes/` and one line of its table.
pub(crate) trait NodeKind: fmt::Debug + Send + Sync {
    /// The names its exits may have, those first that it should have.
    fn exits(&self) -> Vec<String>;

    /// The exit without which the run just ends here.
    fn onward(&self) -> Option<&'static str>;

    /// Whether every way through it takes a message of the person.
    fn waits(&self, _node: &Node) -> bool {
        false
    }

    /// Reports what is wrong with how its exits are wired.
    fn check(&self, _node: &Node, _report: &mut Report) {}

    /// Does what it does when it is reached.
    fn enter(&self, walk: &mut Walk<'_>, node: &Node) -> Walked<Next>;

    /// Takes an answer to what it waits for.
    fn hear(&self, _: &mut Walk<'_>, node: &Node, _: &Message) -> Walked<Next> {
        failure(format!("the node `{}` does not wait", node.id))
    }

    /// Takes the outcome of the call it made.
    fn resume(&self, _: &mut Walk<'_>, node: &Node, _: &CallOutcome) -> Walked<Next> {
        failure(format!("the node `{}` makes no calls", node.id))
    }

    /// What a late press on one of its options means.
    fn older_press(&self, _option: &str) -> OlderPress {
        OlderPress::No
    }

    /// Takes one of its options.
    fn choose(&self, _: &mut Walk<'_>, _option: usize) -> Walked<Next> {
        failure("only a choice has options")
    }

    /// The words that it does not take, of one that takes whatever is said.
    fn hears_all_but(&self) -> Option<&[String]> {
        None
    }
}

/// Names of exits that are the same for every node of a kind.
pub(crate) fn fixed(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
