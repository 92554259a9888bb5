//! Whether a delivery is taken at all: sheds early, so that what is taken is answered soon.
//!
//! When even the fastest of the deliveries that were stored in a while took longer than the target, a queue
//! stands behind the edge, and whatever joins it only waits; so it does when a queue has begun and a steady
//! flow would not carry it off within the target. Then no more may be in flight than are stored within the
//! target; once the queue is gone, the limit grows again. What is turned away costs no read, no
//! check and no publish. Pure but for the lock: time is passed in.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Windows in which the target is looked at, so that a queue is seen before it is twice as long.
const WINDOWS_PER_TARGET: u32 = 5;
/// Never fewer than this in flight: a log that commits in groups stores the less, the fewer wait for it.
const LIMIT_MIN: usize = 128;
/// What is over sooner did not wait for the log, and says nothing of the queue.
const AT_ONCE: Duration = Duration::from_micros(100);

/// When deliveries are turned away although there is room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shedding {
    /// How long storing a delivery may take, the fastest of a while.
    pub target: Duration,
    /// Deliveries in flight at once, at most.
    pub in_flight_max: usize,
}

/// The admission of one thread.
#[derive(Debug)]
pub struct Admission(Mutex<Limiter>);

/// A delivery being stored; it counts until it is dropped.
#[derive(Debug)]
pub struct Storing<'a> {
    admission: &'a Admission,
    began: Instant,
}

impl Admission {
    /// Begins with everything admitted.
    pub fn new(shedding: Shedding, now: Instant) -> Self {
        Self(Mutex::new(Limiter::new(shedding, now)))
    }

    /// Whether one more delivery may come in.
    pub fn admits(&self, now: Instant) -> bool {
        self.lock().admits(now)
    }

    /// Begins to store a delivery.
    pub fn begin(&self, now: Instant) -> Storing<'_> {
        self.lock().begin();
        Storing {
            admission: self,
            began: now,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Limiter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storing<'_> {
    /// The delivery is stored.
    pub fn stored(self, now: Instant) {
        self.admission
            .lock()
            .stored(now, now.saturating_duration_since(self.began));
    }
}

impl Drop for Storing<'_> {
    fn drop(&mut self) {
        self.admission.lock().end();
    }
}

#[derive(Debug)]
struct Limiter {
    shedding: Shedding,
    limit: usize,
    in_flight: usize,
    window: Window,
}

/// What was seen since it began.
#[derive(Debug)]
struct Window {
    began: Instant,
    last: Instant,
    stored: usize,
    flows: bool,
    fastest: Duration,
    most_in_flight: usize,
}

impl Window {
    fn begin(now: Instant, in_flight: usize) -> Self {
        Self {
            began: now,
            last: now,
            stored: 0,
            flows: true,
            fastest: Duration::MAX,
            most_in_flight: in_flight,
        }
    }
}

impl Limiter {
    fn new(shedding: Shedding, now: Instant) -> Self {
        Self {
            shedding,
            limit: shedding.in_flight_max,
            in_flight: 0,
            window: Window::begin(now, 0),
        }
    }

    fn admits(&mut self, now: Instant) -> bool {
        self.turn(now);
        self.in_flight < self.limit
    }

    fn begin(&mut self) {
        self.in_flight += 1;
        self.window.most_in_flight = self.window.most_in_flight.max(self.in_flight);
    }

    fn end(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    fn stored(&mut self, now: Instant, took: Duration) {
        if took < AT_ONCE {
            return;
        }
        if now.saturating_duration_since(self.window.last) > self.shedding.target * 4 {
            // Nothing was stored for so long that what was seen before means nothing.
            self.window = Window::begin(now, self.in_flight);
        }
        // A steady flow tells how long whoever comes now would wait.
        self.window.flows &= now.saturating_duration_since(self.window.last) <= self.length() / 4;
        self.window.stored += 1;
        self.window.last = now;
        self.window.fastest = self.window.fastest.min(took);
        self.turn(now);
    }

    fn length(&self) -> Duration {
        self.shedding.target / WINDOWS_PER_TARGET
    }

    /// Ends a window that is over, and draws the conclusion.
    fn turn(&mut self, now: Instant) {
        let length = self.length();
        let lasted = now.saturating_duration_since(self.window.began);
        // A window in which nothing was stored says nothing, and goes on.
        if lasted < length || self.window.stored == 0 {
            return;
        }
        let Window {
            stored,
            fastest,
            most_in_flight,
            flows,
            ..
        } = self.window;
        let (target, max) = (self.shedding.target, self.shedding.in_flight_max);
        let within_target = stored_within(stored, lasted, target);
        let grows = flows && fastest > target / 4 && self.in_flight > within_target;
        if fastest > target || grows {
            self.limit = within_target.min(self.limit).max(LIMIT_MIN.min(max));
        } else if most_in_flight >= self.limit && fastest < target / 2 {
            self.limit = self.limit.saturating_add((self.limit / 4).max(1)).min(max);
        }
        self.window = Window::begin(now, self.in_flight);
    }
}

/// How many are stored within the target at the window's rate.
fn stored_within(stored: usize, lasted: Duration, target: Duration) -> usize {
    let scaled = stored as u128 * target.as_nanos() / lasted.as_nanos().max(1);
    usize::try_from(scaled).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const TARGET: Duration = Duration::from_millis(250);

    /// What a simulated run came to.
    #[derive(Debug, Default)]
    struct Run {
        offered: usize,
        shed: usize,
        took: Vec<Duration>,
        most_in_flight: usize,
    }

    impl Run {
        fn quantile(&mut self, share: f64) -> Duration {
            self.took.sort();
            self.took[((self.took.len() - 1) as f64 * share) as usize]
        }
    }

    /// Offers deliveries at a steady pace to a log that stores one after another, each after the other's time.
    fn simulate(every: Duration, each: Duration, lasting: Duration, shedding: Shedding) -> Run {
        let start = Instant::now();
        let mut limiter = Limiter::new(shedding, start);
        let (mut run, mut queue) = (Run::default(), VecDeque::<(Instant, Instant)>::new());
        let mut now = start;
        while now < start + lasting {
            while let Some((came, done)) = queue.pop_front_if(|(_, done)| *done <= now) {
                limiter.stored(done, done - came);
                limiter.end();
                run.took.push(done - came);
            }
            run.offered += 1;
            if limiter.admits(now) && queue.len() < shedding.in_flight_max {
                limiter.begin();
                let free = queue.back().map_or(now, |(_, done)| *done).max(now);
                queue.push_back((now, free + each));
            } else {
                run.shed += 1;
            }
            run.most_in_flight = run.most_in_flight.max(queue.len());
            now += every;
        }
        run
    }

    fn shedding(in_flight_max: usize) -> Shedding {
        Shedding {
            target: TARGET,
            in_flight_max,
        }
    }

    #[test]
    fn twice_the_capacity_is_answered_as_soon_as_the_target_and_costs_no_throughput() {
        let (every, each) = (Duration::from_micros(100), Duration::from_micros(200));
        let long = Duration::from_secs(20);
        let mut run = simulate(every, each, long, shedding(100_000));
        let p99 = run.quantile(0.99);
        assert!(p99 < TARGET * 3 / 2, "{p99:?}");
        assert!(
            run.took.len() > 95_000,
            "only {} of 100,000 were stored",
            run.took.len()
        );
        // Without it, whatever is taken waits behind whatever came before.
        let never = Shedding {
            target: Duration::from_secs(3600),
            in_flight_max: 100_000,
        };
        assert!(simulate(every, each, long, never).quantile(0.99) > Duration::from_secs(8));
    }

    /// Sixty milliseconds in which all that waited for the log waited for 400, and repeats for nothing.
    fn slow_window(limiter: &mut Limiter, start: Instant) {
        for ms in [400, 460] {
            limiter.stored(start + Duration::from_millis(ms), Duration::from_micros(20));
            limiter.stored(
                start + Duration::from_millis(ms),
                Duration::from_millis(400),
            );
        }
    }

    #[test]
    fn a_pause_of_the_log_is_no_queue() {
        let start = Instant::now();
        let mut limiter = Limiter::new(shedding(4096), start);
        (0..500).for_each(|_| limiter.begin());
        limiter.stored(start + Duration::from_millis(10), Duration::from_millis(2));
        for waited in (100..=400).rev() {
            limiter.stored(
                start + Duration::from_millis(400),
                Duration::from_millis(waited),
            );
        }
        limiter.stored(start + Duration::from_millis(460), Duration::from_millis(2));
        assert_eq!(limiter.limit, 4096);
    }

    #[test]
    fn the_limit_is_gone_soon_after_the_overload() {
        let start = Instant::now();
        let mut limiter = Limiter::new(shedding(4096), start);
        (0..500).for_each(|_| limiter.begin());
        slow_window(&mut limiter, start);
        assert_eq!(limiter.limit, LIMIT_MIN);
        (0..500).for_each(|_| limiter.end());
        let mut now = start + Duration::from_millis(460);
        for _ in 0..30 {
            (0..4096).for_each(|_| limiter.begin());
            now += Duration::from_millis(50);
            limiter.stored(now, Duration::from_millis(2));
            (0..4096).for_each(|_| limiter.end());
        }
        assert_eq!(limiter.limit, 4096);
    }

    #[test]
    fn repeats_answered_from_memory_do_not_hide_a_queue() {
        let start = Instant::now();
        let mut limiter = Limiter::new(shedding(4096), start);
        (0..500).for_each(|_| limiter.begin());
        slow_window(&mut limiter, start);
        assert_eq!(limiter.limit, LIMIT_MIN);
    }

    #[test]
    fn a_few_slow_deliveries_are_no_queue() {
        // Large batches, one after another.
        let run = simulate(
            Duration::from_millis(500),
            Duration::from_millis(400),
            TARGET * 200,
            shedding(64),
        );
        assert_eq!(run.shed, 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn below_capacity_nothing_is_shed_and_above_it_the_wait_is_bounded(
            each_us in 100..2_000_u64, load_percent in 10..400_u64, in_flight_max in 32..20_000_usize,
        ) {
            let (each, every) = (Duration::from_micros(each_us), Duration::from_nanos(each_us * 100_000 / load_percent));
            let mut run = simulate(every, each, Duration::from_secs(6), shedding(in_flight_max));
            prop_assert!(run.most_in_flight <= in_flight_max);
            if load_percent <= 100 {
                prop_assert_eq!(run.shed, 0);
            }
            // The floor may wait longer than the target when the log is slow.
            let floor = each * LIMIT_MIN as u32;
            prop_assert!(run.quantile(0.9) <= (TARGET * 3 / 2).max(floor * 2));
        }
    }
}
