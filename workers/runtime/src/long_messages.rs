//! Work on long messages, aside from everybody else's: on a thread of its own that yields to all others.
//!
//! Reading a message of megabytes takes a thread tens of milliseconds. On a thread of the runtime, everything that waits
//! for it there would wait as long, whoever's it is. So a long message has a thread of low priority, and few have one
//! at once.

use ackline_engine::pull::LONG_BYTES;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::block_in_place;

/// Long messages of a pool that are worked on at once; the rest wait. A target of theirs that hangs holds its place.
const AT_ONCE: usize = 16;
/// How much such a thread yields to the others.
const NICE: i32 = 10;

/// The places for long messages; cheap to clone.
#[derive(Debug, Clone)]
pub struct LongMessages(Arc<Semaphore>);

impl Default for LongMessages {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

/// Whether a payload is worked on aside.
pub fn is_long(payload: &[u8]) -> bool {
    payload.len() > LONG_BYTES
}

impl LongMessages {
    /// Does work on a thread of its own, when there is a place. It goes on to its end even when nobody waits for it.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let place = self.0.clone().acquire_owned().await;
        let (ended, end) = oneshot::channel();
        let runtime = Handle::current();
        let work: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            let _nobody_waits = ended.send(work.await);
            drop(place);
        });
        let (hand_over, handed_over) = oneshot::channel();
        let started = thread::Builder::new()
            .name("long-message".to_owned())
            .spawn(move || {
                // One that may not be nice works all the same.
                let _may_not = rustix::process::setpriority_process(None, NICE);
                if let Ok(work) = runtime.block_on(handed_over) {
                    runtime.block_on(work);
                }
            });
        match started {
            Ok(_thread) => drop(hand_over.send(work)),
            // No thread is to be had: it is done here.
            Err(_) => work.await,
        }
        match end.await {
            Ok(result) => result,
            // It panicked, and so does whoever waits.
            Err(_) => std::panic::resume_unwind(Box::new("work on a long message panicked")),
        }
    }
}

/// Does work that many wait for anyway in a place where nothing else waits for the thread.
pub async fn in_place<T>(is_long: bool, work: impl Future<Output = T>) -> T {
    let runtime = Handle::current();
    if is_long && runtime.runtime_flavor() == RuntimeFlavor::MultiThread {
        block_in_place(|| runtime.block_on(work))
    } else {
        work.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_work_runs_on_a_thread_of_its_own() {
        let here = thread::current().id();
        let there = LongMessages::default()
            .run(async { thread::current().id() })
            .await;
        assert_ne!(here, there);
    }

    #[tokio::test]
    async fn no_more_is_worked_on_at_once_than_there_are_places() {
        let long = LongMessages::default();
        let (hold, held) = tokio::sync::watch::channel(false);
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..=AT_ONCE {
            let (long, mut held) = (long.clone(), held.clone());
            all.spawn(async move {
                long.run(async move { held.wait_for(|is_over| *is_over).await.is_ok() })
                    .await
            });
        }
        while long.0.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        hold.send_replace(true);
        assert_eq!(all.join_all().await, [true; AT_ONCE + 1]);
    }

    #[tokio::test]
    async fn a_panic_reaches_whoever_waits() {
        let work = async { assert!(thread::current().name().is_none(), "on purpose") };
        let waiting = tokio::spawn(async move { LongMessages::default().run(work).await });
        assert!(waiting.await.unwrap_err().is_panic());
    }

    #[test]
    fn only_what_is_longer_than_a_request_brings_is_long() {
        assert!(!is_long(&vec![0; LONG_BYTES]) && is_long(&vec![0; LONG_BYTES + 1]));
    }
}
