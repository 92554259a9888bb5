//! What an installation costs that does nothing: messages through the broker, and CPU.

use super::rig::free_address;
use super::workers::{Crew, Plan};
use super::{Bench, rounded};
use crate::load::Usage;
use crate::load::tally::count;
use ackline_shared::testing::NatsOptions;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const TENANTS: usize = 100;
/// Until takeovers are over and every consumer is asked for long.
const SETTLED_AFTER: Duration = Duration::from_secs(30);
/// What the figures are to stay below: the project's aim.
const MESSAGES_MAX: f64 = 30.0;
const CPU_PERCENT_MAX: f64 = 2.0;

/// What has been used until a moment.
#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    messages: u64,
    workers: Duration,
    nats: Duration,
}

/// Watches one process with every pool and nothing to do.
pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    let watched = bench.options.pick(Duration::from_secs(300), Duration::from_secs(5));
    let journal = tempfile::tempdir()?;
    let url = format!("sqlite://{}", journal.path().join("journal.db").display());
    let settings = format!("[journal]\nurl = {}\n", toml::Value::String(url));
    let plan = Plan { tenants: TENANTS, pools: "all", bot: None, flow: None, settings };
    let monitor = free_address().await?;
    let options = NatsOptions { extra_config: format!("http: \"{monitor}\""), ..NatsOptions::default() };
    let mut crew = Crew::prepare_with(&bench.root, plan, options).await?;
    crew.hire(0).await?;
    sleep(bench.options.pick(SETTLED_AFTER, Duration::ZERO)).await;
    let before = read(&mut crew, monitor).await?;
    sleep(watched).await;
    let after = read(&mut crew, monitor).await?;
    let seconds = (after.at - before.at).as_secs_f64();
    let percent = |after: Duration, before: Duration| (after - before).as_secs_f64() / seconds * 100.0;
    let messages = count(after.messages - before.messages) / seconds;
    let (workers, nats) = (percent(after.workers, before.workers), percent(after.nats, before.nats));
    let mut report = bench.report("idle", "stored, one node");
    report.paragraph(&format!(
        "One worker process runs every pool and the API for {TENANTS} tenants to whom nothing happens, for {watched:?}. Messages \
         are those that nats-server took in and those that it gave out; CPU is of one core. The aim is {MESSAGES_MAX} messages a \
         second and {CPU_PERCENT_MAX} % in all."
    ));
    report.table(
        &["messages a second", "CPU of the workers (%)", "CPU of nats-server (%)"],
        &[[messages, workers, nats].map(|figure| format!("{figure:.2}")).into()],
    );
    bench.say(&format!("report: {}", report.write()?.display()));
    let figures = json!({
        "nats_msgs_per_s": rounded(messages), "cpu_percent_workers": rounded(workers), "cpu_percent_nats": rounded(nats),
    });
    Ok((figures, messages.is_finite()))
}

async fn read(crew: &mut Crew, monitor: SocketAddr) -> Result<Reading> {
    let varz: Value = crew.http().get(format!("http://{monitor}/varz")).send().await?.json().await?;
    let of =
        |name: &str| varz.get(name).and_then(Value::as_u64).with_context(|| format!("/varz without {name}"));
    let nats = crew.nats().id().context("the broker runs")?;
    Ok(Reading {
        at: Instant::now(),
        messages: of("in_msgs")? + of("out_msgs")?,
        workers: crew.usage().cpu,
        nats: Usage::of(nats).cpu,
    })
}
