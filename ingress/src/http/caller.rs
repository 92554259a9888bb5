//! Who is at the other end of a connection, as far as bounds go: unverified until it brings a valid signature.
//!
//! Whoever signs for an app that several tenants share is Meta. Whoever signs for a tenant's own app may be that tenant, who
//! must not hold what others need.

use crate::budget::Budget;
use crate::http::eviction::Evictable;
use crate::http::per_address_limit::AddressPermit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Whoever sends requests on a connection or, behind a balancer, through one.
#[derive(Debug, Default)]
pub struct Caller {
    address_permit: Option<AddressPermit>,
    evictable: Option<Evictable>,
    trust: AtomicU8,
}

const UNVERIFIED: u8 = 0;
const TENANT: u8 = 1;
const META: u8 = 2;

impl Caller {
    /// Whoever is counted by these.
    pub fn new(address_permit: Option<AddressPermit>, evictable: Option<Evictable>) -> Arc<Self> {
        Arc::new(Self {
            address_permit,
            evictable,
            trust: AtomicU8::new(UNVERIFIED),
        })
    }

    /// Somebody for whom no bound is kept.
    pub fn anyone() -> Arc<Self> {
        Self::new(None, None)
    }

    /// It brought a valid signature, of an app that is shared or one tenant's: it is verified from now on.
    pub fn mark_verified(&self, is_shared: bool) {
        let trust = if is_shared { META } else { TENANT };
        let before = self.trust.load(Ordering::Relaxed);
        // Nearly every request comes from Meta.
        if before == META {
            return;
        }
        if before < trust && self.trust.fetch_max(trust, Ordering::Relaxed) == UNVERIFIED {
            self.address_permit
                .iter()
                .for_each(AddressPermit::mark_verified);
        }
        let rises = if is_shared {
            Evictable::leave
        } else {
            Evictable::mark_tenant
        };
        self.evictable.iter().for_each(rises);
    }

    /// What an unfinished body counts against: an unverified one's its address's share, everybody's but Meta's what they have together.
    pub fn body_bytes(&self) -> [Option<&Budget>; 2] {
        let trust = self.trust.load(Ordering::Relaxed);
        let Some([address, unverified]) =
            self.address_permit.as_ref().map(AddressPermit::body_bytes)
        else {
            return [None; 2];
        };
        [
            Some(address).filter(|_| trust == UNVERIFIED),
            Some(unverified).filter(|_| trust < META),
        ]
    }
}
