//! What bounds `stored` on one machine: verifying alone, publishing alone, and ours, which does both.
//!
//! The three take turns. Whatever an edge does, its webhooks cost the load generator's share, a verification and
//! nats-server's share of a publish: that sum is how fast any edge in front of JetStream could be here.

use super::plot::bars;
use super::rig::{Rig, deal};
use super::statistics::Samples;
use super::verify_only::VerifyOnly;
use super::{Bench, blocking, publish, rounded};
use crate::load::tally::count;
use crate::load::{Closed, Ledger, Mix, Tally, Usage, Verdict};
use ackline_shared::nats::Durability;
use anyhow::Result;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const CONNECTIONS: usize = 64;

/// Rates, and processor time of one webhook in microseconds.
#[derive(Default)]
struct Figures {
    rate: Samples,
    server: Samples,
    nats: Samples,
    client: Samples,
}

impl Figures {
    fn push(&mut self, tally: &Tally, [server, nats, client]: [Duration; 3]) {
        let each = |used: Duration| used.as_secs_f64() * 1e6 / count(tally.accepted().max(1));
        self.rate.push(tally.per_second());
        self.server.push(each(server));
        self.nats.push(each(nats));
        self.client.push(each(client));
    }

    fn row(&self, name: &str, bound: f64) -> Vec<String> {
        let share = format!("{:.2}", self.rate.median() / bound);
        let cpu = [&self.server, &self.nats, &self.client].map(Samples::shown);
        [name.to_owned(), self.rate.shown()].into_iter().chain(cpu).chain([share]).collect()
    }
}

/// Takes the three in turn.
pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    let webhooks = bench.options.pick(150_000, 1_500);
    let rig = Rig::start(&bench.root, Durability::Stored).await?;
    let verify = VerifyOnly::start(&bench.root).await?;
    let (mut verifying, mut publishing, mut ours) =
        (Figures::default(), Figures::default(), Figures::default());
    let mut ledger = Verdict::default();
    for round in 0..bench.options.repeats(5) {
        bench.say(&format!("round {} …", round + 1));
        let texts = || deal(Mix::texts(webhooks));

        let deck = texts().await?;
        let before = (verify.usage().cpu, Usage::own_cpu());
        let tally = closed(bench, verify.address(), &deck).await?;
        let used = [verify.usage().cpu - before.0, Duration::ZERO, Usage::own_cpu() - before.1];
        verifying.push(&tally, used);

        let (deck, url) = (texts().await?, rig.nats_url());
        let before = (rig.nats_usage().cpu, Usage::own_cpu());
        let tally = blocking(move || publish::pipelined(&url, CONNECTIONS, &deck)).await?;
        let used = [Duration::ZERO, rig.nats_usage().cpu - before.0, Usage::own_cpu() - before.1];
        publishing.push(&tally, used);
        rig.purge().await?;

        let deck = texts().await?;
        let before = (rig.ingress_usage().cpu, rig.nats_usage().cpu, Usage::own_cpu());
        let tally = closed(bench, rig.address(), &deck).await?;
        let after = (rig.ingress_usage().cpu, rig.nats_usage().cpu, Usage::own_cpu());
        ours.push(&tally, [after.0 - before.0, after.1 - before.1, after.2 - before.2]);
        ledger.add(&rig.check(&deck).await?);
        rig.purge().await?;
    }
    let clean = ledger.is_clean();
    Ok((write(bench, [&verifying, &publishing, &ours], &ledger)?, clean))
}

async fn closed(bench: &Bench<'_>, address: SocketAddr, ledger: &Arc<Ledger>) -> Result<Tally> {
    let within = bench.options.pick(Duration::from_secs(6), Duration::from_secs(2));
    let (load, ledger) = (Closed::new(address, CONNECTIONS, within), ledger.clone());
    blocking(move || load.run(&ledger)).await
}

fn write(bench: &Bench<'_>, of: [&Figures; 3], ledger: &Verdict) -> Result<Value> {
    let [verifying, publishing, ours] = of;
    let cores = std::thread::available_parallelism().map_or(1.0, |cores| count(cores.get() as u64));
    let least = verifying.client.median() + verifying.server.median() + publishing.nats.median();
    let bound = cores * 1e6 / least;
    let mut report = bench.report("limits", "stored, one node");
    report.paragraph(&format!(
        "1 KB signed text messages, {CONNECTIONS} at once, in turn; medians with the range. *Verify only* answers 200 \
         and stores nothing. *Publish only* writes the same bytes with an id to nats-server over one connection, \
         {CONNECTIONS} unacknowledged, and reads PubAcks; nobody asks it for a signature, HTTP or more headers. The \
         bound is what {cores} cores can do when a webhook costs what the load generator and the verifier take in the \
         first row and nats-server in the second, and nothing else."
    ));
    let rows = [("verify only", verifying), ("publish only", publishing), ("**ackline** `stored`", ours)];
    let head = ["", "a second", "CPU µs server", "CPU µs nats-server", "CPU µs client", "of the bound"];
    report.table(&head, &rows.map(|(name, figures)| figures.row(name, bound)));
    report.paragraph(&format!(
        "{:.1} + {:.1} + {:.1} = {least:.1} µs, so at most **{bound:.0} a second**, {:.2} of verifying alone.",
        verifying.client.median(),
        verifying.server.median(),
        publishing.nats.median(),
        bound / verifying.rate.median(),
    ));
    let rates = [
        ("verify only".to_owned(), verifying.rate.median()),
        ("publish only".to_owned(), publishing.rate.median()),
        ("the bound of both".to_owned(), bound),
        ("ackline".to_owned(), ours.rate.median()),
    ];
    report.plot("rates", bars("What bounds `stored`", "a second", &rates));
    report.paragraph(&format!(
        "Ours, held against the stream: {} acked, {} lost, {} doubled, {} out of order.",
        ledger.acked, ledger.lost, ledger.doubled, ledger.out_of_order
    ));
    bench.say(&format!("report: {}", report.write()?.display()));
    Ok(json!({
        "verify_only": rounded(verifying.rate.median()),
        "publish_only": rounded(publishing.rate.median()),
        "ours": rounded(ours.rate.median()),
        "bound": rounded(bound),
        "ours_of_bound": rounded(ours.rate.median() / bound),
    }))
}
