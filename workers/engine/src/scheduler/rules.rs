//! What bounds and shares the work of a pool; may change at any moment.

use ackline_shared::ids::TenantId;
use std::collections::HashMap;
use std::sync::Arc;

/// The weight of a tenant about whom nothing is said; a tenth of it gets a tenth of the turns.
pub const WEIGHT_DEFAULT: u32 = 10;
/// The largest weight of a tenant.
pub const WEIGHT_MAX: u32 = 1000;
/// The most that one piece of work is charged, so that a debt is paid within bounded turns.
pub(super) const COST_MAX: u32 = 64;
/// With fewer permits than this, one that is kept free would cost more than it gives.
const KEPT_FREE_FROM: usize = 4;

/// The bounds and shares of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    pub permits: usize,
    /// Each lane's share of turns when several have work.
    pub lane_weights: Vec<u32>,
    pub paused: bool,
    /// Work of one tenant running at once.
    pub tenant_cap: usize,
    /// Tenants about whom more is said.
    pub tenants: Arc<HashMap<TenantId, Share>>,
}

/// What is said about one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Its share of turns against other tenants with work.
    pub weight: u32,
    /// Its own bound of work running at once.
    pub cap: Option<usize>,
    pub paused: bool,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            weight: WEIGHT_DEFAULT,
            cap: None,
            paused: false,
        }
    }
}

/// Of so many permits, those kept free for tenants that come with a single piece and nothing at work: a quarter,
/// none of a few.
pub fn kept_free(permits: usize) -> usize {
    if permits < KEPT_FREE_FROM {
        0
    } else {
        permits.div_ceil(4)
    }
}

impl Rules {
    /// What holds for a tenant.
    pub fn share(&self, tenant: &TenantId) -> Share {
        self.tenants.get(tenant).copied().unwrap_or_default()
    }
}
