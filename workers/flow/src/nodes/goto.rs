//! `goto`: goes on at another node.

use super::Compiles;
use crate::builder::Builder;
use crate::node::{Node, NodeKind, fixed};
use crate::step::{Next, Walk, Walked, exit};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

#[derive(Debug)]
struct Goto;

pub fn compile(_: &str, config: Value, _: &mut Builder) -> Compiles {
    let Config {} = serde_json::from_value(config)?;
    Ok(Arc::new(Goto))
}

impl NodeKind for Goto {
    fn exits(&self) -> Vec<String> {
        fixed(&["next"])
    }

    fn onward(&self) -> Option<&'static str> {
        Some("next")
    }

    fn enter(&self, _: &mut Walk<'_>, _: &Node) -> Walked<Next> {
        exit("next")
    }
}
