//! Throttles the drain: taking deliveries in goes before publishing what is already synced.
//!
//! Where every update is synced here before it is acknowledged, publishing can wait. It waits while a
//! thread that takes deliveries in is busy, and never for longer than the oldest update may wait; then both
//! share what there is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, RuntimeMetrics};

/// How often it is looked at.
const SAMPLE: Duration = Duration::from_millis(50);
/// A thread is busy when it is at work for one part in so many of its time, or more: where processors are short,
/// as much again is spent on waiting for one, and for the disk.
const BUSY_PART: u32 = 3;

/// The threads that take deliveries in.
#[derive(Debug, Default)]
pub struct Intake(Mutex<Vec<RuntimeMetrics>>);

/// Holds back the drain while deliveries come in.
#[derive(Debug)]
pub struct Throttle {
    intake: Arc<Intake>,
    lag_max: Duration,
    gauge: Gauge,
}

/// Tells from the time that threads were at work whether one of them is busy.
#[derive(Debug)]
struct Gauge {
    sampled: Instant,
    at_work: Vec<Duration>,
    is_busy: bool,
}

impl Intake {
    /// Counts the thread in on whose runtime this is called.
    pub fn join(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Handle::current().metrics());
    }

    fn at_work(&self) -> Vec<Duration> {
        let threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = |thread: &RuntimeMetrics| 0..thread.num_workers();
        let of = |thread: &RuntimeMetrics, worker| thread.worker_total_busy_duration(worker);
        threads
            .iter()
            .flat_map(|thread| workers(thread).map(|worker| of(thread, worker)))
            .collect()
    }
}

impl Throttle {
    /// Lets the oldest update wait for so long while threads are busy.
    pub fn new(intake: Arc<Intake>, lag_max: Duration, now: Instant) -> Self {
        Self {
            intake,
            lag_max,
            gauge: Gauge::new(now),
        }
    }

    /// Whether publishing waits, when the oldest update has waited for so long.
    pub fn holds_back(&mut self, now: Instant, lag: Duration) -> bool {
        if lag >= self.lag_max {
            return false;
        }
        if self.gauge.is_due(now) {
            self.gauge.sample(now, self.intake.at_work());
        }
        self.gauge.is_busy
    }
}

impl Gauge {
    fn new(now: Instant) -> Self {
        Self {
            sampled: now,
            at_work: Vec::new(),
            is_busy: false,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.sampled) >= SAMPLE
    }

    fn sample(&mut self, now: Instant, at_work: Vec<Duration>) {
        let passed = now.saturating_duration_since(self.sampled);
        let before = std::mem::replace(&mut self.at_work, at_work);
        let worked = self
            .at_work
            .iter()
            .zip(before)
            .map(|(now, before)| now.saturating_sub(before));
        self.is_busy = worked.max().unwrap_or_default() * BUSY_PART >= passed;
        self.sampled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn one_busy_thread_is_enough_and_the_first_look_says_nothing() {
        let start = Instant::now();
        let mut gauge = Gauge::new(start);
        assert!(!gauge.is_due(start + 49 * MS) && gauge.is_due(start + 50 * MS));
        let looks = [
            ([900, 20], false),
            ([916, 36], false),
            ([916, 53], true),
            ([917, 54], false),
        ];
        for (place, (at_work, is_busy)) in (1..).zip(looks) {
            gauge.sample(
                start + 50 * place * MS,
                at_work.map(|at_work| at_work * MS).to_vec(),
            );
            assert_eq!(gauge.is_busy, is_busy, "look {place}");
        }
    }

    #[tokio::test]
    async fn nobody_stands_back_for_an_update_that_has_waited_long_enough() {
        let intake = Arc::new(Intake::default());
        intake.join();
        let start = Instant::now();
        let mut throttle = Throttle::new(intake, 100 * MS, start);
        throttle.gauge.is_busy = true;
        assert!(throttle.holds_back(start, 99 * MS));
        assert!(!throttle.holds_back(start, 100 * MS));
        throttle.lag_max = Duration::ZERO;
        assert!(!throttle.holds_back(start, Duration::ZERO));
    }
}
