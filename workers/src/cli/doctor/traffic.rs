//! Checks of what flows: last webhook of each app, updates nobody claims, dead letters.

use super::super::stored;
use super::finding::Finding;
use crate::dead::{Count, Filter, count, terms};
use ackline_shared::ids::{AppId, TenantId};
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, header};
use async_nats::jetstream::Context;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use futures_util::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::timeout;

/// Time for the list of subjects of one stream.
const LIST_WAIT: Duration = Duration::from_secs(20);
/// Time for counting open dead letters; some 100,000 take two seconds.
const COUNT_TIME: Duration = Duration::from_secs(20);

/// Looks at the streams.
pub async fn check(context: &Context, snapshot: &Snapshot, now_ms: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    // A missing stream is told by another check.
    if let Ok(updates) = context.get_stream(subjects::UPDATES).await {
        findings.extend(webhooks(&updates, snapshot, now_ms).await);
        findings.push(unrouted(count(&updates, &subjects::updates_of(&TenantId::unrouted())).await));
    }
    if context.get_stream(subjects::DEAD).await.is_ok() {
        findings.push(dead_letters(context, now_ms).await);
    }
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

async fn dead_letters(context: &Context, now_ms: u64) -> Finding {
    let counting = async {
        let replays =
            stored::open(context, subjects::BUCKET_REPLAYS).await.map_err(|error| error.to_string())?;
        let replays = replays.ok_or("the bucket that says which are settled is missing")?;
        let count = count::open_letters(context, replays, &Filter::default(), COUNT_TIME).await;
        count.map_err(|error| error.to_string())
    };
    match counting.await {
        Ok(count) => given_up(&count, now_ms),
        Err(reason) => Finding::warn("dead letters", format_args!("cannot be counted: {reason}")),
    }
}

/// What is open of them: what was replayed or set aside needs nobody.
fn given_up(count: &Count, now_ms: u64) -> Finding {
    if count.total == 0 && count.complete {
        return Finding::ok("dead letters", "none is open");
    }
    let pools: Vec<String> = count.pools.iter().map(|(pool, count)| format!("{count} in {pool}")).collect();
    let least = if count.complete { "" } else { "at least " };
    let oldest = count.oldest_received_at.as_ref().and_then(|at| terms::time(at, now_ms).ok());
    let oldest = oldest
        .map_or_else(String::new, |at| format!("; the oldest is of {} ago", age(now_ms.saturating_sub(at))));
    Finding::warn("dead letters", format_args!("{least}{} open: {}{oldest}", count.total, pools.join(", ")))
        .hint("`ackline dead list` shows them with their reasons, `ackline dead replay` puts them before the pool again")
        .hint("`ackline dead discard` sets aside what nobody wants any more")
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn silence_and_leftovers_come_with_a_way_on() {
        let app = AppId::new("main").unwrap();
        assert_eq!(last_webhook(&app, None, 0).hints.len(), 2);
        assert!(last_webhook(&app, Some(1_000), 61_000).message.contains("60 s ago"));
        assert_eq!(unrouted(Ok(0)).level, Level::Ok);
        assert_eq!(unrouted(Ok(3)).level, Level::Warn);
        let none = Count { complete: true, ..Count::default() };
        assert_eq!(given_up(&none, 0).level, Level::Ok);
        let some = Count {
            total: 3,
            pools: [("crm".to_owned(), 1), ("relay".to_owned(), 2)].into(),
            oldest_received_at: Some("1970-01-01T00:00:00Z".to_owned()),
            ..none
        };
        let told = |count: &Count| given_up(count, 259_200_000).message;
        assert_eq!(told(&some), "3 open: 1 in crm, 2 in relay; the oldest is of 3 days ago");
        assert!(told(&Count { complete: false, ..some }).starts_with("at least 3 open"));
    }

    #[test]
    fn ages_are_told_in_the_unit_people_use() {
        let said = [5_000, 600_000, 10_800_000, 259_200_000].map(age);
        assert_eq!(said, ["5 s", "10 min", "3 h", "3 days"]);
    }
}
