//! How many requests go to one target at once.

use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Targets whose requests are counted; the one unused longest is forgotten first.
const TARGETS_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

/// Lets a bounded number of requests through to each target, and divides an attempt's time between waiting
/// for one's turn and the request, so that a late turn does not leave a request too little time.
#[derive(Debug)]
pub struct ConcurrencyLimit {
    targets: Mutex<LruCache<String, TargetLimit>>,
    attempt_timeout: Duration,
}

#[derive(Debug, Clone)]
struct TargetLimit {
    turns: Arc<Semaphore>,
    concurrency: u16,
}

impl ConcurrencyLimit {
    /// Makes one for attempts that may take this long.
    pub fn new(attempt_timeout: Duration) -> Self {
        Self {
            targets: Mutex::new(LruCache::new(TARGETS_MAX)),
            attempt_timeout,
        }
    }

    pub fn request_timeout(&self) -> Duration {
        self.attempt_timeout.mul_f64(0.7)
    }

    /// Waits for a turn at a target; `None` when none came up in time.
    pub async fn enter(&self, target: &str, concurrency: u16) -> Option<OwnedSemaphorePermit> {
        let turns = self.turns(target, concurrency.max(1));
        let waited =
            tokio::time::timeout(self.attempt_timeout.mul_f64(0.25), turns.acquire_owned()).await;
        waited.ok()?.ok()
    }

    fn turns(&self, target: &str, concurrency: u16) -> Arc<Semaphore> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = targets.get(target)
            && known.concurrency == concurrency
        {
            return known.turns.clone();
        }
        let turns = Arc::new(Semaphore::new(usize::from(concurrency)));
        targets.put(
            target.to_owned(),
            TargetLimit {
                turns: turns.clone(),
                concurrency,
            },
        );
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_target_gets_no_more_requests_at_once_than_it_takes() {
        let limit = ConcurrencyLimit::new(Duration::from_secs(8));
        let first = limit.enter("relay.acme.a", 1).await;
        assert!(first.is_some());
        assert!(
            limit.enter("relay.acme.a", 1).await.is_none(),
            "its only turn is taken"
        );
        assert!(
            limit.enter("relay.acme.b", 1).await.is_some(),
            "another target does not wait"
        );
        drop(first);
        assert!(limit.enter("relay.acme.a", 1).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_limit_takes_effect() {
        let limit = ConcurrencyLimit::new(Duration::from_secs(8));
        let _held = limit.enter("a", 1).await;
        assert!(limit.enter("a", 2).await.is_some());
    }
}
