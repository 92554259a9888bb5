//! One edge thread's side of the spool: hands updates over, and learns once a group what is synced.
//!
//! The writer notifies a thread once for a whole group; a task on that thread then wakes its own
//! waiters, which costs no system call each.

use super::mode::WritePath;
use super::record;
use super::state::SpoolState;
use crate::store::{StoreError, Update};
use bytes::BytesMut;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// What the writer tells a handle.
#[derive(Debug, Default)]
pub struct Notifier {
    handle: OnceLock<usize>,
    settled: Mutex<Vec<(u64, bool)>>,
    changed: Notify,
}

/// Hands updates over and waits for them.
#[derive(Debug)]
pub struct SpoolHandle {
    state: Arc<SpoolState>,
    number: usize,
    notifier: Arc<Notifier>,
    waiting: Mutex<VecDeque<(u64, oneshot::Sender<bool>)>>,
    /// Where the next record is written.
    chunk: Mutex<BytesMut>,
    /// Longest wait for the disk.
    sync_timeout: Duration,
}

/// A delivery that goes straight to JetStream; dropping it ends that.
#[derive(Debug)]
pub struct Direct<'s>(&'s SpoolState);

impl Notifier {
    /// The number of its handle in the state.
    pub fn handle(&self) -> usize {
        self.handle.get().copied().unwrap_or(usize::MAX)
    }

    /// Tells that everything up to a ticket is synced, or is not.
    pub fn notify(&self, ticket: u64, stored: bool) {
        {
            let mut settled = lock(&self.settled);
            match settled.last_mut() {
                Some(last) if last.1 == stored => last.0 = ticket,
                _ => settled.push((ticket, stored)),
            }
        }
        self.changed.notify_one();
    }
}

impl SpoolHandle {
    /// Opens a handle; somebody must [`serve`](Self::serve) it.
    pub fn open(state: Arc<SpoolState>, sync_timeout: Duration) -> Arc<Self> {
        let notifier = Arc::new(Notifier::default());
        let number = state.register(notifier.clone());
        let _set_once = notifier.handle.set(number);
        Arc::new(Self {
            state,
            number,
            notifier,
            waiting: Mutex::default(),
            chunk: Mutex::default(),
            sync_timeout,
        })
    }

    /// Wakes who waits, whenever the writer notifies; never ends.
    pub async fn serve(self: Arc<Self>) {
        loop {
            self.notifier.changed.notified().await;
            let settled = std::mem::take(&mut *lock(&self.notifier.settled));
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

    /// Chooses the path of a delivery: directly while the value lives, or through the spool.
    pub fn enter(&self) -> Option<Direct<'_>> {
        match self.state.enter() {
            WritePath::Direct => Some(Direct(&self.state)),
            WritePath::Spool => None,
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
            let ticket = self.state.hand_over(self.number, records)?;
            waiting.push_back((ticket, waiter));
        }
        drop(passing);
        match timeout(self.sync_timeout, settled).await {
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
