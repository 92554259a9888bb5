//! A whole installation on one machine, for people (`make run`) and for a check (`make demo`).
//!
//! Our own programs and nats-server are child processes, Meta and the customer are simulated in this one.
//! Whatever is started here is ended here: on success, on failure, and on Ctrl-C.

pub mod api;
mod conversation;
pub mod declared;
mod ledger;
pub mod log;
mod ports;
pub(crate) mod programs;
mod report;
mod screen;
mod settings;
mod situations;
pub mod stage;
mod timeline;
pub mod witness;

pub use ports::{PortFlags, Ports};
pub use screen::Screen;

use crate::serve::stop_signal;
use anyhow::{Context, Result, bail};
use stage::{Plan, Stage};
use std::path::PathBuf;
use std::time::Duration;

/// Meta's seven days of retries pass in under two hours, so that an outage heals while somebody watches.
const RETRY_SCALE: f64 = 0.01;

/// Starts everything, plays one conversation, and stays up until Ctrl-C.
pub async fn run(flags: PortFlags, screen: &Screen) -> Result<()> {
    let root = root()?;
    let ports = flags.ports();
    ports.check().await?;
    let data = root.join(".run");
    let document = root.join(declared::DOCUMENT);
    let overrides = Vec::new();
    let plan = Plan {
        root,
        document,
        overrides,
        data,
        ports,
        retry_scale: RETRY_SCALE,
        throwaway: false,
    };
    let mut stage = Stage::new(plan)?;
    let outcome = tokio::select! {
        outcome = show(&mut stage, screen) => outcome,
        stopped = stop_signal() => stopped.context("waiting for Ctrl-C"),
    };
    screen.line("");
    screen.line("Stopping … (nats-server takes a few seconds to close its files)");
    if outcome.is_err() {
        screen.block(&stage.log_tails());
    }
    stage.stop().await;
    outcome
}

async fn show(stage: &mut Stage, screen: &Screen) -> Result<()> {
    stage.start(screen).await?;
    screen.line("");
    let turns = conversation::play(stage).await?;
    screen.block(&timeline::render(&turns));
    screen.block(&report::addresses(stage));
    stage.watch().await
}

/// Plays every situation on free ports, prints what came of them, and tells whether all is well.
pub async fn demo(screen: &Screen) -> Result<bool> {
    let root = root()?;
    let data = tempfile::Builder::new()
        .prefix("ackline-demo-")
        .tempdir()
        .context("making a directory for data")?;
    let ports = Ports::free().await?;
    let document = root.join(declared::DOCUMENT);
    let overrides = Vec::new();
    let plan = Plan {
        root,
        document,
        overrides,
        data: data.path().to_owned(),
        ports,
        retry_scale: RETRY_SCALE,
        throwaway: true,
    };
    let mut stage = Stage::new(plan)?;
    let played = tokio::select! {
        played = play_all(&mut stage, screen) => played,
        stopped = stop_signal() => match stopped {
            Ok(()) => Err(anyhow::anyhow!("interrupted")),
            Err(error) => Err(error.into()),
        },
    };
    let tails = stage.log_tails();
    stage.stop().await;
    let outcome = match played {
        Ok(outcome) => outcome,
        Err(error) => report::Outcome::broken(format!("{error:#}")),
    };
    if !outcome.is_ok() {
        screen.block(&tails);
        screen.line(&format!(
            "Data and logs are kept in {}",
            data.keep().display()
        ));
    }
    screen.block(&outcome.table());
    screen.line(&outcome.json());
    Ok(outcome.is_ok())
}

async fn play_all(stage: &mut Stage, screen: &Screen) -> Result<report::Outcome> {
    stage.start(screen).await?;
    screen.line("");
    Ok(situations::play(stage, screen).await)
}

/// Ends with the working directory when that is the repository.
fn root() -> Result<PathBuf> {
    let root = std::env::current_dir().context("finding the working directory")?;
    if !root.join(declared::DOCUMENT).is_file() {
        bail!(
            "{} is not here: run this from the root of the repository",
            declared::DOCUMENT
        );
    }
    Ok(root)
}

/// Asks again until there is an answer, every 25 ms and at most `within`.
pub async fn until<T, F>(what: &str, within: Duration, mut ask: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let deadline = tokio::time::Instant::now() + within;
    loop {
        match tokio::time::timeout_at(deadline, ask()).await {
            Ok(Ok(Some(answer))) => return Ok(answer),
            Ok(Err(error)) => return Err(error.context(format!("waiting for {what}"))),
            Ok(Ok(None)) if tokio::time::Instant::now() < deadline => {}
            Ok(Ok(None)) | Err(_) => bail!("{what}: not within {within:?}"),
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
