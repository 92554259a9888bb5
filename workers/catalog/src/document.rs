//! Reading a document: text to typed parts, with every mistake of form and the place of each.
//!
//! Parts are read one by one, so that a mistake in one does not hide those in the others. Messages never
//! repeat a value of the file, because any of them may be a secret.

use super::ownership::Owns;
use super::part::{Part, without_values};
use ackline_shared::model::{Entity, Flow, KINDS, Kind};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use toml::de::{DeTable, DeValue};

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Toml,
    Json,
}

/// What a document may refer to outside itself.
pub struct Surroundings<'a> {
    /// Reads a file named relative to the document.
    pub file: &'a dyn Fn(&str) -> Result<String, String>,
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

/// Where a part stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentPlace(String);

impl fmt::Display for DocumentPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A part and its place.
#[derive(Debug, Clone)]
pub struct Placed<T> {
    pub place: DocumentPlace,
    pub value: T,
}

/// A document as read: its well-formed parts, and the keys of all, well-formed or not.
#[derive(Debug, Default)]
pub struct Declared {
    /// In the order in which they are written.
    pub parts: Vec<Placed<Part>>,
    /// What the document owns: the tenants it declares, and what it says in `owns`.
    pub owns: Owns,
    /// Keys of everything declared; a reference to a malformed part is no second mistake.
    pub keys: BTreeSet<String>,
}

impl Declared {
    pub fn into_parts(self) -> Vec<Part> {
        self.parts.into_iter().map(|placed| placed.value).collect()
    }
}

/// Reads a document; what is malformed is left out and added to `mistakes`.
pub fn read(
    text: &str,
    format: Format,
    surroundings: &Surroundings<'_>,
    mistakes: &mut Vec<String>,
) -> Declared {
    let parsed = match format {
        Format::Toml => parse_toml(text),
        Format::Json => parse_json(text).map(|sections| (sections, BTreeMap::new())),
    };
    let (sections, lines) = parsed.unwrap_or_else(|mistake| {
        mistakes.push(mistake);
        Default::default()
    });
    let mut reader = Reader {
        sections,
        lines,
        surroundings,
        mistakes,
        keys: BTreeSet::new(),
    };
    let mut declared = Declared {
        parts: KINDS.iter().flat_map(|kind| reader.family(kind)).collect(),
        owns: reader.owns(),
        keys: BTreeSet::new(),
    };
    for placed in &declared.parts {
        if let Part::Tenant(tenant) = &placed.value {
            declared.owns.tenants.insert(tenant.id.clone());
        }
    }
    declared.keys = std::mem::take(&mut reader.keys);
    reader.refuse_the_rest();
    declared
}

/// Top-level sections, and the line of every element of each.
type Parsed = (Map<String, Value>, BTreeMap<String, Vec<usize>>);

fn parse_toml(text: &str) -> Result<Parsed, String> {
    let ends: Vec<usize> = text
        .bytes()
        .enumerate()
        .filter(|&(_, byte)| byte == b'\n')
        .map(|(offset, _)| offset)
        .collect();
    let line_of = |offset: usize| ends.partition_point(|&end| end < offset) + 1;
    // The parser's own report quotes the line, which may hold a secret.
    let failed = |error: toml::de::Error| {
        let at = error.span().map_or(String::new(), |span| {
            format!("line {}: ", line_of(span.start))
        });
        format!("{at}{}", error.message())
    };
    let sections = toml::from_str(text).map_err(failed)?;
    let table = DeTable::parse(text).map_err(failed)?;
    let lines = table.get_ref().iter().filter_map(|(name, value)| {
        let DeValue::Array(elements) = value.get_ref() else {
            return None;
        };
        let lines = elements.iter().map(|element| line_of(element.span().start));
        Some((name.get_ref().to_string(), lines.collect()))
    });
    Ok((sections, lines.collect()))
}

fn parse_json(text: &str) -> Result<Map<String, Value>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| {
        format!(
            "line {} column {}: not valid JSON",
            error.line(),
            error.column()
        )
    })?;
    match value {
        Value::Object(sections) => Ok(sections),
        _ => Err("expected an object with sections such as \"tenants\"".to_owned()),
    }
}

struct Reader<'a> {
    sections: Map<String, Value>,
    lines: BTreeMap<String, Vec<usize>>,
    surroundings: &'a Surroundings<'a>,
    mistakes: &'a mut Vec<String>,
    keys: BTreeSet<String>,
}

impl Reader<'_> {
    fn family(&mut self, kind: &Kind) -> Vec<Placed<Part>> {
        let section = kind.section;
        let items = match self.sections.remove(section) {
            None => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => {
                self.mistakes.push(format!(
                    "{section}: expected a list, written as [[{section}]]"
                ));
                return Vec::new();
            }
        };
        let placed = items.into_iter().enumerate().filter_map(|(index, item)| {
            let name = name_of(&item, kind.is_owned);
            let at = match self.lines.get(section).and_then(|lines| lines.get(index)) {
                Some(line) => format!("line {line}"),
                None => format!("{section}[{index}]"),
            };
            let place = DocumentPlace(format!(
                "{at}, {} {}",
                kind.noun,
                name.as_deref().unwrap_or("without an id")
            ));
            if let Some(name) = name
                && !self
                    .keys
                    .insert(format!("{}.{}", kind.family, name.replace('/', ".")))
            {
                self.mistakes.push(format!(
                    "{place}: is declared twice; give one of them another id"
                ));
            }
            self.part(kind, place, item)
        });
        placed.collect()
    }

    fn part(&mut self, kind: &Kind, place: DocumentPlace, mut item: Value) -> Option<Placed<Part>> {
        if let Some(fields) = item.as_object_mut() {
            if kind.family == Flow::FAMILY {
                self.include_definition(&place, fields)?;
            }
            for name in kind.secrets {
                if let Some(value) = fields.get_mut(*name) {
                    self.resolve(&place, name, value);
                }
            }
        }
        match Part::written(kind, &item)? {
            Ok(value) => Some(Placed { place, value }),
            Err(error) => {
                self.mistakes.push(format!("{place}: {error}"));
                None
            }
        }
    }

    /// Puts the content of `definition_file` in the place of `definition`.
    fn include_definition(
        &mut self,
        place: &DocumentPlace,
        fields: &mut Map<String, Value>,
    ) -> Option<()> {
        let Some(path) = fields.remove("definition_file") else {
            return Some(());
        };
        let included = match path.as_str() {
            _ if fields.contains_key("definition") => {
                Err("has both definition and definition_file; keep one".to_owned())
            }
            None => Err(
                "definition_file: expected the path of a JSON file, relative to this file"
                    .to_owned(),
            ),
            Some(path) => (self.surroundings.file)(path)
                .map_err(|reason| format!("definition_file {path} cannot be read: {reason}"))
                .and_then(|text| {
                    serde_json::from_str(&text)
                        .map_err(|error| format!("definition_file {path} is not JSON: {error}"))
                }),
        };
        match included {
            Ok(definition) => fields.insert("definition".to_owned(), definition),
            Err(mistake) => {
                self.mistakes.push(format!("{place}: {mistake}"));
                return None;
            }
        };
        Some(())
    }

    /// Reads the `env:NAME` secrets in a field, and refuses what cannot be a secret.
    fn resolve(&mut self, place: &DocumentPlace, path: &str, value: &mut Value) {
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.resolve(place, &format!("{path}[{index}]"), item);
                }
            }
            Value::Object(fields) => {
                for (name, item) in fields.iter_mut() {
                    self.resolve(place, &format!("{path}.{name}"), item);
                }
            }
            Value::String(text) => {
                if let Some(name) = text.strip_prefix("env:") {
                    match (self.surroundings.variable)(name) {
                        Some(secret) => *text = secret,
                        None => {
                            let what = format!(
                                "the environment variable {name} is not set; export it first"
                            );
                            return self.mistakes.push(format!("{place}: {path}: {what}"));
                        }
                    }
                }
                let refused = if text.is_empty() {
                    "is empty"
                } else if text.starts_with("sealed:") {
                    "is a sealed text, which only opens where it is stored; write the secret itself or env:NAME"
                } else if text.trim() != text {
                    "starts or ends with a space or a line break; remove it"
                } else {
                    return;
                };
                self.mistakes.push(format!("{place}: {path}: {refused}"));
            }
            _ => {}
        }
    }

    fn owns(&mut self) -> Owns {
        let Some(said) = self.sections.remove("owns") else {
            return Owns::default();
        };
        serde_path_to_error::deserialize(said).unwrap_or_else(|error| {
            let path = error.path().to_string();
            let at = if path == "." {
                String::new()
            } else {
                format!(".{path}")
            };
            let form =
                "there are brands and tenants, lists of ids, and installation, true or false";
            self.mistakes.push(format!(
                "owns{at}: {}; {form}",
                without_values(&error.inner().to_string())
            ));
            Owns::default()
        })
    }

    fn refuse_the_rest(self) {
        let known: Vec<&str> = KINDS.iter().map(|kind| kind.section).collect();
        for name in self.sections.keys() {
            let known = known.join(", ");
            self.mistakes
                .push(format!("{name}: unknown section; there are owns, {known}"));
        }
    }
}

fn name_of(item: &Value, owned: bool) -> Option<String> {
    let id = item.get("id")?.as_str()?;
    if owned {
        Some(format!("{}/{id}", item.get("tenant")?.as_str()?))
    } else {
        Some(id.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    fn read_text(text: &str, format: Format) -> (Declared, Vec<String>) {
        let surroundings = Surroundings {
            file: &|path| match path {
                "flows/a.json" => Ok("{\"ackline\":1}".to_owned()),
                "flows/broken.json" => Ok("{".to_owned()),
                _ => Err("no such file".to_owned()),
            },
            variable: &|name| (name == "SET").then(|| "from-the-environment".to_owned()),
        };
        let mut mistakes = Vec::new();
        let declared = read(text, format, &surroundings, &mut mistakes);
        (declared, mistakes)
    }

    #[test]
    fn a_good_document_reads_the_same_in_toml_and_json() {
        let (toml, mistakes) = read_text(samples::TEXT, Format::Toml);
        assert_eq!(mistakes, Vec::<String>::new());
        let json = serde_json::to_string(&samples::document()).unwrap();
        let (json, mistakes) = read_text(&json, Format::Json);
        assert_eq!(mistakes, Vec::<String>::new());
        let parts = Part::all_of(&samples::document());
        assert_eq!(toml.into_parts(), parts);
        assert_eq!(json.into_parts(), parts);
    }

    #[test]
    fn a_definition_file_is_read_in_the_place_of_the_definition() {
        let (declared, mistakes) = read_text(
            "[[flows]]\nid='a'\ntenant='t'\ndefinition_file='flows/a.json'\n[[flows]]\nid='b'\ntenant='t'\ndefinition_file='flows/broken.json'\n[[flows]]\nid='c'\ntenant='t'\ndefinition_file='gone'\n[[flows]]\nid='d'\ntenant='t'\ndefinition_file='gone'\ndefinition={}\n",
            Format::Toml,
        );
        assert_eq!(declared.parts.len(), 1);
        assert_eq!(
            declared.parts[0].value.open_side()["definition"],
            serde_json::json!({"ackline": 1})
        );
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
        assert!(
            mistakes[0]
                .starts_with("line 5, flow t/b: definition_file flows/broken.json is not JSON")
        );
        assert!(mistakes[2].contains("keep one"));
        assert_eq!(declared.keys.len(), 4);
    }

    #[test]
    fn secrets_come_from_the_environment_when_asked_for() {
        let app = |verify: &str| {
            format!("[[apps]]\nid='a'\nsecrets=['env:SET']\nverify_token='{verify}'")
        };
        let (declared, mistakes) = read_text(&app("x"), Format::Toml);
        assert!(mistakes.is_empty());
        let any = ackline_shared::vault::VaultKey::generate();
        let open = declared.parts[0].value.open_secrets(&any).unwrap();
        assert_eq!(open["secret 1"].expose(), "from-the-environment");
        for (verify, said) in [
            ("env:UNSET", "UNSET is not set"),
            ("", "is empty"),
            (" x", "space"),
            ("sealed:v1:AAAA", "sealed text"),
        ] {
            let (_, mistakes) = read_text(&app(verify), Format::Toml);
            assert!(
                mistakes[0].contains(said) && mistakes[0].contains("verify_token"),
                "{mistakes:?}"
            );
        }
    }

    #[test]
    fn every_mistake_of_form_is_told_with_its_place_and_without_any_value() {
        let text = "[[tenants]]\nid='acme'\nname='A'\nnmae='s3cret'\n\n[[apps]]\nid='main'\nsecrets='s3cret'\nverify_token=5\n\n[[tenants]]\nid='b'\nname='B'\nshards=300\n\n[[tenants]]\nid='b'\nname='B'\n[[tenant]]\nid='x'\n";
        let (_, mistakes) = read_text(text, Format::Toml);
        let all = mistakes.join("\n");
        for part in [
            "line 1, tenant acme: nmae: unknown field `nmae`",
            "line 6, app main: secrets: expected a sequence",
            "line 11, tenant b: shards: expected a whole number",
            "line 16, tenant b: is declared twice",
            "tenant: unknown section",
        ] {
            assert!(all.contains(part), "{part} in\n{all}");
        }
        assert!(!all.contains("s3cret"), "{all}");
        assert_eq!(mistakes.len(), 5, "{all}");
    }

    #[test]
    fn a_document_says_what_it_owns_beside_its_tenants() {
        let text = "owns = { brands = ['b'], tenants = ['old'], installation = true }\n[[tenants]]\nid='acme'\nname='A'";
        let (declared, mistakes) = read_text(text, Format::Toml);
        assert_eq!(mistakes, Vec::<String>::new());
        let tenants: Vec<_> = declared
            .owns
            .tenants
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            (tenants, declared.owns.installation),
            (vec!["acme".to_owned(), "old".to_owned()], true)
        );
        for (text, said) in [
            ("owns = { tenant = ['x'] }", "owns.tenant: unknown"),
            ("owns = 7", "owns: "),
            ("owns = { tenants = ['a.b'] }", "owns.tenants[0]: "),
        ] {
            let (_, mistakes) = read_text(text, Format::Toml);
            assert!(
                mistakes.len() == 1 && mistakes[0].starts_with(said),
                "{mistakes:?}"
            );
        }
        let (declared, _) = read_text("[[brands]]\nid='b'\nname='B'", Format::Toml);
        assert_eq!(
            declared.owns,
            Owns::default(),
            "a brand that is only declared is not owned"
        );
    }

    #[test]
    fn a_text_that_does_not_parse_says_where_without_quoting_it() {
        for (text, format) in [
            ("a = 1\nverify_token = \"s3cret", Format::Toml),
            ("{\n\"key\": \"s3cret\" x", Format::Json),
        ] {
            let (_, mistakes) = read_text(text, format);
            assert_eq!(mistakes.len(), 1);
            assert!(mistakes[0].starts_with("line 2"), "{mistakes:?}");
            assert!(!mistakes[0].contains("s3cret"), "{mistakes:?}");
        }
    }
}
