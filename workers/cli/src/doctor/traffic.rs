//! Checks of what flows: last webhook of each app, updates nobody claims, dead letters.

use super::finding::Finding;
use ackline_catalog::stored;
use ackline_replay::open::OpenLetters;
use ackline_runtime::status::dead::OpenDead;
use ackline_shared::ids::{AppId, TenantId};
use ackline_shared::meta;
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
/// From here on what was received before it happened says that our clock is behind; Meta tells whole seconds.
const EARLY_MAX_MS: u64 = 5000;
/// Time for a look at the dead letters.
const COUNT_WAIT: Duration = Duration::from_secs(30);

pub async fn check(context: &Context, snapshot: &Snapshot, now_ms: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    // A missing stream is told by another check.
    if let Ok(updates) = context.get_stream(subjects::UPDATES).await {
        findings.extend(webhooks(&updates, snapshot, now_ms).await);
        findings.push(unrouted(
            count(&updates, &subjects::updates_of(&TenantId::unrouted())).await,
        ));
    }
    findings.extend(dead_letters(context, now_ms).await);
    findings
}

async fn webhooks(updates: &Stream, snapshot: &Snapshot, now_ms: u64) -> Vec<Finding> {
    let mut tenants: BTreeSet<TenantId> = snapshot
        .phone_numbers
        .values()
        .map(|phone| phone.tenant.clone())
        .collect();
    tenants.insert(TenantId::unrouted());
    let mut latest: BTreeMap<AppId, u64> = BTreeMap::new();
    let mut early_ms = 0;
    for tenant in &tenants {
        match updates
            .get_last_raw_message_by_subject(&subjects::updates_of(tenant))
            .await
        {
            Ok(message) => {
                let header = |name: &str| message.headers.get(name).map(|value| value.as_str());
                let app = header(header::APP).and_then(|text| AppId::new(text).ok());
                let received = header(header::RECEIVED).and_then(|text| text.parse::<u64>().ok());
                early_ms =
                    early_ms.max(received.map_or(0, |received| early(&message.payload, received)));
                if let (Some(app), Some(received)) = (app, received) {
                    let known = latest.entry(app).or_default();
                    *known = received.max(*known);
                }
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {}
            Err(error) => {
                return vec![Finding::warn(
                    "webhooks",
                    format_args!("cannot be looked up: {error}"),
                )];
            }
        }
    }
    let webhooks = snapshot
        .apps
        .keys()
        .map(|app| last_webhook(app, latest.get(app).copied(), now_ms));
    webhooks.chain(metas_clock(early_ms)).collect()
}

/// By how much an update was received before it happened, by Meta's clock.
fn early(payload: &[u8], received_ms: u64) -> u64 {
    let reported = match meta::read(payload).map(|update| update.body) {
        Ok(meta::Body::Message(message) | meta::Body::Echo(message)) => message.timestamp,
        Ok(meta::Body::Status(status)) => status.timestamp,
        _ => None,
    };
    meta::happened_ms(reported, received_ms).saturating_sub(received_ms)
}

fn metas_clock(early_ms: u64) -> Option<Finding> {
    (early_ms > EARLY_MAX_MS).then(|| {
        let seconds = early_ms / 1000;
        Finding::warn(
            "clock",
            format_args!("an update was received {seconds} s before it happened, by Meta's clock"),
        )
        .hint("the clock of the edge's machine was behind; let it follow NTP")
    })
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

async fn count(stream: &Stream, filter: &str) -> Result<u64, async_nats::Error> {
    let listing = async {
        let mut counts = stream.info_with_subjects(filter).await?;
        let mut sum = 0_u64;
        while let Some((_, count)) = counts.try_next().await? {
            sum = sum.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        }
        Ok(sum)
    };
    timeout(LIST_WAIT, listing)
        .await
        .map_err(|_| "no answer in time")?
}

fn unrouted(count: Result<u64, async_nats::Error>) -> Finding {
    match count {
        Ok(0) => Finding::ok("unrouted", "no update is without a tenant"),
        Ok(count) => Finding::warn("unrouted", format_args!("{count} update(s) of numbers that nobody configured"))
            .hint("`ackline unrouted list` shows of which; declare the number under [[phone_numbers]] and run `ackline apply`: new updates are routed at once")
            .hint("`ackline unrouted route` then gives its tenant those that came before"),
        Err(reason) => Finding::warn("unrouted", format_args!("cannot be counted: {reason}")),
    }
}

/// Counts the open ones, each looked at once; nothing is told where nothing is set up.
async fn dead_letters(context: &Context, now_ms: u64) -> Option<Finding> {
    let replays = stored::open(context, subjects::BUCKET_REPLAYS)
        .await
        .ok()??;
    let mut letters = OpenLetters::new(context.clone(), replays);
    Some(match timeout(COUNT_WAIT, letters.look()).await {
        Ok(Ok(())) => given_up(&letters.open(now_ms)),
        Ok(Err(error)) => Finding::warn("dead letters", format_args!("cannot be counted: {error}")),
        Err(_) => Finding::warn("dead letters", "cannot be counted in time"),
    })
}

fn given_up(open: &[OpenDead]) -> Finding {
    let some: Vec<String> = open
        .iter()
        .filter(|dead| dead.open > 0)
        .map(in_words)
        .collect();
    if some.is_empty() {
        return Finding::ok("dead letters", "none is open");
    }
    Finding::warn("dead letters", some.join("; "))
        .hint("`ackline dead list` shows them with their reasons, `ackline dead replay` puts them before the pool again")
        .hint("`ackline dead discard` discards what nobody wants any more")
}

fn in_words(dead: &OpenDead) -> String {
    let more = if dead.more { " or more" } else { "" };
    let oldest = age(dead.oldest_ms.unwrap_or_default());
    let new = match dead.last_hour {
        0 => String::new(),
        new => format!(", {new} in the last hour"),
    };
    let (open, pool, reasons) = (dead.open, &dead.pool, dead.reasons_in_words());
    format!("{open}{more} open in {pool} ({reasons}), the oldest given up {oldest} ago{new}")
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use ackline_runtime::dead_class::DeadClass;

    #[test]
    fn what_was_received_before_it_happened_says_that_our_clock_is_behind() {
        let message =
            r#"{"entry":[{"changes":[{"value":{"messages":[{"timestamp":"1763784000"}]}}]}]}"#;
        let early = |received: u64| early(message.as_bytes(), received);
        assert_eq!(
            (early(1_763_784_009_000), early(1_763_783_940_000)),
            (0, 60_000)
        );
        assert_eq!(super::early(b"{", 5), 0);
        assert!(metas_clock(5000).is_none());
        assert!(metas_clock(60_000).unwrap().message.contains("60 s before"));
    }

    #[test]
    fn silence_and_leftovers_come_with_a_way_on() {
        let app = AppId::new("main").unwrap();
        assert_eq!(last_webhook(&app, None, 0).hints.len(), 2);
        assert!(
            last_webhook(&app, Some(1_000), 61_000)
                .message
                .contains("60 s ago")
        );
        assert_eq!(unrouted(Ok(0)).level, Level::Ok);
        assert_eq!(unrouted(Ok(3)).level, Level::Warn);
        let flows = OpenDead {
            pool: "flows".to_owned(),
            ..OpenDead::default()
        };
        let relay = OpenDead {
            pool: "relay".to_owned(),
            open: 12,
            last_hour: 2,
            oldest_ms: Some(10_800_000),
            reasons: [(DeadClass::GaveUp, 2), (DeadClass::Refused, 10)].into(),
            more: false,
        };
        assert_eq!(given_up(std::slice::from_ref(&flows)).level, Level::Ok);
        assert_eq!(
            given_up(&[flows, relay]).message,
            "12 open in relay (10 refused, 2 gave_up), the oldest given up 3 h ago, 2 in the last hour"
        );
    }

    #[test]
    fn ages_are_told_in_the_unit_people_use() {
        let said = [5_000, 600_000, 10_800_000, 259_200_000].map(age);
        assert_eq!(said, ["5 s", "10 min", "3 h", "3 days"]);
    }
}
