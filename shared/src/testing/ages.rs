//! Records of every age: golden files that hold what this version writes, and what earlier ones wrote.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "only tests run this; a failure here is a failed test"
)]

use crate::stored::{self, Stored};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt::Debug;
use std::path::{Path, PathBuf};

/// A golden file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ages {
    /// What this version writes, with every field it has.
    pub today: Value,
    /// What earlier versions wrote; never taken away.
    pub older: Vec<Value>,
    /// What later ones may write of the same version, with fields that stay when this one writes over it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Value>,
}

impl Ages {
    /// Reads the golden file of a kind.
    pub fn read(directory: &Path, kind: &str) -> (PathBuf, Self) {
        let path = directory.join(format!("{kind}.json"));
        let text =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, serde_json::from_slice(&text).unwrap())
    }

    /// What this version writes, as a later one may write it.
    pub fn tomorrow(&self, version: &str) -> Vec<u8> {
        let mut tomorrow = self.today.clone();
        tomorrow["of_tomorrow"] = json!({"a": [1, "b"]});
        tomorrow[version] = json!(1000);
        tomorrow.to_string().into_bytes()
    }
}

/// Makes sure that a kind of record reads whatever version wrote it, and is written as the golden file says.
pub fn check_ages<T: Stored + PartialEq + Debug>(directory: &Path, kind: &str) {
    let (path, mut ages) = Ages::read(directory, kind);
    let today: T = stored::decode(ages.today.to_string().as_bytes())
        .unwrap_or_else(|error| panic!("{kind}: {error}"));
    let written: Value = serde_json::from_slice(&stored::encode(&today)).unwrap();
    if std::env::var_os("ACKLINE_UPDATE_GOLDEN").is_some() && written != ages.today {
        ages.older
            .push(std::mem::replace(&mut ages.today, written.clone()));
        std::fs::write(path, serde_json::to_string_pretty(&ages).unwrap() + "\n").unwrap();
    }
    assert_eq!(written, ages.today, "{kind} is written otherwise");
    assert_eq!(written["v"], json!(T::V), "{kind}");
    let tomorrow = ages.tomorrow("v");
    let read: T = stored::decode(&tomorrow)
        .unwrap_or_else(|error| panic!("{kind} of a later version: {error}"));
    assert_eq!(read, today, "{kind}");
    assert!(
        stored::encode_over(&today, &tomorrow).is_err(),
        "{kind} would write over a later version"
    );
    for later in &ages.kept {
        let bytes = later.to_string().into_bytes();
        let read: T = stored::decode(&bytes).unwrap_or_else(|error| panic!("{kind}: {error}"));
        let written = stored::encode_over(&read, &bytes).unwrap();
        let written: Value = serde_json::from_slice(&written).unwrap();
        assert!(
            holds(&written, later),
            "{kind} loses some of {later}: {written}"
        );
    }
    for older in &ages.older {
        let read = stored::decode::<T>(older.to_string().as_bytes());
        read.unwrap_or_else(|error| panic!("{kind} of an earlier version: {error}: {older}"));
    }
}

/// Whether every field of the one is in the other.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(name, value)| whole.get(name).is_some_and(|whole| holds(whole, value))),
        (whole, part) => whole == part,
    }
}
