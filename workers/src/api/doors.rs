//! Who holds connections: an address that has shown no valid key on them gets a share, so that nobody fills what all
//! connections share; and when all are taken, the one that lay idle for longest makes room, with a key only when all
//! without one are busy.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// The connections, and how many of each address are without a valid key yet.
#[derive(Debug, Clone)]
pub struct Doors {
    per_address_max: usize,
    guests: Arc<Mutex<Guests>>,
}

#[derive(Debug, Default)]
struct Guests {
    strangers_by_address: HashMap<IpAddr, usize>,
    by_number: HashMap<u64, Guest>,
    next: u64,
}

/// A connection.
#[derive(Debug)]
struct Guest {
    address: IpAddr,
    /// Whether it brought a valid key.
    is_known: bool,
    requests: usize,
    idle_since: Instant,
    task: Option<AbortHandle>,
}

impl Guests {
    /// Ends the stranger that has been idle for longest, of an address or of all; of all also one with a key, where no
    /// stranger is idle: whoever has one may hold every connection with it.
    fn make_room(&mut self, address: Option<IpAddr>) -> bool {
        let is_meant = |guest: &Guest| {
            let is_of = address.is_none_or(|address| address == guest.address && !guest.is_known);
            is_of && guest.requests == 0 && guest.task.is_some()
        };
        let idle = self.by_number.iter().filter(|(_, guest)| is_meant(guest));
        let first = idle.min_by_key(|(_, guest)| (guest.is_known, guest.idle_since));
        let Some(number) = first.map(|(number, _)| *number) else {
            return false;
        };
        let task = self.forget(number).and_then(|guest| guest.task);
        task.inspect(AbortHandle::abort).is_some()
    }

    fn becomes_known(&mut self, number: u64) {
        if let Some(guest) = self.by_number.get_mut(&number)
            && !std::mem::replace(&mut guest.is_known, true)
        {
            let address = guest.address;
            self.release(address);
        }
    }

    fn forget(&mut self, number: u64) -> Option<Guest> {
        let guest = self.by_number.remove(&number)?;
        if !guest.is_known {
            self.release(guest.address);
        }
        Some(guest)
    }

    fn release(&mut self, address: IpAddr) {
        if let Some(count) = self.strangers_by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.strangers_by_address.remove(&address);
            }
        }
    }
}

/// A connection; counts for its address until it is known or ends. Requests carry it.
#[derive(Debug, Clone)]
pub struct Door(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    doors: Doors,
    number: u64,
}

/// A request being answered; its connection is not idle meanwhile.
#[derive(Debug)]
pub struct Busy(Door);

impl Doors {
    /// Every address may hold this many connections that brought no valid key.
    pub fn new(per_address_max: usize) -> Self {
        Self {
            per_address_max,
            guests: Arc::default(),
        }
    }

    /// Lets a connection in. Where its address has its share already, the longest idle of these makes room; `None` when none is
    /// idle.
    pub fn enter(&self, from: SocketAddr) -> Option<Door> {
        let address = holder(from.ip());
        let mut guests = self.guests();
        let count = guests
            .strangers_by_address
            .get(&address)
            .copied()
            .unwrap_or_default();
        // Whoever has a key may share the address.
        if count >= self.per_address_max && !guests.make_room(Some(address)) {
            return None;
        }
        *guests.strangers_by_address.entry(address).or_default() += 1;
        let number = guests.next;
        guests.next += 1;
        let guest = Guest {
            address,
            is_known: false,
            requests: 0,
            idle_since: Instant::now(),
            task: None,
        };
        guests.by_number.insert(number, guest);
        Some(Door(Arc::new(Inner {
            doors: self.clone(),
            number,
        })))
    }

    /// Says which task serves a connection that was let in.
    pub fn serve(&self, number: u64, task: AbortHandle) {
        if let Some(guest) = self.guests().by_number.get_mut(&number) {
            guest.task = Some(task);
        }
    }

    /// Ends the connection that has been idle for longest, those without a valid key first; `false` when none is idle.
    pub fn make_room(&self) -> bool {
        self.guests().make_room(None)
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Door {
    /// It brought a valid key and counts for its address no more.
    pub fn becomes_known(&self) {
        self.0.doors.guests().becomes_known(self.0.number);
    }

    /// Its number among the connections.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// A request has begun.
    pub fn begin(&self) -> Busy {
        self.change(|guest| guest.requests += 1);
        Busy(self.clone())
    }

    fn change(&self, change: impl FnOnce(&mut Guest)) {
        if let Some(guest) = self.0.doors.guests().by_number.get_mut(&self.0.number) {
            change(guest);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change(|guest| {
            guest.requests = guest.requests.saturating_sub(1);
            guest.idle_since = Instant::now();
        });
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.doors.guests().forget(self.number);
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
        assert!(
            doors.guests().strangers_by_address.is_empty() && doors.guests().by_number.is_empty()
        );
        let held = (
            enter("[2001:db8::1]:1").unwrap(),
            enter("[2001:db8::2]:1").unwrap(),
        );
        assert!(enter("[2001:db8::3]:1").is_none() && enter("[2001:db8:0:1::1]:1").is_some());
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_makes_room_and_who_has_a_key_only_after_all_others() {
        let doors = Doors::new(9);
        let come = |port| {
            let door = doors
                .enter(SocketAddr::new([10, 0, 0, 1].into(), port))
                .unwrap();
            let task = tokio::spawn(std::future::pending::<()>());
            doors.serve(door.number(), task.abort_handle());
            (door, task)
        };
        let (known, busy, active) = (come(1), come(2), come(3));
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let later = come(4);
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        known.0.becomes_known();
        let _request = busy.0.begin();
        drop(active.0.begin());
        assert!(doors.make_room());
        assert!(later.1.await.unwrap_err().is_cancelled());
        assert!(doors.make_room());
        assert!(active.1.await.unwrap_err().is_cancelled());
        assert!(!known.1.is_finished());
        assert!(doors.make_room(), "a key does not keep everybody else out");
        assert!(known.1.await.unwrap_err().is_cancelled());
        assert!(
            !doors.make_room() && !busy.1.is_finished(),
            "who is served stays"
        );
        assert_eq!(
            doors.guests().strangers_by_address.values().sum::<usize>(),
            1
        );
    }
}
