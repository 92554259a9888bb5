//! Who is at the other end of a connection, as far as bounds go: a stranger until it brings a valid signature.

use crate::budget::Budget;
use crate::crowding::Place;
use crate::strangers::Seat;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whoever sends requests on a connection or, behind a balancer, through one.
#[derive(Debug, Default)]
pub struct Caller {
    place: Option<Place>,
    seat: Option<Seat>,
    is_known: AtomicBool,
}

impl Caller {
    /// Somebody who holds these.
    pub fn new(place: Option<Place>, seat: Option<Seat>) -> Arc<Self> {
        Arc::new(Self { place, seat, is_known: AtomicBool::new(false) })
    }

    /// Somebody for whom no bound is kept.
    pub fn anyone() -> Arc<Self> {
        Self::new(None, None)
    }

    /// It brought a valid signature: it is no stranger from now on.
    pub fn becomes_known(&self) {
        // Nearly every request comes from somebody who is known.
        if self.is_known.load(Ordering::Relaxed) || self.is_known.swap(true, Ordering::Relaxed) {
            return;
        }
        self.place.iter().for_each(Place::becomes_known);
        self.seat.iter().for_each(Seat::leave);
    }

    /// What an unfinished body of a stranger counts against.
    pub fn body_bytes(&self) -> Option<[&Budget; 2]> {
        let place = self.place.as_ref().filter(|_| !self.is_known.load(Ordering::Relaxed));
        place.map(Place::body_bytes)
    }
}
