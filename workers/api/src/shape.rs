//! Whether a body has the shape that the document describes, said in our own words and all at once.
//!
//! The document is made from the types that bodies are read into, so there is one description of what is accepted.
//! Unknown fields are refused at every depth, except where the document leaves a value open.

use super::problem::Mistake;
use serde_json::{Map, Value};

/// Mistakes that are told of one body.
const MISTAKES_MAX: usize = 50;
const REFERENCE: &str = "#/components/schemas/";
/// The member that says which variant a content is.
const TAG: &str = "type";

/// The schemas of every body.
#[derive(Debug)]
pub struct Shapes(Map<String, Value>);

impl Shapes {
    /// Takes them out of the document.
    pub fn of(document: &utoipa::openapi::OpenApi) -> Self {
        let document = serde_json::to_value(document).unwrap_or_default();
        let schemas = document
            .pointer("/components/schemas")
            .and_then(Value::as_object);
        Self(schemas.cloned().unwrap_or_default())
    }

    /// Says everything that is wrong with a body's shape.
    pub fn mistakes(&self, name: &str, body: &Value) -> Vec<Mistake> {
        let mut check = Check {
            shapes: self,
            mistakes: Vec::new(),
        };
        if let Some(schema) = self.0.get(name) {
            check.value("", schema, body);
        }
        check.mistakes
    }
}

struct Check<'s> {
    shapes: &'s Shapes,
    mistakes: Vec<Mistake>,
}

impl<'s> Check<'s> {
    fn say(&mut self, at: &str, detail: String) {
        if self.mistakes.len() < MISTAKES_MAX {
            self.mistakes.push(Mistake::new(at, detail));
        }
    }

    fn value(&mut self, at: &str, schema: &'s Value, value: &Value) {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            let known = name
                .strip_prefix(REFERENCE)
                .and_then(|name| self.shapes.0.get(name));
            return known
                .into_iter()
                .for_each(|schema| self.value(at, schema, value));
        }
        if let Some(variants) = schema.get("oneOf").and_then(Value::as_array) {
            return self.variant(at, variants, value);
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            if !words.contains(value) {
                self.say(
                    at,
                    format!("must be {}", one_of(words.iter().filter_map(Value::as_str))),
                );
            }
            return;
        }
        let types = types(schema);
        if !types.is_empty() && !types.iter().any(|name| is_of(name, schema, value)) {
            return self.say(
                at,
                format!(
                    "must be {}, and is {}",
                    words_for(&types, schema),
                    word_of(value)
                ),
            );
        }
        match value {
            Value::Object(members) => self.members(at, schema, members),
            Value::Array(items) => {
                for (place, item) in items.iter().enumerate() {
                    schema
                        .get("items")
                        .into_iter()
                        .for_each(|schema| self.value(&format!("{at}/{place}"), schema, item));
                }
            }
            _ => {}
        }
    }

    /// A value of several kinds, told apart by what it says it is, or `null` where it may be absent.
    fn variant(&mut self, at: &str, variants: &'s [Value], value: &Value) {
        let is_null = |schema: &&Value| schema.get("type").and_then(Value::as_str) == Some("null");
        if value.is_null() && variants.iter().any(|schema| is_null(&schema)) {
            return;
        }
        let tag = |schema: &'s Value| {
            schema
                .pointer("/properties/type/enum/0")
                .and_then(Value::as_str)
        };
        let tags: Vec<&str> = variants.iter().filter_map(tag).collect();
        if tags.is_empty() {
            return variants
                .iter()
                .find(|schema| !is_null(schema))
                .into_iter()
                .for_each(|schema| self.value(at, schema, value));
        }
        let Value::Object(members) = value else {
            return self.say(at, format!("must be an object, and is {}", word_of(value)));
        };
        let said = members.get(TAG).and_then(Value::as_str);
        match variants
            .iter()
            .find(|schema| said.is_some() && tag(schema) == said)
        {
            Some(schema) => self.members(at, schema, members),
            None if members.contains_key(TAG) => {
                self.say(
                    &format!("{at}/{TAG}"),
                    format!("must be {}", one_of(tags.into_iter())),
                );
            }
            None => self.say(
                &format!("{at}/{TAG}"),
                format!("is needed: {}", one_of(tags.into_iter())),
            ),
        }
    }

    fn members(&mut self, at: &str, schema: &'s Value, members: &Map<String, Value>) {
        let known = schema.get("properties").and_then(Value::as_object);
        let of_others = schema
            .get("additionalProperties")
            .filter(|schema| schema.is_object());
        let needed = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        for name in needed
            .filter_map(Value::as_str)
            .filter(|name| !members.contains_key(*name))
        {
            self.say(&format!("{at}/{}", escaped(name)), "is needed".to_owned());
        }
        for (name, value) in members {
            let place = format!("{at}/{}", escaped(name));
            match (known.and_then(|known| known.get(name)), of_others, known) {
                (Some(schema), _, _) | (None, Some(schema), _) => self.value(&place, schema, value),
                (None, None, Some(known)) => {
                    let names = known.keys().map(String::as_str);
                    self.say(
                        &place,
                        format!("is unknown; there is {}", listed(names, "and")),
                    );
                }
                // Left open.
                (None, None, None) => {}
            }
        }
    }
}

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_of(name: &str, schema: &Value, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "number" => value.is_number(),
        "integer" => {
            let max = if schema.get("format").and_then(Value::as_str) == Some("int32") {
                u32::MAX.into()
            } else {
                u64::MAX
            };
            match schema.get("minimum").and_then(Value::as_u64) {
                Some(min) => value
                    .as_u64()
                    .is_some_and(|number| (min..=max).contains(&number)),
                None => value.is_i64() || value.is_u64(),
            }
        }
        // One that says nothing of its members is open, whatever it is.
        "object" => {
            value.is_object()
                || schema
                    .get("properties")
                    .or(schema.get("additionalProperties"))
                    .is_none()
        }
        _ => true,
    }
}

fn words_for(types: &[&str], schema: &Value) -> String {
    let word = |name: &&str| match *name {
        "boolean" => "true or false".to_owned(),
        "string" => "a text".to_owned(),
        "array" => "a list".to_owned(),
        "object" => "an object".to_owned(),
        "integer" => match schema.get("minimum").and_then(Value::as_u64) {
            Some(min) => format!("a whole number from {min}"),
            None => "a whole number".to_owned(),
        },
        other => other.to_owned(),
    };
    types.iter().map(word).collect::<Vec<_>>().join(" or ")
}

fn word_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    listed(words, "or")
}

fn listed<'a>(words: impl Iterator<Item = &'a str>, last: &str) -> String {
    let words: Vec<String> = words.map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        Some((end, [])) => end.clone(),
        Some((end, before)) => format!("{} {last} {end}", before.join(", ")),
        None => "nothing".to_owned(),
    }
}

/// A member's name as a part of a JSON pointer (RFC 6901), cut to a printable length.
fn escaped(name: &str) -> String {
    name.chars()
        .take(80)
        .collect::<String>()
        .replace('~', "~0")
        .replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate as api;
    use serde_json::json;

    fn mistakes(name: &str, body: Value) -> Vec<(String, String)> {
        let mistakes = Shapes::of(&api::document()).mistakes(name, &body);
        mistakes
            .into_iter()
            .map(|mistake| (mistake.at, mistake.detail))
            .collect()
    }

    fn places(name: &str, body: Value) -> Vec<String> {
        mistakes(name, body).into_iter().map(|(at, _)| at).collect()
    }

    #[test]
    fn everything_wrong_is_said_at_once_with_its_place() {
        let body = json!({
            "to": {"phone": 49, "phnoe": "49"},
            "content": {"type": "buttons", "body": ["x"], "buttons": [{"id": "a", "titel": "A"}], "preview": true},
            "lane": "fast", "a/b": 1
        });
        assert_eq!(
            mistakes("NewMessage", body),
            [
                ("/to/phone", "must be a text or null, and is a number"),
                ("/to/phnoe", "is unknown; there is `user_id` and `phone`"),
                ("/content/body", "must be a text, and is a list"),
                ("/content/buttons/0/title", "is needed"),
                (
                    "/content/buttons/0/titel",
                    "is unknown; there is `id` and `title`"
                ),
                (
                    "/content/preview",
                    "is unknown; there is `body`, `header`, `footer`, `buttons` and `type`"
                ),
                ("/lane", "must be `live` or `bulk`"),
                (
                    "/a~1b",
                    "is unknown; there is `phone_number_id`, `to`, `content`, `reply_to` and `lane`"
                ),
            ]
            .map(|(at, detail)| (at.to_owned(), detail.to_owned()))
        );
    }

    #[test]
    fn a_content_says_what_it_is() {
        let to = json!({"phone": "49"});
        assert_eq!(
            places("NewMessage", json!({"to": to, "content": {"body": "x"}})),
            ["/content/type"]
        );
        assert_eq!(
            places("NewMessage", json!({"to": to, "content": {"type": "txt"}})),
            ["/content/type"]
        );
        assert_eq!(
            places("NewMessage", json!({"to": to, "content": "hello"})),
            ["/content"]
        );
        assert_eq!(places("NewMessage", json!([])), [""]);
        let open = json!({"type": "template", "name": "t", "language": "en", "components": [{"any": [1]}]});
        assert!(places("NewMessage", json!({"to": to, "content": open})).is_empty());
    }

    #[test]
    fn numbers_maps_and_open_values_are_told_apart() {
        let tuning = json!({"concurrency": -1, "lanes": {"sts": "x", "msg": 3}, "paused": null});
        assert_eq!(
            places("PoolTuning", tuning),
            ["/concurrency", "/lanes/sts", "/paused"]
        );
        assert!(places("FlowBody", json!({"definition": {"nodes": []}})).is_empty());
        assert!(places("ReplayLetter", json!({"payload": "not JSON"})).is_empty());
    }

    #[test]
    fn what_is_wrong_without_end_is_told_to_an_end() {
        let fields: Map<String, Value> = (0..1000).map(|n| (format!("x{n}"), json!(1))).collect();
        assert_eq!(places("BotBody", Value::Object(fields)).len(), MISTAKES_MAX);
    }
}
