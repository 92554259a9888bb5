//! How many large requests are worked on at once: each tenant has a few slots, and all together have some more, so that
//! neither one tenant nor many at once take the memory that the pools work in.

use super::problem::Problem;
use ackline_shared::ids::TenantId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

const SLOTS: usize = 8;
const SLOTS_OF_TENANT: usize = 2;
/// Longest time a request waits for a slot.
const WAIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Slots {
    all: Arc<Semaphore>,
    tenants: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
}

/// A slot; given back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    _of_all: OwnedSemaphorePermit,
    _of_tenant: OwnedSemaphorePermit,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(SLOTS)),
            tenants: Mutex::default(),
        }
    }
}

impl Slots {
    /// Waits for a slot, not for long.
    pub async fn enter(&self, tenant: &TenantId) -> Result<Slot, Problem> {
        let own = self.own(tenant);
        let taken = async {
            // Whoever waits for the tenant's own slots takes none of the common ones meanwhile.
            let of_tenant = own.acquire_owned().await.ok()?;
            Some(Slot {
                _of_all: self.all.clone().acquire_owned().await.ok()?,
                _of_tenant: of_tenant,
            })
        };
        timeout(WAIT, taken)
            .await
            .ok()
            .flatten()
            .ok_or(Problem::Busy)
    }

    fn own(&self, tenant: &TenantId) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        // Slots that nobody has or waits for are known to the map alone.
        tenants.retain(|known, taken| known == tenant || Arc::strong_count(taken) > 1);
        tenants
            .entry(tenant.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(SLOTS_OF_TENANT)))
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_has_its_places_and_the_others_theirs() {
        let slots = Slots::default();
        let (first, second) = (
            slots.enter(&tenant("acme")).await.unwrap(),
            slots.enter(&tenant("acme")).await.unwrap(),
        );
        assert_eq!(
            slots.enter(&tenant("acme")).await.unwrap_err(),
            Problem::Busy
        );
        let other = slots.enter(&tenant("globex")).await.unwrap();
        drop(first);
        let third = slots.enter(&tenant("acme")).await.unwrap();
        drop((second, third, other));
        slots.enter(&tenant("initech")).await.unwrap();
        assert_eq!(
            slots.tenants.lock().unwrap().len(),
            1,
            "nothing is remembered of who has no slot"
        );
        assert_eq!(slots.all.available_permits(), SLOTS);
    }

    #[tokio::test(start_paused = true)]
    async fn all_tenants_together_have_a_bounded_number() {
        let slots = Slots::default();
        let mut taken = Vec::new();
        for n in 0..SLOTS {
            taken.push(slots.enter(&tenant(&format!("t{n}"))).await.unwrap());
        }
        assert_eq!(
            slots.enter(&tenant("late")).await.unwrap_err(),
            Problem::Busy
        );
        taken.pop();
        slots.enter(&tenant("late")).await.unwrap();
    }
}
