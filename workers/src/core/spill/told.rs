//! What is told of the lines: how much waits in them, and whose it is.

use super::Spill;
use crate::core::status::notable::Lines;
use ackline_shared::ids::TenantId;
use std::collections::HashMap;

impl Spill {
    /// How many updates wait in lines, by tenant, as far as is known.
    pub fn lines(&self) -> HashMap<TenantId, Lines> {
        let mut lines: HashMap<TenantId, Lines> = HashMap::new();
        for (name, line) in &self.lines {
            let unread = line.unread();
            if unread == 0 {
                continue;
            }
            let of_tenant = lines.entry(name.tenant.clone()).or_default();
            match name.conversation {
                None => of_tenant.moved += unread,
                Some(_) => of_tenant.parked += unread,
            }
        }
        lines
    }

    /// How many of a tenant's updates in lines may have been received until a time; `None` while the lines of a
    /// partition are not looked up.
    pub fn unfinished_of(&self, tenant: &TenantId, until_ms: u64) -> Option<u64> {
        if self.known.values().any(|known| known.waiting.is_some()) {
            return None;
        }
        let of_tenant = self.lines.iter().filter(|(name, _)| name.tenant == *tenant);
        Some(of_tenant.map(|(_, line)| line.unread_until(until_ms)).sum())
    }
}
