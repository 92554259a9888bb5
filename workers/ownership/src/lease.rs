//! Proof of owning a partition, and for how long it holds.
//!
//! A process that could not renew its membership for most of its life counts itself out before anybody else
//! may: its leases stop being current by the clock alone, and never become current again. The clock counts
//! while the process is stopped, and the wall clock is asked as well, because a suspended machine stops the other.

use ackline_shared::subjects::Partition;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// Share of a membership's life after which its process stops by itself.
const FRESH_SHARE: f64 = 0.6;
/// Share of it after which what still runs is cut off.
const CUT_SHARE: f64 = 0.9;

/// Share of it that a request for many messages may stay with NATS.
const REQUEST_SHARE: f64 = 0.5;

/// A moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    steady: Instant,
    wall: SystemTime,
}

impl Moment {
    pub fn now() -> Self {
        Self {
            steady: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// Time from an earlier moment, by whichever clock says more.
    fn since(self, earlier: Self) -> Duration {
        let steady = self.steady.saturating_duration_since(earlier.steady);
        steady.max(self.wall.duration_since(earlier.wall).unwrap_or_default())
    }
}

/// How fresh this process's membership is.
#[derive(Debug)]
pub struct Freshness {
    ttl: Duration,
    renewals: Mutex<Renewals>,
}

#[derive(Debug, Default)]
struct Renewals {
    last: Option<Moment>,
    lapses: u64,
}

impl Freshness {
    pub fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            renewals: Mutex::default(),
        }
    }

    /// How long a membership lives without renewal.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Notes a renewal that was asked for at that moment; tells whether the membership had lapsed before it.
    pub fn renewed(&self, asked: Moment) -> bool {
        let mut renewals = self.lock();
        let lapsed = renewals
            .last
            .is_none_or(|last| asked.since(last) >= self.ttl.mul_f64(FRESH_SHARE));
        renewals.lapses += u64::from(lapsed);
        renewals.last = Some(asked);
        lapsed
    }

    /// The count of lapses while the membership is fresh; `None` while it is not.
    pub fn fresh(&self) -> Option<u64> {
        let renewals = self.lock();
        let age = Moment::now().since(renewals.last?);
        (age < self.ttl.mul_f64(FRESH_SHARE)).then_some(renewals.lapses)
    }

    /// Whether somebody else may soon take over what this process owned.
    pub fn is_over(&self) -> bool {
        let age = self.lock().last.map(|last| Moment::now().since(last));
        age.is_none_or(|age| age >= self.ttl.mul_f64(CUT_SHARE))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Renewals> {
        self.renewals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of a claim: a write with an older one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FencingToken {
    pub revision: u64,
    /// Grows with every claim of the partition; higher ones win.
    pub epoch: u64,
    /// Which life of the bucket the revision belongs to.
    pub bucket: i128,
}

/// The right to work on one partition of a pool; cheap to clone.
#[derive(Debug, Clone)]
pub struct Lease(Arc<Held>);

#[derive(Debug)]
struct Held {
    partition: Partition,
    token: FencingToken,
    lapses: u64,
    freshness: Arc<Freshness>,
    leaving: AtomicBool,
    cut: watch::Sender<bool>,
}

impl Lease {
    /// A lease won by a claim that was begun when the membership had lapsed this often.
    pub fn new(
        partition: Partition,
        token: FencingToken,
        lapses: u64,
        freshness: Arc<Freshness>,
    ) -> Self {
        let (leaving, cut) = (AtomicBool::new(false), watch::channel(false).0);
        Self(Arc::new(Held {
            partition,
            token,
            lapses,
            freshness,
            leaving,
            cut,
        }))
    }

    pub fn partition(&self) -> Partition {
        self.0.partition
    }

    pub fn token(&self) -> FencingToken {
        self.0.token
    }

    pub fn epoch(&self) -> u64 {
        self.0.token.epoch
    }

    /// Whether work may be begun and its effects written down.
    pub fn is_current(&self) -> bool {
        !*self.0.cut.borrow() && self.0.freshness.fresh() == Some(self.0.lapses)
    }

    /// How long a request for many messages may stay with NATS, so that none outlives the process's own life.
    pub fn request_life(&self) -> Duration {
        self.0.freshness.ttl().mul_f64(REQUEST_SHARE)
    }

    /// Notes that the partition is about to be given up.
    pub fn leave(&self) {
        self.0.leaving.store(true, Ordering::SeqCst);
    }

    /// Whether a message may be acknowledged that goes on elsewhere: a successor looks there when it begins, and
    /// what is let go of later it would not find.
    pub fn may_let_go(&self) -> bool {
        self.is_current() && !self.0.leaving.load(Ordering::SeqCst)
    }

    /// Ends it: what runs under it stops at its next wait.
    pub fn cut(&self) {
        self.0.cut.send_replace(true);
    }

    /// Waits until it was cut.
    pub async fn was_cut(&self) {
        let mut cut = self.0.cut.subscribe();
        let _cut_or_gone = cut.wait_for(|cut| *cut).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn ago(seconds: u64) -> Moment {
        let back = Duration::from_secs(seconds);
        Moment {
            steady: Instant::now().checked_sub(back).unwrap(),
            wall: SystemTime::now() - back,
        }
    }

    fn lease(freshness: &Arc<Freshness>) -> Lease {
        let token = FencingToken {
            revision: 1,
            epoch: 1,
            bucket: 0,
        };
        Lease::new(
            Partition(0),
            token,
            freshness.fresh().unwrap(),
            freshness.clone(),
        )
    }

    #[test]
    fn a_membership_counts_itself_out_before_its_life_ends() {
        let freshness = Freshness::new(TTL);
        assert!(freshness.fresh().is_none() && freshness.is_over());
        freshness.renewed(ago(5));
        assert!(freshness.fresh().is_some() && !freshness.is_over());
        freshness.renewed(ago(7));
        assert!(freshness.fresh().is_none() && !freshness.is_over());
        freshness.renewed(ago(9));
        assert!(freshness.is_over());
    }

    #[test]
    fn a_lease_from_before_a_lapse_stays_over_after_it() {
        let freshness = Arc::new(Freshness::new(TTL));
        freshness.renewed(ago(5));
        let before = lease(&freshness);
        assert!(!freshness.renewed(ago(2)));
        assert!(before.is_current());
        freshness.lock().last = Some(ago(7));
        assert!(!before.is_current());
        assert!(freshness.renewed(ago(0)));
        assert!(!before.is_current());
        assert!(lease(&freshness).is_current());
    }

    #[test]
    fn the_wall_clock_counts_when_the_other_stood_still() {
        let freshness = Freshness::new(TTL);
        freshness.renewed(Moment {
            steady: Instant::now(),
            ..ago(7)
        });
        assert!(freshness.fresh().is_none());
    }

    #[tokio::test]
    async fn a_lease_that_is_being_given_up_lets_nothing_go_any_more() {
        let freshness = Arc::new(Freshness::new(TTL));
        freshness.renewed(ago(0));
        let lease = lease(&freshness);
        assert!(lease.may_let_go());
        lease.clone().leave();
        assert!(lease.is_current() && !lease.may_let_go());
    }

    #[tokio::test]
    async fn a_cut_lease_is_over_at_once() {
        let freshness = Arc::new(Freshness::new(TTL));
        freshness.renewed(ago(0));
        let (cut, other) = (lease(&freshness), lease(&freshness));
        cut.clone().cut();
        cut.was_cut().await;
        assert!(!cut.is_current() && other.is_current());
    }
}
