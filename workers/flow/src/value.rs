//! What a flow's variables hold: JSON values, how they turn into text, number and truth, and where a
//! path such as `order.items.0.name` finds them.

use super::digits;
use super::limits::VARIABLE_DEPTH_MAX;
use serde_json::{Map, Number, Value};
use std::borrow::Cow;

/// Named values, in the order in which they were first set.
pub type Variables = Map<String, Value>;

/// First path segments that the engine owns, and that no variable may be called.
pub const RESERVED: [&str; 4] = ["contact", "message", "now", "run"];

const SEGMENTS_MAX: usize = 16;
const NAME_BYTES_MAX: usize = 64;

/// A dotted path into the values a flow can see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(Vec<String>);

impl Path {
    /// Reads `name`, `name.field` or `name.0.field`.
    pub fn parse(text: &str) -> Option<Self> {
        let segments: Vec<String> = text
            .split('.')
            .take(SEGMENTS_MAX + 1)
            .map(str::to_owned)
            .collect();
        let (root, rest) = segments.split_first()?;
        let is_segment =
            |s: &String| !s.is_empty() && s.len() <= NAME_BYTES_MAX && s.chars().all(is_name_char);
        let valid = segments.len() <= SEGMENTS_MAX && is_name(root) && rest.iter().all(is_segment);
        valid.then_some(Self(segments))
    }

    /// The first segment: a variable's name or a reserved one.
    pub fn root(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    fn find<'a>(&self, from: Option<&'a Value>) -> Option<&'a Value> {
        self.0
            .iter()
            .skip(1)
            .try_fold(from?, |value, segment| match value {
                Value::Object(map) => map.get(segment),
                Value::Array(list) => list.get(segment.parse::<usize>().ok()?),
                _ => None,
            })
    }
}

/// Tells whether a text can name a variable.
pub fn is_name(text: &str) -> bool {
    let starts = text
        .chars()
        .next()
        .is_some_and(|c| c.is_alphabetic() || c == '_');
    starts && text.len() <= NAME_BYTES_MAX && text.chars().all(is_name_char)
}

/// Tells whether a character may occur in a path segment.
pub fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The values templates and expressions can see.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    pub variables: &'a Variables,
    /// `contact`: name, phone and user id of the person.
    pub contact: &'a Value,
    /// `message`: text, kind, title and payload of the last message.
    pub message: &'a Value,
    /// `run`: id and flow of the present run.
    pub run: &'a Value,
    pub now: &'a Value,
}

impl<'a> Scope<'a> {
    /// Finds a value; what is not there is null.
    pub fn get(&self, path: &Path) -> &'a Value {
        let root = match path.root() {
            "contact" => Some(self.contact),
            "message" => Some(self.message),
            "run" => Some(self.run),
            "now" => Some(self.now),
            name => self.variables.get(name),
        };
        path.find(root).unwrap_or(&Value::Null)
    }
}

/// Writes a value as a person would read it: null is empty, a list is joined by commas.
pub fn text_of(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed(""),
        Value::String(text) => Cow::Borrowed(text),
        Value::Array(list) => Cow::Owned(join(list, ", ")),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => Cow::Owned(value.to_string()),
    }
}

/// Joins the texts of a list; nested lists and objects appear as JSON.
pub fn join(list: &[Value], separator: &str) -> String {
    let texts: Vec<Cow<'_, str>> = list
        .iter()
        .map(|value| match value {
            Value::Array(_) => Cow::Owned(value.to_string()),
            value => text_of(value),
        })
        .collect();
    texts.join(separator)
}

/// Reads a value as a number: a number, or a text that spells one.
pub fn number_of(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) if text.len() <= 64 => match text.is_ascii() {
            true => text.trim().parse().ok(),
            false => digits::read(text).trim().parse().ok(),
        },
        _ => None,
    };
    number.filter(|number: &f64| number.is_finite())
}

/// Makes a number value, whole where it is whole so that 3 is never written 3.0.
pub fn number(number: f64) -> Value {
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= WHOLE_MAX {
        Value::from(number as i64)
    } else {
        Number::from_f64(number).map_or(Value::Null, Value::Number)
    }
}

/// Tells whether a value counts as yes: null, false, zero and everything empty do not.
pub fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// Tells whether a value is nested shallowly enough to be kept as a variable.
pub fn is_shallow(value: &Value) -> bool {
    fn within(value: &Value, levels: usize) -> bool {
        match value {
            Value::Array(list) => levels > 0 && list.iter().all(|v| within(v, levels - 1)),
            Value::Object(map) => levels > 0 && map.values().all(|v| within(v, levels - 1)),
            _ => true,
        }
    }
    within(value, VARIABLE_DEPTH_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_walks_objects_and_lists() {
        let variables = json!({"order": {"items": [{"name": "tea"}]}});
        let scope = Scope {
            variables: variables.as_object().unwrap(),
            contact: &json!({"name": "Ana"}),
            message: &Value::Null,
            run: &Value::Null,
            now: &json!(5),
        };
        let get = |path: &str| scope.get(&Path::parse(path).unwrap()).clone();
        assert_eq!(get("order.items.0.name"), json!("tea"));
        assert_eq!(get("contact.name"), json!("Ana"));
        assert_eq!(get("order.items.9.name"), Value::Null);
        assert_eq!(get("now"), json!(5));
    }

    #[test]
    fn what_is_not_a_path_is_refused() {
        for bad in [
            "",
            ".",
            "a.",
            "1a",
            "a b",
            "a..b",
            &"a.".repeat(40),
            &"x".repeat(100),
        ] {
            assert_eq!(Path::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn whole_numbers_are_written_whole() {
        assert_eq!(number(3.0), json!(3));
        assert_eq!(number(0.5), json!(0.5));
        assert_eq!(number(f64::NAN), Value::Null);
        assert_eq!(number_of(&json!(" 2.5 ")), Some(2.5));
        assert_eq!(number_of(&json!("\u{661}\u{662}")), Some(12.0));
        assert_eq!(number_of(&json!("inf")), None);
    }

    #[test]
    fn a_deeply_nested_value_is_not_shallow() {
        let nest = |levels: usize| (0..levels).fold(Value::Null, |inner, _| json!([inner]));
        assert!(is_shallow(&nest(VARIABLE_DEPTH_MAX)));
        assert!(!is_shallow(&nest(VARIABLE_DEPTH_MAX + 1)));
    }
}
