//! How long a change of concurrency or a pause takes until every worker process obeys.
//!
//! What counts is what the bot behind them sees: the time runs from the operator's Enter, so starting the
//! command and connecting to the broker are in it.

use super::statistics::{Samples, number};
use super::workers::{Arrival, Bot, Crew, Plan, Update};
use super::{Bench, rounded};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const PROCESSES: usize = 3;
const TENANTS: usize = 24;
const SERVICE: Duration = Duration::from_millis(20);
const CONCURRENCY: usize = 12;
const REDUCED: usize = 2;
/// Watched after each change: it must be obeyed for good.
const WATCHED: Duration = Duration::from_secs(3);
const RESUMED_WITHIN: Duration = Duration::from_secs(10);

/// Pauses, resumes and turns, again and again, under a backlog.
pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    let repeats = bench.options.repeats(5);
    let bot = Bot::start(SERVICE).await?;
    let plan = Plan {
        tenants: TENANTS,
        pools: "relay",
        bot: Some(bot.address()),
        settings: format!("[pools.relay]\nconcurrency = {CONCURRENCY}\n"),
        ..Plan::default()
    };
    let mut crew = Crew::prepare(&bench.root, plan).await?;
    let backlog = u32::try_from(repeats).unwrap_or(1) * 24_000;
    crew.feed().await?.fill((0..backlog).map(update)).await?;
    for place in 0..PROCESSES {
        crew.hire(place).await?;
    }
    let (mut pause, mut resume, mut turn) =
        (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..repeats {
        sleep(CALM).await;
        pause.push(quiet_after(&crew, &bot, &["pause", "relay"], |_| true).await?);
        resume.push(resumed_after(&crew, &bot).await?);
        sleep(CALM).await;
        let reduced = format!("concurrency={REDUCED}");
        let too_many = |arrival: &Arrival| arrival.running > REDUCED * PROCESSES;
        turn.push(quiet_after(&crew, &bot, &["tune", "relay", &reduced], too_many).await?);
        crew.ackline(&["tune", "relay", "--reset"]).await?;
    }
    let obeyed = pause.max().max(turn.max()).max(resume.max());
    let mut report = bench.report("tune", "stored, one node");
    report.paragraph(&format!(
        "{PROCESSES} worker processes relay a backlog of {TENANTS} tenants to a bot that takes {SERVICE:?}, {CONCURRENCY} \
         requests at once each. Times run from starting the operator's command to the last request that the change forbids, or \
         to the first that it allows, as the bot sees it; {repeats} times each."
    ));
    let row = |command: &str, samples: &Samples| {
        vec![
            format!("`{command}`"),
            samples.shown(),
            number(samples.max()),
        ]
    };
    report.table(
        &[
            "command",
            "obeyed after, median and range (s)",
            "longest (s)",
        ],
        &[
            row("ackline pause relay", &pause),
            row("ackline resume relay", &resume),
            row(&format!("ackline tune relay concurrency={REDUCED}"), &turn),
        ],
    );
    bench.say(&format!("report: {}", report.write()?.display()));
    Ok((json!({"obeyed_s": rounded(obeyed)}), obeyed.is_finite()))
}

const CALM: Duration = Duration::from_millis(1_500);

fn update(serial: u32) -> Update {
    let tenant = usize::try_from(serial).unwrap_or(0) % TENANTS;
    Update {
        serial,
        tenant,
        person: serial / 24 % 50,
        is_status: false,
        second: false,
    }
}

/// Gives a command and tells how long what it forbids went on.
async fn quiet_after(
    crew: &Crew,
    bot: &Bot,
    command: &[&str],
    forbidden: impl Fn(&Arrival) -> bool,
) -> Result<f64> {
    if bot
        .collect()
        .iter()
        .filter(|arrival| forbidden(arrival))
        .count()
        == 0
    {
        bail!(
            "nothing went on that `ackline {}` could have ended",
            command.join(" ")
        );
    }
    let given = Instant::now();
    crew.ackline(command).await?;
    sleep(WATCHED).await;
    let last = bot
        .collect()
        .iter()
        .filter(|arrival| forbidden(arrival))
        .map(|arrival| arrival.at)
        .max();
    let after = last.map_or(Duration::ZERO, |last| last.saturating_duration_since(given));
    if after + Duration::from_millis(200) > WATCHED {
        bail!(
            "`ackline {}` was not obeyed within {WATCHED:?}:\n{}",
            command.join(" "),
            crew.log_tails()
        );
    }
    Ok(after.as_secs_f64())
}

/// Resumes and tells how long it took until work went on.
async fn resumed_after(crew: &Crew, bot: &Bot) -> Result<f64> {
    let given = Instant::now();
    crew.ackline(&["resume", "relay"]).await?;
    bot.wait_for(1, RESUMED_WITHIN)
        .await
        .with_context(|| crew.log_tails())?;
    let first = bot
        .collect()
        .first()
        .map(|arrival| arrival.at)
        .context("something has arrived")?;
    Ok(first.saturating_duration_since(given).as_secs_f64())
}
