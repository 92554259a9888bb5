//! Turns a definition into what the engine walks, or into a report of everything that is wrong with it.

mod message;
mod node;
pub mod trigger;
mod validate;

use super::definition::{Definition, FORMAT, Interrupt, Settings};
use super::expression::Expression;
use super::fold::fold;
use super::limits::{self, DEFINITION_BYTES_MAX, NODES_MAX};
use super::node::Node;
use super::report::{self, Problem, Report};
use super::template::Template;
use super::value::{RESERVED, Variables, is_name, is_shallow};
use ackline_message::list;
use ackline_shared::ids::{is_token, short_hash};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use trigger::Rule;

/// Keywords of one trigger, interrupt or agent.
const KEYWORDS_MAX: usize = 100;
/// Regular expressions of one flow.
const PATTERNS_MAX: usize = 100;

/// A flow that can be walked.
#[derive(Debug, Clone)]
pub struct Compiled {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) start: String,
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) rules: Vec<Rule>,
    pub(super) variables: Variables,
    pub(super) stop: Vec<String>,
    pub(super) restart: Vec<String>,
    pub(super) interrupts: Vec<(Vec<String>, String)>,
    pub(super) fallback: Option<Template>,
    warnings: Vec<Problem>,
}

impl Compiled {
    /// Compiles a definition, reporting all of its problems at once when one refuses it.
    pub fn from_json(definition: &Value) -> Result<Self, Report> {
        let mut builder = Builder::default();
        match builder.build(definition) {
            Some(mut compiled) if !builder.report.has_errors() => {
                compiled.warnings = builder.report.problems;
                Ok(compiled)
            }
            _ => Err(builder.report),
        }
    }

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

/// Collects problems, and which variables are read and set, while texts are compiled.
#[derive(Default)]
struct Builder {
    report: Report,
    node: Option<String>,
    patterns: usize,
    /// Variables some node or default sets.
    set: BTreeSet<String>,
    /// Variables read, by the node that reads them.
    read: Vec<(Option<String>, String)>,
}

impl Builder {
    fn build(&mut self, source: &Value) -> Option<Compiled> {
        if limits::json_bytes(source) > DEFINITION_BYTES_MAX {
            self.problem(
                report::SHAPE,
                format!("the definition is larger than {DEFINITION_BYTES_MAX} bytes"),
            );
            return None;
        }
        let definition: Definition = match serde::Deserialize::deserialize(source) {
            Ok(definition) => definition,
            Err(error) => {
                self.problem(
                    report::SHAPE,
                    format!("the definition does not have the format's shape: {error}"),
                );
                return None;
            }
        };
        if definition.format != FORMAT {
            let found = definition.format;
            self.problem(
                report::SHAPE,
                format!("`format` is {found}; this version reads format {FORMAT}"),
            );
            return None;
        }
        if definition.nodes.len() > NODES_MAX {
            self.problem(
                report::LIMIT,
                format!("there are more than {NODES_MAX} nodes; split the flow"),
            );
            return None;
        }
        self.check_variables(&definition.variables);
        let rules = self.rules(&definition.entry);
        let settings = self.settings(definition.settings.as_ref());
        let nodes = self.nodes(&definition);
        let compiled = Compiled {
            name: definition.name,
            version: short_hash(&serde_json::to_vec(source).unwrap_or_default()),
            start: definition.start,
            nodes,
            rules,
            variables: definition.variables,
            stop: self.keywords("stop", &settings.stop, false),
            restart: self.keywords("restart", &settings.restart, false),
            interrupts: settings
                .interrupts
                .iter()
                .map(|interrupt| self.interrupt(interrupt))
                .collect(),
            fallback: settings
                .fallback
                .as_deref()
                .map(|source| self.sent_text("settings.fallback", source)),
            warnings: Vec::new(),
        };
        self.check_reads();
        validate::check(&compiled, &definition.nodes, &mut self.report);
        Some(compiled)
    }

    fn nodes(&mut self, definition: &Definition) -> BTreeMap<String, Node> {
        let mut nodes = BTreeMap::new();
        for (id, source) in &definition.nodes {
            self.node = Some(id.clone());
            if !is_token(id) {
                self.problem(
                    report::ID,
                    "a node id is 1 to 64 letters, digits, `_` or `-`; rename it",
                );
            }
            if let Some(node) = self.compile_node(id, source) {
                nodes.insert(id.clone(), node);
            }
        }
        self.node = None;
        nodes
    }

    fn rules(&mut self, entry: &[Value]) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (at, source) in entry.iter().enumerate() {
            match serde::Deserialize::deserialize(source) {
                Ok(trigger) => rules.extend(Rule::compile(&trigger)),
                Err(error) => self.problem(report::CONFIG, format!("entry {}: {error}", at + 1)),
            }
        }
        if rules.is_empty() {
            self.problem(
                report::NO_ENTRY,
                "no entry starts the flow; add one unless it is only started by request",
            );
        }
        if rules.len() > KEYWORDS_MAX * 10 {
            self.problem(
                report::LIMIT,
                format!("the entries have more than {} keywords", KEYWORDS_MAX * 10),
            );
        }
        if rules.iter().any(Rule::is_blank) {
            self.problem(
                report::CONFIG,
                "a keyword or payload of the entries is empty; remove it or write a word",
            );
        }
        rules
    }

    fn settings(&mut self, source: Option<&Value>) -> Settings {
        match source.map(serde::Deserialize::deserialize) {
            None => Settings::default(),
            Some(Ok(settings)) => settings,
            Some(Err(error)) => {
                self.problem(report::CONFIG, format!("settings: {error}"));
                Settings::default()
            }
        }
    }

    fn interrupt(&mut self, interrupt: &Interrupt) -> (Vec<String>, String) {
        (
            self.keywords("interrupts", &interrupt.keywords, true),
            interrupt.to.clone(),
        )
    }

    /// Folds keywords, refusing empty ones.
    fn keywords(&mut self, field: &str, words: &[String], required: bool) -> Vec<String> {
        let folded: Vec<String> = words.iter().map(|word| fold(word)).collect();
        if folded.iter().any(String::is_empty) || (required && folded.is_empty()) {
            self.problem(
                report::CONFIG,
                format!("`{field}` needs keywords, none of them empty"),
            );
        }
        if folded.len() > KEYWORDS_MAX {
            self.problem(
                report::LIMIT,
                format!("`{field}` has more than {KEYWORDS_MAX} keywords"),
            );
        }
        folded
    }

    fn check_variables(&mut self, variables: &Variables) {
        for (name, value) in variables {
            self.variable("variables", name);
            if !is_shallow(value) {
                self.problem(
                    report::LIMIT,
                    format!("the first value of `{name}` nests too deeply; flatten it"),
                );
            }
        }
        if limits::json_bytes(variables) > limits::VARIABLE_BYTES_MAX / 2 {
            let most = limits::VARIABLE_BYTES_MAX / 2;
            self.problem(
                report::LIMIT,
                format!("the first values of the variables take more than {most} bytes"),
            );
        }
    }

    fn check_reads(&mut self) {
        for (node, name) in std::mem::take(&mut self.read) {
            if !RESERVED.contains(&name.as_str()) && self.set.insert(name.clone()) {
                let message = format!(
                    "nothing sets `{name}`; it will be empty, unless it is given when the flow is started"
                );
                self.report.add(report::UNSET, node.as_deref(), message);
            }
        }
    }

    fn problem(&mut self, code: &'static str, message: impl Into<String>) {
        self.report.add(code, self.node.as_deref(), message);
    }

    /// Notes that a node sets a variable.
    fn variable(&mut self, field: &str, name: &str) {
        if !is_name(name) || RESERVED.contains(&name) {
            let taken = RESERVED.join(", ");
            let remedy = format!("use letters, digits and `_`, and none of {taken}");
            self.problem(
                report::ID,
                format!("`{field}`: `{name}` cannot name a variable; {remedy}"),
            );
        }
        self.set.insert(name.to_owned());
    }

    fn template(&mut self, field: &str, source: &str) -> Option<Template> {
        match Template::compile(source) {
            Ok(template) => {
                let reads: Vec<String> = template.roots().map(str::to_owned).collect();
                self.read
                    .extend(reads.into_iter().map(|root| (self.node.clone(), root)));
                Some(template)
            }
            Err(error) => {
                self.problem(report::SOURCE, format!("`{field}`: {error}"));
                None
            }
        }
    }

    /// Compiles a text that is needed, and not sent to a person.
    fn text(&mut self, field: &str, source: &str) -> Template {
        let Some(template) = self.template(field, source) else {
            return Template::default();
        };
        let fixed = template.as_static();
        if fixed.is_some_and(|text| text.trim().is_empty()) {
            self.problem(report::LIMIT, format!("`{field}` is empty; write a text"));
        }
        template
    }

    fn optional(&mut self, field: &str, source: Option<&str>) -> Option<Template> {
        source.map(|source| self.template(field, source).unwrap_or_default())
    }

    /// Compiles a part of a message that is cut beyond `chars_max`; that a short one may be cut is shown.
    fn part(&mut self, field: &str, source: Option<&str>, chars_max: usize) -> Option<Template> {
        let template = self.optional(field, source)?;
        if chars_max <= list::DESCRIPTION_CHARS_MAX && template.is_open_ended() {
            self.problem(
                report::MAY_BE_CUT,
                format!("`{field}` may be cut at {chars_max}; add `| truncate:` to its slots"),
            );
        }
        Some(template)
    }

    fn expression(&mut self, field: &str, source: &str) -> Expression {
        if self.patterns > PATTERNS_MAX {
            return Expression::default();
        }
        match Expression::compile(source) {
            Ok(expression) => {
                let (roots, patterns) = expression.contents();
                let reads: Vec<String> = roots.into_iter().map(str::to_owned).collect();
                if !self.count_patterns(patterns) {
                    return Expression::default();
                }
                self.read
                    .extend(reads.into_iter().map(|root| (self.node.clone(), root)));
                expression
            }
            Err(error) => {
                // Counts as well, because it may have taken as long to refuse.
                self.patterns += 1;
                self.problem(report::SOURCE, format!("`{field}`: {error}"));
                Expression::default()
            }
        }
    }

    /// Counts regular expressions, each of which takes memory for as long as the flow is loaded.
    fn count_patterns(&mut self, patterns: usize) -> bool {
        let before = self.patterns;
        self.patterns += patterns;
        if before <= PATTERNS_MAX && self.patterns > PATTERNS_MAX {
            let message =
                format!("from here on the flow has more than {PATTERNS_MAX} regular expressions");
            self.problem(report::LIMIT, message);
        }
        self.patterns <= PATTERNS_MAX
    }

    /// Reports a number outside of its range, and gives the nearest inside.
    fn ranged(&mut self, field: &str, number: u32, least: u32, most: u32) -> u32 {
        if !(least..=most).contains(&number) {
            self.problem(
                report::RANGE,
                format!("`{field}` is {number}; use {least} to {most}"),
            );
        }
        number.clamp(least, most)
    }
}
