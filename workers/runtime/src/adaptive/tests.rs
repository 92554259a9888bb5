//! The law against a simulated downstream that serves so many requests at once and lets the others queue.

use super::*;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

fn range(min: u64, max: u64) -> Range {
    Range::new(min, max).unwrap()
}

fn tenant(n: usize) -> TenantId {
    TenantId::new(format!("t{n}")).unwrap()
}

/// What the tenants of a pool talk to, in common or each for itself.
#[derive(Clone)]
struct Downstream {
    /// When each of its places is free again.
    places: BinaryHeap<Reverse<Instant>>,
    service: Duration,
    /// One request in so many fails; none when 0.
    fails_each: usize,
}

impl Downstream {
    fn new(capacity: usize, service: Duration, now: Instant) -> Self {
        Self {
            places: places(capacity, now),
            service,
            fails_each: 0,
        }
    }
}

fn places(capacity: usize, now: Instant) -> BinaryHeap<Reverse<Instant>> {
    std::iter::repeat_n(Reverse(now), capacity).collect()
}

/// A pool with more to do than it may, or with less.
struct Pool {
    adaptive: Adaptive,
    now: Instant,
    running: BinaryHeap<Reverse<(Instant, Instant, usize, bool)>>,
    started: usize,
    done: usize,
    /// Work that is there at once, at most.
    demand: usize,
    /// One for all tenants, or one each.
    downstreams: Vec<Downstream>,
    tenants: Vec<TenantId>,
    noise: u64,
}

impl Pool {
    fn new(range: Range, capacity: usize, service: Duration) -> Self {
        let now = Instant::now();
        Self {
            adaptive: Adaptive::new(range, now),
            now,
            running: BinaryHeap::new(),
            started: 0,
            done: 0,
            demand: usize::MAX,
            downstreams: vec![Downstream::new(capacity, service, now)],
            tenants: vec![tenant(0)],
            noise: 1,
        }
    }

    fn limit(&self) -> usize {
        self.adaptive.limit()
    }

    /// Works for a time; tells how many effects took place per second.
    fn work(&mut self, time: Duration) -> f64 {
        let (end, done) = (self.now + time, self.done);
        while self.now < end {
            while self.running.len() < self.limit().min(self.demand) {
                self.start();
            }
            let Some(Reverse((at, began, of, failed))) = self.running.pop() else {
                break;
            };
            self.now = at.max(self.now);
            let answer = if failed {
                AttemptAnswer::Failed
            } else {
                AttemptAnswer::Done
            };
            self.done += usize::from(!failed);
            let ended = Ended {
                began,
                took: at - began,
                answer,
            };
            let running = self.running.len() + 1;
            self.adaptive
                .observe(&self.tenants[of], ended, running, self.now);
        }
        (self.done - done) as f64 / time.as_secs_f64()
    }

    fn start(&mut self) {
        self.started += 1;
        let of = self.started % self.tenants.len();
        // Some spread of a third about the usual, the same in every run.
        self.noise = self
            .noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let spread = 0.67 + 0.66 * (self.noise >> 40) as f64 / (1_u64 << 24) as f64;
        let shared = self.downstreams.len();
        let downstream = &mut self.downstreams[of % shared];
        let failed =
            downstream.fails_each > 0 && self.started.is_multiple_of(downstream.fails_each);
        let Reverse(free) = downstream.places.pop().unwrap();
        let ready = free.max(self.now) + downstream.service.mul_f64(spread);
        downstream.places.push(Reverse(ready));
        let timed_out = ready - self.now > TIMEOUT;
        let at = if timed_out { self.now + TIMEOUT } else { ready };
        self.running
            .push(Reverse((at, self.now, of, failed || timed_out)));
    }
}

#[test]
fn it_grows_to_the_most_while_answers_stay_quick_and_begins_with_the_least() {
    let mut pool = Pool::new(range(8, 64), 1000, Duration::from_millis(20));
    assert_eq!(pool.limit(), 8);
    pool.work(30 * SECOND);
    assert_eq!(pool.limit(), 64);
}

#[test]
fn failures_bring_it_down_and_it_recovers_after_they_end() {
    let mut pool = Pool::new(range(4, 64), 1000, Duration::from_millis(20));
    pool.work(30 * SECOND);
    pool.downstreams[0].fails_each = 3;
    pool.work(5 * SECOND);
    assert_eq!(pool.limit(), 4);
    pool.downstreams[0].fails_each = 20;
    pool.work(30 * SECOND);
    assert_eq!(pool.limit(), 64, "some fail always");
}

#[test]
fn one_straggler_decides_nothing() {
    let mut pool = Pool::new(range(4, 16), 1000, Duration::from_millis(20));
    pool.work(10 * SECOND);
    let (began, now) = (pool.now - TIMEOUT, pool.now);
    pool.adaptive.observe(
        &tenant(0),
        Ended {
            began,
            took: TIMEOUT,
            answer: AttemptAnswer::Done,
        },
        16,
        now,
    );
    pool.work(SECOND);
    assert_eq!(pool.limit(), 16);
}

#[test]
fn what_is_slower_for_good_is_usual_after_a_while() {
    let mut pool = Pool::new(range(2, 32), 1000, Duration::from_millis(60));
    pool.work(20 * SECOND);
    pool.downstreams[0].service = Duration::from_millis(300);
    pool.work(20 * SECOND);
    assert_eq!(pool.limit(), 2);
    pool.work(3 * MEASURED_ANEW);
    assert_eq!(pool.limit(), 32);
}

#[test]
fn trouble_of_one_tenant_alone_slows_nobody_and_trouble_of_all_slows_the_pool() {
    for trouble in [
        |one: &mut Downstream| one.fails_each = 1,
        |one: &mut Downstream| one.service *= 20,
    ] {
        let mut pool = Pool::new(range(4, 48), 1000, Duration::from_millis(20));
        pool.tenants = (0..4).map(tenant).collect();
        pool.downstreams = vec![pool.downstreams[0].clone(); 4];
        pool.work(30 * SECOND);
        trouble(&mut pool.downstreams[2]);
        pool.work(30 * SECOND);
        assert_eq!(pool.limit(), 48);
        (0..4).for_each(|n| trouble(&mut pool.downstreams[n]));
        pool.work(30 * SECOND);
        assert_eq!(pool.limit(), 4);
    }
}

#[test]
fn tenants_too_quiet_to_have_a_usual_time_are_judged_by_the_common_one() {
    let mut pool = Pool::new(range(4, 48), 1000, Duration::from_millis(20));
    pool.tenants = (0..50_000).map(tenant).collect();
    pool.work(30 * SECOND);
    assert_eq!(pool.limit(), 48);
    pool.downstreams[0].service = Duration::from_millis(200);
    pool.work(30 * SECOND);
    assert_eq!(pool.limit(), 4);
    assert!(pool.adaptive.paces.len() <= TENANTS_MAX.get());
}

#[test]
fn a_new_range_keeps_what_was_found_within_it() {
    let mut pool = Pool::new(range(1, 64), 1000, Duration::from_millis(20));
    pool.work(30 * SECOND);
    for (min, max, limit) in [(1, 128, 64), (1, 10, 10), (20, 64, 20)] {
        pool.adaptive.set_range(range(min, max));
        assert_eq!(pool.limit(), limit);
    }
}

#[test]
fn what_asked_nothing_says_nothing() {
    let (now, took) = (Instant::now(), SECOND);
    let wait = Verdict::Wait {
        reason: String::new(),
        after: took,
    };
    assert_eq!(
        (
            Ended::of(&Verdict::Idle, now, took),
            Ended::of(&wait, now, took)
        ),
        (None, None)
    );
    assert_eq!(
        Ended::of(&Verdict::retry("429"), now, took).unwrap().answer,
        AttemptAnswer::Failed
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Whatever is told, in whatever order, under whatever ranges.
    #[test]
    fn it_never_leaves_its_range(
        steps in proptest::collection::vec((0..3_u8, 0..4_usize, 0..20_000_u64, 0..5_000_usize, 0..900_000_u64), 1..400),
        ranges in proptest::collection::vec((1..=4096_u64, 1..=4096_u64), 1..4),
    ) {
        let ranges: Vec<Range> = ranges.into_iter().map(|(a, b)| range(a.min(b), a.max(b))).collect();
        let mut now = Instant::now();
        let mut adaptive = Adaptive::new(ranges[0], now);
        for (n, (answer, of, took_ms, running, passed_ms)) in steps.into_iter().enumerate() {
            let within = ranges[n / 150 % ranges.len()];
            adaptive.set_range(within);
            let answer = [AttemptAnswer::Done, AttemptAnswer::Refused, AttemptAnswer::Failed][usize::from(answer)];
            let took = Duration::from_millis(took_ms);
            let began = now.checked_sub(took).unwrap_or(now);
            now += Duration::from_millis(passed_ms);
            adaptive.observe(&tenant(of), Ended { began, took, answer }, running, now);
            let bounds = within.min() as usize..=within.max() as usize;
            prop_assert!(bounds.contains(&adaptive.limit()), "{} of {bounds:?}", adaptive.limit());
        }
    }

    /// A downstream of any capacity: what it can do is done, and the queue there stays short, also after hours.
    #[test]
    fn it_finds_what_a_downstream_bears_and_stays_there(
        capacity in 4..24_usize, service_ms in 200..800_u64, tenants in 1..6_usize,
    ) {
        let mut pool = Pool::new(range(1, 256), capacity, Duration::from_millis(service_ms));
        pool.tenants = (0..tenants).map(tenant).collect();
        pool.work(120 * SECOND);
        let able = capacity as f64 / Duration::from_millis(service_ms).as_secs_f64();
        for _ in 0..4 {
            let done = pool.work(300 * SECOND);
            prop_assert!(done >= 0.85 * able, "{done:.0}/s of {able:.0}/s");
            let most = capacity * 3 + 6;
            prop_assert!(pool.limit() <= most, "{} at once for {capacity}", pool.limit());
        }
    }

    /// Trouble of any kind makes it fall, and once it is over everything is as before.
    #[test]
    fn it_falls_in_trouble_and_recovers_after_it(
        kind in 0..3_u8, service_ms in 100..400_u64, trouble_s in 60..90_u32,
    ) {
        let service = Duration::from_millis(service_ms);
        let mut pool = Pool::new(range(2, 32), 64, service);
        pool.work(120 * SECOND);
        prop_assert_eq!(pool.limit(), 32);
        let well = pool.downstreams[0].clone();
        match kind {
            0 => pool.downstreams[0].fails_each = 2,
            1 => pool.downstreams[0].service = service * 5,
            _ => pool.downstreams[0].places = places(2, pool.now),
        }
        pool.work(trouble_s * SECOND);
        prop_assert!(pool.limit() <= 9, "{} in trouble {kind}", pool.limit());
        pool.downstreams[0] = Downstream { places: places(64, pool.now), ..well };
        pool.work(60 * SECOND);
        prop_assert_eq!(pool.limit(), 32);
    }

    /// With less to do than the limit allows, but for what is kept free, it stays where it is.
    #[test]
    fn what_is_not_used_does_not_grow(min in 2..64_u64, less in 1..64_usize, service_ms in 20..100_u64) {
        let mut pool = Pool::new(range(min, 512), 1000, Duration::from_millis(service_ms));
        prop_assume!(pool.limit() > kept_free(pool.limit()) + less);
        pool.demand = pool.limit() - kept_free(pool.limit()) - less;
        pool.work(30 * SECOND);
        prop_assert_eq!(pool.limit(), min as usize);
    }
}
