//! What bounds `stored` on one machine: verifying alone, publishing alone, all but publishing, and ours, which does it all.
//!
//! They take turns. Whatever an edge does, its webhooks cost the load generator's share, a verification and
//! nats-server's share of a publish: that sum is how fast any edge in front of JetStream could be here. One that
//! also tells what is in a webhook and whether it is known, as ours does for a repeat, is bound by a larger sum,
//! though its publishing were free.

use super::plot::bars;
use super::rig::{Rig, deal};
use super::statistics::Samples;
use super::verify_only;
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
/// As many as the edge's memory of acknowledged updates surely holds, sent again so often.
const KNOWN: usize = 24_000;
const AGAIN: usize = 6;

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
        [name.to_owned(), self.rate.shown()]
            .into_iter()
            .chain(cpu)
            .chain([share])
            .collect()
    }
}

pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    let webhooks = bench.options.pick(150_000, 1_500);
    let rig = Rig::start(&bench.root, Durability::Stored).await?;
    let verify = verify_only::start(&bench.root).await?;
    let [mut verifying, mut publishing, mut repeating, mut ours] =
        [(); 4].map(|()| Figures::default());
    let mut ledger = Verdict::default();
    for round in 0..bench.options.repeats(5) {
        bench.say(&format!("round {} …", round + 1));
        let texts = || deal(Mix::texts(webhooks));

        let deck = texts().await?;
        let before = (verify.usage().cpu, Usage::own_cpu());
        let tally = closed(bench, verify.address(), &deck).await?;
        let used = [
            verify.usage().cpu - before.0,
            Duration::ZERO,
            Usage::own_cpu() - before.1,
        ];
        verifying.push(&tally, used);

        let (deck, url) = (texts().await?, rig.nats_url());
        let before = (rig.nats_usage().cpu, Usage::own_cpu());
        let tally = blocking(move || publish::pipelined(&url, CONNECTIONS, &deck)).await?;
        let used = [
            Duration::ZERO,
            rig.nats_usage().cpu - before.0,
            Usage::own_cpu() - before.1,
        ];
        publishing.push(&tally, used);
        rig.purge().await?;

        let deck = texts().await?;
        let before = (
            rig.ingress_usage().cpu,
            rig.nats_usage().cpu,
            Usage::own_cpu(),
        );
        let tally = closed(bench, rig.address(), &deck).await?;
        let after = (
            rig.ingress_usage().cpu,
            rig.nats_usage().cpu,
            Usage::own_cpu(),
        );
        ours.push(
            &tally,
            [after.0 - before.0, after.1 - before.1, after.2 - before.2],
        );
        ledger.add(&rig.check(&deck).await?);
        rig.purge().await?;

        let deck = deal(Mix::texts(bench.options.pick(KNOWN, webhooks))).await?;
        closed(bench, rig.address(), &deck).await?;
        let (before, mut tally, mut took) = (
            (rig.ingress_usage().cpu, Usage::own_cpu()),
            Tally::new(),
            Duration::ZERO,
        );
        for _ in 0..AGAIN {
            let again = Ledger::open(deck.deck().clone());
            let once = closed(bench, rig.address(), &again).await?;
            took += once.elapsed();
            tally.add(&once);
        }
        tally.took(took);
        let used = [
            rig.ingress_usage().cpu - before.0,
            Duration::ZERO,
            Usage::own_cpu() - before.1,
        ];
        repeating.push(&tally, used);
        ledger.add(&rig.check(&deck).await?);
        rig.purge().await?;
    }
    let clean = ledger.is_clean();
    Ok((
        write(bench, [&verifying, &publishing, &repeating, &ours], &ledger)?,
        clean,
    ))
}

async fn closed(bench: &Bench<'_>, address: SocketAddr, ledger: &Arc<Ledger>) -> Result<Tally> {
    let within = bench
        .options
        .pick(Duration::from_secs(6), Duration::from_secs(2));
    let (load, ledger) = (Closed::new(address, CONNECTIONS, within), ledger.clone());
    blocking(move || load.run(&ledger)).await
}

fn write(bench: &Bench<'_>, of: [&Figures; 4], ledger: &Verdict) -> Result<Value> {
    let [verifying, publishing, repeating, ours] = of;
    let cores = std::thread::available_parallelism().map_or(1.0, |cores| count(cores.get() as u64));
    let parts = |edge: &Figures| {
        [
            edge.client.median(),
            edge.server.median(),
            publishing.nats.median(),
        ]
    };
    let at_most = |edge: &Figures| cores * 1e6 / parts(edge).iter().sum::<f64>();
    let (bound, bound_reported) = (at_most(verifying), at_most(repeating));
    let mut report = bench.report("limits", "stored, one node");
    report.paragraph(&format!(
        "1 KB signed text messages, {CONNECTIONS} at once, in turn; medians with the range. *Verify only* answers 200 \
         and stores nothing. *Publish only* writes what the edge would publish to nats-server over one connection, \
         {CONNECTIONS} unacknowledged, and reads PubAcks; nobody asks it for a signature or HTTP. *Repeats* are webhooks \
         that were acknowledged before: the edge verifies and splits them, finds their ids known and answers. The \
         bound is what {cores} cores can do when a webhook costs what the load generator and the verifier take in the \
         first row and nats-server in the second, and nothing else."
    ));
    let rows = [
        ("verify only", verifying),
        ("publish only", publishing),
        ("ackline, repeats", repeating),
        ("**ackline** `stored`", ours),
    ];
    let head = [
        "",
        "a second",
        "CPU µs server",
        "CPU µs nats-server",
        "CPU µs client",
        "of the bound",
    ];
    report.table(&head, &rows.map(|(name, figures)| figures.row(name, bound)));
    for (edge, bound, words) in [
        (
            verifying,
            bound,
            "For whatever verifies and waits for a PubAck",
        ),
        (
            repeating,
            bound_reported,
            "For what also tells whether it is known, though publishing cost the edge nothing",
        ),
    ] {
        let [client, server, nats] = parts(edge);
        report.paragraph(&format!(
            "{words}: {client:.1} + {server:.1} + {nats:.1} = {:.1} µs, so at most **{bound:.0} a second**, {:.2} of \
             verifying alone.",
            client + server + nats,
            bound / verifying.rate.median(),
        ));
    }
    let rates = [
        ("verify only".to_owned(), verifying.rate.median()),
        ("repeats".to_owned(), repeating.rate.median()),
        ("publish only".to_owned(), publishing.rate.median()),
        ("bound: verify, PubAck".to_owned(), bound),
        ("bound: and told".to_owned(), bound_reported),
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
        "repeats": rounded(repeating.rate.median()),
        "ours": rounded(ours.rate.median()),
        "bound": rounded(bound),
        "bound_told": rounded(bound_reported),
        "ours_of_bound": rounded(ours.rate.median() / bound),
    }))
}
