//! What becomes of updates while bots, endpoints, CRMs and the Graph API are away for seconds or minutes.
//!
//! Every kind of target fails in every way, each for a tenant of its own, all of one outage at the same time in one
//! installation. Beside each is a target that works, so that what the others cost it is seen, too.

mod cell;
mod count;
mod stage;
mod timetable;
mod verdict;

use super::Bench;
use super::workers::Held;
use super::workers::stream::read;
use ackline_shared::subjects::{DEAD, DEAD_SUBJECTS};
use anyhow::{Context, Result, bail};
use cell::{Cell, Outage, cells, outages};
use count::{Account, Evidence};
use futures_util::future::try_join_all;
use serde_json::Value;
use stage::Stage;
use std::time::Duration;
use timetable::{Pace, timetable};
use tokio::time::{Instant, sleep, sleep_until};

const CALM_MAX: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Played {
    outage: Outage,
    cells: Vec<Cell>,
    accounts: Vec<Account>,
}

/// Plays every outage and counts.
pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    let wanted = &bench.options.outages;
    let known = outages(bench.options.speed);
    if let Some(unknown) = wanted
        .iter()
        .find(|name| known.iter().all(|outage| outage.name != name.as_str()))
    {
        bail!("there is no outage {unknown}: give some of 15s, 4m, 30m");
    }
    let is_wanted = |outage: &Outage| {
        let by_default = !bench.options.quick || outage.name == "15s";
        if wanted.is_empty() {
            by_default
        } else {
            wanted.iter().any(|name| name == outage.name)
        }
    };
    let mut played = Vec::new();
    for outage in known.into_iter().filter(is_wanted) {
        played.push(play(bench, outage).await?);
    }
    verdict::write(bench, &played)
}

/// Plays one outage for all of its cells.
async fn play(bench: &Bench<'_>, outage: Outage) -> Result<Played> {
    let all = cells(&outage, bench.options.pick(usize::MAX, 4));
    let pace = Pace {
        warm_up: Duration::from_secs(bench.options.pick(10, 6)),
        calm: outage
            .lasts()
            .min(bench.options.pick(CALM_MAX, Duration::from_secs(10))),
        outage: outage.lasts(),
        per_second: bench.options.pick(50, 20),
    };
    let flooded = all.iter().filter(|cell| cell.is_flooded).count();
    bench.say(&format!(
        "  outage of {}, played in {:?}: {} cells, {flooded} of them with {} messages a second",
        outage.name,
        outage.lasts(),
        all.len(),
        pace.per_second,
    ));
    // Those that would take others with them play in an installation of their own.
    let (alone, together): (Vec<Cell>, Vec<Cell>) =
        all.into_iter().partition(|cell| cell.is_alone());
    let installations = [together, alone].map(|cells| play_cells(bench, outage, cells, pace));
    let (mut cells, mut accounts) = (Vec::new(), Vec::new());
    for (own, counted) in try_join_all(installations).await? {
        cells.extend(own);
        accounts.extend(counted);
    }
    Ok(Played {
        outage,
        cells,
        accounts,
    })
}

async fn play_cells(
    bench: &Bench<'_>,
    outage: Outage,
    cells: Vec<Cell>,
    pace: Pace,
) -> Result<(Vec<Cell>, Vec<Account>)> {
    let stage = Stage::start(&bench.root, cells, &outage).await?;
    let entries = timetable(&stage.cells, &pace);
    let (feed, start) = (stage.crew.feed().await?, Instant::now());
    let offered: Vec<_> = entries
        .iter()
        .map(|entry| (entry.due, entry.update))
        .collect();
    let load = tokio::spawn(async move { feed.offer(start, offered.into_iter()).await });
    sleep_until(start + pace.warm_up + pace.calm).await;
    stage.break_targets(&outage).await?;
    sleep_until(start + pace.end()).await;
    stage.mend_targets().await?;
    let mended = Instant::now();
    load.await
        .context("the load ended early")?
        .with_context(|| stage.crew.log_tails())?;
    let within = bench
        .options
        .pick(Duration::from_secs(300), Duration::from_secs(130));
    let context = stage.crew.context().await?;
    let evidence = loop {
        let evidence = Evidence {
            cells: &stage.cells,
            entries: &entries,
            start,
            mended,
            retry_after: outage.retry_after(),
            failing: stage.failing_notes(),
            healthy: stage.healthy_notes(),
            letters: read(&context, DEAD, DEAD_SUBJECTS[0]).await?,
        };
        let missing = evidence.missing().len();
        if missing == 0 || mended.elapsed() > within {
            break evidence;
        }
        sleep(ASK_EVERY).await;
    };
    let (letters, missing) = (evidence.letters.len(), evidence.missing().len());
    bench.say(&format!(
        "  {} cells, {} messages: {letters} dead letters, {missing} missing {:.0} s after the outage",
        stage.cells.len(),
        entries.len(),
        mended.elapsed().as_secs_f64(),
    ));
    let held = Held::look(&context).await?;
    let accounts = evidence.count(|entry| {
        let kind = stage.cells.get(entry.cell).map(|cell| cell.kind);
        kind.is_some_and(|kind| held.has(kind.pool(), entry.update.serial))
    });
    if missing > 0 {
        let logs = stage
            .crew
            .keep_logs(&bench.root, &format!("downstream-{}-logs", outage.name))
            .await?;
        bench.say(&format!("  logs: {logs}"));
    }
    Ok((stage.cells.clone(), accounts))
}
