//! The kinds of nodes: a file each with its configuration, how it compiles and what it does.

mod agent;
mod ask;
mod choice;
mod condition;
mod end;
mod goto;
mod http;
mod image;
mod set;
mod text;

use super::builder::Builder;
use super::node::NodeKind;
use serde_json::Value;
use std::sync::Arc;

/// A kind made of a node's configuration, in which `kind` and `exits` are left out.
type Compiles = serde_json::Result<Arc<dyn NodeKind>>;
type Compile = fn(kind: &'static str, config: Value, builder: &mut Builder) -> Compiles;

/// Every kind as a definition spells it.
pub(crate) const KINDS: [(&str, Compile); 16] = [
    ("message.text", text::compile),
    ("message.image", image::compile),
    ("message.buttons", choice::compile),
    ("message.list", choice::compile),
    ("ask.choice", choice::compile),
    ("ask.text", ask::compile),
    ("ask.number", ask::compile),
    ("ask.email", ask::compile),
    ("ask.phone", ask::compile),
    ("ask.date", ask::compile),
    ("condition", condition::compile),
    ("set", set::compile),
    ("http", http::compile),
    ("agent", agent::compile),
    ("goto", goto::compile),
    ("end", end::compile),
];

/// Answers that a question takes at most before it gives up.
const ATTEMPTS_MAX: u32 = 10;
/// Branches of a condition, and variables of a `set`.
const BRANCHES_MAX: usize = 50;

fn attempts_default() -> u32 {
    3
}
