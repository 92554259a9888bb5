//! `end`: ends the run.

use super::Compiles;
use crate::builder::Builder;
use crate::node::{Node, NodeKind};
use crate::report;
use crate::step::{Next, Walk, Walked};
use ackline_shared::ids::is_token;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Recorded as the run's outcome.
    #[serde(default = "outcome_default")]
    outcome: String,
}

fn outcome_default() -> String {
    "completed".to_owned()
}

#[derive(Debug)]
struct End {
    outcome: String,
}

pub fn compile(_: &str, config: Value, builder: &mut Builder) -> Compiles {
    let Config { outcome } = serde_json::from_value(config)?;
    if !is_token(&outcome) {
        builder.problem(
            report::ID,
            "`outcome` is 1 to 64 letters, digits, `_` or `-`",
        );
    }
    Ok(Arc::new(End { outcome }))
}

impl NodeKind for End {
    fn exits(&self) -> Vec<String> {
        Vec::new()
    }

    fn onward(&self) -> Option<&'static str> {
        None
    }

    fn enter(&self, _: &mut Walk<'_>, _: &Node) -> Walked<Next> {
        Ok(Next::Over(self.outcome.clone()))
    }
}
