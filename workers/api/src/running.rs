//! Requests with an `Idempotency-Key` that are not answered yet: another one with the same key is told to come back.
//!
//! Only this process's own are known here. The log decides about those of others, and about those beyond the bound: it
//! stores one, and compares the rest with it.

use super::problem::Problem;
use ackline_shared::ids::TenantId;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Requests of one tenant that are known.
const OF_TENANT_MAX: usize = 256;

type Known = Arc<Mutex<HashMap<TenantId, HashSet<String>>>>;

#[derive(Debug, Clone, Default)]
pub struct Running(Known);

/// One that runs, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    known: Known,
    tenant: TenantId,
    id: Option<String>,
}

impl Running {
    /// Begins a request for the message that its key stands for; refused while another one runs.
    pub fn begin(&self, tenant: &TenantId, id: &str) -> Result<Turn, Problem> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = known.entry(tenant.clone()).or_default();
        if own.contains(id) {
            return Err(Problem::IdempotencyRunning);
        }
        let id = (own.len() < OF_TENANT_MAX).then(|| id.to_owned());
        own.extend(id.clone());
        Ok(Turn {
            known: self.0.clone(),
            tenant: tenant.clone(),
            id,
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(id) = &self.id else { return };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = known.get_mut(&self.tenant) {
            own.remove(id);
            if own.is_empty() {
                known.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_runs_once_at_a_time_and_is_forgotten_afterwards() {
        let (running, acme) = (Running::default(), TenantId::new("acme").unwrap());
        let first = running.begin(&acme, "api_1").unwrap();
        assert_eq!(
            running.begin(&acme, "api_1").unwrap_err(),
            Problem::IdempotencyRunning
        );
        let others = (
            running.begin(&acme, "api_2").unwrap(),
            TenantId::new("globex").unwrap(),
        );
        let globex = running.begin(&others.1, "api_1").unwrap();
        drop(first);
        let again = running.begin(&acme, "api_1").unwrap();
        drop((again, others, globex));
        assert!(running.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_tenant_that_runs_too_many_is_left_to_the_log() {
        let (running, acme) = (Running::default(), TenantId::new("acme").unwrap());
        let known: Vec<_> = (0..OF_TENANT_MAX)
            .map(|n| running.begin(&acme, &n.to_string()).unwrap())
            .collect();
        let beyond = [(); 2].map(|()| running.begin(&acme, "one more").unwrap());
        assert_eq!(running.0.lock().unwrap()[&acme].len(), OF_TENANT_MAX);
        drop((known, beyond));
        assert!(running.0.lock().unwrap().is_empty());
    }
}
