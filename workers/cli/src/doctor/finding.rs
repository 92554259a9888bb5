//! What a check found, and how people and machines read it.

use serde::Serialize;
use std::fmt::{Display, Write};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Ok,
    /// Works, or cannot be told; should be looked at.
    Warn,
    Fail,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: String,
    pub level: Level,
    pub message: String,
    /// What to do, one step each.
    pub hints: Vec<String>,
}

impl Finding {
    fn new(level: Level, check: impl Into<String>, message: impl Display) -> Self {
        Self {
            check: check.into(),
            level,
            message: message.to_string(),
            hints: Vec::new(),
        }
    }

    pub fn ok(check: impl Into<String>, message: impl Display) -> Self {
        Self::new(Level::Ok, check, message)
    }

    pub fn warn(check: impl Into<String>, message: impl Display) -> Self {
        Self::new(Level::Warn, check, message)
    }

    pub fn fail(check: impl Into<String>, message: impl Display) -> Self {
        Self::new(Level::Fail, check, message)
    }

    /// Adds a step that mends it.
    pub fn hint(mut self, hint: impl Display) -> Self {
        self.hints.push(hint.to_string());
        self
    }
}

/// Writes findings as text, one line a check with its hints below, or as a JSON array.
pub fn render(findings: &[Finding], json: bool) -> String {
    if json {
        return format!(
            "{}\n",
            serde_json::to_string_pretty(findings).unwrap_or_default()
        );
    }
    let width = findings
        .iter()
        .map(|finding| finding.check.chars().count())
        .max()
        .unwrap_or_default();
    let mut text = String::new();
    for finding in findings {
        let level = finding.level.as_str();
        let _writing_to_a_string_never_fails = writeln!(
            text,
            "{level:<4}  {:<width$}  {}",
            finding.check, finding.message
        );
        for hint in &finding.hints {
            let _writing_to_a_string_never_fails =
                writeln!(text, "{:>6}{:width$}  → {hint}", "", "");
        }
    }
    let count = |level| {
        findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    };
    let (ok, warn, fail) = (count(Level::Ok), count(Level::Warn), count(Level::Fail));
    let _writing_to_a_string_never_fails =
        writeln!(text, "\n{ok} ok, {warn} to look at, {fail} failed");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_aligned_with_hints_below() {
        let findings = [
            Finding::ok("a", "fine"),
            Finding::fail("longer", "broken")
                .hint("mend it")
                .hint("then again"),
        ];
        let expected = "ok    a       fine\nFAIL  longer  broken\n              → mend it\n              → then again\n\n1 ok, 0 to look at, 1 failed\n";
        assert_eq!(render(&findings, false), expected);
    }

    #[test]
    fn json_is_an_array() {
        let parsed: serde_json::Value =
            serde_json::from_str(&render(&[Finding::warn("a", "b")], true)).unwrap();
        assert_eq!(
            parsed,
            serde_json::json!([{"check": "a", "level": "warn", "message": "b", "hints": []}])
        );
    }
}
