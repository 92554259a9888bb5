//! How much one address may hold: connections, and bytes of unfinished bodies, until they bring a valid signature.
//!
//! Whoever can sign is Meta or a tenant's own app; it may hold what the edge holds at all, so that a balancer or a
//! reseller in front never meets a bound made for strangers. Who gets an IPv6 address gets 2^64 of them, so a /64
//! counts as one.

use crate::budget::Budget;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::AbortHandle;

/// What all connections without a valid signature may hold together of the bytes of bodies: so much of it is never theirs.
const STRANGERS_PART: usize = 2;

/// What one address may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Connections.
    pub connections: usize,
    /// Bytes of unfinished bodies.
    pub body_bytes: usize,
}

/// What is held by address; has an entry only for addresses that hold a place.
#[derive(Debug)]
pub struct Crowding {
    share: Share,
    strangers: Budget,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    by_address: HashMap<IpAddr, Holder>,
}

#[derive(Debug)]
struct Holder {
    /// The places in the order they were taken, each with what ends its connection.
    places: BTreeMap<u64, Option<AbortHandle>>,
    body_bytes: Arc<Budget>,
}

/// A place of an address; counts until it is known to bring valid signatures, or is dropped.
#[derive(Debug)]
pub struct Place {
    crowding: Arc<Crowding>,
    address: IpAddr,
    body_bytes: Arc<Budget>,
    number: u64,
    made_room: bool,
}

impl Crowding {
    /// Gives every address the same share; `body_bytes_total` is what all bodies may take.
    pub fn new(share: Share, body_bytes_total: usize) -> Arc<Self> {
        let strangers = Budget::new(body_bytes_total / STRANGERS_PART);
        Arc::new(Self {
            share,
            strangers,
            held: Mutex::default(),
        })
    }

    /// Takes a place, for a connection that the task serves. Where the address has all it may have, its first one
    /// makes room, for whoever signs may share the address; `None` when it has none that can be ended.
    pub fn place(self: &Arc<Self>, address: IpAddr, task: Option<AbortHandle>) -> Option<Place> {
        let address = whole(address);
        let mut held = self.held();
        let number = held.next;
        held.next += 1;
        let holder = held.by_address.entry(address).or_insert_with(|| Holder {
            places: BTreeMap::new(),
            body_bytes: Arc::new(Budget::new(self.share.body_bytes)),
        });
        let made_room = holder.places.len() >= self.share.connections;
        if made_room {
            let first = task.as_ref().and_then(|_| holder.places.first_entry())?;
            first.get().as_ref()?.abort();
            first.remove();
        }
        holder.places.insert(number, task);
        let body_bytes = holder.body_bytes.clone();
        Some(Place {
            crowding: self.clone(),
            address,
            body_bytes,
            number,
            made_room,
        })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// What unfinished bodies count against: the address's share, and that of all strangers.
    pub fn body_bytes(&self) -> [&Budget; 2] {
        [&self.body_bytes, &self.crowding.strangers]
    }

    /// Whether another connection of the address was ended for it.
    pub fn made_room(&self) -> bool {
        self.made_room
    }

    /// It brought a valid signature and counts no more.
    pub fn becomes_known(&self) {
        let mut held = self.crowding.held();
        if let Some(holder) = held.by_address.get_mut(&self.address) {
            holder.places.remove(&self.number);
            if holder.places.is_empty() {
                held.by_address.remove(&self.address);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.becomes_known();
    }
}

fn whole(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowding(connections: usize) -> Arc<Crowding> {
        Crowding::new(
            Share {
                connections,
                body_bytes: 100,
            },
            300,
        )
    }

    #[test]
    fn an_address_gets_as_many_places_as_it_may_have_and_no_more() {
        let crowding = crowding(2);
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
        let held = [
            crowding.place(one, None),
            crowding.place("::ffff:192.0.2.1".parse().unwrap(), None),
        ];
        assert!(held.iter().all(Option::is_some) && crowding.place(one, None).is_none());
        assert!(crowding.place(other, None).is_some());
        drop(held);
        assert!(crowding.held().by_address.is_empty());
        assert!(crowding.place(one, None).is_some());
    }

    #[test]
    fn a_customers_whole_ipv6_prefix_is_one_address() {
        let crowding = crowding(1);
        let _held = crowding
            .place("2001:db8:0:1::1".parse().unwrap(), None)
            .unwrap();
        assert!(
            crowding
                .place("2001:db8:0:1:ffff::2".parse().unwrap(), None)
                .is_none()
        );
        assert!(
            crowding
                .place("2001:db8:0:2::1".parse().unwrap(), None)
                .is_some()
        );
    }

    #[test]
    fn whoever_signs_counts_no_more_and_only_once() {
        let crowding = crowding(2);
        let one = "192.0.2.1".parse().unwrap();
        let (first, second) = (
            crowding.place(one, None).unwrap(),
            crowding.place(one, None).unwrap(),
        );
        first.becomes_known();
        first.becomes_known();
        drop(first);
        let third = crowding.place(one, None).unwrap();
        assert!(crowding.place(one, None).is_none());
        drop((second, third));
        assert!(crowding.held().by_address.is_empty());
    }

    #[test]
    fn bytes_are_shared_by_the_places_of_an_address_and_bounded_for_all_strangers() {
        let crowding = crowding(9);
        let place = |text: &str| crowding.place(text.parse().unwrap(), None).unwrap();
        let places = [place("192.0.2.1"), place("192.0.2.1"), place("192.0.2.2")];
        let grown = |place: &Place, bytes| {
            place.body_bytes().map(|budget| {
                let mut held = budget.hold();
                let fits = held.grow(bytes);
                std::mem::forget(held);
                fits
            })
        };
        assert_eq!(grown(&places[0], 80), [true, true]);
        assert_eq!(
            grown(&places[1], 30),
            [false, true],
            "the other connection of the address has 80"
        );
        assert_eq!(
            grown(&places[2], 60),
            [true, false],
            "half of 300 is for those who signed"
        );
    }

    #[tokio::test]
    async fn the_first_of_a_crowded_address_makes_room_for_the_next() {
        let crowding = crowding(2);
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
        let come = |address| {
            let task = tokio::spawn(std::future::pending::<()>());
            (
                crowding.place(address, Some(task.abort_handle())).unwrap(),
                task,
            )
        };
        let (signed, elsewhere) = (come(one), come(other));
        signed.0.becomes_known();
        let (first, second) = (come(one), come(one));
        let third = come(one);
        assert!(third.0.made_room() && !second.0.made_room());
        assert!(first.1.await.unwrap_err().is_cancelled());
        assert!(
            [&signed.1, &elsewhere.1, &second.1, &third.1]
                .iter()
                .all(|task| !task.is_finished())
        );
        drop(first.0);
        assert_eq!(
            crowding.held().by_address[&one].places.len(),
            2,
            "who made room is gone already"
        );
    }
}
