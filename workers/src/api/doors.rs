//! Who holds connections: an address that has shown no valid key on them gets a share, so that nobody fills what all
//! connections share; and when all are taken, the one that lay idle for longest without a key makes room.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// The connections without a valid key yet, by address.
#[derive(Debug, Clone)]
pub struct Doors {
    per_address_max: usize,
    strangers: Arc<Mutex<Strangers>>,
}

#[derive(Debug, Default)]
struct Strangers {
    by_address: HashMap<IpAddr, usize>,
    by_number: HashMap<u64, Stranger>,
    next: u64,
}

/// A connection that has brought no valid key yet.
#[derive(Debug)]
struct Stranger {
    address: IpAddr,
    requests: usize,
    idle_since: Instant,
    task: Option<AbortHandle>,
}

impl Strangers {
    /// Ends the connection that has been idle for longest, of an address or of all.
    fn make_room(&mut self, address: Option<IpAddr>) -> bool {
        let is_meant = |stranger: &Stranger| {
            let is_of = address.is_none_or(|address| address == stranger.address);
            is_of && stranger.requests == 0 && stranger.task.is_some()
        };
        let idle = self.by_number.iter().filter(|(_, stranger)| is_meant(stranger));
        let Some(number) = idle.min_by_key(|(_, stranger)| stranger.idle_since).map(|(number, _)| *number)
        else {
            return false;
        };
        let task = self.forget(number).and_then(|stranger| stranger.task);
        task.inspect(AbortHandle::abort).is_some()
    }

    fn forget(&mut self, number: u64) -> Option<Stranger> {
        let stranger = self.by_number.remove(&number)?;
        if let Some(count) = self.by_address.get_mut(&stranger.address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&stranger.address);
            }
        }
        Some(stranger)
    }
}

/// A connection; counts for its address until it is known or ends. Requests carry it.
#[derive(Debug, Clone)]
pub struct Door(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    doors: Doors,
    number: u64,
    is_known: AtomicBool,
}

/// A request being answered; its connection is not idle meanwhile.
#[derive(Debug)]
pub struct Busy(Door);

impl Doors {
    /// Every address may hold this many connections that brought no valid key.
    pub fn new(per_address_max: usize) -> Self {
        Self { per_address_max, strangers: Arc::default() }
    }

    /// Lets a connection in. Where its address has its share already, the longest idle of these makes room; `None` when none is
    /// idle.
    pub fn enter(&self, from: SocketAddr) -> Option<Door> {
        let address = holder(from.ip());
        let mut strangers = self.strangers();
        let count = strangers.by_address.get(&address).copied().unwrap_or_default();
        // Whoever has a key may share the address.
        if count >= self.per_address_max && !strangers.make_room(Some(address)) {
            return None;
        }
        *strangers.by_address.entry(address).or_default() += 1;
        let number = strangers.next;
        strangers.next += 1;
        let stranger = Stranger { address, requests: 0, idle_since: Instant::now(), task: None };
        strangers.by_number.insert(number, stranger);
        Some(Door(Arc::new(Inner { doors: self.clone(), number, is_known: AtomicBool::new(false) })))
    }

    /// Says which task serves a connection that was let in.
    pub fn serve(&self, number: u64, task: AbortHandle) {
        if let Some(stranger) = self.strangers().by_number.get_mut(&number) {
            stranger.task = Some(task);
        }
    }

    /// Ends the connection that has been idle for longest without a valid key; `false` when there is none.
    pub fn make_room(&self) -> bool {
        self.strangers().make_room(None)
    }

    fn strangers(&self) -> MutexGuard<'_, Strangers> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Door {
    /// It brought a valid key and counts no more.
    pub fn becomes_known(&self) {
        self.0.leave();
    }

    /// Its number among the connections.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// A request has begun.
    pub fn begin(&self) -> Busy {
        self.change(|stranger| stranger.requests += 1);
        Busy(self.clone())
    }

    fn change(&self, change: impl FnOnce(&mut Stranger)) {
        if !self.0.is_known.load(Ordering::Relaxed)
            && let Some(stranger) = self.0.doors.strangers().by_number.get_mut(&self.0.number)
        {
            change(stranger);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change(|stranger| {
            stranger.requests = stranger.requests.saturating_sub(1);
            stranger.idle_since = Instant::now();
        });
    }
}

impl Inner {
    fn leave(&self) {
        if self.is_known.swap(true, Ordering::Relaxed) {
            return;
        }
        self.doors.strangers().forget(self.number);
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
        assert!(doors.strangers().by_address.is_empty() && doors.strangers().by_number.is_empty());
        let held = (enter("[2001:db8::1]:1").unwrap(), enter("[2001:db8::2]:1").unwrap());
        assert!(enter("[2001:db8::3]:1").is_none() && enter("[2001:db8:0:1::1]:1").is_some());
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_without_a_key_makes_room() {
        let doors = Doors::new(9);
        let come = |port| {
            let door = doors.enter(SocketAddr::new([10, 0, 0, 1].into(), port)).unwrap();
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
        assert!(doors.make_room() && !doors.make_room(), "who is served or known stays");
        assert!(active.1.await.unwrap_err().is_cancelled());
        assert!(!known.1.is_finished() && !busy.1.is_finished());
    }
}
