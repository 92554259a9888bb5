//! `ask.text`, `ask.number`, `ask.email`, `ask.phone`, `ask.date`: asks for a value.

use super::{ATTEMPTS_MAX, Compiles, attempts_default};
use crate::answer::{Accept, Day};
use crate::builder::Builder;
use crate::expression::compile_regex;
use crate::locale::Locale;
use crate::node::{Node, NodeKind, fixed};
use crate::render;
use crate::report::{self, Report};
use crate::session::WaitOn;
use crate::step::{Next, Walk, Walked, exit, failure};
use crate::template::Template;
use crate::update::Message;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

const PATTERN_BYTES_MAX: usize = 512;
const ANSWER_CHARS_MAX: f64 = 4_096.0;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    body: String,
    /// Where the answer is kept.
    variable: String,
    /// Said when an answer is not accepted; the question when missing.
    #[serde(default)]
    retry: Option<String>,
    /// Answers taken before the exit `invalid`.
    #[serde(default = "attempts_default")]
    attempts: u32,
    /// Fewest characters of a text, or least number.
    #[serde(default)]
    min: Option<f64>,
    /// Most characters of a text, or greatest number.
    #[serde(default)]
    max: Option<f64>,
    /// A regular expression the whole text must match; `ask.text` only.
    #[serde(default)]
    pattern: Option<String>,
    /// Whether only whole numbers are accepted; `ask.number` only.
    #[serde(default)]
    whole: bool,
    /// How numbers and dates are written, such as `de` or `en-IN`; that of the flow when missing.
    #[serde(default)]
    locale: Option<String>,
    /// The first day accepted, `today` or `2026-12-24`; `ask.date` only.
    #[serde(default)]
    earliest: Option<String>,
    /// The last day accepted; `ask.date` only.
    #[serde(default)]
    latest: Option<String>,
}

/// A question for a value.
#[derive(Debug)]
struct Ask {
    body: Template,
    accept: Accept,
    variable: String,
    /// Said when it is not accepted.
    retry: Option<Template>,
    attempts: u32,
}

pub fn compile(kind: &'static str, config: Value, builder: &mut Builder) -> Compiles {
    let config = serde_json::from_value(config)?;
    Ok(Arc::new(build(kind, config, builder)))
}

fn build(kind: &'static str, config: Config, builder: &mut Builder) -> Ask {
    builder.variable("variable", &config.variable);
    check_placed(kind, &config, builder);
    if config
        .min
        .zip(config.max)
        .is_some_and(|(min, max)| min > max)
    {
        builder.problem(
            report::RANGE,
            "`min` is greater than `max`; nothing would be accepted",
        );
    }
    let accept = accept(kind, &config, builder);
    Ask {
        body: builder.sent_text("body", &config.body),
        accept,
        variable: config.variable,
        retry: builder.optional_sent_text("retry", config.retry.as_deref()),
        attempts: builder.ranged("attempts", config.attempts, 1, ATTEMPTS_MAX),
    }
}

/// Refuses what another kind of question takes.
fn check_placed(kind: &'static str, config: &Config, builder: &mut Builder) {
    let takes = |field: &str, is_set: bool, kinds: &[&str]| {
        (is_set && !kinds.contains(&kind))
            .then(|| format!("`{kind}` takes no `{field}`; remove it"))
    };
    let misplaced = [
        takes("min", config.min.is_some(), &["ask.text", "ask.number"]),
        takes("max", config.max.is_some(), &["ask.text", "ask.number"]),
        takes("pattern", config.pattern.is_some(), &["ask.text"]),
        takes("whole", config.whole, &["ask.number"]),
        takes(
            "locale",
            config.locale.is_some(),
            &["ask.number", "ask.date"],
        ),
        takes("earliest", config.earliest.is_some(), &["ask.date"]),
        takes("latest", config.latest.is_some(), &["ask.date"]),
    ];
    misplaced
        .into_iter()
        .flatten()
        .for_each(|message| builder.problem(report::CONFIG, message));
}

fn accept(kind: &'static str, config: &Config, builder: &mut Builder) -> Accept {
    let locale = match &config.locale {
        Some(name) => builder.locale("locale", name),
        None => builder.locale,
    };
    match kind {
        "ask.number" => Accept::Number {
            min: config.min.unwrap_or(f64::MIN),
            max: config.max.unwrap_or(f64::MAX),
            whole: config.whole,
            mark: locale.map(|locale| locale.mark),
        },
        "ask.email" => Accept::Email,
        "ask.phone" => Accept::Phone,
        "ask.date" => compile_date(config, locale, builder),
        _ => Accept::Text {
            min: config.min.unwrap_or(1.0).clamp(1.0, ANSWER_CHARS_MAX) as usize,
            max: config
                .max
                .unwrap_or(ANSWER_CHARS_MAX)
                .clamp(1.0, ANSWER_CHARS_MAX) as usize,
            pattern: config
                .pattern
                .as_deref()
                .and_then(|pattern| compile_pattern(pattern, builder)),
        },
    }
}

fn compile_date(config: &Config, locale: Option<Locale>, builder: &mut Builder) -> Accept {
    let mut day = |field: &str, text: &Option<String>| {
        let day = Day::read(text.as_deref()?);
        if day.is_none() {
            builder.problem(
                report::CONFIG,
                format!("`{field}` is no day; write `today` or a date like `2026-12-24`"),
            );
        }
        day
    };
    let earliest = day("earliest", &config.earliest);
    let latest = day("latest", &config.latest);
    if let (Some(Day::At(first)), Some(Day::At(last))) = (earliest, latest)
        && first > last
    {
        builder.problem(
            report::RANGE,
            "`earliest` is after `latest`; nothing would be accepted",
        );
    }
    Accept::Date {
        earliest,
        latest,
        month_first: locale.is_some_and(|locale| locale.month_first),
    }
}

fn compile_pattern(source: &str, builder: &mut Builder) -> Option<Regex> {
    if !builder.count_patterns(1) {
        return None;
    }
    if source.len() > PATTERN_BYTES_MAX {
        builder.problem(
            report::SOURCE,
            format!("`pattern` is longer than {PATTERN_BYTES_MAX} bytes; shorten it"),
        );
        return None;
    }
    let whole = format!("^(?:{source})$");
    match compile_regex(&whole) {
        Ok(regex) => Some(regex),
        Err(_) => {
            let message = "`pattern` is not a regular expression this engine takes; check its brackets, \
                           and use no look-around or back-references";
            builder.problem(report::SOURCE, message);
            None
        }
    }
}

impl NodeKind for Ask {
    fn exits(&self) -> Vec<String> {
        fixed(&["next", "invalid"])
    }

    fn onward(&self) -> Option<&'static str> {
        Some("next")
    }

    fn waits(&self, _: &Node) -> bool {
        true
    }

    fn check(&self, node: &Node, report: &mut Report) {
        if node.exit("invalid").is_none() {
            report.add(
                report::UNHANDLED,
                Some(&node.id),
                "wire `invalid`: the run fails when no answer is accepted",
            );
        }
    }

    fn enter(&self, walk: &mut Walk<'_>, node: &Node) -> Walked<Next> {
        walk.wait(node, WaitOn::Reply);
        let content = render::text(&self.body, false, &walk.scope());
        walk.send(content)?;
        Ok(Next::Wait)
    }

    fn hear(&self, walk: &mut Walk<'_>, node: &Node, message: &Message) -> Walked<Next> {
        if let Some(value) = self.accept.read(typed(message), day_of(walk.now_ms)) {
            walk.set(&self.variable, value)?;
            return exit("next");
        }
        let again = self.retry.as_ref().unwrap_or(&self.body);
        match render::text(again, false, &walk.scope()) {
            Some(content) => walk.refuse(self.attempts, content),
            None => failure(format!("the question of `{}` is empty", node.id)),
        }
    }
}

/// What was typed; a press on a button is no answer to a question for a value.
fn typed(message: &Message) -> &str {
    if message.payload_id.is_some() {
        ""
    } else {
        message.said()
    }
}

/// The day of a moment in UTC.
fn day_of(now_ms: u64) -> Date {
    let moment = i64::try_from(now_ms).map(Timestamp::from_millisecond);
    let moment = moment.ok().and_then(Result::ok).unwrap_or_default();
    Offset::UTC.to_datetime(moment).date()
}
