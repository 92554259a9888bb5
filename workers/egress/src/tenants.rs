//! What a tenant may reach beside the operator's list: each tenant with a list of its own has clients of its own, so that
//! a connection opened for one is never used for another.

use super::client::{Egress, Inner};
use ackline_shared::ids::TenantId;
use ackline_shared::model::Tenant;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Tenants with lists whose connections are kept; beyond it, all are opened anew.
const KEPT_MAX: usize = 1_000;

/// The clients of tenants with lists.
#[derive(Default)]
pub(super) struct Tenants(Mutex<HashMap<TenantId, Listed>>);

struct Listed {
    entries: Vec<String>,
    inner: Arc<Inner>,
}

impl Egress {
    /// The client for what a tenant gave: what everybody may reach, and what this tenant's list names.
    pub fn of_tenant(&self, tenant: Option<&Tenant>) -> Self {
        let Some(tenant) = tenant.filter(|tenant| !tenant.egress_allow.is_empty()) else {
            return Self {
                inner: self.base.clone(),
                ..self.clone()
            };
        };
        let entries = &tenant.egress_allow;
        let mut known = self
            .tenants
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(listed) = known
            .get(&tenant.id)
            .filter(|listed| listed.entries == *entries)
        {
            return Self {
                inner: listed.inner.clone(),
                ..self.clone()
            };
        }
        if known.len() >= KEPT_MAX {
            known.clear();
        }
        let allow = self.base.allow.with(entries.iter().map(String::as_str));
        let inner = Arc::new(self.base.allowing(allow));
        known.insert(
            tenant.id.clone(),
            Listed {
                entries: entries.clone(),
                inner: inner.clone(),
            },
        );
        Self {
            inner,
            ..self.clone()
        }
    }
}
