//! Everything declared, at one moment: a map for each kind of entity, and what is the same for all of them.

use super::held::{Held, MapKey};
use super::{HeldFlow, Unreadable};
use crate::ids::{AppId, EntityId, PhoneNumberId, TenantId};
use crate::model::{self, App, Entity, SecretField};
use crate::overdraft::Overdraft;
use crate::secret::Secret;
use crate::vault::{Sealed, VaultError, VaultKey};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

macro_rules! held_as {
    ($Type:ident) => {
        model::$Type
    };
    ($Type:ident $Held:ty) => {
        $Held
    };
}

macro_rules! snapshot {
    ($($section:ident: $Type:ident [$Key:ty $(=> $Held:ty)?],)*) => {
        /// Everything declared, at one moment.
        #[derive(Debug, Clone, Default)]
        pub struct Snapshot {
            /// Grows with every change; equal numbers mean equal content.
            pub version: u64,
            /// The revision of the last entry that was folded in, where the source says it.
            pub revision: u64,
            $(
                #[doc = concat!("Every entity of `[[", stringify!($section), "]]`.")]
                pub $section: BTreeMap<$Key, Arc<held_as!($Type $($Held)?)>>,
            )*
            /// Who holds more of the streams than its share.
            pub overdrafts: BTreeMap<TenantId, Arc<Overdraft>>,
            /// Entries whose last version does not parse, by config key.
            pub unreadable: BTreeMap<String, Unreadable>,
            pub(super) data_keys: BTreeMap<String, Sealed>,
        }

        impl Snapshot {
            fn fold_entity(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), serde_json::Error> {
                match family(key) {
                    $(model::$Type::FAMILY => fold_into(&mut self.$section, key, value),)*
                    _ => Ok(()),
                }
            }

            fn inherit_entity(&mut self, key: &str, before: &Self) {
                match family(key) {
                    $(model::$Type::FAMILY => copy(&mut self.$section, &before.$section, MapKey::of(key)),)*
                    _ => {}
                }
            }

            /// What is declared under a key.
            pub fn get(&self, key: &str) -> Option<&dyn Held> {
                match family(key) {
                    $(model::$Type::FAMILY => find(&self.$section, key),)*
                    _ => None,
                }
            }

            /// Everything declared.
            pub fn all(&self) -> impl Iterator<Item = &dyn Held> {
                std::iter::empty()$(.chain(self.$section.values().map(held)))*
            }

            /// Everything declared of a family, in order, after a key.
            pub fn after(&self, key: &str) -> Box<dyn Iterator<Item = &dyn Held> + '_> {
                match family(key) {
                    $(model::$Type::FAMILY => Box::new(after(&self.$section, key)),)*
                    _ => Box::new(std::iter::empty()),
                }
            }

            /// Everything that is a tenant's, itself among it.
            pub fn all_of(&self, tenant: &TenantId) -> impl Iterator<Item = &dyn Held> {
                std::iter::empty()$(.chain(all_of::<model::$Type, _, _>(&self.$section, tenant)))*
            }
        }
    };
}
crate::entities!(snapshot);

impl Snapshot {
    /// What one tenant owns in a map keyed by config key, in order of id.
    pub fn owned<'a, T>(
        map: &'a BTreeMap<String, Arc<T>>,
        family: &str,
        tenant: &TenantId,
    ) -> impl Iterator<Item = &'a Arc<T>> {
        let prefix = format!("{family}.{tenant}.");
        let range = map.range(prefix.clone()..);
        range
            .take_while(move |(key, _)| key.starts_with(&prefix))
            .map(|(_, value)| value)
    }

    /// The tenants that have declared something of a family; `None` where that cannot be told.
    pub fn owners<T>(
        &self,
        map: &BTreeMap<String, Arc<T>>,
        family: &str,
    ) -> Option<BTreeSet<TenantId>> {
        let of_family = |key: &String| key.split('.').next() == Some(family);
        if self.unreadable.keys().any(of_family) {
            return None;
        }
        let mut owners = BTreeSet::new();
        for key in map.keys() {
            owners.insert(TenantId::new(key.split('.').nth(1)?).ok()?);
        }
        Some(owners)
    }

    /// What a tenant has declared, by config key, with the bytes that each takes in the bucket. An app is not counted.
    pub fn sizes(&self, tenant: &TenantId) -> BTreeMap<String, u64> {
        let all = self
            .all_of(tenant)
            .map(|held| (held.key(), held.stored_bytes()));
        all.filter(|(key, _)| family(key) != App::FAMILY).collect()
    }

    /// The tenant that account-level updates of a WABA belong to.
    pub fn tenant_of_waba(&self, waba: &str) -> Option<&TenantId> {
        self.phone_numbers
            .values()
            .find(|phone| phone.waba_id == waba)
            .map(|phone| &phone.tenant)
    }

    /// Opens a stored secret of an entity.
    pub fn open(
        &self,
        master: &VaultKey,
        scope: &str,
        field: &SecretField,
    ) -> Result<Secret<String>, VaultError> {
        let sealed = self
            .data_keys
            .get(scope)
            .ok_or_else(|| VaultError::NoDataKey {
                scope: scope.to_owned(),
            })?;
        field.open(&VaultKey::open_under(master, scope, sealed)?, scope)
    }

    /// The sealed data key of a scope, if it has one.
    pub fn data_key(&self, scope: &str) -> Option<&Sealed> {
        self.data_keys.get(scope)
    }

    /// Folds one change in; `None` as value means the key was removed. After an error what the key said before is
    /// still there.
    pub fn fold(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), serde_json::Error> {
        self.version += 1;
        let folded = self.fold_entry(key, value);
        match (&folded, value) {
            (Err(_), Some(bytes)) => drop(
                self.unreadable
                    .insert(key.to_owned(), Unreadable::new(bytes)),
            ),
            _ => drop(self.unreadable.remove(key)),
        }
        folded
    }

    fn fold_entry(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), serde_json::Error> {
        let Some((family, id)) = key.split_once('.') else {
            return Ok(());
        };
        match (family, value) {
            ("overdraft", value) => {
                let Ok(id) = TenantId::new(id) else {
                    return Ok(());
                };
                match value {
                    Some(bytes) => drop(
                        self.overdrafts
                            .insert(id, Arc::new(serde_json::from_slice(bytes)?)),
                    ),
                    None => drop(self.overdrafts.remove(&id)),
                }
            }
            ("datakey", Some(bytes)) => drop(
                self.data_keys
                    .insert(id.to_owned(), serde_json::from_slice(bytes)?),
            ),
            ("datakey", None) => drop(self.data_keys.remove(id)),
            _ => self.fold_entity(key, value)?,
        }
        Ok(())
    }

    /// Takes over what another snapshot says under a key.
    pub(super) fn inherit(&mut self, key: &str, before: &Self) {
        match key.split_once('.') {
            Some(("datakey", scope)) => copy(
                &mut self.data_keys,
                &before.data_keys,
                Some(scope.to_owned()),
            ),
            _ => self.inherit_entity(key, before),
        }
    }
}

fn family(key: &str) -> &str {
    key.split_once('.').map_or("", |(family, _)| family)
}

fn held<T: Held>(entity: &Arc<T>) -> &dyn Held {
    entity.as_ref()
}

fn fold_into<K: MapKey, T: Held>(
    map: &mut BTreeMap<K, Arc<T>>,
    key: &str,
    value: Option<&[u8]>,
) -> Result<(), serde_json::Error> {
    let Some(key) = K::of(key) else {
        return Ok(());
    };
    match value {
        Some(bytes) => map.insert(key, Arc::new(T::read(bytes)?)),
        None => map.remove(&key),
    };
    Ok(())
}

fn copy<K: Ord, V: Clone>(map: &mut BTreeMap<K, V>, before: &BTreeMap<K, V>, key: Option<K>) {
    let found = key.and_then(|key| Some((before.get(&key)?.clone(), key)));
    if let Some((value, key)) = found {
        map.insert(key, value);
    }
}

fn find<'a, K: MapKey, T: Held>(map: &'a BTreeMap<K, Arc<T>>, key: &str) -> Option<&'a dyn Held> {
    map.get(&K::of(key)?).map(held)
}

fn after<'a, K: MapKey, T: Held>(
    map: &'a BTreeMap<K, Arc<T>>,
    key: &str,
) -> impl Iterator<Item = &'a dyn Held> + use<'a, K, T> {
    let start = K::of(key).map_or(Bound::Unbounded, Bound::Excluded);
    map.range((start, Bound::Unbounded))
        .map(|(_, entity)| held(entity))
}

fn all_of<'a, T: Entity, K: MapKey, H: Held>(
    map: &'a BTreeMap<K, Arc<H>>,
    tenant: &TenantId,
) -> impl Iterator<Item = &'a dyn Held> {
    let start = K::start(&format!("{}.{tenant}.", T::FAMILY));
    let is_neighbour = start.is_some();
    let range = map.range((
        start.map_or(Bound::Unbounded, Bound::Included),
        Bound::Unbounded,
    ));
    let is_its = move |entity: &&dyn Held| entity.tenant() == Some(tenant);
    let all = range.map(|(_, entity)| held(entity));
    all.take_while(move |entity| !is_neighbour || is_its(entity))
        .filter(is_its)
}
