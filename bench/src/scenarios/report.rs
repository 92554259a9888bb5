//! The report of a run: where and how it was measured, tables, plots; Markdown and SVG.

use super::Options;
use anyhow::{Context, Result};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const REASONS_SHOWN: usize = 12;

#[derive(Debug)]
pub struct Report {
    directory: PathBuf,
    scenario: &'static str,
    text: String,
    plots: Vec<(String, String)>,
}

impl Report {
    /// Starts with the circumstances; a quick run's report is kept apart from the measured ones.
    pub fn new(root: &Path, scenario: &'static str, mode: &str, options: &Options) -> Self {
        let directory = root.join(if options.quick {
            ".run/bench"
        } else {
            "bench/results"
        });
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let quick = if options.quick {
            "\n**A quick run: it shows that the scenario works. Its figures mean nothing.**\n"
        } else {
            ""
        };
        let text = format!(
            "# {scenario}\n{quick}\n| | |\n|---|---|\n| machine | {} |\n| commit | {} |\n| measured | {} |\n\
             | load at the start | {} |\n| data on | {} |\n| durability | {mode} |\n| command | `ackline-dev {}` |\n",
            machine(),
            output(root, "git", &["describe", "--always", "--dirty"]),
            output(root, "date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            first_words("/proc/loadavg", 3),
            output(
                root,
                "findmnt",
                &["-no", "FSTYPE,SOURCE", "--target", &root.to_string_lossy()]
            ),
            arguments.join(" "),
        );
        Self {
            directory,
            scenario,
            text,
            plots: Vec::new(),
        }
    }

    pub fn heading(&mut self, words: &str) {
        let _ = write!(self.text, "\n## {words}\n");
    }

    pub fn paragraph(&mut self, words: &str) {
        let _ = write!(self.text, "\n{words}\n");
    }

    pub fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        let _ = write!(
            self.text,
            "\n| {} |\n|{}\n",
            head.join(" | "),
            "---|".repeat(head.len())
        );
        for row in rows {
            let _ = writeln!(self.text, "| {} |", row.join(" | "));
        }
    }

    /// Adds why dead letters were given up, the most frequent reasons first.
    pub fn reasons<'r>(&mut self, all: impl Iterator<Item = (&'r String, &'r usize)>) {
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for (reason, count) in all {
            *reasons.entry(reason).or_default() += count;
        }
        let mut rows: Vec<_> = reasons.into_iter().collect();
        rows.sort_by_key(|(_, count)| Reverse(*count));
        let rows = rows.into_iter().take(REASONS_SHOWN);
        let rows: Vec<_> = rows
            .map(|(reason, count)| vec![reason.to_owned(), count.to_string()])
            .collect();
        if !rows.is_empty() {
            let why = "why dead letters were given up, beginning of the reason";
            self.table(&[why, "letters"], &rows);
        }
    }

    /// Adds a plot; `name` completes its file name.
    pub fn plot(&mut self, name: &str, svg: String) {
        let file = format!("{}-{name}.svg", self.scenario);
        let _ = write!(self.text, "\n![{name}]({file})\n");
        self.plots.push((file, svg));
    }

    /// Writes everything and gives the report's path.
    pub fn write(&self) -> Result<PathBuf> {
        let directory = &self.directory;
        std::fs::create_dir_all(directory)
            .with_context(|| format!("making {}", directory.display()))?;
        for (file, svg) in &self.plots {
            std::fs::write(directory.join(file), svg).with_context(|| format!("writing {file}"))?;
        }
        let path = directory.join(format!("{}.md", self.scenario));
        std::fs::write(&path, &self.text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Where the report and what belongs to it is written.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default()
            .to_owned();
        line.split_once(':')
            .map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{cores} cores of {}, {} memory, Linux {}",
        value(&read("/proc/cpuinfo"), "model name"),
        value(&read("/proc/meminfo"), "MemTotal"),
        read("/proc/sys/kernel/osrelease").trim()
    )
}

fn output(root: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root)
        .output();
    output.map_or("unknown".to_owned(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}

fn first_words(path: &str, words: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace()
        .take(words)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_report_says_that_its_figures_mean_nothing_and_is_kept_apart() {
        let root = tempfile::tempdir().unwrap();
        let options = Options {
            quick: true,
            webhooks: 1,
            repeats: None,
            outages: vec![],
            speed: 1,
            time: false,
            mode: None,
        };
        let mut report = Report::new(root.path(), "edge", "stored", &options);
        report.table(&["a", "b"], &[vec!["1".into(), "2".into()]]);
        report.plot("rps", "<svg/>".into());
        let path = report.write().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("mean nothing")
                && text.contains("| 1 | 2 |")
                && text.contains("edge-rps.svg")
        );
        assert!(path.starts_with(root.path().join(".run/bench")));
        assert!(root.path().join(".run/bench/edge-rps.svg").is_file());
    }
}
