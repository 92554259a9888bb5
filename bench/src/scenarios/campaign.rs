//! Whether the statuses of one tenant's campaign are felt in the conversations of others.

use super::plot::lines;
use super::statistics::{Samples, number};
use super::workers::{Arrival, Bot, Crew, Feed, Plan, Update, curve, first_arrivals, quantile_ms};
use super::{Bench, rounded};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// Tenants with conversations; one more has the campaign.
const LIVE_TENANTS: usize = 50;
const CAMPAIGN: usize = LIVE_TENANTS;
const LIVE_PER_SECOND: u32 = 100;
/// As fast as Meta sends a campaign's statuses: ten times what all conversations bring together.
const STATUSES_PER_SECOND: u32 = 1_000;
const SERVICE: Duration = Duration::from_millis(2);
const SETTLED_WITHIN: Duration = Duration::from_secs(400);
/// Statuses have numbers of their own.
const FIRST_STATUS: u32 = 1 << 24;

/// Runs the conversations alone, then beside the campaign, then alone again.
pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    let statuses: u32 = bench.options.pick(200_000, 4_000);
    let alone_for = bench.options.pick(20, 3);
    let bot = Bot::start(SERVICE).await?;
    let plan = Plan {
        tenants: LIVE_TENANTS + 1,
        pools: "relay",
        bot: Some(bot.address()),
        settings: String::new(),
        ..Plan::default()
    };
    let mut crew = Crew::prepare(&bench.root, plan).await?;
    crew.hire(0).await?;
    let (live, campaign) = (crew.feed().await?, crew.feed().await?);
    let mut serial = 0;
    // Warms connections and caches up.
    converse(&live, &bot, &mut serial, 2).await?;

    let (mut alone, mut undisturbed) = (Samples::default(), Vec::new());
    let before = converse(&live, &bot, &mut serial, alone_for).await?;
    alone.push(quantile_ms(&before, 0.99));
    undisturbed.extend(before);
    bench.say(&format!("  undisturbed: p99 {} ms", number(alone.median())));

    let begun = Instant::now();
    let sending = u64::from(statuses / STATUSES_PER_SECOND).max(2);
    let storm = campaign.offer(begun, statuses_of(statuses));
    let talk = converse_into(&live, &mut serial, sending);
    let (stored, offered) = tokio::join!(storm, talk);
    stored?;
    let (start, offered) = offered?;
    let total = offered.len() + usize::try_from(statuses).unwrap_or(usize::MAX);
    bot.wait_for(total, SETTLED_WITHIN)
        .await
        .with_context(|| crew.log_tails())?;
    let worked_off = begun.elapsed();
    let arrivals = bot.collect();
    let during = waits(&offered, start, &arrivals);
    let took_effect = distinct(&arrivals, FIRST_STATUS..u32::MAX);
    bench.say(&format!(
        "  beside the campaign: p99 {} ms",
        number(quantile_ms(&during, 0.99))
    ));

    let after = converse(&live, &bot, &mut serial, alone_for).await?;
    alone.push(quantile_ms(&after, 0.99));
    undisturbed.extend(after);

    let ratio = quantile_ms(&during, 0.99) / alone.median();
    let mut report = bench.report("campaign", "stored, one node");
    report.paragraph(&format!(
        "{LIVE_TENANTS} tenants send {LIVE_PER_SECOND} messages a second together; one more gets {statuses} statuses at \
         {STATUSES_PER_SECOND} a second. Every update goes to the tenant's existing bot, which takes {SERVICE:?}. One worker \
         process as it is configured by default. Waits count from the moment a message was due to the moment it reaches the \
         bot. The campaign was stored and worked off after {} s.",
        number(worked_off.as_secs_f64())
    ));
    report.table(
        &["live messages", "p50 (ms)", "p99 (ms)", "messages"],
        &[
            ("undisturbed", &undisturbed),
            ("beside the campaign", &during),
        ]
        .map(|(name, waits)| {
            vec![
                name.to_owned(),
                number(quantile_ms(waits, 0.5)),
                number(quantile_ms(waits, 0.99)),
                waits.len().to_string(),
            ]
        }),
    );
    report.paragraph(&format!(
        "Statuses that reached the bot: {took_effect} of {statuses}."
    ));
    let series: Vec<_> = [
        ("undisturbed", &undisturbed),
        ("beside the campaign", &during),
    ]
    .map(|(name, waits)| curve(name, waits))
    .into();
    report.plot(
        "waits",
        lines(
            "Waits of live messages by percentile",
            "percentile",
            "ms",
            &series,
            &[],
        ),
    );
    bench.say(&format!("report: {}", report.write()?.display()));
    let is_right =
        took_effect == usize::try_from(statuses).unwrap_or(0) && during.len() == offered.len();
    Ok((json!({"live_p99_ratio": rounded(ratio)}), is_right))
}

/// Sends live messages for some time and gives their waits.
async fn converse(feed: &Feed, bot: &Bot, serial: &mut u32, seconds: u64) -> Result<Vec<Duration>> {
    bot.collect();
    let (start, offered) = converse_into(feed, serial, seconds).await?;
    bot.wait_for(offered.len(), SETTLED_WITHIN).await?;
    Ok(waits(&offered, start, &bot.collect()))
}

async fn converse_into(
    feed: &Feed,
    serial: &mut u32,
    seconds: u64,
) -> Result<(Instant, Vec<(Duration, Update)>)> {
    let updates = u32::try_from(seconds).unwrap_or(1) * LIVE_PER_SECOND;
    let offered: Vec<_> = (0..updates)
        .map(|nth| {
            let place = usize::try_from(nth).unwrap_or(0);
            let person = nth / u32::try_from(LIVE_TENANTS).unwrap_or(1) % 40;
            let update = Update {
                serial: *serial + nth,
                tenant: place % LIVE_TENANTS,
                person,
                is_status: false,
                second: false,
            };
            (Duration::from_secs(1) * nth / LIVE_PER_SECOND, update)
        })
        .collect();
    *serial += updates;
    let start = Instant::now();
    feed.offer(start, offered.iter().copied()).await?;
    Ok((start, offered))
}

fn statuses_of(count: u32) -> impl Iterator<Item = (Duration, Update)> {
    (0..count).map(|nth| {
        let update = Update {
            serial: FIRST_STATUS + nth,
            tenant: CAMPAIGN,
            person: nth,
            is_status: true,
            second: false,
        };
        (Duration::from_secs(1) * nth / STATUSES_PER_SECOND, update)
    })
}

fn waits(offered: &[(Duration, Update)], start: Instant, arrivals: &[Arrival]) -> Vec<Duration> {
    let first = first_arrivals(arrivals);
    let wait = |(due, update): &(Duration, Update)| {
        first
            .get(&update.serial)
            .map(|at| at.saturating_duration_since(start + *due))
    };
    offered.iter().filter_map(wait).collect()
}

fn distinct(arrivals: &[Arrival], among: std::ops::Range<u32>) -> usize {
    first_arrivals(arrivals)
        .into_keys()
        .filter(|serial| among.contains(serial))
        .count()
}
