//! Starts the third-party programs and our own binaries that tests and the demo talk to.
//!
//! Each runs on a free port, is ready when its function returns, and ends with the value that holds it.
//! Starting one blocks the calling thread for up to a few seconds. nats-server is in
//! `ackline_shared::testing`.

use ackline_shared::secret::Secret;
use ackline_shared::testing::{Process, ProcessError, tools_dir, workspace_dir};
use anyhow::{Context, bail, ensure};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const READY_WITHIN: Duration = Duration::from_secs(60);
const VERIFIED_WITHIN: Duration = Duration::from_secs(30);

/// Holds a running third-party program that speaks HTTP.
#[derive(Debug)]
pub struct Counterpart {
    process: Process,
    url: String,
}

impl Counterpart {
    /// Gives its origin, such as `http://127.0.0.1:4711`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Gives the last lines it printed.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Gives the process, to kill or freeze it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn start(name: &str, command: Command) -> Result<Self, ProcessError> {
        let (process, url) = Process::start(name, command, READY_WITHIN, listening_url)?;
        Ok(Self { process, url })
    }
}

/// Says which app and number a pywa bot serves.
#[derive(Clone, Debug)]
pub struct PywaBot {
    /// Graph base URL with its version, such as `http://127.0.0.1:8082/v26.0`.
    pub graph_url: String,
    /// The business number it answers for.
    pub phone_number_id: String,
    /// The secret it verifies webhooks with.
    pub app_secret: Secret<String>,
    /// The token it sends to the Graph API.
    pub token: Secret<String>,
}

/// Starts an unmodified pywa bot; webhooks go to `POST /`, and it answers texts with "You said: …".
///
/// # Errors
/// When the tools are not installed or the bot does not get ready.
pub fn pywa_bot(bot: &PywaBot) -> Result<Counterpart, ProcessError> {
    let mut command = python("pywa_bot.py");
    command
        .args([
            "--graph-url",
            &bot.graph_url,
            "--phone-number-id",
            &bot.phone_number_id,
        ])
        .args([
            "--app-secret",
            bot.app_secret.expose(),
            "--token",
            bot.token.expose(),
        ]);
    Counterpart::start("the pywa bot", command)
}

/// Starts Chatwoot's API as its own OpenAPI document describes it; what the document forbids is an error.
///
/// # Errors
/// When the tools are not installed or Prism does not get ready.
pub fn chatwoot() -> Result<Counterpart, ProcessError> {
    Counterpart::start("Chatwoot by Prism", script("chatwoot.sh"))
}

/// Starts an OpenAI-compatible model that answers from `ai-replies.json`; its base URL is `{url}/v1`, the
/// requests it saw are at `{url}/__aimock/journal`.
///
/// # Errors
/// When the tools are not installed or aimock does not get ready.
pub fn aimock() -> Result<Counterpart, ProcessError> {
    Counterpart::start("aimock", script("aimock.sh"))
}

/// Says what the reference library made of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Verification {
    /// Signature and timestamp are good; the event as parsed.
    Accepted(serde_json::Value),
    /// It was refused, with the library's reason.
    Refused(String),
}

/// Gives an event as received to Python's `standardwebhooks`.
///
/// # Errors
/// When the verifier cannot run; a bad signature is an answer.
pub async fn verify_event(
    secret: &Secret<String>,
    headers: &BTreeMap<String, String>,
    body: &str,
) -> anyhow::Result<Verification> {
    let given = serde_json::json!({ "secret": secret.expose(), "headers": headers, "body": body });
    let mut child = tokio::process::Command::from(python("verify_event.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting Python's verifier; `make tools` installs it")?;
    let mut stdin = child
        .stdin
        .take()
        .context("the verifier has no standard input")?;
    stdin.write_all(given.to_string().as_bytes()).await?;
    drop(stdin);
    let output = tokio::time::timeout(VERIFIED_WITHIN, child.wait_with_output())
        .await
        .context("the verifier did not end in time")??;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match (output.status.code(), said.strip_prefix("refused: ")) {
        (Some(0), None) => Ok(Verification::Accepted(serde_json::from_str(&said)?)),
        (Some(1), Some(reason)) => Ok(Verification::Refused(reason.to_owned())),
        _ => bail!(
            "the verifier failed: {said}\n{}",
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}

/// Gives the command of one of our binaries, built beside the program that asks.
///
/// # Errors
/// When it is not built.
pub fn our_binary(name: &str) -> anyhow::Result<Command> {
    let own = std::env::current_exe().context("finding the directory of our binaries")?;
    let beside = own.parent().context("a program has a directory")?;
    // Test binaries are one level deeper than the binaries they test.
    let dir = if beside.ends_with("deps") {
        beside.parent().unwrap_or(beside)
    } else {
        beside
    };
    let path = dir.join(name);
    ensure!(
        path.is_file(),
        "{} is not built: run `cargo build --workspace --all-targets`",
        path.display()
    );
    Ok(Command::new(path))
}

fn counterparts_dir() -> PathBuf {
    workspace_dir().join("deploy/dev/counterparts")
}

fn python(file: &str) -> Command {
    let mut command = Command::new(tools_dir().join("python/bin/python"));
    command.arg(counterparts_dir().join(file));
    command
}

fn script(file: &str) -> Command {
    let mut command = Command::new("bash");
    command
        .arg(counterparts_dir().join(file))
        .env("ACKLINE_TOOLS_DIR", tools_dir());
    command
}

fn listening_url(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("listening on ")?;
    Some(rest.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_is_read_from_every_counterparts_ready_line() {
        for line in [
            "[4:29:42 AM] › [CLI] ▶  start     Prism is listening on http://127.0.0.1:45745",
            "[aimock] aimock server listening on http://127.0.0.1:45745",
            "pywa bot is listening on http://127.0.0.1:45745",
        ] {
            assert_eq!(
                listening_url(line).as_deref(),
                Some("http://127.0.0.1:45745")
            );
        }
    }

    #[test]
    fn a_binary_that_is_not_built_names_the_command_that_builds_it() {
        let error = our_binary("ackline-nothing").unwrap_err().to_string();
        assert!(error.contains("cargo build"), "{error}");
    }
}
