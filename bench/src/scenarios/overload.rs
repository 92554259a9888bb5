//! More connections than the edge can answer within its target: what is taken, how soon, and what is turned away.
//!
//! The same load with shedding and without it, in turn. Whoever is turned away comes again a little later, as a
//! sender with a queue would.

use super::rig::{Rig, deal};
use super::statistics::{Samples, number};
use super::{Bench, blocking, rounded};
use crate::load::tally::count;
use crate::load::{Closed, Mix, Verdict};
use ackline_shared::nats::Durability;
use anyhow::Result;
use serde_json::{Value, json};
use std::time::Duration;

const CONNECTIONS: usize = 3_000;
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// All connections begin at once, which is another question.
const SETTLES: Duration = Duration::from_secs(1);
/// What is offered is given up after this long, so everything that is going to be answered is.
const WITHIN: Duration = Duration::from_secs(6);
const SHEDDING: [(&str, &str); 2] = [
    (
        "shed_delay = 50ms",
        "shed_delay = \"50ms\"\nconnections_per_address_max = 0\n",
    ),
    (
        "no shedding",
        "shed_delay = \"1h\"\nconnections_per_address_max = 0\n",
    ),
];

/// What one way of admitting did.
#[derive(Default)]
struct Admitted {
    per_second: Samples,
    p50_ms: Samples,
    p99_ms: Samples,
    p999_ms: Samples,
    turned_away: Samples,
}

/// Runs both ways in turn.
pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    let connections = bench.options.pick(CONNECTIONS, 300);
    let mut verdict = Verdict::default();
    let mut measured = [Admitted::default(), Admitted::default()];
    for round in 0..bench.options.repeats(3) {
        bench.say(&format!("round {} …", round + 1));
        for ((_, settings), admitted) in SHEDDING.into_iter().zip(&mut measured) {
            let rig = Rig::start_with(&bench.root, Durability::Stored, settings).await?;
            let ledger = deal(Mix::texts(bench.options.pick(250_000, 3_000))).await?;
            let load = Closed {
                settles: bench.options.pick(SETTLES, SETTLES / 4),
                retry_after: Some(RETRY_AFTER),
                ..Closed::new(
                    rig.address(),
                    connections,
                    bench.options.pick(WITHIN, WITHIN / 3),
                )
            };
            let tally = {
                let ledger = ledger.clone();
                blocking(move || load.run(&ledger)).await?
            };
            verdict.add(&rig.check(&ledger).await?);
            let refused = tally.attempts() - tally.accepted();
            admitted.per_second.push(tally.per_second());
            admitted.p50_ms.push(tally.quantile_us(0.5) / 1_000.0);
            admitted.p99_ms.push(tally.quantile_us(0.99) / 1_000.0);
            admitted.p999_ms.push(tally.quantile_us(0.999) / 1_000.0);
            admitted
                .turned_away
                .push(count(refused) / count(tally.attempts().max(1)));
        }
    }
    let mut report = bench.report("overload", "stored, one node");
    report.paragraph(&format!(
        "{} connections, `stored`. Each sends its next delivery when the last one was taken and comes again {RETRY_AFTER:?} \
         after a 503, give or take a half. Latency is that of the deliveries that were taken, from the moment they were \
         sent, after the first {SETTLES:?}, in which all begin at once.",
        number(count(connections as u64)),
    ));
    let rows: Vec<_> = SHEDDING
        .iter()
        .zip(&measured)
        .map(|((name, _), admitted)| {
            vec![
                (*name).to_owned(),
                admitted.per_second.shown(),
                admitted.p50_ms.shown(),
                admitted.p99_ms.shown(),
                admitted.p999_ms.shown(),
                admitted.turned_away.shown(),
            ]
        })
        .collect();
    report.table(
        &[
            "",
            "accepted/s",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "share turned away",
        ],
        &rows,
    );
    report.paragraph(&format!(
        "Held against the stream: {} acked, {} lost, {} doubled, {} out of order.",
        verdict.acked, verdict.lost, verdict.doubled, verdict.out_of_order
    ));
    bench.say(&format!("report: {}", report.write()?.display()));
    let [shedding, taking] = &measured;
    let figures = |of: &Admitted| {
        json!({
            "accepted_per_second": rounded(of.per_second.median()),
            "p50_ms": rounded(of.p50_ms.median()),
            "p99_ms": rounded(of.p99_ms.median()),
            "turned_away": rounded(of.turned_away.median()),
        })
    };
    Ok((
        json!({"shedding": figures(shedding), "no_shedding": figures(taking)}),
        verdict.is_clean(),
    ))
}
