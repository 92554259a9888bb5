//! What an installation costs that has nothing to do: messages through the broker, CPU time of both.

use super::rig::free_address;
use super::statistics::{Samples, number};
use super::workers::{Crew, Plan};
use super::{Bench, rounded};
use crate::load::tally::count;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const TENANTS: usize = 10;

/// What was used so far.
#[derive(Debug, Clone, Copy)]
struct Meter {
    at: Instant,
    messages: u64,
    workers: Duration,
    broker: Duration,
}

/// Starts an installation with default settings and watches it do nothing.
pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    let settled = Duration::from_secs(bench.options.pick(30, 10));
    let watched = Duration::from_secs(bench.options.pick(60, 20));
    let monitor = free_address().await?;
    let plan = Plan {
        tenants: TENANTS,
        pools: "all",
        broker: format!("http: \"{monitor}\""),
        ..Plan::default()
    };
    let mut crew = Crew::prepare(&bench.root, plan).await?;
    crew.hire(0).await?;
    sleep(settled).await;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let (mut messages, mut workers, mut broker) =
        (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..bench.options.repeats(3) {
        let before = Meter::read(&crew, &http, monitor).await?;
        sleep(watched).await;
        let after = Meter::read(&crew, &http, monitor).await?;
        let seconds = after.at.duration_since(before.at).as_secs_f64();
        let percent = |used: Duration| used.as_secs_f64() / seconds * 100.0;
        messages.push(count(after.messages.saturating_sub(before.messages)) / seconds);
        workers.push(percent(after.workers.saturating_sub(before.workers)));
        broker.push(percent(after.broker.saturating_sub(before.broker)));
    }
    let mut report = bench.report("idle", "stored, one node");
    report.paragraph(&format!(
        "One worker process with all pools and default settings, nats-server beside it, {TENANTS} tenants and nothing to do. \
         After {settled:?} of rest, {watched:?} at a time: messages in and out of nats-server by its own count, CPU time in \
         percent of one core."
    ));
    report.table(
        &["figure", "median and range"],
        &[
            vec!["NATS messages a second".into(), messages.shown()],
            vec!["CPU of the worker process (%)".into(), workers.shown()],
            vec!["CPU of nats-server (%)".into(), broker.shown()],
        ],
    );
    bench.say(&format!(
        "  {} messages a second",
        number(messages.median())
    ));
    bench.say(&format!("report: {}", report.write()?.display()));
    let figures = json!({
        "nats_msgs_per_s": rounded(messages.median()), "cpu_percent_workers": rounded(workers.median()),
        "cpu_percent_nats": rounded(broker.median()),
    });
    Ok((figures, true))
}

impl Meter {
    async fn read(crew: &Crew, http: &reqwest::Client, monitor: SocketAddr) -> Result<Self> {
        let answer = http
            .get(format!("http://{monitor}/varz"))
            .send()
            .await?
            .text()
            .await?;
        let said: Value = serde_json::from_str(&answer).context("reading /varz of nats-server")?;
        let figure = |name: &str| {
            said.get(name)
                .and_then(Value::as_u64)
                .with_context(|| format!("no {name} in /varz"))
        };
        Ok(Self {
            at: Instant::now(),
            messages: figure("in_msgs")? + figure("out_msgs")?,
            workers: crew.usage().cpu,
            broker: crew.broker_usage().cpu,
        })
    }
}
