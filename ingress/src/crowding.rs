//! Bounds the connections one client address may hold. A prefix of 64 bits counts as one address of IPv6.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections by address; holds an entry only for addresses that have one.
#[derive(Debug)]
pub struct Crowding {
    connections_max: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub struct Place {
    crowding: Arc<Crowding>,
    address: IpAddr,
}

impl Crowding {
    /// Allows an address that many connections.
    pub fn new(connections_max: usize) -> Arc<Self> {
        Arc::new(Self { connections_max, open: Mutex::default() })
    }

    /// Takes a place for a connection, unless the address has all it may have.
    pub fn place(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = whole(address);
        let mut open = self.open();
        let count = open.entry(address).or_default();
        if *count >= self.connections_max {
            return None;
        }
        *count += 1;
        Some(Place { crowding: self.clone(), address })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.crowding.open();
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
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

    #[test]
    fn an_address_gets_as_many_places_as_it_may_have_and_no_more() {
        let crowding = Crowding::new(2);
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
        let held = [crowding.place(one), crowding.place("::ffff:192.0.2.1".parse().unwrap())];
        assert!(held.iter().all(Option::is_some) && crowding.place(one).is_none());
        assert!(crowding.place(other).is_some());
        drop(held);
        assert!(crowding.open().is_empty());
        assert!(crowding.place(one).is_some());
    }

    #[test]
    fn a_customers_whole_ipv6_prefix_is_one_address() {
        let crowding = Crowding::new(1);
        let _held = crowding.place("2001:db8:0:1::1".parse().unwrap()).unwrap();
        assert!(crowding.place("2001:db8:0:1:ffff::2".parse().unwrap()).is_none());
        assert!(crowding.place("2001:db8:0:2::1".parse().unwrap()).is_some());
    }
}
