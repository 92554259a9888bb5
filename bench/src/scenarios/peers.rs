//! The same load on what a user would pick instead, in turn with ours, at the same durability.
//!
//! A peer is measured only after it passed its trial, and its store is counted after every run.

use super::peer::{Kind, Peer, Recipe};
use super::plot::bars;
use super::report::Report;
use super::rig::{Rig, deal};
use super::statistics::Samples;
use super::{Bench, blocking, rounded, trial};
use crate::load::tally::count;
use crate::load::{Closed, Ledger, Mix, Open, Tally, Verdict};
use ackline_shared::nats::Durability;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const OPEN_CONNECTIONS: usize = 256;
const RATE: f64 = 1_000.0;
/// Between the closed loop, whose traces every store has to clear away, and the open one.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// No further round of a level begins after this time; three levels and their starts are within eight minutes.
const LEVEL_WITHIN: Duration = Duration::from_secs(110);

/// What is compared at one durability.
#[derive(Debug, Clone, Copy)]
struct Level {
    durability: Durability,
    peers: &'static [Recipe],
    /// Connections of the closed loop; the first is what the figures are about.
    connections: &'static [usize],
}

const LEVELS: [Level; 3] = [
    Level {
        durability: Durability::Stored,
        peers: &UNSYNCED,
        connections: &[64],
    },
    Level {
        durability: Durability::Synced,
        peers: &SYNCED,
        connections: &[64, 512],
    },
    Level {
        durability: Durability::Logged,
        peers: &SYNCED,
        connections: &[64, 512],
    },
];

const UNSYNCED: [Recipe; 5] = [
    recipe(
        "node_jetstream",
        Kind::NodeJetStream("http-jetstream.js"),
        false,
        "PubAck, no fsync",
    ),
    recipe(
        "fastify_jetstream",
        Kind::NodeJetStream("fastify-jetstream.js"),
        false,
        "PubAck, no fsync",
    ),
    recipe(
        "node_bullmq",
        Kind::NodeBullMq,
        false,
        "AOF, fsync every second",
    ),
    recipe(
        "nginx_lua_redis",
        Kind::NginxLuaRedis,
        false,
        "AOF, fsync every second",
    ),
    recipe("pywa_fastapi", Kind::Pywa, false, "nothing: memory only"),
];
const SYNCED: [Recipe; 2] = [
    recipe(
        "nginx_lua_redis_fsync",
        Kind::NginxLuaRedis,
        true,
        "AOF, fsync always",
    ),
    recipe(
        "node_jetstream_always",
        Kind::NodeJetStream("http-jetstream.js"),
        true,
        "PubAck after fsync",
    ),
];

const fn recipe(key: &'static str, kind: Kind, sync: bool, promise: &'static str) -> Recipe {
    Recipe {
        key,
        kind,
        sync,
        promise,
    }
}

/// Closed-loop measurements of one server at one number of connections.
#[derive(Debug, Clone, Default)]
struct Loop {
    rps: Samples,
    p50: Samples,
    p99: Samples,
    cpu: Samples,
    answers: String,
}

#[derive(Debug, Default)]
struct Figures {
    closed: Vec<Loop>,
    open_p50: Samples,
    open_p99: Samples,
}

impl Figures {
    fn of(level: &Level) -> Self {
        Self {
            closed: vec![Loop::default(); level.connections.len()],
            ..Self::default()
        }
    }

    fn rps(&self, place: usize) -> f64 {
        self.closed
            .get(place)
            .map_or(f64::NAN, |figures| figures.rps.median())
    }
}

/// One of the servers that take turns.
enum Contender<'s> {
    Ours(&'s Rig, &'s mut Verdict),
    Peer(&'s Peer),
}

impl Contender<'_> {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Ours(rig, _) => rig.address(),
            Self::Peer(peer) => peer.address(),
        }
    }

    /// CPU time of the server and of its store.
    fn cpu(&self) -> Duration {
        match self {
            Self::Ours(rig, _) => rig.ingress_usage().cpu + rig.nats_usage().cpu,
            Self::Peer(peer) => peer.usage().cpu,
        }
    }

    /// Holds what was answered against what is stored, and empties the store.
    async fn audit(&mut self, tally: &Tally, sent: &Arc<Ledger>) -> Result<()> {
        match self {
            Self::Ours(rig, verdict) => {
                verdict.add(&rig.check(sent).await?);
                rig.purge().await
            }
            Self::Peer(peer) => trial::audit(peer, tally, sent).await,
        }
    }
}

pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    let mut report = bench.report("peers", "equal within each table");
    report.paragraph(&format!(
        "Closed loop, and {SETTLED_AFTER:?} later open loop at {RATE} a second; 1 KB signed text messages. Every server runs one process or \
         thread per core and checks the signature. Ours and the peers take turns; medians, with the range. CPU is that \
         of the server and of its store. Before it was measured, each peer refused wrong signatures and stored nothing \
         of them; after every run its store was counted and held at least what it had answered with 200. pywa's own \
         answer stores nothing, so it is the price of its framework alone. `logged` acknowledges what its own log has \
         synced and publishes it behind what comes in, so a run of these seconds shows a spike; `edge` shows the rate \
         until JetStream has everything too."
    ));
    let mut figures = Map::new();
    let (mut p99_lower, mut clean) = (true, true);
    for level in LEVELS {
        let (ours, theirs, ledger) = measure(bench, &level).await?;
        figures.insert(
            level.durability.to_string(),
            write(&mut report, &level, &ours, &theirs, &ledger),
        );
        p99_lower &= theirs
            .iter()
            .all(|(_, theirs)| ours.open_p99.median() < theirs.open_p99.median());
        clean &= ledger.is_clean();
    }
    figures.insert("p99_lower_than_all".to_owned(), json!(p99_lower));
    bench.say(&format!("report: {}", report.write()?.display()));
    Ok((Value::Object(figures), clean))
}

async fn measure(
    bench: &Bench<'_>,
    level: &Level,
) -> Result<(Figures, Vec<(Recipe, Figures)>, Verdict)> {
    let rig = Rig::start(&bench.root, level.durability).await?;
    let mut peers = Vec::new();
    for &recipe in level.peers {
        let peer = async {
            let peer = Peer::start(&bench.root, recipe).await?;
            trial::pass(&peer).await.map(|()| peer)
        };
        let peer = peer
            .await
            .with_context(|| format!("starting {}", recipe.key))?;
        peers.push((peer, Figures::of(level)));
    }
    let (mut ours, mut ledger) = (Figures::of(level), Verdict::default());
    let started = Instant::now();
    for round in 0..bench.options.repeats(5) {
        if started.elapsed() > LEVEL_WITHIN {
            break;
        }
        bench.say(&format!("{}, round {} …", level.durability, round + 1));
        turn(bench, level, Contender::Ours(&rig, &mut ledger), &mut ours)
            .await
            .context("ackline")?;
        for (peer, figures) in &mut peers {
            turn(bench, level, Contender::Peer(peer), figures)
                .await
                .context(peer.recipe.key)?;
        }
    }
    Ok((
        ours,
        peers
            .into_iter()
            .map(|(peer, figures)| (peer.recipe, figures))
            .collect(),
        ledger,
    ))
}

async fn turn(
    bench: &Bench<'_>,
    level: &Level,
    mut on: Contender<'_>,
    figures: &mut Figures,
) -> Result<()> {
    let within = bench
        .options
        .pick(Duration::from_secs(3), Duration::from_secs(1));
    for (&connections, figures) in level.connections.iter().zip(&mut figures.closed) {
        let deck = deal(Mix::texts(bench.options.pick(100_000, 2_000))).await?;
        let (load, sent, before) = (
            Closed::new(on.address(), connections, within),
            deck.clone(),
            on.cpu(),
        );
        let tally: Tally = blocking(move || load.run(&sent)).await?;
        let used = on.cpu().saturating_sub(before);
        figures
            .cpu
            .push(used.as_secs_f64() * 1e6 / count(tally.accepted().max(1)));
        figures.rps.push(tally.per_second());
        figures.p50.push(tally.quantile_us(0.5) / 1_000.0);
        figures.p99.push(tally.quantile_us(0.99) / 1_000.0);
        figures.answers = tally.answers();
        on.audit(&tally, &deck).await?;
    }
    let deck = deal(Mix::texts(bench.options.pick(3_000, 1_000))).await?;
    sleep(SETTLED_AFTER).await;
    let open = Open {
        address: on.address(),
        connections: OPEN_CONNECTIONS,
        per_second: RATE,
        within,
    };
    let sent = deck.clone();
    let tally = blocking(move || open.run(&sent)).await?;
    figures.open_p50.push(tally.quantile_us(0.5) / 1_000.0);
    figures.open_p99.push(tally.quantile_us(0.99) / 1_000.0);
    on.audit(&tally, &deck).await
}

/// Writes the tables of a level; gives the ratios ours over theirs.
fn write(
    report: &mut Report,
    level: &Level,
    ours: &Figures,
    theirs: &[(Recipe, Figures)],
    ledger: &Verdict,
) -> Value {
    let durability = level.durability;
    report.heading(durability.as_str());
    let ratio = |theirs: &Figures, place| rounded(ours.rps(place) / theirs.rps(place));
    let everybody = || {
        let ours = std::iter::once(("**ackline**", durability.as_str(), ours));
        ours.chain(
            theirs
                .iter()
                .map(|(recipe, figures)| (recipe.key, recipe.promise, figures)),
        )
    };
    for (place, connections) in level.connections.iter().enumerate() {
        let row = |(name, promise, figures): (&str, &str, &Figures)| {
            let closed = figures.closed.get(place).cloned().unwrap_or_default();
            vec![
                name.to_owned(),
                promise.to_owned(),
                closed.rps.shown(),
                format!("{}x", ratio(figures, place)),
                closed.p50.shown(),
                closed.p99.shown(),
                closed.cpu.shown(),
                closed.answers,
            ]
        };
        report.paragraph(&format!("Closed loop over {connections} connections:"));
        let head = [
            "",
            "a 200 promises",
            "requests/s",
            "ours / theirs",
            "p50 ms",
            "p99 ms",
            "CPU µs",
        ];
        report.table(
            &[&head[..], &["answers of the last run"]].concat(),
            &everybody().map(row).collect::<Vec<_>>(),
        );
        let rates: Vec<_> = everybody()
            .map(|(name, _, figures)| (name.replace('*', ""), figures.rps(place)))
            .collect();
        let title = format!("{durability}: acknowledged webhooks, {connections} connections");
        report.plot(
            &format!("{durability}-{connections}"),
            bars(&title, "requests/s", &rates),
        );
    }
    report.paragraph(&format!(
        "Open loop at {RATE} a second, from the intended start:"
    ));
    let row = |(name, _, figures): (&str, &str, &Figures)| {
        vec![
            name.to_owned(),
            figures.open_p50.shown(),
            figures.open_p99.shown(),
        ]
    };
    report.table(
        &["", "p50 ms", "p99 ms"],
        &everybody().map(row).collect::<Vec<_>>(),
    );
    report.paragraph(&format!(
        "Ours, held against the stream: {} acked, {} lost, {} doubled, {} out of order.",
        ledger.acked, ledger.lost, ledger.doubled, ledger.out_of_order
    ));
    let mut ratios = Map::new();
    for (recipe, figures) in theirs {
        for (place, connections) in level.connections.iter().enumerate() {
            let key = if place == 0 {
                recipe.key.to_owned()
            } else {
                format!("{}_{connections}", recipe.key)
            };
            ratios.insert(key, json!(ratio(figures, place)));
        }
    }
    Value::Object(ratios)
}
