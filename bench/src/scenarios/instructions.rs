//! How many instructions a webhook costs: verify, split and stamp on a fixed input, counted by callgrind.
//!
//! Unlike a time, the count is the same on a busy machine; it is kept in the repository so that a change shows.

use super::Bench;
use super::statistics::number;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

const KEPT: &str = "bench/results/instructions.json";
const BUILT_WITHIN: Duration = Duration::from_secs(900);
const COUNTED_WITHIN: Duration = Duration::from_secs(120);
/// Two sizes, so that their difference is free of what starting and ending cost.
const WEBHOOKS: [u64; 2] = [200, 1_200];

/// Counts, and compares with the count in the repository.
pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    let program = build(bench).await?;
    let mut totals = Vec::new();
    for webhooks in WEBHOOKS {
        totals.push(count(&program, webhooks).await?);
    }
    let [few, many] = totals[..] else { bail!("two runs were made") };
    let per_webhook = many.saturating_sub(few) / (WEBHOOKS[1] - WEBHOOKS[0]);
    let figures = json!({ "per_webhook": per_webhook });

    let kept = std::fs::read(bench.root.join(KEPT)).ok();
    let kept: Option<Value> = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let before = kept.as_ref().and_then(|kept| kept.get("per_webhook")?.as_u64());
    let mut report = bench.report("instructions", "none: nothing is stored");
    report.paragraph(
        "Instructions of one webhook with one 1 KB text message in `verify`, `split` and `stamp`, without HTTP and \
         without publishing. Counted by `valgrind --tool=callgrind` over 1,000 webhooks.",
    );
    let change = before.map_or("–".to_owned(), |before| {
        let (now, before) = (crate::load::tally::count(per_webhook), crate::load::tally::count(before));
        format!("{} %", number((now / before - 1.0) * 100.0))
    });
    report.table(&["instructions per webhook", "change"], &[vec![per_webhook.to_string(), change.clone()]]);
    let path = report.write()?;
    std::fs::write(report.directory().join("instructions.json"), format!("{figures}\n"))?;
    bench.say(&format!("change against {KEPT}: {change}; report: {}", path.display()));
    Ok((figures, true))
}

/// Builds the program that runs the hot path; it is an example of the ingress, which bench does not link.
async fn build(bench: &Bench<'_>) -> Result<PathBuf> {
    bench.say("building the hot path …");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "--locked", "--package", "ackline-ingress", "--features", "testing"]);
    command.args(["--example", "instructions", "--message-format", "json"]);
    let output = output(command.current_dir(&bench.root), BUILT_WITHIN).await.context("cargo build")?;
    let lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut built = lines.filter_map(|line| {
        let is_it = line.pointer("/target/name").and_then(Value::as_str) == Some("instructions");
        let executable = line.get("executable").and_then(Value::as_str).map(PathBuf::from);
        executable.filter(|_| is_it)
    });
    built.next().context("cargo did not say where it put the example")
}

async fn count(program: &Path, webhooks: u64) -> Result<u64> {
    let directory = tempfile::tempdir()?;
    let out = directory.path().join("callgrind.out");
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out.display()));
    command.arg(program).arg(webhooks.to_string());
    output(&mut command, COUNTED_WITHIN)
        .await
        .context("counting with valgrind; `deploy/dev/tools.sh bench` installs it")?;
    let text = std::fs::read_to_string(&out).context("reading callgrind's output")?;
    total(&text).context("callgrind's output has no total")
}

async fn output(command: &mut Command, within: Duration) -> Result<String> {
    let output =
        timeout(within, command.kill_on_drop(true).output()).await.context("did not end in time")??;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<_> = said.lines().rev().take(15).collect();
        bail!("{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn total(callgrind: &str) -> Option<u64> {
    let line = callgrind
        .lines()
        .find_map(|line| line.strip_prefix("summary: ").or_else(|| line.strip_prefix("totals: ")));
    line?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_from_callgrinds_output() {
        assert_eq!(total("events: Ir\nfn=(1)\n1 2\ntotals: 4711\n"), Some(4711));
        assert_eq!(total("events: Ir\n"), None);
    }
}
