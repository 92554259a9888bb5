//! What memory keeps of an entity, whatever its kind.

use super::HeldFlow;
use crate::ids::{AppId, EntityId, PhoneNumberId, TenantId};
use crate::model::{Entity, Reference};
use crate::stored;
use serde_json::{Value, json};
use std::fmt;

/// An entity as memory holds it.
pub trait Held: fmt::Debug + Send + Sync {
    /// Reads a stored entity.
    fn read(bytes: &[u8]) -> Result<Self, serde_json::Error>
    where
        Self: Sized;

    /// Its key in the `config` bucket.
    fn key(&self) -> String;

    /// Whose it is.
    fn tenant(&self) -> Option<&TenantId>;

    /// What it needs beside its tenant.
    fn refers_to(&self) -> Vec<Reference>;

    /// The bytes that it counts for.
    fn stored_bytes(&self) -> u64;

    /// Its fields, its secrets as they are stored.
    fn fields(&self) -> Value;
}

impl<T: Entity> Held for T {
    fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        stored::decode(bytes)
    }

    fn key(&self) -> String {
        self.config_key()
    }

    fn tenant(&self) -> Option<&TenantId> {
        Entity::owner(self)
    }

    fn refers_to(&self) -> Vec<Reference> {
        Entity::references(self)
    }

    fn stored_bytes(&self) -> u64 {
        let bytes = serde_json::to_vec(self).map_or(0, |bytes| bytes.len());
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    fn fields(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl Held for HeldFlow {
    fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        Self::read(bytes)
    }

    fn key(&self) -> String {
        self.config_key()
    }

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.tenant)
    }

    fn refers_to(&self) -> Vec<Reference> {
        Vec::new()
    }

    fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    fn fields(&self) -> Value {
        json!({"id": self.id, "tenant": self.tenant, "definition": self.definition().unwrap_or_default()})
    }
}

/// What a map of entities is keyed by: the whole key, where that names the tenant, else the id.
pub(super) trait MapKey: Ord + Sized {
    fn of(config_key: &str) -> Option<Self>;

    /// Where a tenant's keys begin, when they are neighbours.
    fn start(_prefix: &str) -> Option<Self> {
        None
    }
}

impl MapKey for String {
    fn of(config_key: &str) -> Option<Self> {
        Some(config_key.to_owned())
    }

    fn start(prefix: &str) -> Option<Self> {
        Some(prefix.to_owned())
    }
}

macro_rules! keyed_by_id {
    ($($Id:ident),*) => {
        $(impl MapKey for $Id {
            fn of(config_key: &str) -> Option<Self> {
                Self::new(config_key.split_once('.')?.1).ok()
            }
        })*
    };
}
keyed_by_id!(AppId, EntityId, PhoneNumberId, TenantId);
