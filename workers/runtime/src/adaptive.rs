//! How many jobs at once what a pool talks to bears: found by trying, within a range.
//!
//! Attempts are judged in rounds. A round grows the limit by a step when every place was used, and lets it fall by
//! a quarter when attempts failed or took far longer than they do at their quickest. Invariants: the limit never
//! leaves its range; what is not used does not grow; what was begun before a fall says nothing about the limit after
//! it. Each tenant is judged by its own usual time and all count alike, the worst of several not at all, for a tenant
//! brings downstreams of its own: what troubles one of them is no reason to slow the rest. Pure; the time is passed in.

mod pace;
mod range;
#[cfg(test)]
mod tests;

pub use range::{CONCURRENCY_MAX, Choice, Range, RangeError};

use super::job::Verdict;
use ackline_engine::scheduler::kept_free;
use ackline_shared::ids::TenantId;
use lru::LruCache;
use pace::Pace;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::time::Duration;
use tokio::time::Instant;

/// What a fall leaves of the limit.
const FALL: f64 = 0.75;
/// Steps from the least to the most.
const STEPS: f64 = 64.0;
/// A step is at most this fraction of the limit, but for the smallest.
const STEP_SHARE: f64 = 8.0;
/// Share of attempts that fail beyond which the limit falls.
const FAILING: f64 = 0.2;
/// How many times its quickest usual time an attempt may take on average before the limit falls.
const SLOW: f64 = 2.0;
/// What one attempt counts at most, so that a single straggler decides nothing.
const STRAGGLER: f64 = 2.0 * SLOW;
/// Shortest time from the begin of a round's first attempt to its end.
const ROUND_MIN: Duration = Duration::from_millis(100);
/// Fewest attempts of a round; it has as many as may run at once.
const ATTEMPTS_MIN: usize = 5;
/// How often the quickest usual times are measured anew.
const MEASURED_ANEW: Duration = Duration::from_secs(600);
/// The longest time they are waited for.
const MEASURED_WITHIN: Duration = Duration::from_secs(15);
/// What is left of the limit to measure them: half of where answers get slow, and as much again for what it overshot.
const MEASURED_AT: f64 = 0.25;
/// Tenants whose usual times are known, and that count in one round.
const TENANTS_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// The number of jobs at once, found by trying.
#[derive(Debug)]
pub struct Adaptive {
    range: Range,
    limit: f64,
    round: Round,
    /// The last fall: what was begun earlier does not count.
    fallen: Option<Instant>,
    paces: LruCache<TenantId, Pace>,
    /// Of the tenants that are too quiet to have a usual time of their own.
    common: Pace,
    measured: Instant,
    /// Attempts until they are, before which the limit does not grow.
    unmeasured: usize,
}

/// How an attempt went, as far as it says something about what the pool talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub began: Instant,
    pub took: Duration,
    pub answer: AttemptAnswer,
}

/// How an attempt was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptAnswer {
    Done,
    /// It was refused for good; the time that takes is not the time of an effect.
    Refused,
    /// It was throttled, failed or took too long.
    Failed,
}

/// The attempts since the limit was last judged.
#[derive(Debug, Default)]
struct Round {
    /// When the first that ended was begun.
    began: Option<Instant>,
    ended: usize,
    /// The most that ran at once.
    peak: usize,
    tenants: HashMap<TenantId, Tally>,
}

/// A tenant's attempts in a round.
#[derive(Debug, Default)]
struct Tally {
    ended: f64,
    failed: f64,
    timed: f64,
    /// Sum of how many times their quickest usual time the timed ones took.
    slowness: f64,
}

impl Ended {
    /// Reads it off a verdict; `None` when nothing was asked.
    pub fn of(verdict: &Verdict, began: Instant, took: Duration) -> Option<Self> {
        let answer = match verdict {
            Verdict::Done => AttemptAnswer::Done,
            Verdict::Dead { .. } => AttemptAnswer::Refused,
            Verdict::Retry { .. } | Verdict::Trouble(_) => AttemptAnswer::Failed,
            Verdict::Idle | Verdict::Wait { .. } => return None,
        };
        Some(Self {
            began,
            took,
            answer,
        })
    }
}

impl Adaptive {
    pub fn new(range: Range, now: Instant) -> Self {
        Self {
            range,
            limit: f64::from(range.min()),
            round: Round::default(),
            fallen: None,
            paces: LruCache::new(TENANTS_MAX),
            common: Pace::default(),
            measured: now,
            unmeasured: 0,
        }
    }

    /// Changes the range and keeps what was learnt.
    pub fn set_range(&mut self, range: Range) {
        self.range = range;
        self.set(self.limit);
    }

    pub fn limit(&self) -> usize {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within the range, so between 1 and 4,096"
        )]
        let limit = self.limit as usize;
        limit
    }

    /// Takes in how a tenant's attempt went, and how many ran until it ended, itself included.
    pub fn observe(&mut self, tenant: &TenantId, ended: Ended, running: usize, now: Instant) {
        if self.fallen.is_some_and(|fallen| ended.began < fallen) {
            return;
        }
        self.unmeasured = self.unmeasured.saturating_sub(1);
        let slowness = (ended.answer == AttemptAnswer::Done)
            .then(|| self.learn(tenant, ended.took))
            .flatten();
        self.round.add(tenant, &ended, slowness, running);
        if self.round.is_over(self.limit(), now) {
            let round = std::mem::take(&mut self.round);
            self.judge(&round, now);
        }
    }

    fn judge(&mut self, round: &Round, now: Instant) {
        // Some places may be kept free for whoever comes next.
        let is_used = round.peak + kept_free(self.limit()) >= self.limit();
        let measuring = now.saturating_duration_since(self.measured);
        if measuring >= MEASURED_ANEW {
            self.measured = now;
            self.common.turn();
            self.paces.iter_mut().for_each(|(_, pace)| pace.turn());
            // What is measured under a queue of our own making would let the limit creep up.
            if is_used {
                self.unmeasured = pace::KNOWN_AFTER * round.tenants.len();
                self.fall(MEASURED_AT, now);
            }
        } else if round.peak.saturating_mul(2) >= self.limit() && round.is_bad() {
            self.fall(FALL, now);
        } else if is_used && (self.unmeasured == 0 || measuring >= MEASURED_WITHIN) {
            let span = f64::from(self.range.max() - self.range.min());
            self.set(self.limit + (span / STEPS).min(self.limit / STEP_SHARE).max(1.0));
        }
    }

    fn fall(&mut self, to: f64, now: Instant) {
        self.set((self.limit * to).floor());
        self.fallen = Some(now);
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(f64::from(self.range.min()), f64::from(self.range.max()));
    }

    /// Learns from an effect's time; tells how many times the quickest usual one it is, once that is known.
    fn learn(&mut self, tenant: &TenantId, took: Duration) -> Option<f64> {
        let took = took.as_secs_f64();
        if !self.paces.contains(tenant) {
            self.paces.push(tenant.clone(), Pace::default());
        }
        let own = self.paces.get_mut(tenant).and_then(|pace| {
            let known = pace.quickest();
            pace.learn(took);
            known
        });
        let quickest = match own {
            Some(own) => own,
            None => {
                let known = self.common.quickest();
                self.common.learn(took);
                known?
            }
        };
        Some((took / quickest).min(STRAGGLER))
    }
}

impl Round {
    fn add(&mut self, tenant: &TenantId, ended: &Ended, slowness: Option<f64>, running: usize) {
        self.began.get_or_insert(ended.began);
        self.ended += 1;
        self.peak = self.peak.max(running);
        if !self.tenants.contains_key(tenant) {
            if self.tenants.len() >= TENANTS_MAX.get() {
                return;
            }
            self.tenants.insert(tenant.clone(), Tally::default());
        }
        let Some(tally) = self.tenants.get_mut(tenant) else {
            return;
        };
        tally.ended += 1.0;
        if ended.answer == AttemptAnswer::Failed {
            tally.failed += 1.0;
        }
        if let Some(slowness) = slowness {
            tally.timed += 1.0;
            tally.slowness += slowness;
        }
    }

    fn is_over(&self, limit: usize, now: Instant) -> bool {
        let age = self
            .began
            .map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
        age >= ROUND_MIN && self.ended >= limit.max(ATTEMPTS_MIN)
    }

    fn is_bad(&self) -> bool {
        let tallies = || self.tenants.values();
        let failing = mean_without_worst(tallies().map(|tally| tally.failed / tally.ended));
        let timed = tallies().filter(|tally| tally.timed > 0.0);
        failing >= FAILING
            || mean_without_worst(timed.map(|tally| tally.slowness / tally.timed)) > SLOW
    }
}

/// The mean of the tenants' values; the worst of several is left out, so that no tenant alone slows the others.
fn mean_without_worst(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut worst, mut count) = (0.0, 0.0_f64, 0.0);
    for value in values {
        sum += value;
        worst = worst.max(value);
        count += 1.0;
    }
    if count > 1.0 {
        (sum - worst) / (count - 1.0)
    } else {
        sum
    }
}
