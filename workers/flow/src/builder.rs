//! What compiling collects: problems, and which variables are read and set; and how it reads texts, numbers and ids.

use super::expression::Expression;
use super::fold::fold;
use super::locale::Locale;
use super::report::{self, Report};
use super::template::Template;
use super::value::{RESERVED, is_name};
use ackline_message::list;
use ackline_shared::ids::is_token;
use std::collections::BTreeSet;

/// Keywords of one trigger, interrupt or agent.
pub(crate) const KEYWORDS_MAX: usize = 100;
/// Regular expressions of one flow.
const PATTERNS_MAX: usize = 100;

/// Collects problems, and which variables are read and set, while texts are compiled.
#[derive(Default)]
pub(crate) struct Builder {
    pub(crate) report: Report,
    pub(crate) node: Option<String>,
    pub(crate) patterns: usize,
    /// How the flow's people write numbers and dates, where it says so.
    pub(crate) locale: Option<Locale>,
    /// Variables some node or default sets.
    pub(crate) set: BTreeSet<String>,
    /// Variables read, by the node that reads them.
    pub(crate) read: Vec<(Option<String>, String)>,
}

impl Builder {
    pub(crate) fn problem(&mut self, code: &'static str, message: impl Into<String>) {
        self.report.add(code, self.node.as_deref(), message);
    }

    /// Notes that a node sets a variable.
    pub(crate) fn variable(&mut self, field: &str, name: &str) {
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

    pub(crate) fn template(&mut self, field: &str, source: &str) -> Option<Template> {
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
    pub(crate) fn text(&mut self, field: &str, source: &str) -> Template {
        let Some(template) = self.template(field, source) else {
            return Template::default();
        };
        let fixed = template.as_static();
        if fixed.is_some_and(|text| text.trim().is_empty()) {
            self.problem(report::LIMIT, format!("`{field}` is empty; write a text"));
        }
        template
    }

    pub(crate) fn optional(&mut self, field: &str, source: Option<&str>) -> Option<Template> {
        source.map(|source| self.template(field, source).unwrap_or_default())
    }

    /// Compiles a part of a message that is cut beyond `chars_max`; that a short one may be cut is shown.
    pub(crate) fn part(
        &mut self,
        field: &str,
        source: Option<&str>,
        chars_max: usize,
    ) -> Option<Template> {
        let template = self.optional(field, source)?;
        if chars_max <= list::DESCRIPTION_CHARS_MAX && template.is_open_ended() {
            self.problem(
                report::MAY_BE_CUT,
                format!("`{field}` may be cut at {chars_max}; add `| truncate:` to its slots"),
            );
        }
        Some(template)
    }

    pub(crate) fn expression(&mut self, field: &str, source: &str) -> Expression {
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
    pub(crate) fn count_patterns(&mut self, patterns: usize) -> bool {
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
    pub(crate) fn ranged(&mut self, field: &str, number: u32, least: u32, most: u32) -> u32 {
        if !(least..=most).contains(&number) {
            self.problem(
                report::RANGE,
                format!("`{field}` is {number}; use {least} to {most}"),
            );
        }
        number.clamp(least, most)
    }

    /// Folds keywords, refusing empty ones.
    pub(crate) fn keywords(
        &mut self,
        field: &str,
        words: &[String],
        required: bool,
    ) -> Vec<String> {
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

    /// Reads the name of a locale.
    pub(crate) fn locale(&mut self, field: &str, name: &str) -> Option<Locale> {
        let locale = Locale::read(name);
        if locale.is_none() {
            self.problem(
                report::CONFIG,
                format!("`{field}` is no locale; write one like `de`, `pt-BR` or `en-IN`"),
            );
        }
        locale
    }

    pub(crate) fn check_ids(&mut self, field: &str, ids: &[&str], most: usize) {
        let ids: Vec<&&str> = ids.iter().take(most * 2).collect();
        for (at, id) in ids.iter().enumerate() {
            if !is_token(id) {
                self.problem(
                    report::ID,
                    format!("`{field}`: the id `{id}` is not 1 to 64 letters, digits, `_` or `-`"),
                );
            }
            if ids.iter().take(at).any(|other| other == id) {
                self.problem(
                    report::ID,
                    format!("`{field}`: the id `{id}` is used twice; rename one"),
                );
            }
        }
    }

    /// Compiles an address, whose scheme must be visible unless a slot opens it.
    pub(crate) fn address(&mut self, field: &str, source: &str) -> Template {
        let is_web = ["http://", "https://", "{{"]
            .iter()
            .any(|start| source.starts_with(start));
        if !is_web {
            self.problem(
                report::CONFIG,
                format!("`{field}` must start with `https://`, `http://` or a slot"),
            );
        }
        self.text(field, source)
    }
}
