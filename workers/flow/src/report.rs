//! What is wrong with a definition: every problem in one report, each with its place and its remedy.

use super::limits::cut_bytes;
use serde::Serialize;
use std::fmt;

/// Problems listed; a definition with more is mended in several rounds.
const PROBLEMS_MAX: usize = 200;
/// Bytes of one problem's message, which may quote the definition.
const MESSAGE_BYTES_MAX: usize = 1_000;

/// All problems of a definition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, thiserror::Error)]
pub struct Report {
    /// The problems, in the order of the definition.
    pub problems: Vec<Problem>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Stable code: `E…` refuses the definition, `W…` is shown.
    pub code: &'static str,
    /// The node it is in; none when it concerns the whole flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl Problem {
    /// Whether it refuses the definition.
    pub fn is_error(&self) -> bool {
        self.code.starts_with('E')
    }
}

impl Report {
    pub fn add(&mut self, code: &'static str, node: Option<&str>, message: impl Into<String>) {
        let message = cut_bytes(&message.into(), MESSAGE_BYTES_MAX).to_owned();
        let node = node.map(|node| cut_bytes(node, MESSAGE_BYTES_MAX).to_owned());
        let problem = Problem {
            code,
            node,
            message,
        };
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        } else if problem.is_error() && !self.has_errors() {
            // However many warnings there are, an error still refuses the definition.
            self.problems.pop();
            self.problems.push(problem);
        }
    }

    /// Whether some problem refuses the definition.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(Problem::is_error)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(node) => write!(f, "{} node `{node}`: {}", self.code, self.message),
            None => write!(f, "{} {}", self.code, self.message),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// The definition is not JSON of the format's shape.
pub const SHAPE: &str = "E000";
/// A node, trigger or setting does not have the shape of its kind.
pub const CONFIG: &str = "E002";
/// An exit, the start or an interrupt leads to a node that does not exist.
pub const TARGET: &str = "E003";
/// An id is not usable or not unique.
pub const ID: &str = "E004";
/// A node has no exit of that name.
pub const EXIT: &str = "E005";
/// Nodes lead to one another in a circle in which nothing waits.
pub const CYCLE: &str = "E010";
/// An option or branch leads nowhere.
pub const UNWIRED: &str = "E020";
/// A text, or a number of options, is outside WhatsApp's limits.
pub const LIMIT: &str = "E030";
/// A template, expression or regular expression does not compile.
pub const SOURCE: &str = "E041";
/// A number of the configuration is outside its range.
pub const RANGE: &str = "E042";
pub const NO_ENTRY: &str = "W100";
/// A node can never be reached.
pub const UNREACHABLE: &str = "W101";
/// The conversation just stops there.
pub const DEAD_END: &str = "W102";
/// A variable is read that nothing sets.
pub const UNSET: &str = "W105";
/// A text may be cut once its slots are filled.
pub const MAY_BE_CUT: &str = "W106";
/// A failure is not provided for.
pub const UNHANDLED: &str = "W109";
