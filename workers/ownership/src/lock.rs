//! Who does what only one process may do at a time: a key that expires when it is not renewed.
//!
//! A holder that could not renew for most of the lock's life stops by itself, before anybody else can win it.
//! Partitions of pools are owned by leases instead: see `membership`.

use ackline_shared::shutdown::{Shutdown, ended};
use async_nats::jetstream::kv::Store;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, interval, sleep, timeout};

/// A lock, held or wanted by this process.
#[derive(Debug, Clone)]
pub struct Lock {
    store: Store,
    key: String,
    instance: String,
    ttl: Duration,
}

/// Proof of having won the lock.
#[derive(Debug)]
pub struct HeldLock {
    revision: u64,
    renewed: Instant,
}

impl Lock {
    /// Names the lock of `key` for this process.
    pub fn new(store: Store, key: &str, instance: &str, ttl: Duration) -> Self {
        Self {
            store,
            key: key.to_owned(),
            instance: instance.to_owned(),
            ttl,
        }
    }

    /// How often a held lock is renewed, and a wanted one asked for.
    pub fn interval(&self) -> Duration {
        self.ttl / 5
    }

    /// Asks for the lock once; `None` when it is somebody else's, or nobody answers.
    pub async fn ask(&self) -> Option<HeldLock> {
        let asked = Instant::now();
        let created = timeout(
            self.interval(),
            self.store.create(&self.key, self.instance.clone().into()),
        );
        if let Ok(Ok(revision)) = created.await {
            return Some(HeldLock {
                revision,
                renewed: asked,
            });
        }
        let asked = Instant::now();
        let revision = timeout(self.interval(), self.reclaim()).await.ok()??;
        Some(HeldLock {
            revision,
            renewed: asked,
        })
    }

    /// Takes back a lock that this very process let go of without being able to say so.
    async fn reclaim(&self) -> Option<u64> {
        let entry = self.store.entry(&self.key).await.ok()??;
        if entry.value != self.instance.as_bytes() {
            return None;
        }
        self.store
            .update(&self.key, self.instance.clone().into(), entry.revision)
            .await
            .ok()
    }

    /// Renews; false when the lock is, or soon may be, somebody else's.
    pub async fn renew(&self, held: &mut HeldLock) -> bool {
        let asked = Instant::now();
        let attempt = timeout(
            self.interval(),
            self.store
                .update(&self.key, self.instance.clone().into(), held.revision),
        );
        match attempt.await {
            Ok(Ok(revision)) => {
                *held = HeldLock {
                    revision,
                    renewed: asked,
                };
                true
            }
            Ok(Err(error))
                if error.kind()
                    == async_nats::jetstream::kv::UpdateErrorKind::WrongLastRevision =>
            {
                false
            }
            _ => held.renewed.elapsed() < self.ttl.mul_f64(0.6),
        }
    }

    /// Gives the lock back, so that a successor need not wait for it to expire.
    pub async fn release(&self, held: HeldLock) {
        let freed = timeout(
            self.interval(),
            self.store
                .purge_expect_revision(&self.key, Some(held.revision)),
        );
        if !matches!(freed.await, Ok(Ok(()))) {
            tracing::debug!(
                lock = self.key,
                "the lock was not given back and will expire"
            );
        }
    }

    /// Does something for good whenever the lock is held, until the signal; what was begun is dropped when the lock is lost.
    pub async fn work_for_good<F: Future<Output = ()>>(
        &self,
        work: impl Fn() -> F,
        mut shutdown: Shutdown,
    ) {
        let mut held = None;
        let turns = async {
            loop {
                if let Some(held) = &mut held {
                    let _lost = self.hold_while(held, work()).await;
                }
                held = self.ask().await;
                if held.is_none() {
                    sleep(self.interval()).await;
                }
            }
        };
        tokio::select! {
            () = ended(&mut shutdown) => {}
            () = turns => {}
        }
        if let Some(held) = held {
            self.release(held).await;
        }
    }

    /// Awaits something long while the lock is renewed; `None` when the lock got lost.
    pub async fn hold_while<T>(
        &self,
        held: &mut HeldLock,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut renewal = interval(self.interval());
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                _ = renewal.tick() => if !self.renew(held).await { return None },
            }
        }
    }
}
