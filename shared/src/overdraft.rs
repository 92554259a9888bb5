//! What a tenant holds of the streams beyond its share: written by the workers, obeyed by the edge and the API.
//!
//! It stands in the bucket that both follow anyway, is not declared by anybody, and is gone when it is over.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A tenant's overdrafts, by stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overdraft {
    /// The version of this record's shape.
    #[serde(default)]
    pub v: u32,
    /// Since when, in unix milliseconds.
    #[serde(default)]
    pub at_ms: u64,
    /// What it holds of which stream.
    #[serde(default)]
    pub streams: BTreeMap<String, Holding>,
}

/// What a tenant holds of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Bytes, when it was written down.
    #[serde(default)]
    pub bytes: u64,
    /// Bytes that it may hold.
    #[serde(default)]
    pub limit: u64,
}

impl Overdraft {
    /// The version of what this program writes.
    pub const VERSION: u32 = 1;

    /// Whether it is about one of these streams.
    pub fn is_of(&self, streams: &[&str]) -> bool {
        streams
            .iter()
            .any(|stream| self.streams.contains_key(*stream))
    }

    /// In words for people.
    pub fn words(&self) -> String {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let of = |(stream, held): (&String, &Holding)| {
            format!(
                "it holds {} MiB of {stream} and may hold {}",
                mib(held.bytes),
                mib(held.limit)
            )
        };
        self.streams.iter().map(of).collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subjects::{DEAD, UPDATES};

    #[test]
    fn what_another_version_wrote_is_read() {
        let newer =
            r#"{"v":2,"at_ms":5,"why":"x","streams":{"DEAD":{"bytes":9,"limit":7,"count":1}}}"#;
        let read: Overdraft = serde_json::from_str(newer).unwrap();
        assert!(read.is_of(&[UPDATES, DEAD]) && !read.is_of(&[UPDATES]));
        assert_eq!(
            serde_json::from_str::<Overdraft>("{}").unwrap(),
            Overdraft::default()
        );
        assert_eq!(read.words(), "it holds 1 MiB of DEAD and may hold 1");
    }
}
