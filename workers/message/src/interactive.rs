//! What buttons and lists have in common: lines above and below the text.

use crate::check::Check;
use serde_json::{Map, Value, json};

/// Characters of a header, and of a footer.
pub const LINE_CHARS_MAX: usize = 60;

pub(crate) fn check_lines(check: &mut Check, header: Option<&str>, footer: Option<&str>) {
    check.optional("header", header, LINE_CHARS_MAX);
    check.optional("footer", footer, LINE_CHARS_MAX);
}

pub(crate) fn graph(
    kind: &str,
    body: &str,
    header: Option<&str>,
    footer: Option<&str>,
    action: Value,
) -> Value {
    let mut interactive = Map::new();
    interactive.insert("type".into(), json!(kind));
    if let Some(header) = header {
        interactive.insert("header".into(), json!({"type": "text", "text": header}));
    }
    interactive.insert("body".into(), json!({"text": body}));
    if let Some(footer) = footer {
        interactive.insert("footer".into(), json!({"text": footer}));
    }
    interactive.insert("action".into(), action);
    Value::Object(interactive)
}

/// The text with the choices below it.
pub(crate) fn plain<'a>(body: &str, titles: impl Iterator<Item = &'a str>) -> String {
    titles.fold(body.to_owned(), |text, title| format!("{text}\n- {title}"))
}
