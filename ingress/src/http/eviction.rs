//! Which connection of a listener is evicted when all are taken: one that has brought no valid signature, or one that
//! only signed for a tenant's own app, whose secret the tenant knows. The more numerous of the two kinds gives up the
//! one that has brought no valid signature for longest, so that a newcomer always has the time to sign.
//!
//! Meta signs its first request as soon as it has connected, so it is never among the oldest unverified connections for
//! long, and one of Meta's is never evicted. What was under way on a connection that is ended it sends again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::AbortHandle;

/// The connections of a listener that may be evicted.
#[derive(Debug, Default)]
pub struct EvictionQueue(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    by_number: HashMap<u64, Entry>,
    /// The numbers, the longest without a valid signature first.
    unverified: BTreeMap<u64, u64>,
    tenants: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Entry {
    kind: Kind,
    /// Where it stands among its kind.
    since: u64,
    /// What serves it, once it runs.
    task: Option<AbortHandle>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unverified,
    Tenant,
}

/// The place of one connection in the queue; left when dropped.
#[derive(Debug)]
pub struct Evictable {
    queue: Arc<EvictionQueue>,
    number: u64,
}

impl Entries {
    fn next_number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn of(&mut self, kind: Kind) -> &mut BTreeMap<u64, u64> {
        match kind {
            Kind::Unverified => &mut self.unverified,
            Kind::Tenant => &mut self.tenants,
        }
    }

    /// Puts a connection behind all others of a kind.
    fn move_to_back(&mut self, number: u64, kind: Kind) {
        let since = self.next_number();
        let Some(entry) = self.by_number.get_mut(&number) else {
            return;
        };
        let before = (entry.kind, entry.since);
        (entry.kind, entry.since) = (kind, since);
        self.of(before.0).remove(&before.1);
        self.of(kind).insert(since, number);
    }

    fn leave(&mut self, number: u64) -> Option<Entry> {
        let entry = self.by_number.remove(&number)?;
        self.of(entry.kind).remove(&entry.since);
        Some(entry)
    }
}

impl EvictionQueue {
    pub fn add(self: &Arc<Self>) -> Evictable {
        let mut entries = self.entries();
        let number = entries.next_number();
        let entry = Entry {
            kind: Kind::Unverified,
            since: number,
            task: None,
        };
        entries.by_number.insert(number, entry);
        entries.unverified.insert(number, number);
        Evictable {
            queue: self.clone(),
            number,
        }
    }

    /// Says which task serves a newcomer.
    pub fn set_task(&self, number: u64, task: AbortHandle) {
        if let Some(entry) = self.entries().by_number.get_mut(&number) {
            entry.task = Some(task);
        }
    }

    /// Ends the connection of the more numerous kind that has brought no valid signature for longest; `false` when
    /// there is none of either kind.
    pub fn evict(&self) -> bool {
        let mut entries = self.entries();
        let kind = if entries.tenants.len() > entries.unverified.len() {
            Kind::Tenant
        } else {
            Kind::Unverified
        };
        let first = entries
            .of(kind)
            .first_key_value()
            .map(|(_, number)| *number);
        let Some(entry) = first.and_then(|number| entries.leave(number)) else {
            return false;
        };
        drop(entries);
        entry.task.iter().for_each(AbortHandle::abort);
        true
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Evictable {
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The task that serves it.
    pub fn task(&self) -> Option<AbortHandle> {
        let entries = self.queue.entries();
        entries.by_number.get(&self.number)?.task.clone()
    }

    /// It brought a valid signature of one tenant's: it is evicted as a tenant's
    /// from now on, and last of these.
    pub fn mark_tenant(&self) {
        self.queue.entries().move_to_back(self.number, Kind::Tenant);
    }

    /// It is Meta's, or gone.
    pub fn leave(&self) {
        self.queue.entries().leave(self.number);
    }
}

impl Drop for Evictable {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinHandle;

    fn come(queue: &Arc<EvictionQueue>) -> (Evictable, JoinHandle<()>) {
        let evictable = queue.add();
        let task = tokio::spawn(std::future::pending::<()>());
        queue.set_task(evictable.number(), task.abort_handle());
        (evictable, task)
    }

    async fn is_ended(task: JoinHandle<()>) -> bool {
        let ended = tokio::time::timeout(std::time::Duration::from_secs(5), task).await;
        ended.is_ok_and(|ended| ended.is_err_and(|error| error.is_cancelled()))
    }

    #[tokio::test]
    async fn who_came_first_and_never_signed_is_evicted_first() {
        let queue = Arc::<EvictionQueue>::default();
        let [signed, gone, first, second] = [(); 4].map(|()| come(&queue));
        signed.0.leave();
        drop(gone.0);
        assert!(queue.evict());
        assert!(is_ended(first.1).await);
        assert!(!signed.1.is_finished() && !second.1.is_finished());
        assert!(queue.evict() && !queue.evict(), "nobody is left");
        assert!(is_ended(second.1).await);
    }

    #[tokio::test]
    async fn the_more_numerous_kind_is_evicted() {
        let queue = Arc::<EvictionQueue>::default();
        let [meta, own, other, third, unverified, newcomer] = [(); 6].map(|()| come(&queue));
        for tenants in [&meta, &own, &other, &third] {
            tenants.0.mark_tenant();
        }
        meta.0.leave();
        own.0.mark_tenant();
        assert!(queue.evict());
        assert!(
            is_ended(other.1).await,
            "of three tenants' the one that signed longest ago"
        );
        assert!(queue.evict());
        assert!(is_ended(unverified.1).await, "a tie is for the unverified");
        assert!(queue.evict());
        assert!(is_ended(third.1).await);
        assert!(!newcomer.1.is_finished(), "it has the time to sign");
        drop((own.0, newcomer.0));
        assert!(!queue.evict() && !meta.1.is_finished(), "Meta's stay");
        assert!(queue.entries().by_number.is_empty());
    }
}
