//! The deadline of a connection's next head, kept without a timer of the runtime for each.
//!
//! hyper asks for a timer before every head and drops it once the head is there. Each connection keeps one, which
//! is set to a later time only when it ends: a connection in use touches the runtime's timers once in a deadline.

use hyper::rt::{Sleep, Timer};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The timer of one connection; it is asked for one deadline at a time.
#[derive(Debug, Clone, Default)]
pub struct HeadTimer(Arc<Mutex<Option<Pin<Box<tokio::time::Sleep>>>>>);

#[derive(Debug)]
struct Deadline {
    timer: HeadTimer,
    at: Instant,
}

impl HeadTimer {
    fn lock(&self) -> MutexGuard<'_, Option<Pin<Box<tokio::time::Sleep>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, at: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Deadline {
            timer: self.clone(),
            at,
        })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into()
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let at = tokio::time::Instant::from(self.at);
        let mut kept = self.timer.lock();
        let sleep = kept.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        loop {
            match sleep.as_mut().poll(context) {
                Poll::Ready(()) if sleep.deadline() < at => sleep.as_mut().reset(at),
                polled => return polled,
            }
        }
    }
}

impl Sleep for Deadline {}

#[cfg(test)]
mod tests {
    use super::*;

    async fn waited(sleep: Pin<Box<dyn Sleep>>) -> Duration {
        let start = tokio::time::Instant::now();
        sleep.await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn every_deadline_is_kept_whatever_was_asked_before() {
        let timer = HeadTimer::default();
        for (dropped, kept) in [(10, 30), (30, 10), (10, 10), (1, 500)] {
            let mut early = timer.sleep(Duration::from_secs(dropped));
            assert!(futures_util::poll!(&mut early).is_pending());
            drop(early);
            let seconds = Duration::from_secs(kept);
            let took = waited(timer.sleep(seconds)).await;
            assert!(
                took >= seconds && took < seconds + Duration::from_millis(10),
                "{took:?} of {seconds:?}"
            );
        }
    }
}
