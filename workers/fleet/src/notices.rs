//! What of a pool an operator must not miss although its lag does not show it: tenants that somebody turned,
//! updates that wait in spill queues or for a target, downstreams whose circuit breaker is open.

use super::diagnosis::seconds;
use super::fleet::PoolSum;
use ackline_runtime::status::held::{Drain, OpenBreaker, Turned};
const NAMED_MAX: usize = 2;

/// What is told of a tenant that somebody turned; nothing of others.
pub fn state(turned: Option<&Turned>, drain: Option<&Drain>) -> String {
    let Some(turned) = turned else {
        return String::new();
    };
    let mut words = Vec::new();
    if turned.paused {
        words.push("paused".to_owned());
    }
    if turned.discarding {
        words.push("discarding".to_owned());
    }
    if turned.draining {
        words.push(match drain {
            Some(drain) if drain.is_done() => "drained".to_owned(),
            Some(drain) if drain.is_read => format!("draining, {} left", drain.left),
            _ => "draining".to_owned(),
        });
    }
    words.extend(turned.in_flight_max.map(|jobs| format!("{jobs} at once")));
    words.extend(turned.weight.map(|weight| format!("weight {weight}")));
    words.join(", ")
}

/// What a pool's lag does not show, in words; nothing when there is nothing.
pub fn notices(pool: &PoolSum) -> Option<String> {
    let mut parts = Vec::new();
    let alone = |breaker: &OpenBreaker| {
        format!(
            "{} circuit breaker open for {}",
            breaker.downstream,
            seconds(breaker.open())
        )
    };
    parts.extend(named(
        pool.breakers.iter().map(alone),
        pool.breakers_open,
        "circuit breakers open",
    ));
    let slow = |name: &String| format!("{name} times out half of the time");
    let slow_count = u64::try_from(pool.slow.len()).unwrap_or(u64::MAX);
    parts.extend(named(
        pool.slow.iter().map(slow),
        slow_count,
        "slow downstreams",
    ));
    let tenant = |tenant: &ackline_runtime::status::TenantStatus| {
        let turned = tenant.turned.as_ref().filter(|turned| turned.is_held())?;
        Some(format!(
            "{} {}",
            tenant.tenant,
            state(Some(turned), tenant.drain.as_ref())
        ))
    };
    parts.extend(named(
        pool.tenants.iter().filter_map(tenant),
        pool.tenants_held,
        "tenants held",
    ));
    if pool.backlog.ready > 0 {
        parts.push(format!("{} in spill queues", pool.backlog.ready));
    }
    if pool.waiting() > 0 {
        let oldest = pool
            .oldest_waiting()
            .map(|age| format!(", the oldest for {}", seconds(age)));
        parts.push(format!(
            "{} wait for a target{}",
            pool.waiting(),
            oldest.unwrap_or_default()
        ));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The same by number only, for a line about all pools.
pub fn notice_counts(pool: &PoolSum) -> Option<String> {
    let counts = [
        (u64::from(pool.paused), "paused"),
        (pool.breakers_open, "breakers open"),
        (pool.tenants_held, "held"),
        (pool.backlog.ready, "spilled"),
        (pool.waiting(), "waiting"),
        (
            pool.dead.as_ref().map_or(0, |dead| dead.last_hour),
            "dead in the last hour",
        ),
    ];
    let words = |(count, what): (u64, &str)| match (count, what) {
        (0, _) => None,
        (_, "paused") => Some("paused".to_owned()),
        (count, what) => Some(format!("{count} {what}")),
    };
    let parts: Vec<String> = counts.into_iter().filter_map(words).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// The first of them by name and the others by number.
fn named(each: impl Iterator<Item = String>, count: u64, noun: &str) -> Vec<String> {
    let mut words: Vec<String> = each.take(NAMED_MAX).collect();
    let rest = count.saturating_sub(u64::try_from(words.len()).unwrap_or(u64::MAX));
    if rest > 0 {
        words.push(format!("{rest} more {noun}"));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::fleet::Fleet;
    use super::*;
    use crate::diagnosis::Condition;
    use crate::fixture::{snapshot, status};
    use ackline_runtime::status::held::SpillCounts;
    use ackline_runtime::status::{PoolStatus, TenantStatus};
    use ackline_shared::ids::TenantId;
    use ackline_shared::subjects::Pool;
    use tokio::time::Instant;

    fn sum(pool: Pool, change: impl FnOnce(&mut PoolStatus)) -> PoolSum {
        let mut one = status(pool, 0..4);
        change(&mut one);
        let mut fleet = Fleet::default();
        fleet.hear(snapshot("one", 1, vec![one]), Instant::now());
        fleet.pool(pool).unwrap()
    }

    fn open(downstream: &str, minutes: u64) -> OpenBreaker {
        OpenBreaker {
            downstream: downstream.to_owned(),
            open_ms: minutes * 60_000,
            next_ms: 0,
        }
    }

    #[test]
    fn what_lag_does_not_show_stands_behind_the_verdict() {
        let relay = sum(Pool::Relay, |relay| {
            relay.breakers = vec![
                open("relay.acme.bot", 9),
                open("relay.b.bot", 3),
                open("relay.c.bot", 2),
            ];
            relay.breakers_open = 3;
            relay.lines = SpillCounts {
                moved: 7,
                parked: 5,
            };
            relay.tenants_held = 1;
            let turned = Turned {
                paused: true,
                in_flight_max: Some(4),
                ..Turned::default()
            };
            let acme = TenantId::new("acme").unwrap();
            relay.tenants = vec![TenantStatus {
                turned: Some(turned),
                ..TenantStatus::of(acme)
            }];
        });
        let said = relay.diagnosis();
        assert_eq!(said.condition, Condition::Healthy);
        assert_eq!(
            said.words,
            "healthy; relay.acme.bot circuit breaker open for 9 min; relay.b.bot circuit breaker open for 3 min; \
             1 more circuit breakers open; acme paused, 4 at once; 7 in spill queues; 5 wait for a target"
        );
    }

    #[test]
    fn a_downstream_of_all_the_work_makes_the_pool_unwell_without_any_lag() {
        let said = sum(Pool::Replies, |replies| {
            replies.breakers = vec![open("graph", 3)]
        })
        .diagnosis();
        assert_eq!(said.condition, Condition::DownstreamSlow);
        assert!(
            said.words
                .starts_with("downstream in trouble: graph does not work"),
            "{}",
            said.words
        );
        let said = sum(Pool::Replies, |replies| {
            replies.breakers = vec![open("number.1", 3)]
        })
        .diagnosis();
        assert_eq!(said.condition, Condition::Healthy);
    }

    #[test]
    fn a_drain_is_over_when_all_was_read_and_nothing_is_left() {
        let turned = Turned {
            draining: true,
            ..Turned::default()
        };
        for (left, is_read, words) in [
            (0, false, "draining"),
            (3, false, "draining"),
            (3, true, "draining, 3 left"),
            (0, true, "drained"),
        ] {
            assert_eq!(state(Some(&turned), Some(&Drain { left, is_read })), words);
        }
    }
}
