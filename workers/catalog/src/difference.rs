//! The difference between two values in words: one line a field, bounded in number and length.

use serde_json::Value;

const LINES_MAX: usize = 8;
const SHOWN_CHARS_MAX: usize = 60;
/// A flow's definition can hold anything a tenant typed, so only the places of its changes are told.
const PLACES_ONLY: &str = "definition";

/// Says what changed from `old` to `new`.
pub fn lines(old: &Value, new: &Value) -> Vec<String> {
    let mut out = Vec::new();
    walk("", old, new, &mut out);
    if out.len() > LINES_MAX {
        let more = out.len() - LINES_MAX;
        out.truncate(LINES_MAX);
        out.push(format!("and {more} more changes"));
    }
    out
}

/// The fields of a value, one line each; of a definition only that there is one.
pub fn fields(value: &Value) -> Vec<String> {
    let fields = value.as_object().into_iter().flatten();
    let lines = fields.map(|(name, value)| match name.as_str() {
        PLACES_ONLY => format!("{name}: {} bytes", value.to_string().len()),
        _ => format!("{name}: {}", shown(value)),
    });
    lines.collect()
}

fn walk(path: &str, old: &Value, new: &Value, out: &mut Vec<String>) {
    if old == new {
        return;
    }
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            let added = after.keys().filter(|name| !before.contains_key(*name));
            for name in before.keys().chain(added) {
                let absent = Value::Null;
                let (old, new) = (before.get(name), after.get(name));
                walk(
                    &join(path, name),
                    old.unwrap_or(&absent),
                    new.unwrap_or(&absent),
                    out,
                );
            }
        }
        (Value::Array(before), Value::Array(after)) if path.starts_with(PLACES_ONLY) => {
            for index in 0..before.len().max(after.len()) {
                let absent = Value::Null;
                let (old, new) = (before.get(index), after.get(index));
                walk(
                    &join(path, &index.to_string()),
                    old.unwrap_or(&absent),
                    new.unwrap_or(&absent),
                    out,
                );
            }
        }
        _ if path.starts_with(PLACES_ONLY) => {
            let what = match (old, new) {
                (Value::Null, _) => "added",
                (_, Value::Null) => "removed",
                _ => "changed",
            };
            out.push(format!("{path} {what}"));
        }
        _ => out.push(format!("{path}: {} → {}", shown(old), shown(new))),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "none".to_owned(),
        Value::Array(items) if items.is_empty() => "[]".to_owned(),
        other => other.to_string(),
    };
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_show_both_values_and_definitions_only_places() {
        let old = json!({"name": "A", "flows": ["a"], "definition": {"nodes": {"x": {"text": "one"}}, "l": [1]}});
        let new = json!({"name": "B", "flows": ["a", "b"], "definition": {"nodes": {"x": {"text": "two"}}, "l": [1, 2]}});
        assert_eq!(
            lines(&old, &new),
            [
                "name: \"A\" → \"B\"",
                "flows: [\"a\"] → [\"a\",\"b\"]",
                "definition.nodes.x.text changed",
                "definition.l.1 added"
            ]
        );
        assert_eq!(lines(&old, &old), Vec::<String>::new());
        assert_eq!(
            lines(&json!({}), &json!({"display": "+1"})),
            ["display: none → \"+1\""]
        );
    }

    #[test]
    fn a_value_is_told_by_its_fields() {
        let value = json!({"id": "f", "flows": [], "definition": {"nodes": {}}});
        assert_eq!(
            fields(&value),
            ["id: \"f\"", "flows: []", "definition: 12 bytes"]
        );
    }

    #[test]
    fn long_values_and_many_changes_are_cut() {
        let many = |letter: char| {
            (0..20)
                .map(|n| (n.to_string(), json!(letter)))
                .collect::<serde_json::Map<_, _>>()
        };
        let said = lines(&Value::Object(many('a')), &Value::Object(many('b')));
        assert_eq!(
            (said.len(), said.last().unwrap().as_str()),
            (9, "and 12 more changes")
        );
        let said = lines(&json!({"name": "x"}), &json!({"name": "é".repeat(500)}));
        assert!(said[0].chars().count() < 90);
    }
}
