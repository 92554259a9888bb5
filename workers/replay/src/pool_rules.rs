//! What the pools say of a replay: nothing here knows a pool by name.

use ackline_shared::envelope::Head;
use ackline_shared::ids::{EntityId, TenantId};
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::Pool;

/// What a pool's targets are called and whether a tenant has such a one; none of a pool without targets.
pub type TargetOf = fn(&Snapshot, Pool, &TenantId, &EntityId) -> Option<(&'static str, bool)>;

/// What is asked of the pools before something is put before one again.
#[derive(Debug, Clone, Copy)]
pub struct PoolRules {
    pub target: TargetOf,
    /// Why none of those that an update is for would ever get it.
    pub refusal: fn(&Snapshot, Pool, &Head, &[u8]) -> Option<String>,
}

/// A replay is narrowed to a target that is not there; the words say what to name instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    #[error("the pool {0} has no targets")]
    OfPool(Pool),
    #[error("{tenant} has no {noun} `{id}`")]
    Unknown {
        tenant: TenantId,
        noun: &'static str,
        id: EntityId,
    },
}

impl PoolRules {
    /// Whether a pool has such a target.
    pub fn check_target(
        &self,
        snapshot: &Snapshot,
        tenant: &TenantId,
        pool: Pool,
        id: &EntityId,
    ) -> Result<(), NoTarget> {
        match (self.target)(snapshot, pool, tenant, id) {
            Some((_, true)) => Ok(()),
            Some((noun, false)) => Err(NoTarget::Unknown {
                tenant: tenant.clone(),
                noun,
                id: id.clone(),
            }),
            None => Err(NoTarget::OfPool(pool)),
        }
    }
}
