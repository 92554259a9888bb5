//! How large the code is, how many files a change touches, and how long a developer waits.
//!
//! Changes are the worked examples of CONTRIBUTING: each is applied to a copy of the workspace, checked by cargo, and
//! its files are counted.

mod copy;
mod patch;
mod size;
mod times;

use super::Bench;
use anyhow::Result;
use copy::Copied;
use patch::{PATCHES, Patch};
use serde_json::{Map, Value, json};
use size::Size;
use std::time::Instant;
use times::Times;

/// Measures size, then changes, then times when asked to.
pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    let started = Instant::now();
    let size = Size::measure(&bench.root)?;
    bench.screen.done("read the source", "", started.elapsed());
    let touched = touched(bench).await?;
    let times = if bench.options.time {
        Times::measure(bench).await?
    } else {
        Times::default()
    };
    let path = report(bench, &size, &touched, &times).write()?;
    bench.say(&format!("report: {}", path.display()));
    let touch: Map<String, Value> = touched
        .iter()
        .map(|(patch, files)| (patch.name.to_owned(), files.len().into()))
        .collect();
    let figures = json!({
        "loc": size.lines,
        "crates": size.crates,
        "largest_crate": size.largest_crate.0,
        "cycles": size.circles.len(),
        "largest_file": size.largest_file.0,
        "fn_p95": size.function_p95,
        "touch": touch,
        "model_histories": size.histories,
        "run_cold_s": times.run_cold_s,
        "change_to_demo_s": times.change_to_demo_s,
        "check_warm_s": times.check_warm_s,
    });
    Ok((figures, true))
}

/// The files that each worked example touches; an example that does not compile is an error.
async fn touched(bench: &Bench<'_>) -> Result<Vec<(&'static Patch, Vec<String>)>> {
    let started = Instant::now();
    let copy = Copied::of(&bench.root, "house").await?;
    bench
        .screen
        .done("copied the workspace", "", started.elapsed());
    let started = Instant::now();
    bench.say("checking the copy; the first time its dependencies are compiled");
    copy.check(&[]).await?;
    bench.screen.done("checked the copy", "", started.elapsed());
    let mut touched = Vec::new();
    for patch in &PATCHES {
        let started = Instant::now();
        let files = patch.files(&bench.root)?;
        copy.apply(patch, false).await?;
        copy.check(&files).await?;
        copy.apply(patch, true).await?;
        let counted: Vec<String> = files
            .into_iter()
            .filter(|file| patch::counts(file))
            .collect();
        let detail = format!("{} files", counted.len());
        bench.screen.done(patch.path, &detail, started.elapsed());
        touched.push((patch, counted));
    }
    Ok(touched)
}

fn report(
    bench: &Bench<'_>,
    size: &Size,
    touched: &[(&'static Patch, Vec<String>)],
    times: &Times,
) -> super::report::Report {
    let mut report = bench.report("house", "nothing is stored");
    report.heading("Size");
    report.paragraph(
        "Lines of Rust without tests: what stands before the tests at a file's end, and nothing of files below `tests` \
         and of the engine's model. Of functions all with a body, from `fn` to the closing brace.",
    );
    let row = |what: &str, figure: usize, detail: &str| {
        vec![what.to_owned(), figure.to_string(), detail.to_owned()]
    };
    let circles = size.circles.join("; ");
    report.table(
        &["what", "figure", ""],
        &[
            row("lines", size.lines, ""),
            row("crates", size.crates, ""),
            row(
                "largest crate below `workers/`",
                size.largest_crate.0,
                &size.largest_crate.1,
            ),
            row(
                "circles of imports between folders",
                size.circles.len(),
                &circles,
            ),
            row("largest file", size.largest_file.0, &size.largest_file.1),
            row(
                "lines of a function, 95th percentile",
                size.function_p95,
                "",
            ),
            row("histories of the engine's model in CI", size.histories, ""),
        ],
    );
    report.heading("Files that a change touches");
    report.paragraph(
        "Each worked example of CONTRIBUTING, applied to a copy of the workspace and checked by cargo. Simulators, \
         generated files, goldens and documents are not counted.",
    );
    let rows: Vec<Vec<String>> = touched
        .iter()
        .map(|(patch, files)| {
            let names: Vec<String> = files.iter().map(|file| format!("`{file}`")).collect();
            vec![
                patch.adds.to_owned(),
                files.len().to_string(),
                names.join(", "),
            ]
        })
        .collect();
    report.table(&["adds", "files", ""], &rows);
    report.heading("Waiting");
    let seconds = |time: Option<f64>| {
        time.map_or("not measured (`--time`)".to_owned(), |time| {
            format!("{time} s")
        })
    };
    report.table(
        &["until", "time"],
        &[
            vec![
                "`make run` is up, from a clean checkout with tools".to_owned(),
                seconds(times.run_cold_s),
            ],
            vec![
                "`make demo` plays after a line of a pool changed".to_owned(),
                seconds(times.change_to_demo_s),
            ],
            vec![
                "`make check` ends when nothing changed".to_owned(),
                seconds(times.check_warm_s),
            ],
        ],
    );
    report
}
