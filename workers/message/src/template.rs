//! An approved template with its parameters.

use crate::Message;
use crate::check::Check;
use serde_json::{Value, json};

const NAME_CHARS_MAX: usize = 512;
const LANGUAGE_CHARS_MAX: usize = 20;

pub(crate) struct Template<'a> {
    pub name: &'a str,
    pub language: &'a str,
    pub components: &'a [Value],
}

impl Message for Template<'_> {
    fn kind(&self) -> &'static str {
        "template"
    }

    fn check(&self, check: &mut Check) {
        check.text("name", self.name, NAME_CHARS_MAX);
        check.text("language", self.language, LANGUAGE_CHARS_MAX);
        for (at, component) in self.components.iter().enumerate() {
            check_component(check, &format!("components/{at}"), component);
        }
    }

    fn plain(&self) -> String {
        format!("[template: {}]", self.name)
    }

    fn summary(&self) -> String {
        self.name.to_owned()
    }

    fn graph(&self) -> Value {
        let language = json!({"code": self.language});
        if self.components.is_empty() {
            return json!({"name": self.name, "language": language});
        }
        json!({"name": self.name, "language": language, "components": self.components})
    }
}

/// Only the outer shape: which parameters a template takes, and of which types, is known to Meta alone.
fn check_component(check: &mut Check, place: &str, component: &Value) {
    let Some(kind) = typed(check, place, component) else {
        return;
    };
    if kind.eq_ignore_ascii_case("button") {
        if component.get("sub_type").is_none_or(|sub| !sub.is_string()) {
            check.add(&format!("{place}/sub_type"), "is needed for a button");
        }
        let index = component.get("index");
        if index.is_none_or(|index| !index.is_string() && !index.is_u64()) {
            check.add(&format!("{place}/index"), "is needed for a button");
        }
    }
    match component.get("parameters") {
        None => {}
        Some(Value::Array(parameters)) => {
            for (at, parameter) in parameters.iter().enumerate() {
                typed(check, &format!("{place}/parameters/{at}"), parameter);
            }
        }
        Some(_) => check.add(&format!("{place}/parameters"), "must be an array"),
    }
}

/// The `type` that components and parameters name.
fn typed<'a>(check: &mut Check, place: &str, value: &'a Value) -> Option<&'a str> {
    if !value.is_object() {
        check.add(place, "must be an object with a `type`");
        return None;
    }
    let kind = value.get("type").and_then(Value::as_str);
    let kind = kind.filter(|kind| !kind.trim().is_empty());
    if kind.is_none() {
        check.add(&format!("{place}/type"), "is needed");
    }
    kind
}
