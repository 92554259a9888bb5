//! Checks of what stands beside the pools' work: tenants somebody holds, open circuit breakers, spill queues that grow old.

use super::finding::Finding;
use ackline_fleet::diagnosis::{self, seconds};
use ackline_fleet::fleet::PoolSum;
use ackline_fleet::notices::state;
use ackline_runtime::status::TenantStatus;
use ackline_runtime::status::held::OpenBreaker;
use ackline_shared::subjects::{self, Pool, SpillQueue};
use async_nats::jetstream::Context;
use std::time::Duration;

/// A spill queue whose front has waited this long is reported.
const QUEUE_OLD: Duration = Duration::from_secs(10 * 60);
/// Tenants and downstreams of one pool that are named.
const NAMED_MAX: usize = 5;

/// Looks at what the processes say of tenants and downstreams.
pub fn check(sums: &[PoolSum], now_ms: u64) -> Vec<Finding> {
    let mut findings: Vec<Finding> = sums.iter().flat_map(|sum| of_pool(sum, now_ms)).collect();
    if sums.iter().all(|sum| sum.breakers_open == 0) {
        findings.push(Finding::ok("downstreams", "no circuit breaker is open"));
    }
    if sums.iter().all(|sum| sum.tenants_held == 0) {
        findings.push(Finding::ok(
            "tenants",
            "none is paused, drained or discarded",
        ));
    }
    findings
}

fn of_pool(sum: &PoolSum, now_ms: u64) -> Vec<Finding> {
    let held = sum.tenants.iter().filter(|tenant| tenant.is_held());
    let mut findings: Vec<Finding> = held
        .take(NAMED_MAX)
        .map(|tenant| of_tenant(sum.pool, tenant, now_ms))
        .collect();
    findings.extend(rest(sum.pool, "tenants", sum.tenants_held, findings.len()));
    // One that all of the pool's work goes through may be the very verdict on the pool.
    let verdict = diagnosis::judge(sum).words;
    let is_reported = |one: &&OpenBreaker| one.is_everybodys() && verdict.contains(&one.downstream);
    let reported = sum.breakers.iter().filter(is_reported).count();
    let breakers = sum.breakers.iter().filter(|one| !is_reported(one));
    let named: Vec<Finding> = breakers
        .take(NAMED_MAX)
        .map(|one| alone(sum.pool, one))
        .collect();
    findings.extend(rest(
        sum.pool,
        "downstreams",
        sum.breakers_open,
        named.len() + reported,
    ));
    findings.extend(named);
    let is_open = |name: &&String| sum.breakers.iter().any(|one| one.downstream == **name);
    let works = sum.slow.iter().filter(|name| !is_open(name));
    findings.extend(works.take(NAMED_MAX).map(|name| slow(name)));
    findings
}

fn slow(name: &str) -> Finding {
    Finding::warn(format!("downstream {name}"), "works, but half of its last requests timed out")
        .hint("it may act on what it is then sent again: let it answer before it works, or give it a longer `timeout`")
}

fn rest(pool: Pool, noun: &str, count: u64, named: usize) -> Option<Finding> {
    let more = count.saturating_sub(u64::try_from(named).unwrap_or(u64::MAX));
    let check = format!("{noun} {pool}");
    (more > 0).then(|| {
        Finding::warn(check, format_args!("{more} more like those named here"))
            .hint("`GET /metrics` of the processes counts them, the log names each")
    })
}

fn of_tenant(pool: Pool, tenant: &TenantStatus, now_ms: u64) -> Finding {
    let turned = tenant.turned.clone().unwrap_or_default();
    let words = state(Some(&turned), tenant.drain.as_ref());
    let since = seconds(Duration::from_millis(now_ms.saturating_sub(turned.at_ms)));
    let waiting = tenant.unfinished();
    let text = format!(
        "{words} since {since} by {}; {waiting} read or in spill queues",
        turned.by
    );
    Finding::warn(format!("tenant {} in {pool}", tenant.tenant), text).hint(format_args!(
        "`ackline resume {pool} --tenant {}` lets it go on",
        tenant.tenant
    ))
}

fn alone(pool: Pool, breaker: &OpenBreaker) -> Finding {
    let next = match breaker.next_ms {
        0 => "the next request finds out".to_owned(),
        ms => format!("asked again in {}", seconds(Duration::from_millis(ms))),
    };
    let text = format!(
        "does not work; circuit breaker open for {}; {next}",
        seconds(breaker.open())
    );
    let tail = breaker
        .downstream
        .split('.')
        .nth(1)
        .filter(|_| pool != Pool::Replies)
        .unwrap_or("T");
    Finding::warn(format!("downstream {}", breaker.downstream), text)
        .hint(format_args!(
            "`ackline tail --tenant {tail}` shows what it answers; mend it, or disable it"
        ))
        .hint("what waits for it is tried again by itself until `give_up_after` of its pool")
}

/// Looks at the front of what waits in spill queues.
pub async fn lines(context: &Context, now_ms: u64) -> Option<Finding> {
    // A missing stream is told by another check.
    let stream = context.get_stream(subjects::SPILL).await.ok()?;
    let state = &stream.cached_info().state;
    if state.messages == 0 {
        return Some(Finding::ok("lines", "nothing waits out of others' way"));
    }
    let [everything] = subjects::SPILL_SUBJECTS;
    let front = stream
        .direct_get_next_for_subject(everything, Some(state.first_sequence))
        .await
        .ok()?;
    let stored_ms =
        u64::try_from(front.time.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    let age = Duration::from_millis(now_ms.saturating_sub(stored_ms));
    Some(judge(
        state.messages,
        age,
        SpillQueue::parse(&front.subject),
    ))
}

fn judge(count: u64, age: Duration, line: Option<(Pool, SpillQueue)>) -> Finding {
    let whose = match &line {
        Some((
            pool,
            SpillQueue {
                tenant,
                conversation: None,
                ..
            },
        )) => format!(", {tenant} in {pool}"),
        Some((pool, SpillQueue { tenant, .. })) => {
            format!(", a conversation of {tenant} in {pool}")
        }
        None => String::new(),
    };
    let text = format!("{count} waiting, the oldest for {}{whose}", seconds(age));
    if age < QUEUE_OLD {
        return Finding::ok("lines", text);
    }
    let tenant = line
        .as_ref()
        .map_or("T".to_owned(), |(_, line)| line.tenant.to_string());
    let finding = Finding::warn("lines", text);
    match line {
        Some((
            pool,
            SpillQueue {
                conversation: None, ..
            },
        )) => finding
            .hint(format_args!(
                "`ackline tenants {pool}` shows whether it is held or how fast it is worked off"
            ))
            .hint(format_args!(
                "`ackline tune {pool} --tenant {tenant} weight=… in_flight_max=…` turns its share"
            )),
        _ => finding.hint(format_args!(
            "`ackline tail --tenant {tenant}` shows what its retries come to"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use ackline_fleet::fixture::{snapshot, status};
    use ackline_fleet::fleet::Fleet;
    use ackline_runtime::status::PoolStatus;
    use ackline_runtime::status::held::{Drain, Turned};
    use ackline_shared::ids::TenantId;
    use ackline_shared::subjects::Partition;
    use tokio::time::Instant;

    fn sums(change: impl FnOnce(&mut PoolStatus)) -> Vec<PoolSum> {
        let mut relay = status(Pool::Relay, 0..4);
        change(&mut relay);
        let mut fleet = Fleet::default();
        fleet.hear(snapshot("one", 1, vec![relay]), Instant::now());
        fleet.pools()
    }

    fn tenant(name: &str, turned: Turned, drain: Option<Drain>) -> TenantStatus {
        let turned = Turned {
            by: "cli:jo".to_owned(),
            at_ms: 60_000,
            ..turned
        };
        TenantStatus {
            turned: Some(turned),
            drain,
            ..TenantStatus::of(TenantId::new(name).unwrap())
        }
    }

    #[test]
    fn nothing_beside_the_work_is_said_so() {
        let findings = check(&sums(|_| ()), 0);
        assert!(
            findings.iter().all(|finding| finding.level == Level::Ok),
            "{findings:?}"
        );
        assert_eq!(findings.len(), 2);
    }

    #[test]
    fn held_tenants_and_dead_downstreams_come_with_a_way_on() {
        let sums = sums(|relay| {
            relay.tenants = vec![
                tenant(
                    "acme",
                    Turned {
                        paused: true,
                        ..Turned::default()
                    },
                    None,
                ),
                tenant(
                    "globex",
                    Turned {
                        draining: true,
                        ..Turned::default()
                    },
                    Some(Drain {
                        left: 3,
                        is_read: true,
                    }),
                ),
            ];
            relay.tenants_held = 4;
            relay.breakers = vec![OpenBreaker {
                downstream: "relay.acme.bot".to_owned(),
                open_ms: 540_000,
                next_ms: 30_000,
            }];
            relay.breakers_open = 1;
            relay.slow = vec!["relay.acme.ai".to_owned()];
        });
        let findings = check(&sums, 240_000);
        let said: Vec<String> = findings
            .iter()
            .map(|finding| format!("{}: {}", finding.check, finding.message))
            .collect();
        assert_eq!(
            said,
            [
                "tenant acme in relay: paused since 3 min by cli:jo; 0 read or in spill queues",
                "tenant globex in relay: draining, 3 left since 3 min by cli:jo; 0 read or in spill queues",
                "tenants relay: 2 more like those named here",
                "downstream relay.acme.bot: does not work; circuit breaker open for 9 min; asked again in 30 s",
                "downstream relay.acme.ai: works, but half of its last requests timed out",
            ]
        );
        assert!(
            findings
                .iter()
                .all(|finding| finding.level == Level::Warn && !finding.hints.is_empty())
        );
        assert!(
            findings[3].hints[0].contains("--tenant acme"),
            "{findings:?}"
        );
    }

    #[test]
    fn a_downstream_has_one_finding_though_it_is_down_and_slow_or_is_the_verdict_on_its_pool() {
        let open = |name: &str| OpenBreaker {
            downstream: name.to_owned(),
            open_ms: 60_000,
            next_ms: 0,
        };
        let sums = sums(|relay| {
            relay.breakers = vec![open("graph"), open("relay.acme.bot")];
            relay.breakers_open = 2;
            relay.slow = vec!["relay.acme.bot".to_owned()];
        });
        assert!(
            diagnosis::judge(&sums[0])
                .words
                .contains("graph does not work"),
            "the pool's finding says it"
        );
        let checks: Vec<String> = check(&sums, 0)
            .into_iter()
            .map(|finding| finding.check)
            .collect();
        assert_eq!(checks, ["downstream relay.acme.bot", "tenants"]);
    }

    #[test]
    fn a_line_is_told_when_it_is_old() {
        let line = |conversation: Option<&str>| SpillQueue {
            partition: Partition(1),
            lane: "msg".to_owned(),
            tenant: TenantId::new("acme").unwrap(),
            conversation: conversation.map(str::to_owned),
        };
        let minutes = |n: u64| Duration::from_secs(n * 60);
        for (age, conversation, level, said) in [
            (
                minutes(3),
                None,
                Level::Ok,
                "7 waiting, the oldest for 3 min, acme in relay",
            ),
            (minutes(20), None, Level::Warn, "acme in relay"),
            (
                minutes(200),
                Some("00ff"),
                Level::Warn,
                "a conversation of acme in relay",
            ),
        ] {
            let finding = judge(7, age, Some((Pool::Relay, line(conversation))));
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.message.contains(said), "{finding:?}");
        }
    }
}
