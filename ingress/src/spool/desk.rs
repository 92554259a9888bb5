//! One edge thread's side of the spool: hands updates over, and learns once a group what is synced.
//!
//! The writer rings a thread's bell once for a whole group; a task on that thread then wakes its own
//! waiters, which costs no system call each.

use super::course::Way;
use super::record;
use super::shelf::Shelf;
use crate::update_log::{StoreError, Update};
use bytes::BytesMut;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// What the writer tells a desk.
#[derive(Debug, Default)]
pub struct Bell {
    desk: OnceLock<usize>,
    settled: Mutex<Vec<(u64, bool)>>,
    rung: Notify,
}

/// Hands updates over and waits for them.
#[derive(Debug)]
pub struct Desk {
    shelf: Arc<Shelf>,
    number: usize,
    bell: Arc<Bell>,
    waiting: Mutex<VecDeque<(u64, oneshot::Sender<bool>)>>,
    /// Where the next record is written.
    chunk: Mutex<BytesMut>,
    /// Longest wait for the disk.
    patience: Duration,
}

/// A delivery that goes straight to JetStream; dropping it ends that.
#[derive(Debug)]
pub struct Direct<'s>(&'s Shelf);

impl Bell {
    /// The number of its desk.
    pub fn desk(&self) -> usize {
        self.desk.get().copied().unwrap_or(usize::MAX)
    }

    /// Tells that everything up to a ticket is synced, or is not.
    pub fn ring(&self, ticket: u64, stored: bool) {
        {
            let mut settled = lock(&self.settled);
            match settled.last_mut() {
                Some(last) if last.1 == stored => last.0 = ticket,
                _ => settled.push((ticket, stored)),
            }
        }
        self.rung.notify_one();
    }
}

impl Desk {
    /// Opens a desk; somebody must [`serve`](Self::serve) it.
    pub fn open(shelf: Arc<Shelf>, patience: Duration) -> Arc<Self> {
        let bell = Arc::new(Bell::default());
        let number = shelf.register(bell.clone());
        let _set_once = bell.desk.set(number);
        Arc::new(Self {
            shelf,
            number,
            bell,
            waiting: Mutex::default(),
            chunk: Mutex::default(),
            patience,
        })
    }

    /// Wakes who waits, whenever the bell rings; never ends.
    pub async fn serve(self: Arc<Self>) {
        loop {
            self.bell.rung.notified().await;
            let settled = std::mem::take(&mut *lock(&self.bell.settled));
            let mut waiting = lock(&self.waiting);
            for (ticket, stored) in settled {
                while waiting
                    .front()
                    .is_some_and(|(waits_for, _)| *waits_for <= ticket)
                {
                    if let Some((_, waiter)) = waiting.pop_front() {
                        // Its client may be gone.
                        let _gone = waiter.send(stored);
                    }
                }
            }
        }
    }

    /// Chooses the way of a delivery: directly while the value lives, or through the spool.
    pub fn enter(&self) -> Option<Direct<'_>> {
        match self.shelf.enter() {
            Way::Direct => Some(Direct(&self.shelf)),
            Way::Spool => None,
        }
    }

    /// Spools updates and waits until they are synced. `passing` ends once they are in line.
    pub async fn spool(
        &self,
        updates: &[Update],
        passing: Option<Direct<'_>>,
    ) -> Result<(), StoreError> {
        let records = {
            let mut chunk = lock(&self.chunk);
            updates
                .iter()
                .map(|update| record::encode(update, &mut chunk))
                .collect()
        };
        let (waiter, settled) = oneshot::channel();
        {
            // Held meanwhile, so that tickets stand in line in their order.
            let mut waiting = lock(&self.waiting);
            let ticket = self.shelf.hand_over(self.number, records)?;
            waiting.push_back((ticket, waiter));
        }
        drop(passing);
        match timeout(self.patience, settled).await {
            Ok(Ok(true)) => Ok(()),
            Ok(_) => Err(StoreError::SpoolFailed),
            Err(_) => Err(StoreError::Late),
        }
    }
}

impl Drop for Direct<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
