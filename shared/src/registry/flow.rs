//! A flow as it is held in memory: the text of its definition, which costs its bytes, and not the values in it, which cost
//! dozens of times as much.
//!
//! What only an editor reads of a definition (`ui`, the drawing) is left out; the bucket keeps it.

use crate::ids::{EntityId, TenantId};
use crate::model::{Entity, Flow};
use crate::subjects::config_key;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The field that only editors read.
const DRAWING: &str = "ui";
const NAME: &str = "name";

/// A declared flow.
#[derive(Clone, PartialEq, Eq)]
pub struct HeldFlow {
    /// Its id.
    pub id: EntityId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its name, when the definition has one.
    pub name: Option<String>,
    /// Bytes of the entry that it was read from.
    pub stored_bytes: u64,
    definition: Box<str>,
}

impl fmt::Debug for HeldFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldFlow")
            .field("id", &self.id)
            .field("tenant", &self.tenant)
            .finish_non_exhaustive()
    }
}

impl HeldFlow {
    /// Reads a stored flow.
    pub fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let entry: Entry<'_> = serde_json::from_slice(bytes)?;
        let (definition, name) = match serde_json::from_str::<Fields<'_>>(entry.definition.get()) {
            Ok(fields) => (fields.without_drawing()?, fields.name()),
            // Not an object: nothing that runs, and whoever compiles it says so.
            Err(_) => (entry.definition.get().to_owned(), None),
        };
        Ok(Self {
            id: entry.id,
            tenant: entry.tenant,
            name,
            stored_bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            definition: definition.into_boxed_str(),
        })
    }

    /// Its key in the `config` bucket.
    pub fn config_key(&self) -> String {
        config_key::owned(Flow::FAMILY, &self.tenant, &self.id)
    }

    /// The text of its definition without the drawing.
    pub fn text(&self) -> &str {
        &self.definition
    }

    /// Its definition without the drawing, as values.
    pub fn definition(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_str(&self.definition)
    }
}

#[derive(Deserialize)]
struct Entry<'a> {
    id: EntityId,
    tenant: TenantId,
    #[serde(borrow)]
    definition: &'a RawValue,
}

/// The fields of an object, unread.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl Fields<'_> {
    fn without_drawing(&self) -> Result<String, serde_json::Error> {
        let kept = self.0.iter().filter(|(name, _)| name != DRAWING);
        let bytes: usize = kept
            .clone()
            .map(|(name, value)| name.len() + value.get().len() + 4)
            .sum();
        let mut text = String::with_capacity(bytes + 2);
        for (name, value) in kept {
            text.push(if text.is_empty() { '{' } else { ',' });
            text.push_str(&serde_json::to_string(name)?);
            text.push(':');
            text.push_str(value.get());
        }
        if text.is_empty() {
            text.push('{');
        }
        text.push('}');
        Ok(text)
    }

    fn name(&self) -> Option<String> {
        let name = self.0.iter().rev().find(|(name, _)| name == NAME);
        name.and_then(|(_, value)| serde_json::from_str(value.get()).ok())
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// A name that is copied only when it is written with escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
            if fields.len() >= FIELDS_MAX {
                return Err(A::Error::custom("it has too many fields"));
            }
            fields.push((name, value));
        }
        Ok(Fields(fields))
    }
}

/// Fields of a definition; the format has eight.
const FIELDS_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Snapshot;
    use serde_json::json;

    fn entry(definition: &Value) -> Vec<u8> {
        json!({"id": "f", "tenant": "acme", "definition": definition, "later": 1})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn a_flow_is_held_without_its_drawing_and_is_otherwise_the_same() {
        let plain = json!({"format": 1, "name": "A \"b\" ü", "nodes": {"x": {"ui": [1, 2.50]}}, "start": "x"});
        let mut drawn = plain.clone();
        drawn["ui"] = json!({"x": [10, 20]});
        let (held, same) = (
            HeldFlow::read(&entry(&drawn)).unwrap(),
            HeldFlow::read(&entry(&plain)).unwrap(),
        );
        assert_eq!(held.definition().unwrap(), plain);
        assert_eq!(
            (held.text(), held.name.as_deref()),
            (same.text(), Some("A \"b\" ü"))
        );
        assert_eq!(
            held.text(),
            plain.to_string(),
            "to the byte, for its hash is its version"
        );
        assert_eq!(
            held.stored_bytes,
            u64::try_from(entry(&drawn).len()).unwrap()
        );
        assert!(!format!("{held:?}").contains("nodes"));
        for strange in [json!(1), json!([]), json!({}), json!({"name": 7})] {
            let held = HeldFlow::read(&entry(&strange)).unwrap();
            assert_eq!((held.definition().unwrap(), held.name), (strange, None));
        }
        assert!(
            HeldFlow::read(b"{\"id\":\"f\",\"tenant\":\"acme\"}").is_err(),
            "it has no definition"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn many_large_flows_cost_about_their_bytes() {
        fn resident() -> u64 {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status
                .lines()
                .find(|line| line.starts_with("VmRSS:"))
                .unwrap();
            line.split_whitespace()
                .nth(1)
                .unwrap()
                .parse::<u64>()
                .unwrap()
                * 1024
        }
        const FLOWS: u64 = 40;
        let nodes: serde_json::Map<_, _> = (0..20_000)
            .map(|n| {
                (
                    format!("n{n}"),
                    json!({"kind": "end", "exits": {"a": 1, "b": [1, 2, 3]}}),
                )
            })
            .collect();
        let bytes =
            entry(&json!({"format": 1, "name": "big", "nodes": nodes, "ui": "u".repeat(200_000)}));
        drop(nodes);
        let (before, mut snapshot) = (resident(), Snapshot::default());
        for n in 0..FLOWS {
            snapshot
                .fold(&format!("flow.acme.f{n}"), Some(&bytes))
                .unwrap();
        }
        let (grown, stored) = (
            resident().saturating_sub(before),
            u64::try_from(bytes.len()).unwrap() * FLOWS,
        );
        assert!(stored > 40 << 20, "{stored}");
        // Other tests run beside this one; as values these flows take more than a gigabyte.
        assert!(
            grown < stored + (64 << 20),
            "{stored} bytes of flows take {grown} bytes"
        );
        assert_eq!(snapshot.flows.len(), 40);
    }
}
