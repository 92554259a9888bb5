//! How many instructions and allocations a webhook costs on a fixed input, counted by callgrind.
//!
//! Unlike a time, a count is the same on a busy machine; it is kept in the repository so that a change shows.

use super::statistics::number;
use super::{Bench, example};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;

/// The counts in the repository.
pub const KEPT: &str = "bench/results/instructions.json";
const COUNTED_WITHIN: Duration = Duration::from_secs(120);
/// Two sizes, so that their difference is free of what starting and ending cost.
const WEBHOOKS: [u64; 2] = [200, 1_200];
/// The C library's functions that hand out memory.
const ALLOCATORS: [&str; 5] = [
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
];
/// Argument of the program, pointer of its figures, and what it is in words.
const PATHS: [(&str, &str, &str); 3] = [
    ("core", "", "verify, split, stamp"),
    (
        "http",
        "/http",
        "through the server: read, verify, split, stamp, subject and headers, answer",
    ),
    (
        "repeat",
        "/repeat",
        "one that was acknowledged before: read, verify, split, look up, answer",
    ),
];

/// What callgrind counted of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    instructions: u64,
    allocations: u64,
}

impl Counts {
    /// The difference to a shorter run, for each webhook.
    fn per_webhook(self, shorter: Self) -> Self {
        let webhooks = WEBHOOKS[1] - WEBHOOKS[0];
        Self {
            instructions: self.instructions.saturating_sub(shorter.instructions) / webhooks,
            allocations: self.allocations.saturating_sub(shorter.allocations) / webhooks,
        }
    }

    fn figures(self) -> Value {
        json!({ "per_webhook": self.instructions, "allocations": self.allocations })
    }
}

/// Counts, and compares with the counts in the repository.
pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    bench.say("building the hot path …");
    let program = example::build(bench, "ackline-ingress", "instructions").await?;
    let kept = std::fs::read(bench.root.join(KEPT)).ok();
    let kept: Value = kept
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let (mut figures, mut rows) = (Value::Null, Vec::new());
    for (path, place, words) in PATHS {
        let [few, many] = WEBHOOKS;
        let (few, many) = (
            count(&program, path, few).await?,
            count(&program, path, many).await?,
        );
        let each = many.per_webhook(few);
        match figures.as_object_mut() {
            None => figures = each.figures(),
            Some(figures) => drop(figures.insert(path.to_owned(), each.figures())),
        }
        let change = |name: &str, now: u64| {
            let before = kept
                .pointer(&format!("{place}/{name}"))
                .and_then(Value::as_u64);
            before.map_or("–".to_owned(), |before| {
                let (now, before) = (
                    crate::load::tally::count(now),
                    crate::load::tally::count(before),
                );
                format!("{} %", number((now / before.max(1.0) - 1.0) * 100.0))
            })
        };
        rows.push(vec![
            words.to_owned(),
            each.instructions.to_string(),
            change("per_webhook", each.instructions),
            each.allocations.to_string(),
            change("allocations", each.allocations),
        ]);
    }
    let mut report = bench.report("instructions", "none: nothing is stored");
    report.paragraph(
        "One webhook with one 1 KB text message. Counted by `valgrind --tool=callgrind` over 1,000 webhooks; \
         allocations are calls of malloc, calloc, realloc and the aligned ones. The second and the third path hold a keep-alive \
         connection in memory, with its client; nothing is published. Changes are against the counts in the repository.",
    );
    report.table(
        &[
            "path",
            "instructions per webhook",
            "change",
            "allocations per webhook",
            "change",
        ],
        &rows,
    );
    let path = report.write()?;
    std::fs::write(
        report.directory().join("instructions.json"),
        format!("{figures:#}\n"),
    )?;
    for row in rows {
        bench.say(&row.join("  "));
    }
    bench.say(&format!("compared with {KEPT}; report: {}", path.display()));
    Ok((figures, true))
}

async fn count(program: &Path, path: &str, webhooks: u64) -> Result<Counts> {
    let directory = tempfile::tempdir()?;
    let out = directory.path().join("callgrind.out");
    let mut command = Command::new("valgrind");
    command
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()));
    command.args(["--compress-strings=no", "--compress-pos=no"]);
    command.arg(program).arg(path).arg(webhooks.to_string());
    example::output(&mut command, COUNTED_WITHIN)
        .await
        .context("counting with valgrind; `deploy/dev/tools.sh bench` installs it")?;
    let text = std::fs::read_to_string(&out).context("reading callgrind's output")?;
    let instructions = total(&text).context("callgrind's output has no total")?;
    Ok(Counts {
        instructions,
        allocations: allocations(&text),
    })
}

fn total(callgrind: &str) -> Option<u64> {
    let line = callgrind.lines().find_map(|line| {
        line.strip_prefix("summary: ")
            .or_else(|| line.strip_prefix("totals: "))
    });
    line?.split_whitespace().next()?.parse().ok()
}

/// Calls of the allocators: a line `cfn=<name>` is followed by one that begins `calls=<count>`.
fn allocations(callgrind: &str) -> u64 {
    let lines = callgrind.lines().zip(callgrind.lines().skip(1));
    let calls = lines.filter_map(|(line, next)| {
        let called = line.strip_prefix("cfn=")?;
        // Recursion is written as name'2.
        let name = called.split('\'').next().unwrap_or(called);
        let calls = next
            .strip_prefix("calls=")?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()?;
        ALLOCATORS.contains(&name).then_some(calls)
    });
    calls.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_from_callgrinds_output() {
        assert_eq!(total("events: Ir\nfn=(1)\n1 2\ntotals: 4711\n"), Some(4711));
        assert_eq!(total("events: Ir\n"), None);
    }

    #[test]
    fn calls_of_the_allocators_are_summed_over_their_callers() {
        let text = "fn=main\n1 5\ncfn=malloc\ncalls=3 0\n1 90\ncfn=free\ncalls=7 0\n1 9\n\
                    fn=other\ncfn=realloc\ncalls=2 0\n1 8\ncfn=_int_malloc\ncalls=4 0\n";
        assert_eq!(allocations(text), 5);
    }

    #[test]
    fn what_starting_costs_is_in_both_runs() {
        let run = |instructions, allocations| Counts {
            instructions,
            allocations,
        };
        assert_eq!(run(52_000, 3_200).per_webhook(run(2_000, 200)), run(50, 3));
    }
}
