//! How much one address may hold: connections, and bytes of unfinished bodies, until they bring a valid signature.
//!
//! Whoever can sign is Meta or a tenant's own app; it may hold what the edge holds at all, so that a balancer or a
//! reseller in front never meets a bound made for others. Who gets an IPv6 address gets 2^64 of them, so a /64
//! counts as one.

use crate::budget::Budget;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::AbortHandle;

/// What all connections without a valid signature may hold together of the bytes of bodies: so much of it is never theirs.
const UNVERIFIED_PART: usize = 2;

/// What one address may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressShare {
    pub connections: usize,
    pub body_bytes: usize,
}

/// What is held by address; has an entry only for addresses that hold a permit.
#[derive(Debug)]
pub struct PerAddressLimit {
    share: AddressShare,
    unverified: Budget,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    by_address: HashMap<IpAddr, Holder>,
}

#[derive(Debug)]
struct Holder {
    /// The permits in the order they were taken, each with what ends its connection.
    permits: BTreeMap<u64, Option<AbortHandle>>,
    body_bytes: Arc<Budget>,
}

/// A permit of an address; counts until it is known to bring valid signatures, or is dropped.
#[derive(Debug)]
pub struct AddressPermit {
    limit: Arc<PerAddressLimit>,
    address: IpAddr,
    body_bytes: Arc<Budget>,
    number: u64,
    ended_another: bool,
}

impl PerAddressLimit {
    /// Gives every address the same share; `body_bytes_total` is what all bodies may take.
    pub fn new(share: AddressShare, body_bytes_total: usize) -> Arc<Self> {
        let unverified = Budget::new(body_bytes_total / UNVERIFIED_PART);
        Arc::new(Self {
            share,
            unverified,
            held: Mutex::default(),
        })
    }

    /// Takes a permit, for a connection that the task serves. Where the address has all it may have, its first one
    /// is ended, for whoever signs may share the address; `None` when it has none that can be ended.
    pub fn acquire(
        self: &Arc<Self>,
        address: IpAddr,
        task: Option<AbortHandle>,
    ) -> Option<AddressPermit> {
        let address = whole(address);
        let mut held = self.held();
        let number = held.next;
        held.next += 1;
        let holder = held.by_address.entry(address).or_insert_with(|| Holder {
            permits: BTreeMap::new(),
            body_bytes: Arc::new(Budget::new(self.share.body_bytes)),
        });
        let ended_another = holder.permits.len() >= self.share.connections;
        if ended_another {
            let first = task.as_ref().and_then(|_| holder.permits.first_entry())?;
            first.get().as_ref()?.abort();
            first.remove();
        }
        holder.permits.insert(number, task);
        let body_bytes = holder.body_bytes.clone();
        Some(AddressPermit {
            limit: self.clone(),
            address,
            body_bytes,
            number,
            ended_another,
        })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AddressPermit {
    /// What unfinished bodies count against: the address's share, and that of all unverified connections.
    pub fn body_bytes(&self) -> [&Budget; 2] {
        [&self.body_bytes, &self.limit.unverified]
    }

    /// Whether another connection of the address was ended for it.
    pub fn ended_another(&self) -> bool {
        self.ended_another
    }

    /// It brought a valid signature and counts no more.
    pub fn mark_verified(&self) {
        let mut held = self.limit.held();
        if let Some(holder) = held.by_address.get_mut(&self.address) {
            holder.permits.remove(&self.number);
            if holder.permits.is_empty() {
                held.by_address.remove(&self.address);
            }
        }
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        self.mark_verified();
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

    fn limit_of(connections: usize) -> Arc<PerAddressLimit> {
        PerAddressLimit::new(
            AddressShare {
                connections,
                body_bytes: 100,
            },
            300,
        )
    }

    #[test]
    fn an_address_gets_as_many_places_as_it_may_have_and_no_more() {
        let limit = limit_of(2);
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
        let held = [
            limit.acquire(one, None),
            limit.acquire("::ffff:192.0.2.1".parse().unwrap(), None),
        ];
        assert!(held.iter().all(Option::is_some) && limit.acquire(one, None).is_none());
        assert!(limit.acquire(other, None).is_some());
        drop(held);
        assert!(limit.held().by_address.is_empty());
        assert!(limit.acquire(one, None).is_some());
    }

    #[test]
    fn a_customers_whole_ipv6_prefix_is_one_address() {
        let limit = limit_of(1);
        let _held = limit
            .acquire("2001:db8:0:1::1".parse().unwrap(), None)
            .unwrap();
        assert!(
            limit
                .acquire("2001:db8:0:1:ffff::2".parse().unwrap(), None)
                .is_none()
        );
        assert!(
            limit
                .acquire("2001:db8:0:2::1".parse().unwrap(), None)
                .is_some()
        );
    }

    #[test]
    fn whoever_signs_counts_no_more_and_only_once() {
        let limit = limit_of(2);
        let one = "192.0.2.1".parse().unwrap();
        let (first, second) = (
            limit.acquire(one, None).unwrap(),
            limit.acquire(one, None).unwrap(),
        );
        first.mark_verified();
        first.mark_verified();
        drop(first);
        let third = limit.acquire(one, None).unwrap();
        assert!(limit.acquire(one, None).is_none());
        drop((second, third));
        assert!(limit.held().by_address.is_empty());
    }

    #[test]
    fn bytes_are_shared_by_the_connections_of_an_address_and_bounded_for_all_unverified() {
        let limit = limit_of(9);
        let permit = |text: &str| limit.acquire(text.parse().unwrap(), None).unwrap();
        let permits = ["192.0.2.1", "192.0.2.1", "192.0.2.2"].map(permit);
        let grown = |permit: &AddressPermit, bytes| {
            permit.body_bytes().map(|budget| {
                let mut held = budget.hold();
                let fits = held.grow(bytes);
                std::mem::forget(held);
                fits
            })
        };
        assert_eq!(grown(&permits[0], 80), [true, true]);
        assert_eq!(
            grown(&permits[1], 30),
            [false, true],
            "the other connection of the address has 80"
        );
        assert_eq!(
            grown(&permits[2], 60),
            [true, false],
            "half of 300 is for those who signed"
        );
    }

    #[tokio::test]
    async fn the_first_connection_of_an_address_at_its_limit_is_ended_for_the_next() {
        let limit = limit_of(2);
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap());
        let come = |address| {
            let task = tokio::spawn(std::future::pending::<()>());
            (
                limit.acquire(address, Some(task.abort_handle())).unwrap(),
                task,
            )
        };
        let (signed, elsewhere) = (come(one), come(other));
        signed.0.mark_verified();
        let (first, second) = (come(one), come(one));
        let third = come(one);
        assert!(third.0.ended_another() && !second.0.ended_another());
        assert!(first.1.await.unwrap_err().is_cancelled());
        assert!(
            [&signed.1, &elsewhere.1, &second.1, &third.1]
                .iter()
                .all(|task| !task.is_finished())
        );
        drop(first.0);
        assert_eq!(
            limit.held().by_address[&one].permits.len(),
            2,
            "who made room is gone already"
        );
    }
}
