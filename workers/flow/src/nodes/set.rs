//! `set`: sets variables.

use super::{BRANCHES_MAX, Compiles};
use crate::builder::Builder;
use crate::expression::Expression;
use crate::node::{Node, NodeKind, fixed};
use crate::report;
use crate::step::{Next, Walk, Walked, exit};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Expressions by the variable they set, in order.
    assign: Map<String, Value>,
}

#[derive(Debug)]
struct Set {
    assign: Vec<(String, Expression)>,
}

pub fn compile(_: &str, config: Value, builder: &mut Builder) -> Compiles {
    let config: Config = serde_json::from_value(config)?;
    let assign = assignments(&config.assign, builder);
    Ok(Arc::new(Set { assign }))
}

fn assignments(assign: &Map<String, Value>, builder: &mut Builder) -> Vec<(String, Expression)> {
    if assign.is_empty() || assign.len() > BRANCHES_MAX {
        builder.problem(
            report::LIMIT,
            format!(
                "`assign` has {} variables; use 1 to {BRANCHES_MAX}",
                assign.len()
            ),
        );
    }
    let mut assignments = Vec::new();
    for (name, source) in assign {
        builder.variable("assign", name);
        match source {
            Value::String(source) => {
                assignments.push((name.clone(), builder.expression(name, source)))
            }
            _ => builder.problem(
                report::CONFIG,
                format!("`assign`: write the expression for `{name}` as a text"),
            ),
        }
    }
    assignments
}

impl NodeKind for Set {
    fn exits(&self) -> Vec<String> {
        fixed(&["next"])
    }

    fn onward(&self) -> Option<&'static str> {
        Some("next")
    }

    fn enter(&self, walk: &mut Walk<'_>, _: &Node) -> Walked<Next> {
        for (name, expression) in &self.assign {
            walk.evaluation()?;
            let value = expression.evaluate(&walk.scope()).unwrap_or(Value::Null);
            walk.set(name, value)?;
        }
        exit("next")
    }
}
