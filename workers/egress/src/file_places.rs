//! Places for files that are held in memory: few in all, and one of a tenant, whose storage may hang.

use crate::concurrency::ConcurrencyLimit;
use ackline_shared::ids::TenantId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Files that are held at once.
const IN_ALL: usize = 4;
/// Of one tenant, so that it never takes the others' places.
const OF_TENANT: u16 = 1;
/// Longest wait for a place, beside the work that a place is for.
const WAIT: Duration = Duration::from_secs(20);

/// The places of one pool.
#[derive(Debug)]
pub struct FilePlaces {
    all: Arc<Semaphore>,
    tenants: ConcurrencyLimit,
}

/// A file is held for as long as this is.
#[derive(Debug)]
pub struct FilePlace(#[expect(dead_code, reason = "held")] [OwnedSemaphorePermit; 2]);

impl Default for FilePlaces {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(IN_ALL)),
            // A quarter of an attempt is waited for a turn.
            tenants: ConcurrencyLimit::new(WAIT * 4),
        }
    }
}

impl FilePlaces {
    /// Waits for a place; `None` when none came up in time.
    pub async fn enter(&self, tenant: &TenantId) -> Option<FilePlace> {
        let turn = self.tenants.enter(tenant.as_str(), OF_TENANT).await?;
        let place = timeout(WAIT, self.all.clone().acquire_owned()).await;
        Some(FilePlace([turn, place.ok()?.ok()?]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tenant_whose_storage_hangs_leaves_the_others_their_places() {
        let places = FilePlaces::default();
        let tenant = |name: &str| TenantId::new(name).unwrap();
        let hangs = places.enter(&tenant("acme")).await;
        assert!(hangs.is_some());
        assert!(places.enter(&tenant("acme")).await.is_none());
        let mut others = Vec::new();
        for name in ["b", "c", "d"] {
            others.push(places.enter(&tenant(name)).await.expect("a place"));
        }
        assert!(
            places.enter(&tenant("e")).await.is_none(),
            "there are no more"
        );
        drop(hangs);
        assert!(places.enter(&tenant("acme")).await.is_some());
    }
}
