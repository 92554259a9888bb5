//! Writing what is declared: every write expects the revision that its author saw, so nobody overwrites another unseen.

use super::check;
use super::part::SealError;
use super::plan::{self, Change, Content, Plan};
use super::quota::{Excess, Ledger, Limits};
use super::references;
use super::stored::{Stored, StoredEntry};
use ackline_shared::ids::TenantId;
use ackline_shared::model::{Entity, Fault, Faults};
use ackline_shared::registry::{Held, Registry};
use ackline_shared::stored::{self, Newer};
use ackline_shared::subjects::{BUCKET_CONFIG, config_key};
use ackline_shared::vault::VaultKey;
use async_nats::jetstream::kv::{CreateErrorKind, Operation, Store, UpdateErrorKind};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

/// Longest time until the configuration in memory shows what is stored.
const MEMORY_WAIT: Duration = Duration::from_secs(3);

/// Why a key was not written.
#[derive(Debug)]
pub enum PutError {
    /// Somebody else was faster.
    Conflict,
    /// The store does not say that it is written.
    Away(String),
    /// A part has no stored form.
    Seal(SealError),
}

/// Carries a plan out in order; `done` is called after each change. An error comes with the change that it stopped at.
pub async fn carry_out<'p>(
    store: &Store,
    plan: &'p Plan,
    master: &VaultKey,
    mut done: impl FnMut(),
) -> Result<(), (&'p Change, PutError)> {
    let mut keyring = plan.keyring.clone();
    for change in &plan.changes {
        let written = match content(change, master, &mut keyring).map_err(PutError::Seal) {
            Ok(Some(value)) => put(store, &change.key, value, change.revision)
                .await
                .map(drop),
            Ok(None) => remove(store, &change.key, change.revision).await,
            Err(error) => Err(error),
        };
        written.map_err(|error| (change, error))?;
        done();
    }
    Ok(())
}

fn content(
    change: &Change,
    master: &VaultKey,
    keyring: &mut BTreeMap<String, VaultKey>,
) -> Result<Option<Vec<u8>>, SealError> {
    match &change.content {
        Content::Nothing => Ok(None),
        Content::DataKey(scope) => {
            let fresh = VaultKey::generate();
            let sealed = fresh.seal_under(master, scope);
            keyring.insert(scope.clone(), fresh);
            Ok(Some(serde_json::to_vec(&sealed)?))
        }
        Content::Part(part) => {
            // A part without secrets seals nothing, so the key is not used.
            let data_key = keyring.get(part.scope()).unwrap_or(master);
            let part = part.as_ref().clone();
            part.seal(data_key, change.before.as_deref()).map(Some)
        }
    }
}

/// Writes a key that must still have this revision, or be absent.
async fn put(
    store: &Store,
    key: &str,
    value: Vec<u8>,
    revision: Option<u64>,
) -> Result<u64, PutError> {
    match revision {
        None => store
            .create(key, value.into())
            .await
            .map_err(|error| match error.kind() {
                CreateErrorKind::AlreadyExists => PutError::Conflict,
                _ => PutError::Away(error.to_string()),
            }),
        Some(revision) => store
            .update(key, value.into(), revision)
            .await
            .map_err(|error| match error.kind() {
                UpdateErrorKind::WrongLastRevision => PutError::Conflict,
                _ => PutError::Away(error.to_string()),
            }),
    }
}

async fn remove(store: &Store, key: &str, revision: Option<u64>) -> Result<(), PutError> {
    // A removed data key must not stay readable in the history.
    let removed = match key.starts_with(&config_key::data_key("")) {
        true => store
            .purge_expect_revision(key, revision)
            .await
            .map_err(|error| error.to_string()),
        false => store
            .delete_expect_revision(key, revision)
            .await
            .map_err(|error| error.to_string()),
    };
    let Err(reason) = removed else {
        return Ok(());
    };
    // The client does not tell a wrong revision from other errors when it removes.
    let now = store
        .entry(key)
        .await
        .ok()
        .flatten()
        .map(|entry| entry.revision);
    match now.is_some() && now != revision {
        true => Err(PutError::Conflict),
        false => Err(PutError::Away(reason)),
    }
}

/// What an author expects of what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    Any,
    Present,
    Absent,
    /// That it is this revision.
    Revision(u64),
}

impl Expectation {
    /// Tells whether it holds for what is stored under a revision.
    pub fn holds(self, stored: Option<u64>) -> bool {
        match self {
            Self::Any => true,
            Self::Present => stored.is_some(),
            Self::Absent => stored.is_none(),
            Self::Revision(revision) => stored == Some(revision),
        }
    }
}

/// Why one entity was not read, written or deleted.
#[derive(Debug)]
pub enum WriteError {
    /// There is none.
    Absent,
    /// What is stored does not parse.
    Unreadable,
    /// What is wrong with it.
    Refused(Vec<Fault>),
    /// The limits that its tenant would go beyond.
    Beyond(Vec<Excess>),
    /// A newer version of Ackline wrote it.
    Newer(Newer),
    /// It is used; by whom.
    InUse(String),
    /// It is not as its author expects.
    Unexpected,
    /// Somebody else changed it meanwhile.
    Conflict,
    /// The store, or what memory shows of it, cannot be reached.
    Away,
}

/// What was written.
#[derive(Debug)]
pub struct Written {
    pub revision: u64,
    pub is_new: bool,
    /// What its author should look at.
    pub warnings: Vec<Fault>,
}

/// The declared entities of an installation, written one at a time.
#[derive(Debug)]
pub struct Catalog {
    config: Store,
    registry: Registry,
    limits: Limits,
    ledger: Ledger,
}

impl Catalog {
    pub fn new(config: Store, registry: Registry, limits: Limits) -> Self {
        let ledger = Ledger::default();
        Self {
            config,
            registry,
            limits,
            ledger,
        }
    }

    /// What is stored under a key.
    pub async fn entry(&self, key: &str) -> Result<Option<StoredEntry>, WriteError> {
        let entry = self
            .config
            .entry(key)
            .await
            .map_err(|error| away(key, &error))?;
        let stored = entry.filter(|entry| entry.operation == Operation::Put);
        Ok(stored.map(|entry| StoredEntry {
            revision: entry.revision,
            value: entry.value,
        }))
    }

    /// The entity under a key, with its revision.
    pub async fn load<T: Entity>(&self, key: &str) -> Result<(T, u64), WriteError> {
        let entry = self.entry(key).await?.ok_or(WriteError::Absent)?;
        Ok((decoded(key, &entry.value)?, entry.revision))
    }

    /// Checks an entity and writes it, if it is as expected and its tenant has room for it. What has secrets, only a plan
    /// writes.
    pub async fn save<T: Entity>(
        &self,
        entity: &T,
        expected: Expectation,
    ) -> Result<Written, WriteError> {
        const { assert!(T::SECRETS.is_empty()) };
        let key = entity.config_key();
        let mut faults = check::by_itself(entity);
        faults.0.extend(self.missing(entity).await?.0);
        if faults.refuse() {
            return Err(WriteError::Refused(faults.0));
        }
        let entry = self.entry(&key).await?;
        let (revision, before) = entry.map(|entry| (entry.revision, entry.value)).unzip();
        if !expected.holds(revision) {
            return Err(WriteError::Unexpected);
        }
        let value = match &before {
            Some(before) => stored::encode_over(entity, before).map_err(WriteError::Newer)?,
            None => stored::encode(entity),
        };
        self.take_room(Entity::owner(entity), &key, &value)?;
        let written = put(&self.config, &key, value, revision).await;
        if let (Err(_), Some(tenant)) = (&written, Entity::owner(entity)) {
            self.ledger.cancel(tenant, &key);
        }
        Ok(Written {
            revision: written.map_err(|error| refused(&key, error, expected))?,
            is_new: revision.is_none(),
            warnings: faults.0,
        })
    }

    /// What an entity refers to and there is not; what was declared a moment ago may not have reached memory yet.
    async fn missing(&self, entity: &dyn Held) -> Result<Faults, WriteError> {
        let faults = check::missing(entity, &self.registry.snapshot());
        if !faults.refuse() {
            return Ok(faults);
        }
        self.see_all().await?;
        Ok(check::missing(entity, &self.registry.snapshot()))
    }

    fn take_room(
        &self,
        tenant: Option<&TenantId>,
        key: &str,
        value: &[u8],
    ) -> Result<(), WriteError> {
        let Some(tenant) = tenant else {
            return Ok(());
        };
        let size = u64::try_from(value.len()).unwrap_or(u64::MAX);
        let shown = self.registry.snapshot().sizes(tenant);
        self.ledger
            .take(&self.limits, tenant, shown, (key, size), Instant::now())
            .map_err(WriteError::Beyond)
    }

    /// Deletes what was found under a key, if it is as expected and nothing refers to it.
    pub async fn delete(
        &self,
        key: &str,
        entry: Option<StoredEntry>,
        expected: Expectation,
        master: &VaultKey,
    ) -> Result<(), WriteError> {
        if !expected.holds(entry.as_ref().map(|entry| entry.revision)) {
            return Err(WriteError::Unexpected);
        }
        let entry = entry.ok_or(WriteError::Absent)?;
        self.see_all().await?;
        let snapshot = self.registry.snapshot();
        let referrers = references::referrers(&snapshot, key);
        if !referrers.is_empty() {
            return Err(WriteError::InUse(references::in_use(key, &referrers)));
        }
        let owner = snapshot.get(key).and_then(|held| held.tenant().cloned());
        let mut stored = Stored(BTreeMap::from([(key.to_owned(), entry)]));
        if let Some(tenant) = key.strip_prefix("tenant.") {
            let data_key = config_key::data_key(tenant);
            let entry = self.entry(&data_key).await?;
            stored.0.extend(entry.map(|entry| (data_key, entry)));
        }
        let plan = Plan {
            changes: plan::removal(&stored, key),
            ..Plan::default()
        };
        let removed = carry_out(&self.config, &plan, master, || ()).await;
        removed.map_err(|(change, error)| refused(&change.key, error, expected))?;
        if let Some(tenant) = owner {
            self.ledger.give_back(&tenant, key, Instant::now());
        }
        Ok(())
    }

    /// Waits until memory shows everything that is stored by now.
    async fn see_all(&self) -> Result<(), WriteError> {
        let all = format!("$KV.{BUCKET_CONFIG}.>");
        let last = self
            .config
            .stream
            .get_last_raw_message_by_subject(&all)
            .await;
        let last = last.map_err(|error| away(&all, &error))?.sequence;
        match self.registry.reached(last, MEMORY_WAIT).await {
            true => Ok(()),
            false => Err(away(&all, &"the configuration in memory is behind")),
        }
    }
}

fn decoded<T: Entity>(key: &str, value: &[u8]) -> Result<T, WriteError> {
    stored::decode(value).map_err(|error| {
        tracing::error!(key, %error, "this configuration entry does not parse");
        WriteError::Unreadable
    })
}

fn refused(key: &str, error: PutError, expected: Expectation) -> WriteError {
    match (error, expected) {
        (PutError::Conflict, Expectation::Any) => WriteError::Conflict,
        (PutError::Conflict, _) => WriteError::Unexpected,
        (PutError::Away(reason), _) => away(key, &reason),
        (PutError::Seal(error), _) => away(key, &error),
    }
}

fn away(key: &str, error: &dyn Display) -> WriteError {
    tracing::warn!(key, %error, "the configuration cannot be reached");
    WriteError::Away
}
