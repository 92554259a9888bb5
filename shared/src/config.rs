//! Configuration: documented defaults built in, overridden by a file, overridden by the environment.
//!
//! The defaults file is the schema: a key it lacks is unknown, and a value must have the type it has there. What it
//! says of `[pools.NAME]` holds for every pool that works on one update at a time.
//! Every mistake of every layer is collected and reported at once; a program that gets a [`Report`] prints
//! it and exits with [`EXIT_CONFIG`]. Each part of the program reads its own section into a checked struct
//! through [`Reader`], so this module knows the shapes of values and not what they are for.

use crate::secret::Secret;
use crate::subjects::Pool;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use toml::{Table, Value};

/// The documented defaults; they are the manual.
pub const DEFAULTS: &str = include_str!("ackline.default.toml");

/// Exit status of a program whose configuration is wrong (`EX_USAGE` of sysexits).
pub const EXIT_CONFIG: u8 = 64;

/// The section that stands for every pool's own.
const EACH_POOL: &str = "NAME";
const ENV_PREFIX: &str = "ACKLINE_";
/// Variables with our prefix that are not keys.
const ENV_RESERVED: [&str; 2] = ["ACKLINE_CONFIG", "ACKLINE_TOOLS_DIR"];

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// One sentence a mistake: where, what, and what would be right.
    pub mistakes: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "the configuration has {} mistake(s):",
            self.mistakes.len()
        )?;
        self.mistakes
            .iter()
            .try_for_each(|mistake| writeln!(f, "  - {mistake}"))
    }
}

impl std::error::Error for Report {}

/// Merges the layers and hands out checked values, collecting what is wrong.
#[derive(Debug)]
pub struct Reader {
    values: Table,
    mistakes: Vec<String>,
}

impl Reader {
    /// Reads the defaults, then `file` if given, then variables named after keys.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let mut mistakes = Vec::new();
        let mut values = defaults().unwrap_or_else(|error| {
            mistakes.push(format!("the built-in defaults do not parse: {error}"));
            Table::new()
        });
        if let Some(path) = file {
            merge_file(&mut values, path, &mut mistakes);
        }
        merge_environment(&mut values, environment, &mut mistakes);
        Self { values, mistakes }
    }

    /// Ends the reading: all mistakes, or none.
    pub fn finish(self) -> Result<(), Report> {
        if self.mistakes.is_empty() {
            Ok(())
        } else {
            Err(Report {
                mistakes: self.mistakes,
            })
        }
    }

    /// Adds a mistake found by whoever combines several keys; said once however often a key is read.
    pub fn mistake(&mut self, key: &str, what: impl fmt::Display) {
        let mistake = format!("{key}: {what}");
        if !self.mistakes.contains(&mistake) {
            self.mistakes.push(mistake);
        }
    }

    /// A text.
    pub fn text(&mut self, key: &str) -> String {
        self.read(key, |value| {
            value.as_str().map(str::to_owned).ok_or("expected a text")
        })
    }

    /// A text that may be left empty.
    pub fn optional_text(&mut self, key: &str) -> Option<String> {
        Some(self.text(key)).filter(|text| !text.is_empty())
    }

    /// A text that must not be printed.
    pub fn secret(&mut self, key: &str) -> Option<Secret<String>> {
        self.optional_text(key).map(Secret::new)
    }

    /// A yes or no.
    pub fn flag(&mut self, key: &str) -> bool {
        self.read(key, |value| value.as_bool().ok_or("expected true or false"))
    }

    /// A whole number within bounds.
    pub fn count(&mut self, key: &str, bounds: std::ops::RangeInclusive<u64>) -> u64 {
        let number = self.read(key, |value| {
            value
                .as_integer()
                .and_then(|n| u64::try_from(n).ok())
                .ok_or("expected a whole number")
        });
        self.within(key, number, bounds)
    }

    /// A duration with a unit, longer than nothing.
    pub fn duration(&mut self, key: &str) -> Duration {
        self.read(key, |value| {
            let parsed = value
                .as_str()
                .and_then(|text| humantime::parse_duration(text).ok());
            parsed
                .filter(|duration| !duration.is_zero())
                .ok_or(DURATION_FORM)
        })
    }

    /// A size in bytes, written with a unit.
    pub fn bytes(&mut self, key: &str, bounds: std::ops::RangeInclusive<u64>) -> u64 {
        let number = self.read(key, |value| {
            value.as_str().and_then(parse_bytes).ok_or(BYTES_FORM)
        });
        self.within(key, number, bounds)
    }

    /// An address and port to listen on.
    pub fn address(&mut self, key: &str) -> SocketAddr {
        let parsed = self.read(key, |value| {
            let address = value.as_str().and_then(|text| text.parse().ok()).map(Some);
            address.ok_or("expected an address and port, such as \"127.0.0.1:8080\"")
        });
        parsed.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// A URL of one of the given schemes.
    pub fn url(&mut self, key: &str, schemes: &[&str]) -> String {
        let text = self.text(key);
        match url::Url::parse(&text) {
            Ok(url) if schemes.contains(&url.scheme()) => {}
            _ => self.mistake(
                key,
                format_args!(
                    "expected a URL starting with {}://",
                    schemes.join(":// or ")
                ),
            ),
        }
        text.trim_end_matches('/').to_owned()
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key);
        let found = choices
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<_> = choices
                .iter()
                .map(|(word, _)| format!("\"{word}\""))
                .collect();
            self.mistake(
                key,
                format_args!("`{text}` is not one of {}", words.join(", ")),
            );
        }
        found
    }

    /// A list of texts.
    pub fn texts(&mut self, key: &str) -> Vec<String> {
        self.read(key, |value| {
            let items = value.as_array().ok_or("expected a list of texts")?;
            let texts: Option<Vec<_>> = items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect();
            texts.ok_or("expected a list of texts")
        })
    }

    fn read<T: Default>(
        &mut self,
        key: &str,
        convert: impl FnOnce(&Value) -> Result<T, &'static str>,
    ) -> T {
        let result = lookup(&self.values, key)
            .ok_or("is not in the built-in defaults")
            .and_then(convert);
        result.unwrap_or_else(|what| {
            self.mistake(key, what);
            T::default()
        })
    }

    fn within(&mut self, key: &str, number: u64, bounds: std::ops::RangeInclusive<u64>) -> u64 {
        if !bounds.contains(&number) {
            self.mistake(
                key,
                format_args!("{number} is outside {} to {}", bounds.start(), bounds.end()),
            );
        }
        number
    }
}

const DURATION_FORM: &str = "expected a duration with a unit, such as \"250ms\", \"5s\" or \"2m\"";
const BYTES_FORM: &str = "expected a size with a unit, such as \"64KiB\" or \"4MiB\"";

/// The defaults, with a section for each pool in place of the one that stands for all.
fn defaults() -> Result<Table, toml::de::Error> {
    let mut values = DEFAULTS.parse::<Table>()?;
    if let Some(Value::Table(pools)) = values.get_mut("pools")
        && let Some(Value::Table(each)) = pools.remove(EACH_POOL)
    {
        for pool in Pool::ALL.into_iter().filter(|pool| !pool.is_whole()) {
            let mut own = each.clone();
            if let Some(Value::Table(otherwise)) = pools.remove(pool.as_str()) {
                own.extend(otherwise);
            }
            pools.insert(pool.to_string(), Value::Table(own));
        }
    }
    Ok(values)
}

/// Every key of the defaults, dotted.
pub fn keys() -> Vec<String> {
    let mut out = Vec::new();
    if let Ok(table) = defaults() {
        collect_keys(&table, "", &mut out);
    }
    out
}

/// The environment variable that overrides a key.
pub fn environment_name(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "_").to_uppercase())
}

fn collect_keys(table: &Table, prefix: &str, out: &mut Vec<String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        match value {
            Value::Table(inner) => collect_keys(inner, &key, out),
            _ => out.push(key),
        }
    }
}

fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let (section, name) = key.rsplit_once('.')?;
    let inner = section
        .split('.')
        .try_fold(table, |inner, part| inner.get(part)?.as_table())?;
    inner.get(name)
}

fn merge_file(values: &mut Table, path: &Path, mistakes: &mut Vec<String>) {
    let parsed = std::fs::read_to_string(path)
        .map_err(|error| format!("{}: cannot be read: {error}", path.display()))
        .and_then(|text| {
            text.parse::<Table>()
                .map_err(|error| format!("{}: {error}", path.display()))
        });
    match parsed {
        Ok(layer) => merge_table(values, layer, "", mistakes),
        Err(mistake) => mistakes.push(mistake),
    }
}

fn merge_table(base: &mut Table, layer: Table, prefix: &str, mistakes: &mut Vec<String>) {
    for (name, value) in layer {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        match (base.get_mut(&name), value) {
            (None, _) => mistakes.push(format!("{key}: unknown key{}", suggest(&key))),
            (Some(Value::Table(inner)), Value::Table(value)) => {
                merge_table(inner, value, &key, mistakes)
            }
            (Some(Value::Table(_)), _) => {
                mistakes.push(format!("{key}: expected a section, [{key}]"))
            }
            (Some(slot), value) => *slot = value,
        }
    }
}

fn merge_environment(
    values: &mut Table,
    environment: impl IntoIterator<Item = (String, String)>,
    mistakes: &mut Vec<String>,
) {
    let keys = keys();
    for (name, text) in environment {
        if !name.starts_with(ENV_PREFIX) || ENV_RESERVED.contains(&name.as_str()) {
            continue;
        }
        let Some(key) = keys.iter().find(|key| environment_name(key) == name) else {
            mistakes.push(format!(
                "{name}: no key is set by this environment variable"
            ));
            continue;
        };
        let slot = key.rsplit_once('.').and_then(|(section, leaf)| {
            let table = section.split('.').try_fold(&mut *values, |inner, part| {
                inner.get_mut(part)?.as_table_mut()
            });
            table?.get_mut(leaf)
        });
        if let Some(slot) = slot {
            *slot = from_environment(slot, text);
        }
    }
}

/// Reads a variable as the type its default has; what does not fit stays a text and is reported by its reader.
fn from_environment(default: &Value, text: String) -> Value {
    match default {
        Value::Integer(_) => text.parse().map_or(Value::String(text), Value::Integer),
        Value::Boolean(_) => text.parse().map_or(Value::String(text), Value::Boolean),
        Value::Array(_) => {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
        }
        _ => Value::String(text),
    }
}

fn suggest(key: &str) -> String {
    let leaf = key.rsplit('.').next().unwrap_or(key);
    let near = keys()
        .into_iter()
        .find(|known| known.rsplit('.').next() == Some(leaf));
    near.map(|known| format!("; did you mean {known}?"))
        .unwrap_or_default()
}

fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let scale = match unit.trim() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1_u64 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn load(file: &str, environment: &[(&str, &str)]) -> Reader {
        let mut path = tempfile::NamedTempFile::new().unwrap();
        path.write_all(file.as_bytes()).unwrap();
        Reader::load(
            Some(path.path()),
            environment
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        )
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
        let mut reader = load(
            "[nats]\npartitions = 8\nurl = \"nats://a:1\"",
            &[("ACKLINE_NATS_URL", "nats://b:2")],
        );
        assert_eq!(reader.count("nats.partitions", 1..=64), 8);
        assert_eq!(reader.url("nats.url", &["nats"]), "nats://b:2");
        assert_eq!(
            reader.duration("ingress.publish_budget"),
            Duration::from_secs(2)
        );
        assert_eq!(
            reader.bytes("ingress.body_bytes_max", 1..=u64::MAX),
            4 << 20
        );
        assert!(reader.finish().is_ok());
    }

    #[test]
    fn a_pool_has_what_stands_for_all_where_its_own_section_says_nothing() {
        let mut reader = load("[pools.relay]\nattempts_max = 2", &[]);
        let mut count =
            |pool: &str, key: &str| reader.count(&format!("pools.{pool}.{key}"), 1..=99);
        assert_eq!(
            [
                count("relay", "attempts_max"),
                count("relay", "concurrency"),
                count("crm", "concurrency"),
                count("crm", "attempts_max"),
            ],
            [2, 64, 16, 6]
        );
        assert!(reader.finish().is_ok());
        for unknown in ["[pools.NAME]\nconcurrency = 1", "[pools.nobody]"] {
            assert!(load(unknown, &[]).finish().is_err(), "{unknown}");
        }
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let mut reader = load(
            "typo = 1\n[nats]\nurls = \"x\"\npartitions = 9000\n[ingress]\npublish_budget = \"2\"\nlisten = \"nowhere\"",
            &[
                ("ACKLINE_NATS_URLL", "x"),
                ("ACKLINE_CONFIG", "ignored"),
                ("PATH", "/bin"),
            ],
        );
        reader.count("nats.partitions", 1..=1024);
        reader.duration("ingress.publish_budget");
        reader.address("ingress.listen");
        let report = reader.finish().unwrap_err();
        assert_eq!(report.mistakes.len(), 6, "{report}");
        for part in [
            "typo: unknown key",
            "nats.urls: unknown",
            "ACKLINE_NATS_URLL",
            "9000 is outside",
            "publish_budget",
        ] {
            assert!(report.to_string().contains(part), "{part} in {report}");
        }
    }

    #[test]
    fn a_file_that_is_not_toml_says_where() {
        let report = load("[nats\nurl=", &[]).finish().unwrap_err();
        assert!(report.to_string().contains("line 1"), "{report}");
    }

    #[test]
    fn every_key_has_its_own_environment_variable() {
        let mut names: Vec<_> = keys().iter().map(|key| environment_name(key)).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert!(count > 40 && names.len() == count);
    }
}
