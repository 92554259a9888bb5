//! How far one process goes, what more processes add, and what many tenants and conversations cost.

use super::plot::bars;
use super::statistics::{Samples, number};
use super::workers::{Bot, Crew, Plan, Update};
use super::{Bench, rounded};
use crate::load::tally::count;
use ackline_shared::subjects::UPDATES;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const PROCESSES: [usize; 3] = [1, 2, 4];
const SERVICE: Duration = Duration::from_millis(25);
const CONCURRENCY: usize = 8;
const WORKED_OFF_WITHIN: Duration = Duration::from_secs(300);
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Memory and time of a run over many tenants.
struct Crowd {
    tenants: usize,
    per_second: f64,
    resident_mb: f64,
}

pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    bench.say("  updates that concern nobody …");
    let empty = empty_jobs(bench).await?;
    bench.say(&format!("    {} a second", number(empty.0)));
    let mut processes = Vec::new();
    for count in PROCESSES {
        let per_second = shared_work(bench, count).await?;
        bench.say(&format!(
            "  {count} processes: {} a second",
            number(per_second)
        ));
        processes.push((count, per_second));
    }
    let mut crowds = Vec::new();
    for tenants in bench.options.pick([10, 1_000, 20_000], [10, 100, 400]) {
        let crowd = crowd(bench, tenants).await?;
        bench.say(&format!(
            "  {tenants} tenants: {} MB",
            number(crowd.resident_mb)
        ));
        crowds.push(crowd);
    }
    let letters: u32 = bench.options.pick(100_000, 2_000);
    let counted = dry_run(bench, letters).await?;
    bench.say(&format!(
        "  a dry run over {letters} dead letters: {} s",
        number(counted.median())
    ));
    let largest = crowds.last().map_or(f64::NAN, |crowd| crowd.resident_mb);

    let mut report = bench.report("scale", "stored, one node");
    report.heading("Updates that concern nobody");
    report.paragraph(&format!(
        "One worker process reads {} messages of {} conversations and acknowledges each; nothing is configured for them. \
         {} a second, {} MB resident at the end.",
        empty.1.updates,
        empty.1.conversations,
        number(empty.0),
        number(empty.2)
    ));
    report.heading("Processes");
    report.paragraph(&format!(
        "A backlog for 64 tenants whose bot takes {SERVICE:?}; each process makes {CONCURRENCY} requests at once, so one process \
         cannot do more than {} a second. The rate is what reaches the bot over some seconds once the partitions are shared out.",
        number(count(CONCURRENCY as u64) / SERVICE.as_secs_f64())
    ));
    let rows: Vec<_> = processes
        .iter()
        .map(|(count, rate)| vec![count.to_string(), number(*rate)])
        .collect();
    report.table(&["processes", "updates a second"], &rows);
    let drawn: Vec<_> = processes
        .iter()
        .map(|(count, rate)| (format!("{count} processes"), *rate))
        .collect();
    report.plot("processes", bars("Updates a second", "/s", &drawn));
    report.heading("Tenants");
    report.paragraph(
        "Every tenant has a number and a relay of its own and gets five messages; one worker process.",
    );
    let rows: Vec<_> = crowds
        .iter()
        .map(|crowd| {
            let each = crowd.resident_mb * 1_024.0 / count(crowd.tenants as u64);
            vec![
                crowd.tenants.to_string(),
                number(crowd.per_second),
                number(crowd.resident_mb),
                number(each),
            ]
        })
        .collect();
    report.table(
        &[
            "tenants",
            "updates a second",
            "resident (MB)",
            "KB a tenant, all included",
        ],
        &rows,
    );
    report.heading("Dead letters");
    report.paragraph(&format!(
        "`ackline dead replay --all --dry-run` over {letters} letters, from starting the command to its end, three times: {} s.",
        counted.shown()
    ));
    bench.say(&format!("report: {}", report.write()?.display()));
    let by_count: Map<String, Value> = processes
        .iter()
        .map(|(count, rate)| (count.to_string(), json!(rounded(*rate))))
        .collect();
    let figures = json!({"empty_job_per_s": rounded(empty.0), "processes": by_count, "tenants_20000_mb": rounded(largest), "dry_run_s": rounded(counted.median())});
    Ok((figures, true))
}

struct Size {
    updates: u32,
    conversations: u32,
}

/// Updates a second through a pool that has nothing to do for them, and its memory at the end.
async fn empty_jobs(bench: &Bench<'_>) -> Result<(f64, Size, f64)> {
    let size = Size {
        updates: bench.options.pick(1_000_000, 20_000),
        conversations: bench.options.pick(1_000_000, 20_000),
    };
    let plan = Plan {
        tenants: 64,
        pools: "events",
        ..Plan::default()
    };
    let mut crew = Crew::prepare(&bench.root, plan).await?;
    let updates = (0..size.updates).map(|serial| {
        let tenant = usize::try_from(serial).unwrap_or(0) % 64;
        Update {
            serial,
            tenant,
            person: serial % size.conversations,
            is_status: false,
            second: false,
        }
    });
    crew.feed().await?.fill(updates).await?;
    crew.hire(0).await?;
    let context = crew.context().await?;
    // The first look is taken while work goes on already: both ends of the measure are looks.
    let (mut first, deadline) = (None, Instant::now() + WORKED_OFF_WITHIN);
    loop {
        let (left, at) = (crew.backlog(&context, UPDATES).await?, Instant::now());
        let (from, begun) = *first.get_or_insert((left, at));
        if left == 0 || at > deadline {
            anyhow::ensure!(
                left == 0,
                "{left} updates are not worked off:\n{}",
                crew.log_tails()
            );
            let done = count(from.saturating_sub(left));
            return Ok((
                done / (at - begun).as_secs_f64().max(1e-3),
                size,
                crew.usage().resident_mb(),
            ));
        }
        sleep(ASK_EVERY).await;
    }
}

/// Updates a second that reach a slow bot through several processes.
async fn shared_work(bench: &Bench<'_>, processes: usize) -> Result<f64> {
    let seconds: u32 = bench.options.pick(8, 2);
    let bot = Bot::start(SERVICE).await?;
    let plan = Plan {
        tenants: 64,
        pools: "relay",
        bot: Some(bot.address()),
        settings: format!("[pools.relay]\nconcurrency = {CONCURRENCY}\n"),
        ..Plan::default()
    };
    let mut crew = Crew::prepare(&bench.root, plan).await?;
    let updates = u32::try_from(processes).unwrap_or(1) * 320 * (seconds + 12);
    let update = |serial: u32| {
        let tenant = usize::try_from(serial).unwrap_or(0) % 64;
        Update {
            serial,
            tenant,
            person: serial / 64 % 100,
            is_status: false,
            second: false,
        }
    };
    crew.feed().await?.fill((0..updates).map(update)).await?;
    for place in 0..processes {
        crew.hire(place).await?;
    }
    sleep(Duration::from_secs(4)).await;
    bot.collect();
    let started = Instant::now();
    sleep(Duration::from_secs(seconds.into())).await;
    let arrived = bot.collect().len();
    Ok(count(arrived as u64) / started.elapsed().as_secs_f64())
}

/// One process with many tenants that all have something to do.
async fn crowd(bench: &Bench<'_>, tenants: usize) -> Result<Crowd> {
    let bot = Bot::start(Duration::ZERO).await?;
    let plan = Plan {
        tenants,
        pools: "relay",
        bot: Some(bot.address()),
        ..Plan::default()
    };
    let mut crew = Crew::prepare(&bench.root, plan).await?;
    let updates = u32::try_from(tenants).unwrap_or(1) * 5;
    let update = |serial: u32| Update {
        serial,
        tenant: usize::try_from(serial).unwrap_or(0) % tenants,
        person: 1,
        is_status: false,
        second: false,
    };
    crew.feed().await?.fill((0..updates).map(update)).await?;
    crew.hire(0).await?;
    bot.wait_for(usize::try_from(updates).unwrap_or(0), WORKED_OFF_WITHIN)
        .await
        .with_context(|| crew.log_tails())?;
    // Work goes on before the process says that it is ready: both ends of the measure are arrivals.
    let arrivals = bot.collect();
    let times = arrivals.iter().map(|arrival| arrival.at);
    let took = times
        .clone()
        .max()
        .zip(times.min())
        .map_or(0.0, |(last, first)| (last - first).as_secs_f64());
    let per_second = count(arrivals.len() as u64) / took.max(1e-3);
    crew.drained(UPDATES, WORKED_OFF_WITHIN).await?;
    Ok(Crowd {
        tenants,
        per_second,
        resident_mb: crew.usage().resident_mb(),
    })
}

/// How long the operator waits for a dry run over so many dead letters; its status 2 says that there are some.
async fn dry_run(bench: &Bench<'_>, letters: u32) -> Result<Samples> {
    let plan = Plan {
        tenants: 64,
        pools: "relay",
        ..Plan::default()
    };
    let crew = Crew::prepare(&bench.root, plan).await?;
    let update = |serial: u32| {
        let tenant = usize::try_from(serial).unwrap_or(0) % 64;
        Update {
            serial,
            tenant,
            person: serial % 1_000,
            is_status: false,
            second: false,
        }
    };
    crew.feed().await?.bury((0..letters).map(update)).await?;
    let mut took = Samples::default();
    for _ in 0..3 {
        let (time, said) = crew
            .time(&["dead", "replay", "--all", "--dry-run", "--json"], &[2])
            .await?;
        let counted: Value =
            serde_json::from_str(&said).context("reading what the dry run printed")?;
        anyhow::ensure!(
            said.contains(&letters.to_string()),
            "the dry run counted {counted} of {letters}"
        );
        took.push(time.as_secs_f64());
    }
    Ok(took)
}
