//! The same load on what a user would pick instead, in turn with ours, at the same durability.

use super::peer::{Kind, Peer, Recipe};
use super::plot::bars;
use super::report::Report;
use super::rig::{Rig, deal};
use super::statistics::Samples;
use super::{Bench, blocking, rounded};
use crate::load::tally::count;
use crate::load::{Closed, Mix, Open, Tally, Usage, Verdict};
use ackline_shared::nats::Durability;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::time::Duration;

const CONNECTIONS: usize = 64;
const OPEN_CONNECTIONS: usize = 256;
const RATE: f64 = 1_000.0;

const STORED: [Recipe; 5] = [
    recipe("node_jetstream", Kind::NodeJetStream("http-jetstream.js"), false, "PubAck, no fsync"),
    recipe("fastify_jetstream", Kind::NodeJetStream("fastify-jetstream.js"), false, "PubAck, no fsync"),
    recipe("node_bullmq", Kind::NodeBullMq, false, "AOF, fsync every second"),
    recipe("nginx_lua_redis", Kind::NginxLuaRedis, false, "AOF, fsync every second"),
    recipe("pywa_fastapi", Kind::Pywa, false, "nothing: memory only"),
];
const SYNCED: [Recipe; 2] = [
    recipe("nginx_lua_redis_fsync", Kind::NginxLuaRedis, true, "AOF, fsync always"),
    recipe("node_jetstream_always", Kind::NodeJetStream("http-jetstream.js"), true, "PubAck after fsync"),
];

const fn recipe(key: &'static str, kind: Kind, sync: bool, promise: &'static str) -> Recipe {
    Recipe { key, kind, sync, promise }
}

/// Measurements of one server.
#[derive(Default)]
struct Figures {
    rps: Samples,
    p50: Samples,
    p99: Samples,
    cpu: Samples,
    open_p50: Samples,
    open_p99: Samples,
    answers: String,
}

/// Runs both durabilities.
pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    let mut report = bench.report("peers", "equal within each table");
    report.paragraph(&format!(
        "Closed loop over {CONNECTIONS} connections and open loop at {RATE} a second, 1 KB signed text messages. Every \
         server runs one process or thread per core and checks the signature. Ours and the peers take turns; medians, \
         with the range. CPU is that of the server and of its store."
    ));
    let mut figures = Map::new();
    let (mut p99_lower, mut clean) = (true, true);
    for (durability, recipes) in [(Durability::Stored, &STORED[..]), (Durability::Synced, &SYNCED[..])] {
        let (ours, theirs, ledger) = measure(bench, durability, recipes).await?;
        let ratios = write(&mut report, durability, &ours, &theirs, &ledger);
        p99_lower &= theirs.iter().all(|(_, theirs)| ours.open_p99.median() < theirs.open_p99.median());
        clean &= ledger.is_clean();
        figures.insert(durability.to_string(), ratios);
    }
    figures.insert("p99_lower_than_all".to_owned(), json!(p99_lower));
    bench.say(&format!("report: {}", report.write()?.display()));
    Ok((Value::Object(figures), clean))
}

async fn measure(
    bench: &Bench<'_>,
    durability: Durability,
    recipes: &[Recipe],
) -> Result<(Figures, Vec<(Recipe, Figures)>, Verdict)> {
    let rig = Rig::start(&bench.root, durability).await?;
    let mut peers = Vec::new();
    for &recipe in recipes {
        let peer = Peer::start(&bench.root, recipe).await;
        peers.push((peer.with_context(|| format!("starting {}", recipe.key))?, Figures::default()));
    }
    let (mut ours, mut ledger) = (Figures::default(), Verdict::default());
    for round in 0..bench.options.repeats(5) {
        bench.say(&format!("{durability}, round {} …", round + 1));
        turn(bench, rig.address(), &mut ours, Some((&rig, &mut ledger)), None).await.context("ackline")?;
        for (peer, figures) in &mut peers {
            turn(bench, peer.address(), figures, None, Some(peer)).await.context(peer.recipe.key)?;
        }
    }
    Ok((ours, peers.into_iter().map(|(peer, figures)| (peer.recipe, figures)).collect(), ledger))
}

/// Measures one server once.
async fn turn(
    bench: &Bench<'_>,
    address: SocketAddr,
    figures: &mut Figures,
    mut ours: Option<(&Rig, &mut Verdict)>,
    peer: Option<&Peer>,
) -> Result<()> {
    let within = bench.options.pick(Duration::from_secs(6), Duration::from_secs(2));
    let used = |rig: Option<&Rig>| match (rig, peer) {
        (Some(rig), _) => rig.ingress_usage().cpu + rig.nats_usage().cpu,
        (None, Some(peer)) => peer.usage().cpu,
        (None, None) => Usage::default().cpu,
    };
    let rig = ours.as_ref().map(|(rig, _)| *rig);

    let deck = deal(Mix::texts(bench.options.pick(150_000, 1_000))).await?;
    let (load, sent, before) = (Closed::new(address, CONNECTIONS, within), deck.clone(), used(rig));
    let tally: Tally = blocking(move || load.run(&sent)).await?;
    figures.cpu.push((used(rig).saturating_sub(before)).as_secs_f64() * 1e6 / count(tally.accepted().max(1)));
    figures.rps.push(tally.per_second());
    figures.p50.push(tally.quantile_us(0.5) / 1_000.0);
    figures.p99.push(tally.quantile_us(0.99) / 1_000.0);
    figures.answers = tally.answers();
    if let Some((rig, ledger)) = &mut ours {
        ledger.add(&rig.check(&deck).await?);
    }

    let deck = deal(Mix::texts(bench.options.pick(6_000, 1_000))).await?;
    let (open, sent) =
        (Open { address, connections: OPEN_CONNECTIONS, per_second: RATE, within }, deck.clone());
    let tally = blocking(move || open.run(&sent)).await?;
    figures.open_p50.push(tally.quantile_us(0.5) / 1_000.0);
    figures.open_p99.push(tally.quantile_us(0.99) / 1_000.0);
    if let Some((rig, ledger)) = &mut ours {
        ledger.add(&rig.check(&deck).await?);
        rig.purge().await?;
    }
    Ok(())
}

/// Writes a table; gives the ratios ours over theirs.
fn write(
    report: &mut Report,
    durability: Durability,
    ours: &Figures,
    theirs: &[(Recipe, Figures)],
    ledger: &Verdict,
) -> Value {
    report.heading(durability.as_str());
    let row = |name: &str, promise: &str, figures: &Figures| {
        let ratio = rounded(ours.rps.median() / figures.rps.median());
        vec![
            name.to_owned(),
            promise.to_owned(),
            figures.rps.shown(),
            format!("{ratio}x"),
            figures.p50.shown(),
            figures.p99.shown(),
            figures.open_p50.shown(),
            figures.open_p99.shown(),
            figures.cpu.shown(),
            figures.answers.clone(),
        ]
    };
    let mut rows = vec![row("**ackline**", durability.as_str(), ours)];
    rows.extend(theirs.iter().map(|(recipe, figures)| row(recipe.key, recipe.promise, figures)));
    let head = ["", "a 200 promises", "requests/s", "ours / theirs", "p50 ms", "p99 ms", "p50 ms at 1,000/s"];
    report.table(&[&head[..], &["p99 ms at 1,000/s", "CPU µs", "answers of the last run"]].concat(), &rows);
    report.paragraph(&format!(
        "Ours, held against the stream: {} acked, {} lost, {} doubled, {} out of order.",
        ledger.acked, ledger.lost, ledger.doubled, ledger.out_of_order
    ));
    let mut rates = vec![("ackline".to_owned(), ours.rps.median())];
    rates.extend(theirs.iter().map(|(recipe, figures)| (recipe.key.to_owned(), figures.rps.median())));
    let title = format!("{durability}: acknowledged webhooks, {CONNECTIONS} connections");
    report.plot(durability.as_str(), bars(&title, "requests/s", &rates));
    let ratio = |theirs: &Figures| json!(rounded(ours.rps.median() / theirs.rps.median()));
    Value::Object(theirs.iter().map(|(recipe, figures)| (recipe.key.to_owned(), ratio(figures))).collect())
}
