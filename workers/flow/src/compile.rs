//! Turns a definition into what the engine walks, or into a report of everything that is wrong with it.

use super::builder::{Builder, KEYWORDS_MAX};
use super::compiled::Compiled;
use super::definition::{Definition, FORMAT, Interrupt, Settings};
use super::limits::{self, DEFINITION_BYTES_MAX, NODES_MAX};
use super::node::Node;
use super::nodes::KINDS;
use super::report::{self, Report};
use super::trigger::Rule;
use super::validate;
use super::value::{RESERVED, Variables, is_shallow};
use ackline_shared::ids::{is_token, short_hash};
use serde_json::Value;
use std::collections::BTreeMap;

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
        if let Some(name) = &settings.locale {
            self.locale = self.locale("settings.locale", name);
        }
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
            fallback: self.optional_sent_text("settings.fallback", settings.fallback.as_deref()),
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

    fn compile_node(&mut self, id: &str, source: &Value) -> Option<Node> {
        let mut config = source.as_object().cloned().unwrap_or_default();
        let exits = self.exits(config.shift_remove("exits"));
        // What an editor keeps about the drawing is not read here.
        config.shift_remove("ui");
        let kind = config.shift_remove("kind");
        let known = kind.as_ref().and_then(Value::as_str);
        let known = KINDS.iter().find(|(name, _)| Some(*name) == known);
        let Some((kind_name, compile)) = known else {
            let names = KINDS.map(|(name, _)| name).join("`, `");
            let found = kind.map_or("`kind` is missing".to_owned(), |kind| {
                format!("there is no kind {kind}")
            });
            self.problem(report::CONFIG, format!("{found}; use one of `{names}`"));
            return None;
        };
        match compile(kind_name, Value::Object(config), self) {
            Ok(kind) => Some(Node {
                id: id.to_owned(),
                kind_name,
                kind,
                exits,
            }),
            Err(error) => {
                self.problem(report::CONFIG, error.to_string());
                None
            }
        }
    }

    fn exits(&mut self, source: Option<Value>) -> BTreeMap<String, String> {
        match source.map(serde_json::from_value) {
            None => BTreeMap::new(),
            Some(Ok(exits)) => exits,
            Some(Err(error)) => {
                self.problem(
                    report::CONFIG,
                    format!("`exits` names a node for each exit: {error}"),
                );
                BTreeMap::new()
            }
        }
    }
}
