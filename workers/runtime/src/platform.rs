//! What every pool is given: the log to write to, the configuration, and the means to open secrets.

use crate::floors::FloorStore;
use crate::log::{Log, LogError};
use crate::older::Older;
use crate::tuning::Tuning;
use ackline_message::Record;
use ackline_shared::clock::now_ms;
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{TenantId, UpdateId};
use ackline_shared::model::{Entity, SecretField};
use ackline_shared::nats::Buckets;
use ackline_shared::partition;
use ackline_shared::registry::{Registry, Snapshot};
use ackline_shared::secret::Secret;
use ackline_shared::stored;
use ackline_shared::vault::{VaultError, VaultKey};
use std::sync::Arc;

/// Handles shared by the pools and the API of one process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Platform {
    pub log: Log,
    pub registry: Registry,
    pub buckets: Buckets,
    /// The live settings of the pools.
    pub tuning: Tuning,
    /// The finished updates that conversations' records have no room for.
    pub older: Older,
    /// Up to where each consumer had acknowledged everything.
    pub floors: FloorStore,
    master: Arc<VaultKey>,
}

impl Platform {
    /// Puts the handles together and starts following the live settings.
    pub fn new(log: Log, registry: Registry, buckets: Buckets, master: VaultKey) -> Self {
        let tuning = Tuning::watch(buckets.tuning.clone(), log.context().client());
        let older = Older::new(log.context().clone());
        let floors = FloorStore::new(log.context().clone(), buckets.floors.clone());
        Self {
            log,
            registry,
            buckets,
            tuning,
            older,
            floors,
            master: Arc::new(master),
        }
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.registry.snapshot()
    }

    /// Stores a record of what was done about `cause`, in the partition of its conversation; `id` makes repeats harmless.
    pub async fn record(
        &self,
        cause: &Head,
        id: &UpdateId,
        record: &Record,
    ) -> Result<(), LogError> {
        let shards = self
            .snapshot()
            .tenants
            .get(&cause.tenant)
            .map_or(1, |tenant| tenant.shards);
        let head = Head {
            id: id.clone(),
            partition: partition::of_conversation(
                &cause.tenant,
                &cause.conversation,
                shards,
                self.log.partitions(),
            ),
            family: Family::Record,
            kind: record.kind().to_owned(),
            received_ms: now_ms(),
            signature: None,
            field: None,
            replay: None,
            ..cause.clone()
        };
        self.log.write(&head, stored::encode(record).into()).await
    }

    /// The key under which data keys are sealed.
    pub fn master(&self) -> &VaultKey {
        &self.master
    }

    /// Opens a secret field of an entity.
    pub fn open(
        &self,
        entity: &impl Entity,
        field: &SecretField,
    ) -> Result<Secret<String>, VaultError> {
        self.snapshot().open(&self.master, entity.scope(), field)
    }

    /// Opens one of a tenant's named secrets; `None` when it has none of that name.
    pub fn tenant_secret(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Option<Result<Secret<String>, VaultError>> {
        let snapshot = self.snapshot();
        let owner = snapshot.tenants.get(tenant)?;
        let field = owner.secrets.get(name)?;
        Some(snapshot.open(&self.master, tenant.as_str(), field))
    }
}
