//! Whether one tenant at a hundred times the others' rate is felt by the others.
//!
//! The same quiet load runs with and without the noisy tenant, in turn. With it, more is offered than the
//! worker can do, so somebody must wait: the question is who.

use super::plot::lines;
use super::statistics::{Samples, number};
use super::workers::{
    Arrival, Bot, Crew, Feed, Plan, Update, curve, first_arrivals, jain, quantile_ms,
};
use super::{Bench, rounded};
use ackline_shared::subjects::UPDATES;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const TENANTS: usize = 100;
const NOISY: usize = 0;
/// Updates a second of each quiet tenant; the noisy one sends a hundred times as many.
const QUIET_PER_SECOND: u32 = 5;
const SERVICE: Duration = Duration::from_millis(5);
/// Requests at once: with this service time and what an attempt costs besides, less than what is offered with the
/// noisy tenant.
const CONCURRENCY: usize = 6;
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

#[derive(Debug)]
struct Run {
    quiet: Vec<Duration>,
    noisy: Vec<Duration>,
    jain: f64,
}

/// Runs quiet and noisy in turn.
pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    let seconds = bench.options.pick(12, 3);
    let bot = Bot::start(SERVICE).await?;
    let mut crew = prepare(&bench.root, &bot).await?;
    crew.hire(0).await?;
    let feed = crew.feed().await?;
    let (mut serial, mut lost) = (0, 0);
    let (mut alone, mut beside, mut jains) =
        (Samples::default(), Samples::default(), Samples::default());
    let (mut alone_50, mut beside_50, mut noisy_50) =
        (Samples::default(), Samples::default(), Samples::default());
    let mut curves: [Vec<Duration>; 3] = Default::default();
    // A first run warms connections and caches up and is not counted.
    for repeat in 0..=bench.options.repeats(4) {
        for with_noisy in [false, true] {
            let played = play(&crew, &feed, &bot, &mut serial, seconds, with_noisy).await;
            let (run, missing) = played.with_context(|| crew.log_tails())?;
            lost += missing;
            if repeat == 0 {
                continue;
            }
            let (p50, p99) = (quantile_ms(&run.quiet, 0.5), quantile_ms(&run.quiet, 0.99));
            bench.say(&format!(
                "  {}: quiet p50 {} ms, p99 {} ms{}",
                if with_noisy {
                    "with the noisy tenant"
                } else {
                    "undisturbed"
                },
                number(p50),
                number(p99),
                if with_noisy {
                    format!(", Jain {:.4}", run.jain)
                } else {
                    String::new()
                },
            ));
            if with_noisy {
                beside_50.push(p50);
                beside.push(p99);
                jains.push(run.jain);
                noisy_50.push(quantile_ms(&run.noisy, 0.5));
                curves[1].extend(run.quiet);
                curves[2].extend(run.noisy);
            } else {
                alone_50.push(p50);
                alone.push(p99);
                curves[0].extend(run.quiet);
            }
        }
    }
    let ratio = beside.median() / alone.median();
    let mut report = bench.report("fairness", "stored, one node");
    report.paragraph(&format!(
        "{TENANTS} tenants with an existing bot each that takes {SERVICE:?} to answer, one worker process with \
         {CONCURRENCY} requests at once. {} tenants send {QUIET_PER_SECOND} updates a second each; the noisy one sends {}. \
         Waits count from the moment an update was due to the moment it reaches the bot, the median of {} runs of {seconds} s each way.",
        TENANTS - 1,
        QUIET_PER_SECOND * 100,
        bench.options.repeats(4),
    ));
    report.table(
        &["", "undisturbed", "with the noisy tenant"],
        &[
            vec![
                "quiet tenants p50 (ms)".into(),
                alone_50.shown(),
                beside_50.shown(),
            ],
            vec![
                "quiet tenants p99 (ms)".into(),
                alone.shown(),
                beside.shown(),
            ],
            vec!["noisy tenant p50 (ms)".into(), "–".into(), noisy_50.shown()],
            vec![
                "Jain's index of the quiet tenants' service".into(),
                "–".into(),
                jains.shown(),
            ],
        ],
    );
    report.paragraph(&format!("Updates that never reached their bot: {lost}."));
    let names = [
        "quiet, undisturbed",
        "quiet, with the noisy tenant",
        "noisy",
    ];
    let series: Vec<_> = names
        .into_iter()
        .zip(&curves)
        .map(|(name, waits)| curve(name, waits))
        .collect();
    report.plot(
        "waits",
        lines("Waits by percentile", "percentile", "ms", &series, &[]),
    );
    bench.say(&format!("report: {}", report.write()?.display()));
    let figures = json!({"jain": rounded(jains.median()), "quiet_p99_ratio": rounded(ratio)});
    Ok((figures, lost == 0))
}

async fn prepare(root: &Path, bot: &Bot) -> Result<Crew> {
    let plan = Plan {
        tenants: TENANTS,
        pools: "relay",
        bot: Some(bot.address()),
        settings: format!("[pools.relay]\nconcurrency = {CONCURRENCY}\n"),
        ..Plan::default()
    };
    Crew::prepare(root, plan).await
}

async fn play(
    crew: &Crew,
    feed: &Feed,
    bot: &Bot,
    serial: &mut u32,
    seconds: u64,
    with_noisy: bool,
) -> Result<(Run, usize)> {
    let first = *serial;
    let plan = plan(first, seconds, with_noisy);
    *serial += u32::try_from(plan.len()).unwrap_or(u32::MAX);
    bot.collect();
    let start = Instant::now();
    feed.offer(start, plan.iter().copied()).await?;
    let end = Instant::now();
    bot.wait_for(plan.len(), SETTLED_WITHIN).await?;
    crew.drained(UPDATES, SETTLED_WITHIN).await?;
    let arrivals = bot.collect();
    let run = judge(&plan, start, end, &arrivals);
    let missing = plan.len() - first_arrivals(&arrivals).len().min(plan.len());
    Ok((run, missing))
}

/// What is offered, by rising time.
fn plan(first: u32, seconds: u64, with_noisy: bool) -> Vec<(Duration, Update)> {
    let mut due = Vec::new();
    for tenant in 0..TENANTS {
        if tenant == NOISY && !with_noisy {
            continue;
        }
        let rate = if tenant == NOISY {
            QUIET_PER_SECOND * 100
        } else {
            QUIET_PER_SECOND
        };
        // Tenants do not send in step.
        let offset = Duration::from_secs(1) / rate * u32::try_from(tenant).unwrap_or(0)
            / u32::try_from(TENANTS).unwrap_or(1);
        let updates = u32::try_from(seconds).unwrap_or(1) * rate;
        due.extend(
            (0..updates).map(|nth| (offset + Duration::from_secs(1) * nth / rate, tenant, nth)),
        );
    }
    due.sort_unstable();
    let numbered = due.into_iter().zip(first..);
    numbered
        .map(|((at, tenant, nth), serial)| {
            (
                at,
                Update {
                    serial,
                    tenant,
                    person: nth % 20,
                    is_status: false,
                    second: false,
                },
            )
        })
        .collect()
}

fn judge(plan: &[(Duration, Update)], start: Instant, end: Instant, arrivals: &[Arrival]) -> Run {
    let arrived = first_arrivals(arrivals);
    let (mut quiet, mut noisy) = (Vec::new(), Vec::new());
    let mut served: HashMap<usize, f64> = (0..TENANTS)
        .filter(|&tenant| tenant != NOISY)
        .map(|tenant| (tenant, 0.0))
        .collect();
    for (due, update) in plan {
        let Some(&at) = arrived.get(&update.serial) else {
            continue;
        };
        let wait = at.saturating_duration_since(start + *due);
        if update.tenant == NOISY {
            noisy.push(wait);
        } else {
            quiet.push(wait);
            if at <= end {
                *served.entry(update.tenant).or_default() += 1.0;
            }
        }
    }
    let shares: Vec<f64> = served.into_values().collect();
    Run {
        quiet,
        noisy,
        jain: jain(&shares),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_noisy_tenant_sends_a_hundred_times_as_much_and_time_only_rises() {
        let plan = plan(10, 2, true);
        let of = |tenant| {
            plan.iter()
                .filter(|(_, update)| update.tenant == tenant)
                .count()
        };
        assert_eq!((of(NOISY), of(7)), (1_000, 10));
        assert!(plan.is_sorted_by_key(|(due, _)| *due));
        assert_eq!(plan[0].1.serial, 10);
    }

    #[test]
    fn a_quiet_tenant_that_gets_nothing_in_time_lowers_the_index() {
        let plan = plan(0, 1, false);
        let start = Instant::now();
        let all: Vec<_> = plan
            .iter()
            .map(|(due, update)| Arrival {
                serial: update.serial,
                at: start + *due,
                running: 1,
            })
            .collect();
        let end = start + Duration::from_secs(1);
        assert!((judge(&plan, start, end, &all).jain - 1.0).abs() < 1e-9);
        let without: Vec<_> = all
            .into_iter()
            .filter(|arrival| {
                plan.iter()
                    .any(|(_, update)| update.serial == arrival.serial && update.tenant > 50)
            })
            .collect();
        assert!(judge(&plan, start, end, &without).jain < 0.6);
    }
}
