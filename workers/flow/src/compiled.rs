//! A flow as the engine walks it.

use super::node::Node;
use super::report::Problem;
use super::template::Template;
use super::trigger::Rule;
use super::value::Variables;
use std::collections::BTreeMap;

/// A flow that can be walked.
#[derive(Debug, Clone)]
pub struct Compiled {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) start: String,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) variables: Variables,
    pub(crate) stop: Vec<String>,
    pub(crate) restart: Vec<String>,
    pub(crate) interrupts: Vec<(Vec<String>, String)>,
    pub(crate) fallback: Option<Template>,
    pub(crate) warnings: Vec<Problem>,
}

impl Compiled {
    /// What the flow is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A hash of the definition: sessions are pinned to it.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What an author should look at, though it does not refuse the definition.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    pub fn node(&self, id: &str) -> Option<&Node> {
        self.nodes.get(id)
    }
}
