//! Who is at the other end of a connection, as far as bounds go: a stranger until it brings a valid signature.
//!
//! Whoever signs for an app that several tenants share is Meta. Whoever signs for a tenant's own app may be that tenant, who
//! must not hold what others need.

use crate::budget::Budget;
use crate::http::crowding::Place;
use crate::http::strangers::Seat;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Whoever sends requests on a connection or, behind a balancer, through one.
#[derive(Debug, Default)]
pub struct Caller {
    place: Option<Place>,
    seat: Option<Seat>,
    standing: AtomicU8,
}

const STRANGER: u8 = 0;
const A_TENANTS: u8 = 1;
const METAS: u8 = 2;

impl Caller {
    /// Somebody who holds these.
    pub fn new(place: Option<Place>, seat: Option<Seat>) -> Arc<Self> {
        Arc::new(Self {
            place,
            seat,
            standing: AtomicU8::new(STRANGER),
        })
    }

    /// Somebody for whom no bound is kept.
    pub fn anyone() -> Arc<Self> {
        Self::new(None, None)
    }

    /// It brought a valid signature, of an app that is shared or one tenant's: it is no stranger from now on.
    pub fn becomes_known(&self, is_shared: bool) {
        let standing = if is_shared { METAS } else { A_TENANTS };
        let before = self.standing.load(Ordering::Relaxed);
        // Nearly every request comes from Meta.
        if before == METAS {
            return;
        }
        if before < standing && self.standing.fetch_max(standing, Ordering::Relaxed) == STRANGER {
            self.place.iter().for_each(Place::becomes_known);
        }
        let rises = if is_shared {
            Seat::leave
        } else {
            Seat::signs_for_tenant
        };
        self.seat.iter().for_each(rises);
    }

    /// What an unfinished body counts against: a stranger's its address's share, everybody's but Meta's what they have together.
    pub fn body_bytes(&self) -> [Option<&Budget>; 2] {
        let standing = self.standing.load(Ordering::Relaxed);
        let Some([address, strangers]) = self.place.as_ref().map(Place::body_bytes) else {
            return [None; 2];
        };
        [
            Some(address).filter(|_| standing == STRANGER),
            Some(strangers).filter(|_| standing < METAS),
        ]
    }
}
