//! Examples of other packages, which bench does not link: built and run as programs.

use super::Bench;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

const BUILT_WITHIN: Duration = Duration::from_secs(900);

/// Builds an example for release; gives its program.
pub async fn build(bench: &Bench<'_>, package: &str, example: &str) -> Result<PathBuf> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "--locked", "--package", package]);
    command.args(["--example", example, "--message-format", "json"]);
    let output = output(command.current_dir(&bench.root), BUILT_WITHIN)
        .await
        .context("cargo build")?;
    let lines = output
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut built = lines.filter_map(|line| {
        let is_it = line.pointer("/target/name").and_then(Value::as_str) == Some(example);
        let executable = line
            .get("executable")
            .and_then(Value::as_str)
            .map(PathBuf::from);
        executable.filter(|_| is_it)
    });
    built
        .next()
        .context("cargo did not say where it put the example")
}

/// What a program printed; the end of its complaints when it failed.
pub async fn output(command: &mut Command, within: Duration) -> Result<String> {
    let output = timeout(within, command.kill_on_drop(true).output())
        .await
        .context("did not end in time")??;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<_> = said.lines().rev().take(15).collect();
        bail!("{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
