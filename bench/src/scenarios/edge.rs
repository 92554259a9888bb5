//! How fast the ingress acknowledges what it has stored: closed and open loop, batches, repeats, memory.
//!
//! Beside it, in turn, run its two limits: a server that only verifies, and a bare publish of the same bytes.

use super::instructions;
use super::plot::{Series, bars, lines};
use super::publish;
use super::report::Report;
use super::rig::{Rig, deal};
use super::served::Served;
use super::statistics::{Samples, number};
use super::verify_only;
use super::{Bench, blocking, rounded};
use crate::load::tally::count;
use crate::load::{Closed, Ledger, Mix, Open, Tally, Usage, Verdict};
use ackline_shared::nats::Durability;
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const CONNECTIONS: usize = 64;
const MANY_CONNECTIONS: usize = 1_000;
const OPEN_CONNECTIONS: usize = 256;
const RATES: [f64; 3] = [1_000.0, 5_000.0, 10_000.0];

#[derive(Default)]
struct Figures {
    rps: Samples,
    p50: Samples,
    p99: Samples,
    cpu_ingress: Samples,
    cpu_nats: Samples,
    cpu_load: Samples,
    rps_512: Samples,
    published: Samples,
    verify: Samples,
    verify_cpu: Samples,
    repeats: Samples,
    /// Of each pair of runs, repeats beside verifying only.
    repeats_share: Samples,
    bare_p50: Samples,
    bare_p99: Samples,
    open_1k_p50: Samples,
    batch_ms: Samples,
    rss_idle: f64,
    rss_load: f64,
    open: Vec<(f64, Tally)>,
    ledger: Verdict,
}

#[derive(Clone, Copy)]
struct Size {
    webhooks: usize,
    within: Duration,
    batches: usize,
    rounds: usize,
}

pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    let size = Size {
        webhooks: bench.options.pick(150_000, 1_500),
        within: bench
            .options
            .pick(Duration::from_secs(6), Duration::from_secs(2)),
        batches: bench.options.pick(20, 3),
        rounds: bench.options.repeats(5),
    };
    let mut report = bench.report("edge", "stored, synced and logged, one node");
    let mut measured = Vec::new();
    for durability in [Durability::Stored, Durability::Synced, Durability::Logged] {
        bench.say(&format!("{durability} …"));
        let figures = measure(bench, durability, size).await?;
        bench.say(&format!(
            "  {} requests/s, {:?}",
            figures.rps.shown(),
            figures.ledger
        ));
        measured.push((durability, figures));
    }
    let figures = write(&mut report, &measured, allocations(&bench.root))?;
    bench.say(&format!("report: {}", report.write()?.display()));
    let clean = measured
        .iter()
        .all(|(_, figures)| figures.ledger.is_clean());
    Ok((figures, clean))
}

/// A rig, and what its ledgers said so far.
struct Stand {
    rig: Rig,
    ledger: Verdict,
}

impl Stand {
    /// Closes a run: every 200 is in the stream, or it is an error.
    async fn close(&mut self, ledger: &Ledger) -> Result<()> {
        self.ledger.add(&self.rig.check(ledger).await?);
        self.rig.purge().await
    }

    async fn closed(
        &mut self,
        connections: usize,
        mix: Mix,
        within: Duration,
    ) -> Result<(Tally, Arc<Ledger>)> {
        let ledger = deal(mix).await?;
        let tally = closed(self.rig.address(), connections, within, &ledger).await?;
        Ok((tally, ledger))
    }

    async fn open(&mut self, per_second: f64, within: Duration) -> Result<Tally> {
        let ledger = deal(Mix::texts(due_within(per_second, within))).await?;
        let open = Open {
            address: self.rig.address(),
            connections: OPEN_CONNECTIONS,
            per_second,
            within,
        };
        let tally = {
            let ledger = ledger.clone();
            blocking(move || open.run(&ledger)).await?
        };
        self.close(&ledger).await?;
        Ok(tally)
    }
}

async fn closed(
    address: SocketAddr,
    connections: usize,
    within: Duration,
    ledger: &Arc<Ledger>,
) -> Result<Tally> {
    let (load, ledger) = (Closed::new(address, connections, within), ledger.clone());
    let tally = blocking(move || load.run(&ledger)).await?;
    if tally.accepted() == 0 {
        bail!("nothing was accepted: {}", tally.answers());
    }
    Ok(tally)
}

fn due_within(per_second: f64, within: Duration) -> usize {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate times seconds is small"
    )]
    {
        (per_second * within.as_secs_f64()) as usize
    }
}

async fn measure(bench: &Bench<'_>, durability: Durability, size: Size) -> Result<Figures> {
    let rig = Rig::start(&bench.root, durability).await?;
    let verify = verify_only::start(&bench.root).await?;
    let mut figures = Figures {
        rss_idle: rig.ingress_usage().resident_mb(),
        ..Figures::default()
    };
    let mut stand = Stand {
        rig,
        ledger: Verdict::default(),
    };
    // The first run pays for connections, pages and files that every later one finds.
    let (_, warm) = stand
        .closed(CONNECTIONS, Mix::texts(size.webhooks / 10), size.within)
        .await?;
    stand.close(&warm).await?;
    for _ in 0..size.rounds {
        throughput(&mut stand, &verify, &mut figures, size).await?;
        latency(&mut stand, &mut figures, size).await?;
    }
    let rates = RATES
        .into_iter()
        .skip(1)
        .chain([0.8 * figures.rps.median()]);
    for rate in rates {
        let tally = stand.open(rate, size.within).await?;
        figures.open.push((rate, tally));
    }
    batches(&mut stand, &mut figures, size).await?;
    memory(&mut stand, &mut figures, size).await?;
    figures.ledger = stand.ledger;
    Ok(figures)
}

/// Closed loop, ours and the limit in turn, then the same updates again.
async fn throughput(
    stand: &mut Stand,
    verify: &Served,
    figures: &mut Figures,
    size: Size,
) -> Result<()> {
    let mix = Mix::texts(size.webhooks);
    let before = (
        stand.rig.ingress_usage(),
        stand.rig.nats_usage(),
        Usage::own_cpu(),
    );
    let ledger = deal(mix).await?;
    let dealt = Usage::own_cpu();
    let tally = closed(stand.rig.address(), CONNECTIONS, size.within, &ledger).await?;
    let each = |before: Duration, after: Duration| {
        after.saturating_sub(before).as_secs_f64() * 1e6 / count(tally.accepted().max(1))
    };
    figures
        .cpu_ingress
        .push(each(before.0.cpu, stand.rig.ingress_usage().cpu));
    figures
        .cpu_nats
        .push(each(before.1.cpu, stand.rig.nats_usage().cpu));
    figures.cpu_load.push(each(dealt, Usage::own_cpu()));
    let behind = Instant::now();
    stand.rig.drained().await?;
    let took = tally.elapsed() + behind.elapsed();
    figures
        .published
        .push(count(tally.accepted()) / took.as_secs_f64());
    figures.rps.push(tally.per_second());
    figures.p50.push(tally.quantile_us(0.5));
    figures.p99.push(tally.quantile_us(0.99));
    stand.close(&ledger).await?;

    let used = verify.usage().cpu;
    let limit = closed(
        verify.address(),
        CONNECTIONS,
        size.within,
        &deal(mix).await?,
    )
    .await?;
    figures.verify.push(limit.per_second());
    figures
        .verify_cpu
        .push((verify.usage().cpu - used).as_secs_f64() * 1e6 / count(limit.accepted().max(1)));

    let (many, ledger) = stand
        .closed(512, Mix::texts(size.webhooks), size.within)
        .await?;
    figures.rps_512.push(many.per_second());
    stand.close(&ledger).await?;

    // Few enough that a bounded memory of ids holds them, and sent to both in turn: runs of the same length.
    let (_, first) = stand
        .closed(
            CONNECTIONS,
            Mix::texts((size.webhooks / 6).min(24_000)),
            size.within,
        )
        .await?;
    let deck = first.deck().clone();
    let mut again = Tally::new();
    let mut took = Duration::ZERO;
    for _ in 0..5 {
        let known = || Ledger::open(deck.clone());
        let limit = closed(verify.address(), CONNECTIONS, size.within, &known()).await?;
        let tally = closed(stand.rig.address(), CONNECTIONS, size.within, &known()).await?;
        figures
            .repeats_share
            .push(tally.per_second() / limit.per_second());
        took += tally.elapsed();
        again.add(&tally);
    }
    again.took(took);
    figures.repeats.push(again.per_second());
    stand.close(&first).await
}

/// 1,000 a second, through the ingress and straight to JetStream, in turn.
async fn latency(stand: &mut Stand, figures: &mut Figures, size: Size) -> Result<()> {
    let (rate, url) = (RATES[0], stand.rig.nats_url());
    let tally = stand.open(rate, size.within).await?;
    figures.open_1k_p50.push(tally.quantile_us(0.5));
    match figures
        .open
        .iter_mut()
        .find(|(known, _)| known.total_cmp(&rate).is_eq())
    {
        Some((_, sum)) => sum.then(&tally),
        None => figures.open.push((rate, tally)),
    }
    let ledger = deal(Mix::texts(due_within(rate, size.within))).await?;
    let bare = blocking(move || publish::open_loop(&url, rate, &ledger)).await?;
    figures.bare_p50.push(bare.quantile_us(0.5));
    figures.bare_p99.push(bare.quantile_us(0.99));
    stand.rig.purge().await
}

async fn batches(stand: &mut Stand, figures: &mut Figures, size: Size) -> Result<()> {
    for _ in 0..size.batches {
        let (tally, ledger) = stand
            .closed(1, Mix::batches(1, 1_000), Duration::from_secs(10))
            .await?;
        figures.batch_ms.push(tally.quantile_us(0.5) / 1_000.0);
        stand.close(&ledger).await?;
    }
    Ok(())
}

/// Memory with a thousand busy connections: the most of what was seen during the run.
async fn memory(stand: &mut Stand, figures: &mut Figures, size: Size) -> Result<()> {
    let ledger = deal(Mix::texts(size.webhooks)).await?;
    let (load, sent) = (
        Closed::new(stand.rig.address(), MANY_CONNECTIONS, size.within),
        ledger.clone(),
    );
    let running = tokio::spawn(blocking(move || load.run(&sent)));
    let deadline = Instant::now() + size.within * 4;
    while !running.is_finished() && Instant::now() < deadline {
        figures.rss_load = figures
            .rss_load
            .max(stand.rig.ingress_usage().resident_mb());
        sleep(Duration::from_millis(50)).await;
    }
    running.await.context("the load ended early")??;
    stand.close(&ledger).await
}

/// Allocations of a webhook on its way through the server, as the scenario `instructions` counted them last.
fn allocations(root: &Path) -> Option<u64> {
    let kept: Value =
        serde_json::from_slice(&std::fs::read(root.join(instructions::KEPT)).ok()?).ok()?;
    kept.pointer("/http/allocations")?.as_u64()
}

fn write(
    report: &mut Report,
    measured: &[(Durability, Figures)],
    allocations: Option<u64>,
) -> Result<Value> {
    let (_, stored) = measured.first().context("nothing was measured")?;
    report.paragraph(
        "1 KB signed text messages of 6,400 conversations of 16 tenants. Load, ingress and nats-server share this \
         machine. Each figure is the median of several runs taken in turn, with its range. Every 200 was looked up \
         in the stream.",
    );
    if let Some(allocations) = allocations {
        report.paragraph(&format!(
            "{allocations} allocations a webhook before it is published, as `instructions` counted them."
        ));
    }
    report.heading(&format!("Closed loop, {CONNECTIONS} connections"));
    report.paragraph(
        "`logged` acknowledges what its own log has synced, and publishes it behind what comes in: the last column \
         counts from the first request until JetStream has the last update.",
    );
    let row = |(mode, f): &(Durability, Figures)| {
        [
            mode.to_string(),
            f.rps.shown(),
            f.p50.shown(),
            f.p99.shown(),
            f.cpu_ingress.shown(),
            f.cpu_nats.shown(),
            f.cpu_load.shown(),
            f.rps_512.shown(),
            f.published.shown(),
        ]
        .to_vec()
    };
    let mut rows: Vec<_> = measured.iter().map(row).collect();
    let dash = || "–".to_owned();
    rows.push(
        [
            vec![
                "hyper, verify only".to_owned(),
                stored.verify.shown(),
                dash(),
                dash(),
                stored.verify_cpu.shown(),
            ],
            vec![dash(), dash(), dash(), dash()],
        ]
        .concat(),
    );
    report.table(
        &[
            "",
            "requests/s",
            "p50 µs",
            "p99 µs",
            "CPU µs ingress",
            "CPU µs nats",
            "CPU µs load",
            "requests/s, 512 connections",
            "updates/s until JetStream has all",
        ],
        &rows,
    );
    report.heading("Open loop");
    let rows = measured.iter().flat_map(|(mode, figures)| {
        figures.open.iter().map(move |(rate, tally)| {
            let quantile = |quantile| number(tally.quantile_us(quantile));
            vec![
                mode.to_string(),
                number(*rate),
                number(tally.per_second()),
                quantile(0.5),
                quantile(0.99),
                quantile(0.999),
                tally.answers(),
            ]
        })
    });
    report.paragraph("Latency counts from the moment a request was due.");
    report.table(
        &[
            "",
            "offered/s",
            "accepted/s",
            "p50 µs",
            "p99 µs",
            "p99.9 µs",
            "answers",
        ],
        &rows.collect::<Vec<_>>(),
    );
    report.heading("Limits, batches, repeats, memory");
    let rows: Vec<_> = measured
        .iter()
        .map(|(mode, f)| {
            vec![
                mode.to_string(),
                f.open_1k_p50.shown(),
                f.bare_p50.shown(),
                f.bare_p99.shown(),
                f.batch_ms.shown(),
                f.repeats.shown(),
                f.repeats_share.shown(),
                number(f.rss_idle),
                number(f.rss_load),
            ]
        })
        .collect();
    report.table(
        &[
            "",
            "p50 µs at 1,000/s",
            "bare PubAck p50 µs at 1,000/s",
            "bare PubAck p99 µs at 1,000/s",
            "batch of 1,000, ms",
            "repeats/s",
            "of verify only, in turn",
            "MB idle",
            "MB with 1,000 connections",
        ],
        &rows,
    );
    report.heading("Ledger");
    let rows: Vec<_> = measured
        .iter()
        .map(|(mode, f)| {
            let l = &f.ledger;
            vec![
                mode.to_string(),
                l.acked.to_string(),
                l.lost.to_string(),
                l.doubled.to_string(),
                l.out_of_order.to_string(),
            ]
        })
        .collect();
    report.table(&["", "acked", "lost", "doubled", "out of order"], &rows);
    plots(report, measured);
    let mut figures = Map::new();
    for (mode, f) in measured {
        let part = json!({
            "rps": rounded(f.rps.median()), "p50_us": rounded(f.p50.median()), "p99_us": rounded(f.p99.median()),
            "cpu_us_ingress": rounded(f.cpu_ingress.median()), "cpu_us_nats": rounded(f.cpu_nats.median()),
        });
        figures.insert(mode.to_string(), part);
    }
    let stored_figures = [
        (
            "rps_vs_verify_only",
            stored.rps.median() / stored.verify.median(),
        ),
        (
            "p50_vs_puback_at_1k",
            stored.open_1k_p50.median() / stored.bare_p50.median(),
        ),
        ("repeat_vs_verify_only", stored.repeats_share.median()),
        ("batch_1000_ms", stored.batch_ms.median()),
        ("rss_idle_mb", stored.rss_idle),
        ("rss_load_mb", stored.rss_load),
    ];
    figures.extend(stored_figures.map(|(key, figure)| (key.to_owned(), json!(rounded(figure)))));
    figures.extend(allocations.map(|count| ("allocations".to_owned(), json!(count))));
    Ok(Value::Object(figures))
}

fn plots(report: &mut Report, measured: &[(Durability, Figures)]) {
    let mut rates: Vec<_> = measured
        .iter()
        .map(|(mode, f)| (mode.to_string(), f.rps.median()))
        .collect();
    if let Some((_, stored)) = measured.first() {
        rates.push(("repeats".to_owned(), stored.repeats.median()));
        rates.push(("hyper, verify only".to_owned(), stored.verify.median()));
    }
    report.plot(
        "throughput",
        bars("Closed loop, 64 connections", "requests/s", &rates),
    );
    for (mode, figures) in measured {
        let series: Vec<_> = figures
            .open
            .iter()
            .map(|(rate, tally)| Series {
                name: format!("{} /s", number(*rate)),
                // Nines on the x axis: 1 is p90, 2 is p99, 3 is p99.9.
                points: tally
                    .curve()
                    .into_iter()
                    .map(|(quantile, us)| (-(1.0 - quantile).log10(), us / 1_000.0))
                    .collect(),
            })
            .collect();
        let title = format!("Open loop, {mode}: latency from the intended start");
        let name = format!("latency-{mode}");
        report.plot(
            &name,
            lines(
                &title,
                "nines (1 = p90, 2 = p99, 3 = p99.9)",
                "ms",
                &series,
                &[],
            ),
        );
    }
}
