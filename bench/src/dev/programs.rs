//! Child processes with their output in files: started, waited for, ended.
//!
//! Each runs in a process group of its own, so that Ctrl-C reaches only the one that started them and they
//! end in order. Dropping one kills it.

use crate::processes::our_binary;
use anyhow::{Context, Result, bail, ensure};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

const TAIL_LINES: usize = 25;
const ASK_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Program {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

/// The command of one of our binaries, which lie beside this one.
pub fn ours(name: &str) -> Result<Command> {
    let mut command = Command::from(our_binary(name)?);
    // The settings file says everything; a variable meant for something else must not get in.
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("ACKLINE_") {
            command.env_remove(variable);
        }
    }
    Ok(command)
}

impl Program {
    /// Starts a program; its output replaces that of the last time.
    pub fn start(name: &'static str, mut command: Command, data: &Path) -> Result<Self> {
        let log = data.join("logs").join(format!("{name}.log"));
        let out = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let err = out.try_clone().context("sharing a log file")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name, child, log })
    }

    /// Waits until `url` answers 200; an error holds the end of the log.
    pub async fn ready(
        &mut self,
        http: &reqwest::Client,
        url: &str,
        within: Duration,
    ) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended before it was ready ({status}):\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            let answered = http.get(url).timeout(Duration::from_secs(1)).send().await;
            if answered.is_ok_and(|response| response.status().is_success()) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} was not ready within {within:?}:\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            sleep(ASK_EVERY).await;
        }
    }

    /// Says how the program ended, when it has.
    pub fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("{} ended ({status})", self.name)),
            Err(error) => Some(format!("{} cannot be watched: {error}", self.name)),
        }
    }

    /// Waits for the end of a program that should not end, and says so.
    pub async fn unexpected_end(&mut self) -> anyhow::Error {
        // An error means that it has ended already, which is what is asked here.
        let _ = self.child.wait().await;
        anyhow::anyhow!(
            "{}; its log is {}",
            self.ended().unwrap_or_default(),
            self.log.display()
        )
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends it a signal, such as `STOP`.
    pub async fn signal(&self, signal: &str) -> Result<()> {
        let id = self
            .id()
            .with_context(|| format!("{} runs no more", self.name))?;
        let mut kill = Command::new("kill");
        let status = kill
            .args([format!("-{signal}"), id.to_string()])
            .status()
            .await?;
        ensure!(status.success(), "cannot send SIG{signal} to {}", self.name);
        Ok(())
    }

    /// Asks the program to end (SIGTERM) and kills it when it has not `within` the time.
    pub async fn stop(mut self, within: Duration) {
        let asked = self.signal("TERM").await.is_ok();
        if !asked || timeout(within, self.child.wait()).await.is_err() {
            self.kill().await;
        }
    }

    /// Kills the program at once (SIGKILL), as a crash would.
    pub async fn kill(mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill().await;
    }

    /// The file its output goes to.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines it printed.
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }
}

/// The last lines of a file.
fn tail(path: &Path) -> String {
    let Ok(file) = File::open(path) else {
        return String::new();
    };
    let mut lines = VecDeque::new();
    for line in BufReader::new(file).lines().map_while(Result::ok) {
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(format!("  {line}\n"));
    }
    lines.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn directory() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        dir
    }

    #[tokio::test]
    async fn a_program_that_ends_before_it_is_ready_is_an_error_with_its_last_lines() {
        crate::serve::install_tls_provider();
        let dir = directory();
        let mut program = Program::start(
            "a program",
            shell("echo 'no such key' >&2; exit 64"),
            dir.path(),
        )
        .unwrap();
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        let error = program
            .ready(&http, "http://127.0.0.1:1/", Duration::from_secs(10))
            .await
            .unwrap_err();
        let said = error.to_string();
        assert!(
            said.contains("64") && said.contains("no such key"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn a_program_that_ignores_the_request_to_end_is_killed() {
        let dir = directory();
        let script = "trap '' TERM; echo up; while :; do sleep 0.05; done";
        let program = Program::start("a program", shell(script), dir.path()).unwrap();
        let id = program.child.id().unwrap().to_string();
        program.stop(Duration::from_millis(50)).await;
        let alive = Command::new("kill")
            .args(["-0", &id])
            .stderr(Stdio::null())
            .status()
            .await
            .unwrap();
        assert!(!alive.success());
    }
}
