//! Whether a 200 outlives the broker: killed, frozen, restarted, and the leader of three killed, under load.
//!
//! Clients do what Meta does: what got no 200 is sent again. Each fault comes several times in a run.

use super::plot::{Series, lines};
use super::report::Report;
use super::rig::{Rig, deal};
use super::statistics::{Samples, number};
use super::{Bench, blocking};
use crate::load::tally::count;
use crate::load::{Closed, Ledger, Mix, Tally, Verdict};
use ackline_shared::nats::Durability;
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const CONNECTIONS: usize = 32;
const RETRY_AFTER: Duration = Duration::from_millis(200);
const PHASE_WITHIN: Duration = Duration::from_secs(150);
const FROZEN_FOR: Duration = Duration::from_secs(3);
const BACK_WITHIN: Duration = Duration::from_secs(60);
const PLOT_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Freeze,
    Restart,
    LeaderKill,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill_9",
            Self::Freeze => "freeze",
            Self::Restart => "restart",
            Self::LeaderKill => "leader_kill_9",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Kill => "kill -9, started again at once",
            Self::Freeze => "SIGSTOP for 3 s, then SIGCONT",
            Self::Restart => "SIGTERM, started again when it has ended",
            Self::LeaderKill => "kill -9 of the leader of 3, started again after the first 200",
        }
    }
}

/// What one fault's run showed.
struct Phase {
    fault: Fault,
    durability: Durability,
    tally: Tally,
    verdict: Verdict,
    first_200: Samples,
    faults: Vec<f64>,
    timeline: Vec<u64>,
}

/// Runs every fault and holds all acknowledgements against the streams.
pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    let webhooks = bench
        .options
        .pick(bench.options.webhooks, bench.options.webhooks.min(8_000));
    let plan = [
        (
            Durability::Synced,
            &[Fault::Kill, Fault::Freeze, Fault::Restart][..],
        ),
        (Durability::Replicated, &[Fault::LeaderKill][..]),
    ];
    let mut report = bench.report("outage", "synced (one node), replicated (three nodes)");
    let mut phases = Vec::new();
    for (durability, faults) in plan {
        bench.say(&format!("starting {durability} …"));
        let mut rig = Rig::start(&bench.root, durability).await?;
        for &fault in faults {
            let phase = play(bench, &mut rig, fault, durability, webhooks / 4).await;
            let phase = phase.with_context(|| rig.log_tails())?;
            bench.say(&format!(
                "  {}: {:?}, {}",
                fault.name(),
                phase.verdict,
                phase.tally.answers()
            ));
            phases.push(phase);
            rig.purge().await?;
        }
    }
    let figures = write(&mut report, &phases);
    bench.say(&format!("report: {}", report.write()?.display()));
    Ok(figures)
}

async fn play(
    bench: &Bench<'_>,
    rig: &mut Rig,
    fault: Fault,
    durability: Durability,
    webhooks: usize,
) -> Result<Phase> {
    let ledger = deal(Mix {
        status_every: 5,
        conversations: 640,
        ..Mix::texts(webhooks)
    })
    .await?;
    let load = Closed {
        retry_after: Some(RETRY_AFTER),
        ..Closed::new(rig.address(), CONNECTIONS, PHASE_WITHIN)
    };
    let running = {
        let ledger = ledger.clone();
        tokio::spawn(blocking(move || load.run(&ledger)))
    };
    let shares: &[u64] = bench.options.pick(&[20, 50, 80], &[40]);
    let (mut first_200, mut faults) = (Samples::default(), Vec::new());
    for share in shares {
        if !reached(&ledger, webhooks as u64 * share / 100, &running).await? {
            break;
        }
        let (at, back_in) = strike(rig, fault, &ledger, &running).await?;
        faults.push(Duration::from_nanos(at).as_secs_f64());
        if let Some(back_in) = back_in {
            first_200.push(back_in.as_secs_f64());
        }
    }
    let tally = running.await.context("the load ended early")??;
    let verdict = rig.check(&ledger).await?;
    Ok(Phase {
        fault,
        durability,
        tally,
        verdict,
        first_200,
        faults,
        timeline: ledger.timeline(PLOT_EVERY),
    })
}

/// Waits until so many are acknowledged; not when the load has ended first.
async fn reached(ledger: &Ledger, acked: u64, load: &JoinHandle<Result<Tally>>) -> Result<bool> {
    let deadline = Instant::now() + PHASE_WITHIN;
    while ledger.acked() < acked {
        if load.is_finished() {
            return Ok(false);
        }
        if Instant::now() > deadline {
            bail!("{acked} deliveries were not acknowledged within {PHASE_WITHIN:?}");
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(true)
}

/// Lets a fault happen; tells when the broker was down, and how long until the next 200.
async fn strike(
    rig: &mut Rig,
    fault: Fault,
    ledger: &Arc<Ledger>,
    load: &JoinHandle<Result<Tally>>,
) -> Result<(u64, Option<Duration>)> {
    let at = match fault {
        Fault::Kill => {
            rig.kill_node(0).await?;
            let at = ledger.now();
            rig.start_node(0).await?;
            at
        }
        Fault::Freeze => {
            rig.signal_node(0, "STOP").await?;
            let at = ledger.now();
            sleep(FROZEN_FOR).await;
            rig.signal_node(0, "CONT").await?;
            at
        }
        Fault::Restart => {
            rig.stop_node(0).await?;
            let at = ledger.now();
            rig.start_node(0).await?;
            at
        }
        Fault::LeaderKill => {
            let leader = rig.leader().await?;
            rig.kill_node(leader).await?;
            let at = ledger.now();
            let back = first_200(ledger, at, load).await?;
            rig.start_node(leader).await?;
            return Ok((at, back));
        }
    };
    Ok((at, first_200(ledger, at, load).await?))
}

async fn first_200(
    ledger: &Ledger,
    fault: u64,
    load: &JoinHandle<Result<Tally>>,
) -> Result<Option<Duration>> {
    let deadline = Instant::now() + BACK_WITHIN;
    loop {
        if let Some(after) = ledger.first_ack_after(fault) {
            return Ok(Some(after));
        }
        if load.is_finished() {
            return Ok(None);
        }
        if Instant::now() > deadline {
            bail!("no 200 within {BACK_WITHIN:?} of the fault");
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn write(report: &mut Report, phases: &[Phase]) -> (Value, bool) {
    let mut sum = Verdict::default();
    let mut first = Map::new();
    let mut rows = Vec::new();
    for phase in phases {
        let verdict = &phase.verdict;
        sum.add(verdict);
        if phase.first_200.max().is_finite() {
            first.insert(
                phase.fault.name().to_owned(),
                json!(super::rounded(phase.first_200.max())),
            );
        }
        rows.push(vec![
            phase.fault.words().to_owned(),
            phase.durability.to_string(),
            phase.faults.len().to_string(),
            verdict.acked.to_string(),
            verdict.lost.to_string(),
            verdict.doubled.to_string(),
            verdict.out_of_order.to_string(),
            verdict.unacknowledged.to_string(),
            phase.first_200.shown(),
            number(phase.tally.elapsed().as_secs_f64()),
            phase.tally.answers(),
        ]);
    }
    report.paragraph(&format!(
        "{CONNECTIONS} connections send signed webhooks, one in five a status, and send again after {RETRY_AFTER:?} \
         what got no 200. Every 200 is looked up in the stream. *Out of order*: stored after an update of the same \
         conversation that was sent only after this one's 200. *Stored without a 200* is allowed: Meta sends those \
         again, and the same id is stored once. The first 200 counts from the moment the broker was down."
    ));
    report.table(
        &[
            "fault",
            "mode",
            "times",
            "acked",
            "lost",
            "doubled",
            "out of order",
            "stored without a 200",
            "first 200 after (s)",
            "run (s)",
            "answers",
        ],
        &rows,
    );
    for phase in phases {
        let step = PLOT_EVERY.as_secs_f64();
        let points = phase
            .timeline
            .iter()
            .zip(0u32..)
            .map(|(&acks, slot)| (f64::from(slot) * step, count(acks) / step));
        let series = Series {
            name: "200s a second".into(),
            points: points.collect(),
        };
        let marks: Vec<_> = phase
            .faults
            .iter()
            .map(|&at| (at, phase.fault.name().to_owned()))
            .collect();
        let title = format!("{} ({})", phase.fault.words(), phase.durability);
        report.plot(
            phase.fault.name(),
            lines(
                &title,
                "seconds",
                "acknowledged a second",
                &[series],
                &marks,
            ),
        );
    }
    let figures = json!({
        "acked": sum.acked, "lost": sum.lost, "doubled": sum.doubled, "out_of_order": sum.out_of_order,
        "first_200_after_s": first,
    });
    (
        figures,
        sum.is_clean() && phases.iter().all(|phase| !phase.faults.is_empty()),
    )
}
