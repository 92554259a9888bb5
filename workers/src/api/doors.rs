//! Who holds connections: an address that has shown no valid key on them gets a share, so that nobody fills what all
//! connections share.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The connections without a valid key yet, by address.
#[derive(Debug, Clone)]
pub struct Doors {
    per_address_max: usize,
    strangers: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A connection; counts for its address until it is known or ends. Requests carry it.
#[derive(Debug, Clone)]
pub struct Door(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    doors: Doors,
    address: IpAddr,
    is_known: AtomicBool,
}

impl Doors {
    /// Every address may hold this many connections that brought no valid key.
    pub fn new(per_address_max: usize) -> Self {
        Self { per_address_max, strangers: Arc::default() }
    }

    /// Lets a connection in, unless its address has its share already.
    pub fn enter(&self, from: SocketAddr) -> Option<Door> {
        let address = holder(from.ip());
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = strangers.entry(address).or_default();
        if *count >= self.per_address_max {
            return None;
        }
        *count += 1;
        Some(Door(Arc::new(Inner { doors: self.clone(), address, is_known: AtomicBool::new(false) })))
    }
}

impl Door {
    /// It brought a valid key and counts no more.
    pub fn becomes_known(&self) {
        self.0.leave();
    }
}

impl Inner {
    fn leave(&self) {
        if self.is_known.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut strangers = self.doors.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = strangers.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                strangers.remove(&self.address);
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Who an address stands for: whoever has one of IPv6 has all of its /64.
pub fn holder(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_its_share_until_it_is_known_or_goes() {
        let doors = Doors::new(2);
        let enter = |from: &str| doors.enter(from.parse().unwrap());
        let (first, second) = (enter("10.0.0.1:1").unwrap(), enter("10.0.0.1:2").unwrap());
        assert!(enter("10.0.0.1:3").is_none() && enter("[::ffff:10.0.0.1]:3").is_none());
        assert!(enter("10.0.0.2:1").is_some(), "another is let in");
        first.becomes_known();
        first.becomes_known();
        let third = enter("10.0.0.1:3").unwrap();
        assert!(enter("10.0.0.1:4").is_none());
        drop((first, second, third));
        assert!(doors.strangers.lock().unwrap().is_empty(), "nothing is remembered of who went");
        let held = (enter("[2001:db8::1]:1").unwrap(), enter("[2001:db8::2]:1").unwrap());
        assert!(enter("[2001:db8::3]:1").is_none() && enter("[2001:db8:0:1::1]:1").is_some());
        drop(held);
    }
}
