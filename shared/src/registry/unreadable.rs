//! Entries whose last version does not parse: what is known of them all the same.

use super::Snapshot;
use serde_json::Value;

/// What is known of an entry that does not parse.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unreadable {
    /// The account of a number, when that much can be read.
    pub waba_id: Option<String>,
}

impl Unreadable {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let fields = serde_json::from_slice::<Value>(bytes).unwrap_or_default();
        Self {
            waba_id: fields
                .get("waba_id")
                .and_then(Value::as_str)
                .map(str::to_owned),
        }
    }
}

impl Snapshot {
    /// The ids of a family's entries that do not parse, such as `phone`, and what is known of each.
    pub fn unreadable_of(&self, family: &str) -> impl Iterator<Item = (&str, &Unreadable)> {
        let entries = self.unreadable.iter();
        entries.filter_map(move |(key, known)| {
            Some((key.strip_prefix(family)?.strip_prefix('.')?, known))
        })
    }
}
