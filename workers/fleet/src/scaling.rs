//! How many processes a pool needs: pure, from what comes in, what waits and how long an attempt takes.
//!
//! What can be worked on counts, wherever it is: unread, queued, or ready in a spill queue. What waits for a
//! target, or for its time, counts only by the attempts it costs, so redeliveries and a refusing downstream do not call
//! for workers that could not help; but it keeps one process, which asks again.

use crate::diagnosis::Condition;
use crate::fleet::PoolSum;
use std::time::Duration;

/// Share of a process's jobs that is planned to be busy.
const BUSY_SHARE: f64 = 0.8;

/// What the number is to achieve, and its bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// Within this time a backlog is to be worked off.
    pub drain: Duration,
    pub min: u32,
    pub max: u32,
}

/// How many processes the pool needs; at least one while something waits, at most one a partition.
pub fn wanted(pool: &PoolSum, targets: &Targets) -> u32 {
    let working = u32::try_from(pool.working()).unwrap_or(u32::MAX);
    let most = if pool.partitions == 0 {
        targets.max
    } else {
        targets.max.min(u32::from(pool.partitions))
    };
    let least = targets.min.min(most);
    let is_idle = pool.unfinished() == 0 && pool.load.held() == 0 && pool.rates.read < 0.01;
    if is_idle {
        return least;
    }
    let needed = match needed(pool, working, targets.drain) {
        // Nothing was finished yet, so nobody knows how long it takes: one process finds out.
        None => working.max(1),
        Some(needed) => needed.max(1),
    };
    let helps = !matches!(
        pool.diagnosis().condition,
        Condition::DownstreamSlow | Condition::Paused
    );
    let needed = if helps {
        needed
    } else {
        needed.min(working.max(1))
    };
    needed.clamp(least, most)
}

fn needed(pool: &PoolSum, working: u32, drain: Duration) -> Option<u32> {
    let attempt = pool.service.mean_ms()? / 1000.0;
    if working == 0 || pool.concurrency == 0 {
        return None;
    }
    #[allow(
        clippy::cast_precision_loss,
        reason = "counts of jobs and messages, far below 2^52"
    )]
    let (jobs, backlog) = (
        pool.concurrency as f64 / f64::from(working),
        (pool.unread() + pool.load.queued).saturating_add(pool.ready()) as f64,
    );
    let capacity = jobs * BUSY_SHARE / attempt.max(0.000_1);
    let passing = pool.rates.read.max(pool.rates.finished);
    let coming = (passing - pool.rates.idle).max(0.0);
    // Of what waits, as much asks nothing of the pool as of what came.
    let share = if passing > 0.0 { coming / passing } else { 1.0 };
    let load = coming + pool.rates.retried + share * backlog / drain.as_secs_f64().max(1.0);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive; the cast saturates"
    )]
    let needed = (load / capacity).ceil() as u32;
    Some(needed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{snapshot, status};
    use crate::fleet::Fleet;
    use ackline_runtime::status::Backlog;
    use ackline_runtime::status::held::{SpillCounts, Turned};
    use ackline_runtime::status::{LaneLag, PoolStatus, TenantStatus, UnownedLag};
    use ackline_shared::ids::TenantId;
    use ackline_shared::subjects::Pool;
    use tokio::time::Instant;

    const TARGETS: Targets = Targets {
        drain: Duration::from_secs(30),
        min: 0,
        max: 10,
    };

    fn lag(unread: u64, oldest_ms: u64) -> LaneLag {
        LaneLag {
            lane: "msg".into(),
            unread,
            in_work: 0,
            oldest_ms,
            partition: None,
        }
    }

    /// One process with 8 jobs of 100 ms each: good for 64 a second when planned at four fifths.
    fn of_one(change: impl FnOnce(&mut PoolStatus)) -> u32 {
        let mut relay = PoolStatus {
            partitions: 32,
            ..status(Pool::Relay, 0..32)
        };
        relay.service.record(Duration::from_millis(100));
        change(&mut relay);
        let mut fleet = Fleet::default();
        fleet.hear(snapshot("one", 1, vec![relay]), Instant::now());
        fleet.pool(Pool::Relay).unwrap().wanted(&TARGETS)
    }

    #[test]
    fn an_idle_pool_needs_the_least() {
        assert_eq!(of_one(|_| ()), 0);
    }

    #[test]
    fn what_comes_in_and_what_waits_are_shared_out() {
        assert_eq!(of_one(|pool| pool.rates.read = 1.0), 1);
        assert_eq!(of_one(|pool| pool.rates.read = 63.0), 1);
        assert_eq!(of_one(|pool| pool.rates.read = 100.0), 2);
        // 60 a second and 1,920 to be worked off in 30 s: 124 a second.
        assert_eq!(
            of_one(|pool| (pool.rates.read, pool.lanes) = (60.0, vec![lag(1_920, 30_000)])),
            2
        );
        assert_eq!(
            of_one(|pool| pool.lanes = vec![lag(1_000_000, 900_000)]),
            10
        );
    }

    #[test]
    fn what_asks_nothing_of_the_pool_needs_nobody() {
        let mostly_idle = |pool: &mut PoolStatus| {
            (pool.rates.read, pool.rates.idle) = (1_000.0, 950.0);
            pool.lanes = vec![lag(10_000, 30_000)];
        };
        // 50 a second and a twentieth of the backlog in 30 s: 67 a second.
        assert_eq!(of_one(mostly_idle), 2);
    }

    #[test]
    fn redelivered_work_that_waits_for_a_retry_calls_for_nobody() {
        let waiting = |pool: &mut PoolStatus| {
            pool.load.waiting = 5_000;
            pool.lanes = vec![LaneLag {
                in_work: 5_000,
                ..lag(0, 60_000)
            }];
        };
        assert_eq!(of_one(waiting), 1);
        // Most attempts are put off: more workers would only make it worse.
        assert_eq!(
            of_one(|pool| (pool.rates.retried, pool.lanes) = (500.0, vec![lag(90_000, 60_000)])),
            1
        );
    }

    #[test]
    fn a_paused_pool_asks_for_no_more_than_it_has() {
        assert_eq!(
            of_one(|pool| (pool.paused, pool.lanes) = (true, vec![lag(1_000_000, 900_000)])),
            1
        );
    }

    #[test]
    fn from_zero_one_process_finds_out() {
        let mut looker = snapshot("api", 1, vec![]);
        let unowned = |unread, backlog| UnownedLag {
            pool: "relay".into(),
            partitions: (0..32).collect(),
            lag: lag(unread, 100),
            backlog,
        };
        let parked = Backlog {
            waiting: 3,
            ..Backlog::default()
        };
        for found in [unowned(50, Backlog::default()), unowned(0, parked)] {
            looker.unowned = vec![found];
            let mut fleet = Fleet::default();
            fleet.hear(looker.clone(), Instant::now());
            assert_eq!(fleet.pool(Pool::Relay).unwrap().wanted(&TARGETS), 1);
        }
    }

    #[test]
    fn what_is_ready_in_spill_queues_calls_for_workers_and_what_waits_there_for_one() {
        let lines = |ready, waiting| {
            move |pool: &mut PoolStatus| {
                pool.backlog = Some(Backlog {
                    ready,
                    waiting,
                    ..Backlog::default()
                });
            }
        };
        assert_eq!(of_one(lines(3_600, 0)), 2, "120 a second for 30 s");
        assert_eq!(of_one(lines(0, 100_000)), 1);
        let held = |pool: &mut PoolStatus| {
            lines(3_600, 0)(pool);
            let turned = Some(Turned {
                paused: true,
                ..Turned::default()
            });
            let acme = TenantStatus::of(TenantId::new("acme").unwrap());
            pool.tenants = vec![TenantStatus {
                turned,
                backlog: pool.backlog,
                ..acme
            }];
        };
        assert_eq!(of_one(held), 1, "nobody may work on it");
        let older = |pool: &mut PoolStatus| {
            pool.lines = SpillCounts {
                moved: 3_600,
                parked: 9,
            }
        };
        assert_eq!(
            of_one(older),
            2,
            "a process that tells of spill queues alone"
        );
    }

    #[test]
    fn nobody_is_wanted_beyond_the_partitions() {
        let few = |pool: &mut PoolStatus| {
            (pool.partitions, pool.lanes) = (4, vec![lag(1_000_000, 900_000)])
        };
        assert_eq!(of_one(few), 4);
    }
}
