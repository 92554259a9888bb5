//! How long a developer waits: from a clean checkout, after a changed line, and for the checks.

use super::super::{Bench, rounded};
use super::copy::{Copied, output};
use crate::dev::Ports;
use anyhow::{Context, Result, bail};
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// A line that `make run` prints once everything is up.
const IS_UP: &str = "It is all up";
/// A line that `make demo` prints right before it plays.
const IS_READY: &str = "webhook verified";
/// The line that is changed stands in this file.
const POOL: &str = "workers/pools/src/relay/mod.rs";
const WITHIN: Duration = Duration::from_secs(3_600);
const STOPPED_WITHIN: Duration = Duration::from_secs(30);

/// Seconds; nothing where it was not measured.
#[derive(Debug, Default)]
pub struct Times {
    /// Until `make run` is up, from nothing.
    pub run_cold_s: Option<f64>,
    /// From a changed line of a pool until the demo plays.
    pub change_to_demo_s: Option<f64>,
    /// `make check` when nothing changed.
    pub check_warm_s: Option<f64>,
}

impl Times {
    /// Takes all three, in a copy whose build is removed first.
    pub async fn measure(bench: &Bench<'_>) -> Result<Self> {
        let copy = Copied::of(&bench.root, "house-times").await?;
        for built in ["target", ".run"] {
            let directory = copy.root().join(built);
            if directory.exists() {
                fs::remove_dir_all(&directory)
                    .with_context(|| format!("removing {}", directory.display()))?;
            }
        }
        let make = |target: &str| {
            let mut make = copy.command("make");
            make.arg(target);
            if std::env::var_os("ACKLINE_TOOLS_DIR").is_none() {
                make.env("ACKLINE_TOOLS_DIR", bench.root.join(".tools"));
            }
            make
        };
        bench.say("make run from nothing: compiles everything, which takes minutes");
        let ports = Ports::free().await?;
        let mut run = make("run");
        run.envs(ports.variables());
        let run_cold_s = until_line(run, "make run", IS_UP).await?;
        let shown = |time: f64| Duration::from_secs_f64(time);
        bench.screen.done("make run is up", "", shown(run_cold_s));

        let pool = copy.root().join(POOL);
        let mut text = fs::read_to_string(&pool).with_context(|| format!("reading {POOL}"))?;
        text.push_str("// A changed line.\n");
        fs::write(&pool, text).with_context(|| format!("changing {POOL}"))?;
        let change_to_demo_s = until_line(make("demo"), "make demo", IS_READY).await?;
        bench
            .screen
            .done("make demo plays", POOL, shown(change_to_demo_s));

        bench.say("make check, once to make it warm");
        output(make("check"), "make check").await?;
        let started = Instant::now();
        output(make("check"), "make check").await?;
        let check_warm_s = started.elapsed().as_secs_f64();
        bench
            .screen
            .done("make check, warm", "", shown(check_warm_s));
        Ok(Self {
            run_cold_s: Some(rounded(run_cold_s)),
            change_to_demo_s: Some(rounded(change_to_demo_s)),
            check_warm_s: Some(rounded(check_warm_s)),
        })
    }
}

/// Seconds until a program prints a line with the words; it is then ended as by Ctrl-C.
async fn until_line(mut command: Command, what: &str, words: &str) -> Result<f64> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {what}"))?;
    let out = child.stdout.take().context("its output is not here")?;
    let mut lines = BufReader::new(out).lines();
    let read = async {
        while let Some(line) = lines.next_line().await? {
            if line.contains(words) {
                return Ok(started.elapsed().as_secs_f64());
            }
        }
        bail!("{what} ended without the line `{words}`: run it yourself to see why")
    };
    let seen = tokio::time::timeout(WITHIN, read).await;
    if let Some(group) = child.id() {
        let mut kill = Command::new("kill");
        kill.args(["-INT", "--", &format!("-{group}")]);
        // Fails when it has ended already.
        let _ = kill.stderr(Stdio::null()).status().await;
    }
    // What it prints while it stops must not fill the pipe.
    let ended = async {
        while let Ok(Some(_)) = lines.next_line().await {}
        child.wait().await
    };
    tokio::time::timeout(STOPPED_WITHIN, ended)
        .await
        .with_context(|| format!("{what} does not stop"))??;
    seen.with_context(|| format!("{what}: not within {WITHIN:?}"))?
}
