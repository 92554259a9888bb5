//! Work on long messages, apart from everybody else's: on a thread of its own that yields to all others.
//!
//! Reading a message of megabytes takes a thread tens of milliseconds. On a thread of the runtime, everything that waits
//! for it there would wait as long, whoever's it is. How many are worked on at once is bounded as for any work: by the
//! pool's jobs at once, and by each tenant's.

use ackline_engine::pull::LONG_BYTES;
use std::future::Future;
use std::pin::Pin;
use std::thread;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;
use tokio::task::block_in_place;

/// How much such a thread yields to the others.
const NICE: i32 = 10;

/// Whether a payload is worked on apart.
pub fn is_long(payload: &[u8]) -> bool {
    payload.len() > LONG_BYTES
}

/// Does work on a thread of its own. It goes on to its end even when nobody waits for it.
pub async fn apart<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let (ended, end) = oneshot::channel();
    let work: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
        let _nobody_waits = ended.send(work.await);
    });
    let runtime = Handle::current();
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

/// Reads a payload, and lets the other tasks of the thread go elsewhere meanwhile if it is long.
pub fn in_place<T>(payload: &[u8], read: impl FnOnce() -> T) -> T {
    let is_elsewhere = || {
        Handle::try_current()
            .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
    };
    if is_long(payload) && is_elsewhere() {
        block_in_place(read)
    } else {
        read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn long_work_runs_on_a_thread_of_its_own() {
        let here = thread::current().id();
        let there = apart(async { thread::current().id() }).await;
        assert_ne!(here, there);
    }

    #[tokio::test]
    async fn a_panic_reaches_whoever_waits() {
        let work = async { assert!(thread::current().name().is_none(), "on purpose") };
        assert!(tokio::spawn(apart(work)).await.unwrap_err().is_panic());
    }

    #[test]
    fn only_what_is_longer_than_a_request_brings_is_long() {
        assert!(!is_long(&vec![0; LONG_BYTES]) && is_long(&vec![0; LONG_BYTES + 1]));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn others_go_on_while_a_long_payload_is_read() {
        let (tell, told) = std::sync::mpsc::channel();
        let reader = tokio::spawn(async move {
            let other = tokio::spawn(async move { tell.send(()).is_ok() });
            let long = vec![0; LONG_BYTES + 1];
            let heard = in_place(&long, || told.recv_timeout(Duration::from_secs(10)).is_ok());
            heard && other.await.unwrap()
        });
        assert!(reader.await.unwrap());
    }
}
