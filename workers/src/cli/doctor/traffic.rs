//! Checks of what flows: last webhook of each app, updates nobody claims, dead letters, and each pool's backlog.

use super::finding::Finding;
use crate::cli::stored;
use crate::core::roster::Member;
use ackline_shared::ids::{AppId, TenantId};
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, Pool, header};
use async_nats::jetstream::Context;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use futures_util::{StreamExt, TryStreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::timeout;

/// Messages waiting beyond which a pool that is worked on counts as behind.
const BEHIND: u64 = 1_000;
/// Time for the lists of subjects or consumers of one stream.
const LIST_WAIT: Duration = Duration::from_secs(20);

/// Looks at streams, consumers and processes.
pub async fn check(context: &Context, snapshot: &Snapshot, now_ms: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    // A missing stream is told by another check.
    if let Ok(updates) = context.get_stream(subjects::UPDATES).await {
        findings.extend(webhooks(&updates, snapshot, now_ms).await);
        findings.push(unrouted(count(&updates, &subjects::updates_of(&TenantId::unrouted())).await));
    }
    if let Ok(dead) = context.get_stream(subjects::DEAD).await {
        findings.push(dead_letters(&dead).await);
    }
    findings.extend(pools(context).await);
    findings
}

async fn webhooks(updates: &Stream, snapshot: &Snapshot, now_ms: u64) -> Vec<Finding> {
    let mut tenants: BTreeSet<TenantId> =
        snapshot.phones.values().map(|phone| phone.tenant.clone()).collect();
    tenants.insert(TenantId::unrouted());
    let mut latest: BTreeMap<AppId, u64> = BTreeMap::new();
    for tenant in &tenants {
        match updates.get_last_raw_message_by_subject(&subjects::updates_of(tenant)).await {
            Ok(message) => {
                let header = |name: &str| message.headers.get(name).map(|value| value.as_str());
                let app = header(header::APP).and_then(|text| AppId::new(text).ok());
                let received = header(header::RECEIVED).and_then(|text| text.parse::<u64>().ok());
                if let (Some(app), Some(received)) = (app, received) {
                    let known = latest.entry(app).or_default();
                    *known = received.max(*known);
                }
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {}
            Err(error) => {
                return vec![Finding::warn("webhooks", format_args!("cannot be looked up: {error}"))];
            }
        }
    }
    snapshot.apps.keys().map(|app| last_webhook(app, latest.get(app).copied(), now_ms)).collect()
}

fn last_webhook(app: &AppId, received_ms: Option<u64>, now_ms: u64) -> Finding {
    let check = format!("webhooks {app}");
    match received_ms {
        Some(received) => {
            Finding::ok(check, format_args!("the last one arrived {} ago", age(now_ms.saturating_sub(received))))
        }
        None => Finding::warn(check, "none among what is kept")
            .hint("in Meta's App Dashboard (WhatsApp, Configuration) register the callback URL and verify token, and subscribe to `messages`")
            .hint("then write to the number from a phone; the edge's /metrics count refusals by reason"),
    }
}

fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

async fn count(stream: &Stream, filter: &str) -> Result<u64, String> {
    let listing = async {
        let subjects = stream.info_with_subjects(filter).await.map_err(|error| error.to_string())?;
        subjects
            .try_fold(0_u64, |sum, (_, count)| {
                std::future::ready(Ok(sum.saturating_add(u64::try_from(count).unwrap_or(u64::MAX))))
            })
            .await
            .map_err(|error| error.to_string())
    };
    timeout(LIST_WAIT, listing).await.map_err(|_| "no answer in time".to_owned())?
}

fn unrouted(count: Result<u64, String>) -> Finding {
    match count {
        Ok(0) => Finding::ok("unrouted", "no update is without a tenant"),
        Ok(count) => Finding::warn("unrouted", format_args!("{count} update(s) of numbers that nobody configured"))
            .hint("declare the number under [[phone_numbers]] and run `ackline apply`; new updates are routed at once")
            .hint(format_args!(
            "to see them: `nats stream view {} --subject '{}'`",
            subjects::UPDATES,
            subjects::updates_of(&TenantId::unrouted())
        )),
        Err(reason) => Finding::warn("unrouted", format_args!("cannot be counted: {reason}")),
    }
}

async fn dead_letters(dead: &Stream) -> Finding {
    let mut counts = Vec::new();
    for pool in Pool::ALL {
        match count(dead, &subjects::dead_filter(Some(pool), None)).await {
            Ok(count) => counts.push((pool, count)),
            Err(reason) => return Finding::warn("dead letters", format_args!("cannot be counted: {reason}")),
        }
    }
    given_up(&counts)
}

fn given_up(counts: &[(Pool, u64)]) -> Finding {
    let some: Vec<String> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(pool, count)| format!("{count} in {pool}"))
        .collect();
    if some.is_empty() {
        return Finding::ok("dead letters", "none");
    }
    Finding::warn("dead letters", some.join(", ")).hint(format_args!(
        "the API lists them with their reasons; `nats stream view {}` shows them whole",
        subjects::DEAD
    ))
}

/// What is known of a pool's work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Backlog {
    consumers: u64,
    waiting: u64,
    in_work: u64,
    redelivered: u64,
}

async fn pools(context: &Context) -> Vec<Finding> {
    let mut backlogs: BTreeMap<Pool, Backlog> = BTreeMap::new();
    for name in [subjects::UPDATES, subjects::OUTBOUND] {
        let Ok(stream) = context.get_stream(name).await else { continue };
        let listing = stream.consumers().try_for_each(|info| {
            if let Some(pool) = subjects::pool_of_consumer(&info.name) {
                let backlog = backlogs.entry(pool).or_default();
                backlog.consumers += 1;
                backlog.waiting = backlog.waiting.saturating_add(info.num_pending);
                backlog.in_work += u64::try_from(info.num_ack_pending).unwrap_or_default();
                backlog.redelivered += u64::try_from(info.num_redelivered).unwrap_or_default();
            }
            std::future::ready(Ok(()))
        });
        match timeout(LIST_WAIT, listing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return vec![Finding::warn("pools", format_args!("cannot be listed: {error}"))],
            Err(_) => return vec![Finding::warn("pools", "cannot be listed: no answer in time")],
        }
    }
    let owners = owners(context).await;
    verdicts(&owners, &backlogs)
}

/// Who works on each pool, by the names of the processes that are alive.
async fn owners(context: &Context) -> BTreeMap<Pool, String> {
    let mut owners: BTreeMap<Pool, String> = BTreeMap::new();
    let Ok(Some(leases)) = stored::open(context, subjects::BUCKET_LEASES).await else { return owners };
    let Ok(keys) = leases.keys().await else { return owners };
    let names: Vec<String> = keys.filter_map(|key| std::future::ready(key.ok())).collect().await;
    for name in names {
        let Ok(Some(value)) = leases.get(&name).await else { continue };
        let Ok(member) = serde_json::from_slice::<Member>(&value) else { continue };
        for pool in Pool::ALL.into_iter().filter(|pool| member.runs(*pool)) {
            let named = owners.entry(pool).or_default();
            if !named.is_empty() {
                named.push_str(", ");
            }
            named.push_str(&name);
        }
    }
    owners
}

fn verdicts(owners: &BTreeMap<Pool, String>, backlogs: &BTreeMap<Pool, Backlog>) -> Vec<Finding> {
    if owners.is_empty() && backlogs.is_empty() {
        return vec![Finding::warn("pools", "none has ever run here").hint("start `ackline-workers`")];
    }
    let none = Backlog::default();
    let verdict = |pool: Pool| {
        let owner = owners.get(&pool).map(String::as_str);
        verdict(pool, owner, backlogs.get(&pool).unwrap_or(&none))
    };
    Pool::ALL.into_iter().map(verdict).collect()
}

fn verdict(pool: Pool, owner: Option<&str>, backlog: &Backlog) -> Finding {
    let check = format!("pool {pool}");
    let Backlog { consumers, waiting, in_work, redelivered } = backlog;
    let start = format!("start `ackline-workers --pools {pool}`");
    match owner {
        None if *consumers == 0 => Finding::warn(check, "has never run here").hint(start),
        None if waiting + in_work == 0 => Finding::warn(check, "nobody owns it; nothing is waiting").hint(start),
        None => Finding::fail(check, format_args!("nobody owns it; {} waiting", waiting + in_work)).hint(start),
        Some(owner) if *waiting <= BEHIND => {
            let text = if waiting + in_work == 0 { "idle" } else { "keeping up" };
            Finding::ok(check, format_args!("{text}; {waiting} waiting, {in_work} in work; owner {owner}"))
        }
        Some(owner) if *redelivered > 0 => Finding::warn(
            check,
            format_args!("behind, and repeating; {waiting} waiting, {in_work} in work, {redelivered} redelivered; owner {owner}"),
        )
        .hint("what it talks to is slow or refuses: see the pool's metrics and its dead letters"),
        Some(owner) => Finding::warn(
            check,
            format_args!("behind; {waiting} waiting, {in_work} in work; owner {owner}"),
        )
        .hint(format_args!("raise pools.{pool}.concurrency, or see whether what it talks to is slow")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_pool_gets_a_verdict_in_words() {
        let backlog =
            |consumers, waiting, in_work, redelivered| Backlog { consumers, waiting, in_work, redelivered };
        for (owner, backlog, level, said) in [
            (None, backlog(0, 0, 0, 0), Level::Warn, "never run"),
            (None, backlog(32, 0, 0, 0), Level::Warn, "nobody owns"),
            (None, backlog(32, 5, 0, 0), Level::Fail, "5 waiting"),
            (None, backlog(32, 0, 5, 0), Level::Fail, "5 waiting"),
            (Some("host-1"), backlog(32, 0, 0, 0), Level::Ok, "idle"),
            (Some("host-1"), backlog(32, 10, 3, 0), Level::Ok, "keeping up"),
            (Some("host-1"), backlog(32, 5000, 3, 0), Level::Warn, "behind; 5000"),
            (Some("host-1"), backlog(32, 5000, 3, 9), Level::Warn, "repeating"),
        ] {
            let finding = verdict(Pool::Relay, owner, &backlog);
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.message.contains(said), "{said} in {finding:?}");
        }
    }

    #[test]
    fn pools_that_never_ran_are_told_once() {
        assert_eq!(verdicts(&BTreeMap::new(), &BTreeMap::new()).len(), 1);
        let owners = BTreeMap::from([(Pool::Crm, "host-1".to_owned())]);
        assert_eq!(verdicts(&owners, &BTreeMap::new()).len(), Pool::ALL.len());
    }

    #[test]
    fn silence_and_leftovers_come_with_a_way_on() {
        let app = AppId::new("main").unwrap();
        assert_eq!(last_webhook(&app, None, 0).hints.len(), 2);
        assert!(last_webhook(&app, Some(1_000), 61_000).message.contains("60 s ago"));
        assert_eq!(unrouted(Ok(0)).level, Level::Ok);
        assert_eq!(unrouted(Ok(3)).level, Level::Warn);
        assert_eq!(given_up(&[(Pool::Flows, 0)]).level, Level::Ok);
        assert_eq!(given_up(&[(Pool::Flows, 0), (Pool::Relay, 2)]).message, "2 in relay");
    }

    #[test]
    fn ages_are_told_in_the_unit_people_use() {
        let said = [5_000, 600_000, 10_800_000, 259_200_000].map(age);
        assert_eq!(said, ["5 s", "10 min", "3 h", "3 days"]);
    }
}
