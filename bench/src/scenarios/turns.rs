//! What a turn of a conversation costs, and how many a second are kept up with.
//!
//! A turn: somebody's message comes in at the edge, a flow of one step answers it, and one reply goes to the Graph
//! API, which answers at once. Edge, workers, nats-server, load and Graph API share the machine.

mod account;
mod graph;
mod meter;
mod peers;
mod player;
mod stage;
mod takeover;

use super::Bench;
use super::statistics::{Samples, number};
use super::workers::quantile_ms;
use crate::load::tally::count;
use anyhow::Result;
use clap::ValueEnum;
use graph::Graph;
use player::{Account, cpu_us};
use serde_json::Value;
use stage::{Phase, Stage};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

const EVEN: f64 = 50.0;
const WARM: f64 = 200.0;
const BURST: f64 = 1_000.0;
const BURST_FOR: Duration = Duration::from_secs(5);

/// A durability of the edge and the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    Stored,
    Synced,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Synced => "synced",
        }
    }
}

/// What was measured in one mode.
#[derive(Debug, Default)]
struct Figures {
    even: Costs,
    crowd: Costs,
    p50_ms: Samples,
    p99_ms: Samples,
    per_s: Samples,
    burst_p50_ms: Samples,
    burst_p99_ms: Samples,
    burst_behind_s: Samples,
    /// Of the turns in a closed loop: how many the journal still had before it, and how long it took.
    journal_backlog: Samples,
    behind_s: Samples,
    idle_messages: f64,
    account: Account,
    answers: Vec<String>,
}

/// What a turn costs.
#[derive(Debug, Default)]
struct Costs {
    cpu_us: [Samples; 3],
    messages: [Samples; 2],
    writes: BTreeMap<String, Samples>,
}

impl Costs {
    /// Adds CPU time for so many turns.
    fn cpu(&mut self, used: &meter::Meter, turns: u64) {
        for (samples, used) in self
            .cpu_us
            .iter_mut()
            .zip([used.edge, used.workers, used.nats])
        {
            samples.push(cpu_us(used, turns));
        }
    }

    /// Adds what went through nats-server for all turns of a part.
    fn broker(&mut self, phase: &Phase) {
        let turns = count(phase.played.turns().max(1));
        for (samples, sum) in self.messages.iter_mut().zip(phase.used.messages) {
            samples.push(count(sum) / turns);
        }
        for (stream, written) in &phase.used.writes {
            let samples = self.writes.entry(stream.clone()).or_default();
            samples.push(count(*written) / turns);
        }
    }

    /// Stored writes of a turn over all streams.
    fn writes(&self) -> f64 {
        self.writes.values().map(Samples::median).sum()
    }

    /// Messages of a turn to nats-server and from it.
    fn messages(&self) -> f64 {
        self.messages.iter().map(Samples::median).sum()
    }
}

/// Measures every mode, in turn.
pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    let modes = match bench.options.mode {
        Some(mode) => vec![mode],
        None => vec![Mode::Stored, Mode::Synced],
    };
    let graph = Arc::new(Graph::start().await?);
    let mut measured = Vec::new();
    for mode in modes {
        bench.say(&format!("{} …", mode.as_str()));
        measured.push((mode, measure(bench, mode, &graph).await?));
    }
    // One mode alone is what somebody looks at who changes something.
    let (mut contenders, mut took) = (None, None);
    if bench.options.mode.is_none() {
        bench.say("beside what one would run instead …");
        contenders = peers::compare(bench, &graph).await?;
        bench.say("a worker process is killed …");
        took = Some(takeover::measure(bench, &graph).await?);
    }
    account::write(bench, &measured, contenders.as_deref(), took.as_ref())
}

async fn measure(bench: &Bench<'_>, mode: Mode, graph: &Arc<Graph>) -> Result<Figures> {
    let even_for = Duration::from_secs(bench.options.pick(60, 20));
    let (settles, steady) = (
        Duration::from_secs(bench.options.pick(5, 2)),
        Duration::from_secs(bench.options.pick(15, 6)),
    );
    let mut stage = Stage::start(&bench.root, mode, graph).await?;
    let mut figures = Figures::default();
    // The first turns open connections and flows, and put the people at different places of what they write.
    stage.even(WARM, Duration::from_secs(5)).await?;
    let rest = Duration::from_secs(bench.options.pick(10, 5));
    let before = stage.look().await?;
    sleep(rest).await;
    let idle = stage.look().await?.since(&before);
    figures.idle_messages = count(idle.messages.iter().sum()) / rest.as_secs_f64();
    let even = stage.even(EVEN, even_for).await?;
    let waits = stage.player.waits(&even.played, EVEN);
    figures.even.cpu(&even.used, even.played.turns());
    figures.even.broker(&even);
    figures.p50_ms.push(quantile_ms(&waits, 0.5));
    figures.p99_ms.push(quantile_ms(&waits, 0.99));
    figures.answers.push(even.played.answers);
    bench.say(&format!(
        "  {EVEN} a second: p50 {} ms, p99 {} ms, {} writes, {} messages",
        number(figures.p50_ms.median()),
        number(figures.p99_ms.median()),
        number(figures.even.writes()),
        number(figures.even.messages()),
    ));
    for _ in 0..bench.options.repeats(3) {
        let (most, in_all) = stage.most(settles, steady).await?;
        figures.crowd.broker(&most);
        figures.crowd.cpu(&in_all.used, in_all.turns);
        figures
            .per_s
            .push(count(in_all.turns) / in_all.took.as_secs_f64());
        figures.journal_backlog.push(count(most.journal_backlog));
        figures.behind_s.push(most.behind.as_secs_f64());
        figures.answers.push(most.played.answers);
        bench.say(&format!(
            "  as many as are done: {} a second, the journal {:.1} s behind",
            figures.per_s.shown(),
            most.behind.as_secs_f64()
        ));
        stage.even(EVEN, BURST_FOR).await?;
        let burst = stage.even(BURST, BURST_FOR).await?;
        let waits = stage.player.waits(&burst.played, BURST);
        figures.burst_p50_ms.push(quantile_ms(&waits, 0.5));
        figures.burst_p99_ms.push(quantile_ms(&waits, 0.99));
        figures.burst_behind_s.push(burst.behind.as_secs_f64());
        figures.answers.push(burst.played.answers);
    }
    figures.account = stage.player.account();
    bench.say(&format!("  {:?}", figures.account));
    if !figures.account.is_clean() {
        let logs = stage.crew.keep_logs(&bench.root, "turns-logs").await?;
        bench.say(&format!("  logs: {logs}"));
    }
    Ok(figures)
}
