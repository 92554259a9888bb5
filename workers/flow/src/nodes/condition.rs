//! `condition`: leaves by the first branch that holds.

use super::{BRANCHES_MAX, Compiles};
use crate::builder::Builder;
use crate::expression::Expression;
use crate::node::{Node, NodeKind, fixed};
use crate::report::{self, Report};
use crate::step::{Next, Walk, Walked, exit};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Tried in order; each has the exit `branch:<id>`.
    branches: Vec<Branch>,
}

/// One branch of a condition.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Branch {
    id: String,
    /// The expression that must hold.
    when: String,
}

#[derive(Debug)]
struct Condition {
    branches: Vec<(String, Expression)>,
}

pub fn compile(_: &str, config: Value, builder: &mut Builder) -> Compiles {
    let config: Config = serde_json::from_value(config)?;
    let ids: Vec<&str> = config
        .branches
        .iter()
        .map(|branch| branch.id.as_str())
        .collect();
    if !(1..=BRANCHES_MAX).contains(&ids.len()) {
        let message = format!("`branches` has {}; use 1 to {BRANCHES_MAX}", ids.len());
        builder.problem(report::LIMIT, message);
    }
    builder.check_ids("branches", &ids, BRANCHES_MAX);
    let mut branches = Vec::new();
    for branch in &config.branches {
        let expression = builder.expression(&format!("branch {}", branch.id), &branch.when);
        branches.push((branch.id.clone(), expression));
    }
    Ok(Arc::new(Condition { branches }))
}

impl NodeKind for Condition {
    fn exits(&self) -> Vec<String> {
        let names = self.branches.iter().map(|(id, _)| format!("branch:{id}"));
        names.chain(fixed(&["else"])).collect()
    }

    fn onward(&self) -> Option<&'static str> {
        Some("else")
    }

    fn check(&self, node: &Node, report: &mut Report) {
        check_unwired(&self.exits(), node, report);
    }

    fn enter(&self, walk: &mut Walk<'_>, _: &Node) -> Walked<Next> {
        for (id, expression) in &self.branches {
            walk.evaluation()?;
            // What cannot be evaluated does not hold; `else` is there for the unexpected.
            if expression.holds(&walk.scope()).unwrap_or(false) {
                return exit(&format!("branch:{id}"));
            }
        }
        exit("else")
    }
}

/// Reports exits of options or branches that lead nowhere.
pub(super) fn check_unwired(names: &[String], node: &Node, report: &mut Report) {
    let missing = |name: &str| node.exit(name).is_none() && node.exit("else").is_none();
    let own = names.iter().filter(|name| name.contains(':'));
    for exit in own.filter(|name| missing(name)) {
        let message = format!("exit `{exit}` leads nowhere; give it a node, or wire `else`");
        report.add(report::UNWIRED, Some(&node.id), message);
    }
}
