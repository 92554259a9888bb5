//! How many large requests are worked on at once: each tenant has a few places, and all together have some more, so that
//! neither one tenant nor many at once take the memory that the pools work in.

use super::problem::Problem;
use ackline_shared::ids::TenantId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

const PLACES: usize = 8;
const PLACES_OF_TENANT: usize = 2;
/// Longest time a request waits for a place.
const WAIT: Duration = Duration::from_secs(5);

/// The places.
#[derive(Debug)]
pub struct Gate {
    all: Arc<Semaphore>,
    tenants: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
}

/// A place; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_tenant: OwnedSemaphorePermit,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(PLACES)),
            tenants: Mutex::default(),
        }
    }
}

impl Gate {
    /// Waits for a place, not for long.
    pub async fn enter(&self, tenant: &TenantId) -> Result<Place, Problem> {
        let own = self.own(tenant);
        let places = async {
            // Whoever waits for the tenant's own places takes none of the common ones meanwhile.
            let of_tenant = own.acquire_owned().await.ok()?;
            Some(Place {
                _of_all: self.all.clone().acquire_owned().await.ok()?,
                _of_tenant: of_tenant,
            })
        };
        timeout(WAIT, places)
            .await
            .ok()
            .flatten()
            .ok_or(Problem::Busy)
    }

    fn own(&self, tenant: &TenantId) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        // Places that nobody has or waits for are known to the map alone.
        tenants.retain(|known, places| known == tenant || Arc::strong_count(places) > 1);
        tenants
            .entry(tenant.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(PLACES_OF_TENANT)))
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
        let gate = Gate::default();
        let (first, second) = (
            gate.enter(&tenant("acme")).await.unwrap(),
            gate.enter(&tenant("acme")).await.unwrap(),
        );
        assert_eq!(
            gate.enter(&tenant("acme")).await.unwrap_err(),
            Problem::Busy
        );
        let other = gate.enter(&tenant("globex")).await.unwrap();
        drop(first);
        let third = gate.enter(&tenant("acme")).await.unwrap();
        drop((second, third, other));
        gate.enter(&tenant("initech")).await.unwrap();
        assert_eq!(
            gate.tenants.lock().unwrap().len(),
            1,
            "nothing is remembered of who has no place"
        );
        assert_eq!(gate.all.available_permits(), PLACES);
    }

    #[tokio::test(start_paused = true)]
    async fn all_tenants_together_have_a_bounded_number() {
        let gate = Gate::default();
        let mut places = Vec::new();
        for n in 0..PLACES {
            places.push(gate.enter(&tenant(&format!("t{n}"))).await.unwrap());
        }
        assert_eq!(
            gate.enter(&tenant("late")).await.unwrap_err(),
            Problem::Busy
        );
        places.pop();
        gate.enter(&tenant("late")).await.unwrap();
    }
}
