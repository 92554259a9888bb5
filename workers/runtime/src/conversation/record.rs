//! The record of a conversation as members by name: read, and changed by compare and set. Whatever else it holds stays.

use super::store::OwnerError;
use crate::log::to_bytes;
use async_nats::jetstream::kv::{Entry, Operation, Store, UpdateErrorKind};
use serde_json::{Map, Value, json};

/// The version of a record that holds no session, as a session counts it.
const SCHEMA: u32 = 1;
/// How often a write is tried again that lost against another one.
const ATTEMPTS_MAX: u32 = 8;

pub(super) type Fields = Map<String, Value>;

/// The records of all conversations; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Records {
    store: Store,
}

impl Records {
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// What a record holds; `None` where there never was one.
    pub async fn read(&self, key: &str) -> Result<Option<Fields>, OwnerError> {
        Ok(self.entry(key).await?.as_ref().map(fields))
    }

    /// Lets a decision see what a record holds and say what it shall hold; `None` leaves it as it is.
    pub async fn change<T>(
        &self,
        key: &str,
        decide: impl Fn(Option<Fields>) -> Result<(T, Option<Fields>), OwnerError>,
    ) -> Result<T, OwnerError> {
        let mut attempt = 1;
        loop {
            let entry = self.entry(key).await?;
            let (outcome, next) = decide(entry.as_ref().map(fields))?;
            let Some(mut next) = next else {
                return Ok(outcome);
            };
            next.entry("schema").or_insert(json!(SCHEMA));
            let revision = entry.map_or(0, |entry| entry.revision);
            match self.store.update(key, to_bytes(&next), revision).await {
                Ok(_) => return Ok(outcome),
                Err(error)
                    if error.kind() == UpdateErrorKind::WrongLastRevision
                        && attempt < ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                Err(error) => {
                    return Err(OwnerError::Away {
                        verb: "written",
                        reason: error.to_string(),
                    });
                }
            }
        }
    }

    async fn entry(&self, key: &str) -> Result<Option<Entry>, OwnerError> {
        let entry = self.store.entry(key).await;
        entry.map_err(|error| OwnerError::Away {
            verb: "read",
            reason: error.to_string(),
        })
    }
}

/// None of a record that was removed or cannot be read.
fn fields(entry: &Entry) -> Fields {
    let value = (entry.operation == Operation::Put).then_some(&entry.value);
    value
        .and_then(|value| serde_json::from_slice(value).ok())
        .unwrap_or_default()
}
