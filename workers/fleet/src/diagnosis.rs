//! What to say about a pool in words: pure, so that the terminal, the API and the doctor say the same.

use super::fleet::PoolSum;
use super::notices::notices;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

/// Lag beyond which a pool counts as behind.
pub const BEHIND: Duration = Duration::from_secs(5);
/// Share of attempts put off beyond which what a pool talks to counts as in trouble.
const RETRIED_SHARE: f64 = 0.2;
/// Time of a usual attempt beyond which what a pool talks to counts as slow.
const SLOW_MS: f64 = 2_000.0;
/// Share of what is held beyond which one tenant counts as noisy.
const NOISY_SHARE: f64 = 0.5;
/// Share of the jobs at once that counts as all of them.
const BUSY_SHARE: f64 = 0.8;

/// What a pool's figures amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It keeps up.
    Healthy,
    /// Somebody paused it.
    Paused,
    /// Something in it is past its due time by far: a mistake of ours.
    Stuck,
    /// Nobody works on it, or on some of its partitions.
    Unowned,
    /// What it talks to is slow or refuses.
    DownstreamSlow,
    /// Most of what waits is one tenant's.
    TenantNoisy,
    /// Everything it may run at once is running, and more waits.
    WorkersTooFew,
    /// It is behind and works it off.
    CatchingUp,
}

impl Condition {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Paused => "paused",
            Self::Stuck => "stuck",
            Self::Unowned => "unowned",
            Self::DownstreamSlow => "downstream_slow",
            Self::TenantNoisy => "tenant_noisy",
            Self::WorkersTooFew => "workers_too_few",
            Self::CatchingUp => "catching_up",
        }
    }
}

/// A condition, and the same for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Diagnosis {
    /// For programs.
    pub condition: Condition,
    /// For people.
    pub words: String,
}

/// Judges a pool by its figures; what they do not show stands behind the verdict.
pub fn diagnose(pool: &PoolSum) -> Diagnosis {
    let Diagnosis {
        condition,
        mut words,
    } = judge(pool);
    if let Some(notices) = notices(pool) {
        words.push_str("; ");
        words.push_str(&notices);
    }
    Diagnosis { condition, words }
}

/// Judges a pool by its figures alone.
pub fn judge(pool: &PoolSum) -> Diagnosis {
    let say = |condition, words: String| Diagnosis { condition, words };
    if pool.paused {
        return say(
            Condition::Paused,
            format!("paused; {} waiting", pool.unfinished()),
        );
    }
    if pool.working() == 0 {
        return say(
            Condition::Unowned,
            format!("nobody works on it; {} waiting", pool.unfinished()),
        );
    }
    if let Some(stuck) = pool.stuck.first() {
        return say(
            Condition::Stuck,
            format!("stuck for {}: {stuck}", seconds(stuck.since())),
        );
    }
    let behind = pool.oldest() >= BEHIND;
    if pool.unowned > 0 {
        let words = format!(
            "{} of {} partitions have no owner",
            pool.unowned, pool.partitions
        );
        return say(Condition::Unowned, words);
    }
    if let Some(breaker) = pool.breakers.iter().find(|breaker| breaker.is_everybodys()) {
        let words = format!(
            "downstream in trouble: {} does not work",
            breaker.downstream
        );
        return say(Condition::DownstreamSlow, words);
    }
    if !behind {
        let words = if pool.lag_messages() == 0 {
            "healthy; idle"
        } else {
            "healthy"
        };
        return say(Condition::Healthy, words.to_owned());
    }
    if pool.waits_only_for_held() {
        return say(
            Condition::Healthy,
            "healthy; what is old is of tenants that are held".to_owned(),
        );
    }
    let age = seconds(pool.oldest());
    if let Some(trouble) = downstream(pool) {
        return say(
            Condition::DownstreamSlow,
            format!("{age} behind: {trouble}"),
        );
    }
    if let Some((tenant, percent)) = noisy(pool) {
        return say(
            Condition::TenantNoisy,
            format!("{age} behind: {percent} % of what waits is {tenant}'s"),
        );
    }
    if ratio(pool.load.running, pool.concurrency) >= BUSY_SHARE {
        let words = format!(
            "{age} behind: workers too few, {} jobs run of {}",
            pool.load.running, pool.concurrency
        );
        return say(Condition::WorkersTooFew, words);
    }
    say(Condition::CatchingUp, format!("{age} behind, catching up"))
}

/// How what the pool talks to is in trouble.
fn downstream(pool: &PoolSum) -> Option<String> {
    let attempts = pool.rates.finished + pool.rates.retried;
    let share = if attempts > 0.0 {
        pool.rates.retried / attempts
    } else {
        0.0
    };
    if share >= RETRIED_SHARE {
        return Some(format!(
            "downstream in trouble, {:.0} % of attempts put off",
            share * 100.0
        ));
    }
    if pool.load.waiting > 0 && pool.load.waiting >= pool.load.held().div_ceil(2) {
        return Some(format!(
            "downstream in trouble, {} waiting for a retry",
            pool.load.waiting
        ));
    }
    if let Some(allowed) = pool.adaptive.filter(|allowed| *allowed < pool.concurrency)
        && ratio(pool.load.running, allowed) >= BUSY_SHARE
    {
        let most = pool.concurrency;
        return Some(format!(
            "downstream spared, {allowed} jobs at once of up to {most}"
        ));
    }
    let usual = pool.service.quantile_ms(0.5)?;
    (usual >= SLOW_MS).then(|| format!("downstream slow, {:.1} s an attempt", usual / 1000.0))
}

/// The tenant of whom most of what is queued is, when there are others.
fn noisy(pool: &PoolSum) -> Option<(&str, u64)> {
    let queued = pool.load.queued;
    let at_work = || pool.tenants.iter().filter(|tenant| !tenant.is_held());
    let most = at_work().max_by_key(|tenant| tenant.load.queued)?;
    let has_others = at_work().any(|tenant| tenant.tenant != most.tenant);
    let is_noisy = queued > 0 && has_others && ratio(most.load.queued, queued) >= NOISY_SHARE;
    is_noisy.then(|| (most.tenant.as_str(), most.load.queued * 100 / queued))
}

fn ratio(part: u64, whole: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "counts of work in memory")]
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

/// A time as people say it.
pub fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        s @ 1..120 => format!("{s} s"),
        s @ 120..7_200 => format!("{} min", s / 60),
        s @ 7_200..172_800 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fleet::Fleet;
    use super::*;
    use crate::fixture::{snapshot, status};
    use ackline_runtime::status::held::Turned;
    use ackline_runtime::status::{Backlog, Stuck};
    use ackline_runtime::status::{LaneLag, Load, PoolStatus, TenantStatus};
    use ackline_shared::ids::TenantId;
    use ackline_shared::subjects::Pool;
    use tokio::time::Instant;

    type Change = Box<dyn FnOnce(&mut PoolStatus)>;

    fn judged(change: impl FnOnce(&mut PoolStatus)) -> Diagnosis {
        let mut relay = status(Pool::Relay, 0..4);
        relay.lanes = vec![LaneLag {
            lane: "msg".into(),
            unread: 900,
            in_work: 100,
            oldest_ms: 42_000,
            partition: Some(1),
        }];
        relay.load = Load {
            queued: 90,
            running: 8,
            waiting: 0,
        };
        let tenant = |name: &str, queued| TenantStatus {
            rate: 1.0,
            load: Load {
                queued,
                ..Load::default()
            },
            ..TenantStatus::of(TenantId::new(name).unwrap())
        };
        relay.tenants = vec![tenant("a", 30), tenant("b", 30), tenant("c", 30)];
        relay.rates.finished = 100.0;
        change(&mut relay);
        let mut fleet = Fleet::default();
        fleet.hear(snapshot("one", 1, vec![relay]), Instant::now());
        fleet.pool(Pool::Relay).unwrap().diagnosis()
    }

    #[test]
    fn each_kind_of_trouble_has_its_words() {
        let cases: [(Change, Condition, &str); 10] = [
            (
                Box::new(|_| ()),
                Condition::WorkersTooFew,
                "42 s behind: workers too few, 8 jobs run of 8",
            ),
            (
                Box::new(|pool| pool.load.running = 2),
                Condition::CatchingUp,
                "42 s behind, catching up",
            ),
            (
                Box::new(|pool| pool.lanes[0].oldest_ms = 800),
                Condition::Healthy,
                "healthy",
            ),
            (
                Box::new(|pool| pool.lanes.clear()),
                Condition::Healthy,
                "healthy; idle",
            ),
            (
                Box::new(|pool| pool.paused = true),
                Condition::Paused,
                "paused; 1000 waiting",
            ),
            (
                Box::new(|pool| pool.owned.clear()),
                Condition::Unowned,
                "nobody works on it; 1000 waiting",
            ),
            (
                Box::new(|pool| pool.owned = vec![1, 2]),
                Condition::Unowned,
                "2 of 4 partitions have no owner",
            ),
            (
                Box::new(|pool| (pool.adaptive, pool.load.running) = (Some(4), 4)),
                Condition::DownstreamSlow,
                "42 s behind: downstream spared, 4 jobs at once of up to 8",
            ),
            (
                Box::new(|pool| pool.rates.retried = 60.0),
                Condition::DownstreamSlow,
                "42 s behind: downstream in trouble, 38 % of attempts put off",
            ),
            (
                Box::new(|pool| pool.tenants[1].load.queued = 60),
                Condition::TenantNoisy,
                "42 s behind: 66 % of what waits is b's",
            ),
        ];
        for (change, condition, words) in cases {
            assert_eq!(
                judged(change),
                Diagnosis {
                    condition,
                    words: words.to_owned()
                }
            );
        }
    }

    #[test]
    fn the_age_of_what_is_held_back_is_nobodys_fault_while_others_get_on() {
        let held = |pool: &mut PoolStatus| {
            pool.lanes[0].unread = 0;
            pool.load = Load {
                queued: 32,
                running: 3,
                waiting: 0,
            };
            pool.tenants[0].turned = Some(Turned {
                paused: true,
                ..Turned::default()
            });
        };
        let said = judged(held);
        assert_eq!(
            said.words, "healthy; what is old is of tenants that are held; a paused",
            "30 of a's, 2 of others"
        );
        let stuck = judged(|pool| {
            held(pool);
            pool.rates.finished = 0.0;
        });
        assert_ne!(stuck.condition, Condition::Healthy);
    }

    #[test]
    fn slow_attempts_are_the_other_sides_fault() {
        let said = judged(|pool| pool.service.record(Duration::from_secs(4)));
        assert_eq!(said.condition, Condition::DownstreamSlow, "{said:?}");
    }

    #[test]
    fn what_is_stuck_goes_before_everything_that_is_merely_slow() {
        let said = judged(|pool| {
            let (lane, tenant) = ("msg".to_owned(), TenantId::new("acme").unwrap());
            let what = "an update is not tried again".to_owned();
            pool.stuck = vec![Stuck {
                partition: 3,
                lane,
                tenant,
                since_ms: 45_000,
                what,
            }];
        });
        let words =
            "stuck for 45 s: partition 3, lane msg, tenant acme: an update is not tried again";
        assert_eq!(
            said,
            Diagnosis {
                condition: Condition::Stuck,
                words: words.to_owned()
            }
        );
    }

    #[test]
    fn what_waits_for_a_target_is_told_and_makes_no_pool_slow() {
        let said = judged(|pool| {
            pool.lanes.clear();
            pool.load = Load::default();
            pool.backlog = Some(Backlog {
                ready: 40,
                waiting: 300,
                oldest_ready_ms: Some(900),
                oldest_waiting_ms: Some(7_200_000),
            });
        });
        assert_eq!(said.condition, Condition::Healthy);
        assert_eq!(
            said.words,
            "healthy; 40 in spill queues; 300 wait for a target, the oldest for 2 h"
        );
        let said = judged(|pool| {
            pool.lanes.clear();
            pool.backlog = Some(Backlog {
                ready: 40,
                oldest_ready_ms: Some(9_000),
                ..Backlog::default()
            });
        });
        assert_eq!(
            said.words,
            "9 s behind: workers too few, 8 jobs run of 8; 40 in spill queues"
        );
    }

    #[test]
    fn a_single_tenant_is_never_noisy() {
        let said = judged(|pool| pool.tenants.truncate(1));
        assert_eq!(said.condition, Condition::WorkersTooFew);
    }
}
