//! What a turn of a conversation costs the journal: its pool's own way into SQLite, without NATS.

use super::statistics::Samples;
use super::{Bench, example};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;

const RUN_WITHIN: Duration = Duration::from_secs(900);
/// Updates in a batch: while little comes, at a hundred turns a second, and while it catches up.
const BATCHES: [u32; 4] = [8, 100, 400, 1_000];
/// Figures of a run, and what they are in words.
const FIGURES: [(&str, &str); 4] = [
    ("whole", "whole"),
    ("database", "the database's thread"),
    ("beside", "beside it"),
    ("fold", "of that: read and folded"),
];

/// Writes turns into a new file, with batches of several sizes in turn.
pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    bench.say("building …");
    let program = example::build(bench, "ackline-store", "turns").await?;
    let (turns, people) = bench.options.pick((20_000, 5_000), (500, 100));
    let mut samples: [[Samples; FIGURES.len()]; BATCHES.len()] = Default::default();
    for _ in 0..bench.options.repeats(3) {
        for (batch, samples) in BATCHES.into_iter().zip(&mut samples) {
            let said = measure(&program, turns, people, batch).await?;
            for ((name, _), samples) in FIGURES.into_iter().zip(samples) {
                let figure = said.pointer(&format!("/us_a_turn/{name}"));
                let figure = figure.and_then(Value::as_f64);
                samples.push(figure.with_context(|| format!("the example says no {name}"))?);
            }
        }
    }
    let mut report = bench.report(
        "journal",
        "WAL, synchronous=NORMAL: the file can be thrown away",
    );
    report.paragraph(&format!(
        "{turns} turns of {people} people of 20 tenants, written into a new file as the pool writes them: six updates a turn (a \
         text, the step of its flow, the reply sent, three statuses), the parts of many turns between each other. CPU \
         time in microseconds a turn by the scheduler's count of each thread, median and range; what NATS costs is not in it."
    ));
    let mut head = vec!["updates in a batch"];
    head.extend(FIGURES.map(|(_, words)| words));
    let rows: Vec<Vec<String>> = BATCHES
        .into_iter()
        .zip(&samples)
        .map(|(batch, samples)| {
            let mut row = vec![batch.to_string()];
            row.extend(samples.iter().map(Samples::shown));
            row
        })
        .collect();
    report.table(&head, &rows);
    let path = report.write()?;
    for row in &rows {
        bench.say(&row.join("  "));
    }
    bench.say(&format!("report: {}", path.display()));
    let wholes = BATCHES
        .into_iter()
        .zip(&samples)
        .map(|(batch, [whole, ..])| (batch.to_string(), json!(whole.median())));
    let wholes: serde_json::Map<String, Value> = wholes.collect();
    Ok((json!({ "us_a_turn_by_batch": wholes }), true))
}

async fn measure(program: &Path, turns: u32, people: u32, batch: u32) -> Result<Value> {
    let mut command = Command::new(program);
    command.args([turns, people, batch].map(|number| number.to_string()));
    let said = example::output(&mut command, RUN_WITHIN).await?;
    let said: Value = serde_json::from_str(said.trim()).context("what the example says")?;
    let written = said.get("turns").and_then(Value::as_u64);
    ensure!(
        written == Some(u64::from(turns)),
        "it wrote another number of turns"
    );
    Ok(said)
}
