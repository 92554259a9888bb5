//! Checks of the pools: what the processes say of themselves, against the consumers that NATS has.

use super::finding::Finding;
use ackline_fleet::diagnosis::{Condition, Diagnosis, judge, seconds};
use ackline_fleet::fleet::PoolSum;
use ackline_fleet::lag::Watched;
use ackline_fleet::notices::notices;
use ackline_shared::subjects::{self, Partition, Pool, SpillQueue};
use async_nats::jetstream::Context;
use async_nats::jetstream::stream::Stream;
use futures_util::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::timeout;

/// Time for the list of consumers of one stream.
const LIST_WAIT: Duration = Duration::from_secs(20);
/// A pool this far behind that finishes nothing is stuck.
const STUCK: Duration = Duration::from_secs(60);
/// Missing consumers that are named.
const NAMED_MAX: usize = 3;

/// What NATS knows of a pool's work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Backlog {
    names: BTreeSet<String>,
    waiting: u64,
    in_work: u64,
    in_lines: u64,
}

/// Judges every pool; `sums` is what the processes say, `lanes` what each pool reads.
pub async fn check(context: &Context, sums: &[PoolSum], lanes: &[Watched]) -> Vec<Finding> {
    let mut backlogs: BTreeMap<Pool, Backlog> = BTreeMap::new();
    for name in [subjects::UPDATES, subjects::OUTBOUND] {
        let Ok(stream) = context.get_stream(name).await else {
            continue;
        };
        let listing = stream.consumers().try_for_each(|info| {
            if let Some(pool) = subjects::pool_of_consumer(&info.name) {
                let backlog = backlogs.entry(pool).or_default();
                backlog.waiting = backlog.waiting.saturating_add(info.num_pending);
                backlog.in_work += u64::try_from(info.num_ack_pending).unwrap_or_default();
                backlog.names.insert(info.name);
            }
            std::future::ready(Ok(()))
        });
        match timeout(LIST_WAIT, listing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                return vec![Finding::warn(
                    "pools",
                    format_args!("cannot be listed: {error}"),
                )];
            }
            Err(_) => {
                return vec![Finding::warn(
                    "pools",
                    "cannot be listed: no answer in time",
                )];
            }
        }
    }
    // A stream that is missing is told by another check.
    if let Ok(spill) = context.get_stream(subjects::SPILL).await
        && let Ok(Ok(lines)) = timeout(LIST_WAIT, in_lines(&spill)).await
    {
        lines
            .into_iter()
            .for_each(|(pool, count)| backlogs.entry(pool).or_default().in_lines = count);
    }
    if sums.is_empty() && backlogs.is_empty() {
        return vec![
            Finding::warn("pools", "none has ever run here").hint("start `ackline-workers`"),
        ];
    }
    let none = Backlog::default();
    let judge = |pool: Pool| {
        let sum = sums.iter().find(|sum| sum.pool == pool);
        let backlog = backlogs.get(&pool).unwrap_or(&none);
        verdict(pool, sum, backlog, &expected(pool, lanes))
    };
    Pool::ALL.into_iter().map(judge).collect()
}

/// How much is in spill queues, by pool.
async fn in_lines(spill: &Stream) -> Result<BTreeMap<Pool, u64>, async_nats::Error> {
    let [everything] = subjects::SPILL_SUBJECTS;
    let mut counts = spill.info_with_subjects(everything).await?;
    let mut lines: BTreeMap<Pool, u64> = BTreeMap::new();
    while let Some((subject, count)) = counts.try_next().await? {
        if let Some((pool, _)) = SpillQueue::parse(&subject) {
            let sum = lines.entry(pool).or_default();
            *sum = sum.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        }
    }
    Ok(lines)
}

/// The names of the consumers that a pool has once it has run.
fn expected(pool: Pool, lanes: &[Watched]) -> BTreeSet<String> {
    let of_lane = |lane: &Watched| {
        let lane = *lane;
        (0..lane.partitions).map(move |p| subjects::consumer(pool, Partition(p), lane.lane.name))
    };
    lanes
        .iter()
        .filter(|lane| lane.pool == pool)
        .flat_map(of_lane)
        .collect()
}

fn verdict(
    pool: Pool,
    sum: Option<&PoolSum>,
    backlog: &Backlog,
    expected: &BTreeSet<String>,
) -> Finding {
    let check = format!("pool {pool}");
    let start = format!("start `ackline-workers --pools {pool}`");
    let unfinished = backlog
        .waiting
        .saturating_add(backlog.in_work)
        .saturating_add(backlog.in_lines);
    let Some(sum) = sum.filter(|sum| !sum.instances.is_empty()) else {
        return match (backlog.names.is_empty(), unfinished) {
            (true, 0) => Finding::warn(check, "has never run here").hint(start),
            (false, 0) => Finding::warn(check, "nobody runs it; nothing is waiting").hint(start),
            (_, _) => Finding::fail(check, format_args!("nobody runs it; {unfinished} waiting"))
                .hint(start),
        };
    };
    let missing: Vec<&str> = expected
        .difference(&backlog.names)
        .map(String::as_str)
        .collect();
    let is_settled = sum.working() > 0 && sum.unowned == 0;
    if is_settled && !missing.is_empty() {
        let named = missing
            .get(..missing.len().min(NAMED_MAX))
            .unwrap_or_default()
            .join(", ");
        return Finding::fail(
            check,
            format_args!("{} of its consumers are missing: {named}", missing.len()),
        )
        .hint("somebody removed them; restart a process of the pool, which makes them again");
    }
    let is_behind = sum.lag() >= STUCK && !sum.waits_only_for_held();
    if !sum.paused && sum.working() > 0 && is_behind && sum.rates.finished <= 0.0 {
        let words = format!(
            "stuck: nothing is finished, the oldest has waited {}",
            seconds(sum.lag())
        );
        return Finding::fail(check, words)
            .hint(format_args!(
                "`ackline tail --tenant T` shows what comes of its attempts"
            ))
            .hint("the log of the process that owns the partition says what it tries");
    }
    of_condition(pool, check, diagnosis(sum), unfinished)
}

/// The verdict on a pool without the downstreams and tenants that have findings of their own.
fn diagnosis(sum: &PoolSum) -> Diagnosis {
    let rest = PoolSum {
        breakers: Vec::new(),
        breakers_open: 0,
        slow: Vec::new(),
        tenants: Vec::new(),
        tenants_held: 0,
        ..sum.clone()
    };
    let Diagnosis {
        condition,
        mut words,
    } = judge(sum);
    if let Some(notices) = notices(&rest) {
        words.push_str("; ");
        words.push_str(&notices);
    }
    Diagnosis { condition, words }
}

fn of_condition(pool: Pool, check: String, diagnosis: Diagnosis, unfinished: u64) -> Finding {
    let Diagnosis { condition, words } = diagnosis;
    match condition {
        Condition::Healthy => Finding::ok(check, words),
        Condition::Stuck => Finding::fail(check, words)
            .hint("this is a mistake of ours: nothing is lost, and a restart of that process reads it anew")
            .hint("please report it, with what `/readyz` and the log of the process say"),
        Condition::CatchingUp => Finding::ok(check, words),
        Condition::Paused => Finding::warn(check, words).hint("resume it when what it waits for is mended"),
        Condition::Unowned if unfinished == 0 => {
            Finding::warn(check, words).hint("wait a few seconds, and run this again")
        }
        Condition::Unowned => Finding::fail(check, words).hint(format_args!(
            "start more of `ackline-workers --pools {pool}`, or see why they cannot get their leases"
        )),
        Condition::DownstreamSlow => Finding::warn(check, words)
            .hint("what it talks to is slow or refuses: see its dead letters and `ackline tail`"),
        Condition::TenantNoisy => Finding::warn(check, words)
            .hint(format_args!("`ackline tenants {pool}` shows who; others have their turns meanwhile")),
        Condition::WorkersTooFew => Finding::warn(check, words).hint(format_args!(
            "start another process, or raise pools.{pool}.concurrency when what it talks to can take more"
        )),
    }
}

/// What is wrong with what pools write to.
pub fn faults(faults: &[(String, String, String)]) -> Vec<Finding> {
    let finding = |(instance, pool, fault): &(String, String, String)| {
        Finding::fail(format!("{pool} in {instance}"), format_args!("its store cannot be used: {fault}"))
            .hint("everything else goes on; give the disk room or the file back, and it catches up by itself")
            .hint("if the file is damaged or gone: `ackline journal rebuild` makes a new one from the log")
    };
    faults.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use ackline_fleet::fixture::{snapshot, status};
    use ackline_fleet::fleet::Fleet;
    use ackline_runtime::status::Stuck;
    use ackline_runtime::status::held::Turned;
    use ackline_runtime::status::{LaneLag, PoolStatus, TenantStatus};
    use ackline_shared::ids::TenantId;
    use tokio::time::Instant;

    fn sum(change: impl FnOnce(&mut PoolStatus)) -> PoolSum {
        let mut relay = status(Pool::Relay, 0..4);
        change(&mut relay);
        let mut fleet = Fleet::default();
        fleet.hear(snapshot("one", 1, vec![relay]), Instant::now());
        fleet.pool(Pool::Relay).unwrap()
    }

    fn lag(oldest_ms: u64) -> Vec<LaneLag> {
        vec![LaneLag {
            lane: "msg".into(),
            unread: 5,
            in_work: 0,
            oldest_ms,
            partition: None,
        }]
    }

    #[test]
    fn a_pool_gets_a_verdict_in_words() {
        let names: BTreeSet<String> = (0..4).map(|p| format!("relay-{p}-msg")).collect();
        let backlog = |waiting| Backlog {
            names: names.clone(),
            waiting,
            ..Backlog::default()
        };
        let few = Backlog {
            names: names.iter().skip(1).cloned().collect(),
            ..Backlog::default()
        };
        let lines = Backlog {
            names: names.clone(),
            in_lines: 7,
            ..Backlog::default()
        };
        let stuck = |pool: &mut PoolStatus| {
            let (lane, tenant) = ("msg".to_owned(), TenantId::new("acme").unwrap());
            let what = "an update is not tried again".to_owned();
            pool.stuck = vec![Stuck {
                partition: 3,
                lane,
                tenant,
                since_ms: 45_000,
                what,
            }];
        };
        for (sum, backlog, level, said) in [
            (None, Backlog::default(), Level::Warn, "never run"),
            (None, backlog(0), Level::Warn, "nobody runs it; nothing"),
            (None, backlog(5), Level::Fail, "nobody runs it; 5 waiting"),
            (None, lines, Level::Fail, "nobody runs it; 7 waiting"),
            (
                Some(sum(stuck)),
                backlog(0),
                Level::Fail,
                "stuck for 45 s: partition 3, lane msg, tenant acme: an update is not tried again",
            ),
            (Some(sum(|_| ())), backlog(0), Level::Ok, "healthy; idle"),
            (
                Some(sum(|_| ())),
                few.clone(),
                Level::Fail,
                "1 of its consumers are missing: relay-0-msg",
            ),
            (
                Some(sum(|pool| pool.owned.truncate(2))),
                few,
                Level::Warn,
                "2 of 4 partitions have no owner",
            ),
            (
                Some(sum(|pool| pool.owned.truncate(2))),
                backlog(5),
                Level::Fail,
                "2 of 4 partitions have no owner",
            ),
            (
                Some(sum(|pool| pool.lanes = lag(300_000))),
                backlog(5),
                Level::Fail,
                "has waited 5 min",
            ),
            (
                Some(sum(|pool| {
                    pool.lanes = lag(300_000);
                    pool.lanes[0].unread = 0;
                    pool.load.queued = 5;
                    let turned = Turned {
                        paused: true,
                        ..Turned::default()
                    };
                    let acme = TenantStatus::of(TenantId::new("acme").unwrap());
                    pool.tenants = vec![TenantStatus {
                        turned: Some(turned),
                        load: pool.load,
                        ..acme
                    }];
                })),
                backlog(5),
                Level::Ok,
                "what is old is of tenants that are held",
            ),
            (
                Some(sum(|pool| (pool.lanes, pool.paused) = (lag(300_000), true))),
                backlog(5),
                Level::Warn,
                "paused",
            ),
            (
                Some(sum(|pool| {
                    (pool.lanes, pool.rates.finished, pool.load.running) = (lag(300_000), 9.0, 8)
                })),
                backlog(5),
                Level::Warn,
                "workers too few",
            ),
        ] {
            let finding = verdict(Pool::Relay, sum.as_ref(), &backlog, &names);
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.message.contains(said), "{said} in {finding:?}");
        }
    }
}
