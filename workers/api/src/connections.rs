//! Who holds connections: an address that has shown no valid key on them gets a share, so that nobody fills what all
//! connections share. When all are taken, the more numerous kind makes room, those with a key or those without: the one
//! of them that lay idle for longest. So a newcomer always has the time to show its key.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Idle for so long, a connection has had its chance to ask, and may go while the more numerous kind is busy.
const CHANCE: Duration = Duration::from_secs(1);

/// The connections, and how many of each address are without a valid key yet.
#[derive(Debug, Clone)]
pub struct ConnectionLimit {
    per_address_max: usize,
    guests: Arc<Mutex<Guests>>,
}

#[derive(Debug, Default)]
struct Guests {
    strangers_by_address: HashMap<IpAddr, usize>,
    by_number: HashMap<u64, Guest>,
    next: u64,
}

#[derive(Debug)]
struct Guest {
    address: IpAddr,
    /// Whether it brought a valid key.
    is_known: bool,
    requests: usize,
    idle_since: Instant,
    task: Option<AbortHandle>,
}

impl Guest {
    fn is_idle(&self) -> bool {
        self.requests == 0 && self.task.is_some()
    }
}

impl Guests {
    /// Ends the stranger of an address that has been idle for longest.
    fn make_room_of(&mut self, address: IpAddr) -> bool {
        self.end_first(|guest| (guest.address == address && !guest.is_known).then_some(()))
    }

    /// Ends the longest idle of the more numerous kind. While all of these are busy one of the others goes, unless it
    /// has just come and may be about to show its key.
    fn make_room(&mut self) -> bool {
        let known = self.by_number.values().filter(|guest| guest.is_known);
        let most_are_known = known.count() > self.by_number.len() / 2;
        self.end_first(|guest| {
            let is_of_fewer = guest.is_known != most_are_known;
            (!is_of_fewer || guest.idle_since.elapsed() >= CHANCE).then_some(is_of_fewer)
        })
    }

    /// Ends the idle connection that ranks lowest and, among equals, has been idle for longest.
    fn end_first<R: Ord>(&mut self, rank: impl Fn(&Guest) -> Option<R>) -> bool {
        let idle = self.by_number.iter().filter(|(_, guest)| guest.is_idle());
        let ranked = idle.filter_map(|(number, guest)| {
            let rank = rank(guest)?;
            Some(((rank, guest.idle_since), *number))
        });
        let Some((_, number)) = ranked.min() else {
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
pub struct Connection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connection_limit: ConnectionLimit,
    number: u64,
}

/// A request being answered; its connection is not idle meanwhile.
#[derive(Debug)]
pub struct Busy(Connection);

impl ConnectionLimit {
    /// Every address may hold this many connections that brought no valid key.
    pub fn new(per_address_max: usize) -> Self {
        Self {
            per_address_max,
            guests: Arc::default(),
        }
    }

    /// Lets a connection in. Where its address has its share already, the longest idle of these makes room; `None` when none is
    /// idle.
    pub fn enter(&self, from: SocketAddr) -> Option<Connection> {
        let address = holder(from.ip());
        let mut guests = self.guests();
        let count = guests
            .strangers_by_address
            .get(&address)
            .copied()
            .unwrap_or_default();
        // Whoever has a key may share the address.
        if count >= self.per_address_max && !guests.make_room_of(address) {
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
        Some(Connection(Arc::new(Inner {
            connection_limit: self.clone(),
            number,
        })))
    }

    /// Says which task serves a connection that was let in.
    pub fn serve(&self, number: u64, task: AbortHandle) {
        if let Some(guest) = self.guests().by_number.get_mut(&number) {
            guest.task = Some(task);
        }
    }

    /// Ends the connection that has been idle for longest, of the more numerous kind; `false` when none is idle.
    pub fn make_room(&self) -> bool {
        self.guests().make_room()
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// It brought a valid key and counts for its address no more.
    pub fn becomes_known(&self) {
        self.0
            .connection_limit
            .guests()
            .becomes_known(self.0.number);
    }

    /// Its number among the connections.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    pub fn begin(&self) -> Busy {
        self.change(|guest| guest.requests += 1);
        Busy(self.clone())
    }

    fn change(&self, change: impl FnOnce(&mut Guest)) {
        if let Some(guest) = self
            .0
            .connection_limit
            .guests()
            .by_number
            .get_mut(&self.0.number)
        {
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
        self.connection_limit.guests().forget(self.number);
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
        let connection_limit = ConnectionLimit::new(2);
        let enter = |from: &str| connection_limit.enter(from.parse().unwrap());
        let (first, second) = (enter("10.0.0.1:1").unwrap(), enter("10.0.0.1:2").unwrap());
        assert!(enter("10.0.0.1:3").is_none() && enter("[::ffff:10.0.0.1]:3").is_none());
        assert!(enter("10.0.0.2:1").is_some(), "another is let in");
        first.becomes_known();
        first.becomes_known();
        let third = enter("10.0.0.1:3").unwrap();
        assert!(enter("10.0.0.1:4").is_none());
        drop((first, second, third));
        assert!(
            connection_limit.guests().strangers_by_address.is_empty()
                && connection_limit.guests().by_number.is_empty()
        );
        let held = (
            enter("[2001:db8::1]:1").unwrap(),
            enter("[2001:db8::2]:1").unwrap(),
        );
        assert!(enter("[2001:db8::3]:1").is_none() && enter("[2001:db8:0:1::1]:1").is_some());
        drop(held);
    }

    type Come = (Connection, tokio::task::JoinHandle<()>);

    /// One after the other, a millisecond apart.
    async fn come<const N: usize>(connection_limit: &ConnectionLimit) -> [Come; N] {
        let mut all = Vec::new();
        for port in 0..N {
            let from = SocketAddr::new([10, 0, 0, 1].into(), u16::try_from(port).unwrap());
            let connection = connection_limit.enter(from).unwrap();
            let task = tokio::spawn(std::future::pending::<()>());
            connection_limit.serve(connection.number(), task.abort_handle());
            all.push((connection, task));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        all.try_into().unwrap()
    }

    async fn is_ended((_door, task): Come) -> bool {
        let ended = tokio::time::timeout(Duration::from_secs(5), task).await;
        ended.is_ok_and(|ended| ended.is_err_and(|error| error.is_cancelled()))
    }

    #[tokio::test(start_paused = true)]
    async fn the_more_numerous_kind_makes_room_and_of_it_the_longest_idle() {
        let connection_limit = ConnectionLimit::new(9);
        let [first, second, third, stranger, newcomer] = come(&connection_limit).await;
        for known in [&first, &second, &third] {
            known.0.becomes_known();
        }
        drop(first.0.begin());
        assert!(connection_limit.make_room());
        assert!(is_ended(second).await, "it was idle for longest");
        assert!(connection_limit.make_room());
        assert!(is_ended(stranger).await, "a tie is the strangers'");
        assert!(connection_limit.make_room());
        assert!(is_ended(third).await);
        assert!(!newcomer.1.is_finished(), "it has the time to show its key");
        drop((first, newcomer));
        assert!(!connection_limit.make_room() && connection_limit.guests().by_number.is_empty());
        assert!(connection_limit.guests().strangers_by_address.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_more_numerous_kind_is_busy_whoever_has_had_its_chance_makes_room() {
        let connection_limit = ConnectionLimit::new(9);
        let [one, other, early, late] = come(&connection_limit).await;
        let busy = [&one, &other].map(|known| {
            known.0.becomes_known();
            known.0.begin()
        });
        let served = late.0.begin();
        assert!(connection_limit.make_room());
        assert!(is_ended(early).await, "of as many strangers");
        drop(served);
        assert!(!connection_limit.make_room(), "it has just been served");
        tokio::time::advance(CHANCE).await;
        assert!(connection_limit.make_room());
        assert!(is_ended(late).await);
        assert!(!connection_limit.make_room(), "who is served stays");
        drop(busy);
        assert!(connection_limit.make_room() && is_ended(one).await && !other.1.is_finished());
    }
}
