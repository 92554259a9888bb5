//! `make bench`: each scenario starts what it measures, writes a report, and ends with one line of JSON.
//!
//! Figures of one scenario are taken side by side on one machine in one run; ratios are what they are for.
//! A ledger goes with every run that acknowledges: a 200 that is not in the stream is an error, not a figure.

mod abuse;
mod campaign;
mod chaos;
mod downstream;
mod edge;
mod example;
mod fairness;
mod house;
mod idle;
mod instructions;
mod journal;
mod limits;
mod naive;
mod outage;
mod overload;
mod peer;
mod peer_store;
mod peers;
mod plot;
mod publish;
mod report;
mod rig;
mod scale;
mod served;
mod statistics;
mod storm;
mod trial;
mod tune;
mod turns;
mod verify_only;
mod workers;

pub use naive::serve as serve_process_first;
pub use verify_only::serve as serve_verify_only;

use crate::dev::Screen;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;
use std::path::PathBuf;

/// What a scenario is told.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Small counts: shows that the scenario works; its figures mean nothing and go to .run/bench/.
    #[arg(long)]
    quick: bool,
    /// Webhooks over all faults of `outage`.
    #[arg(long, default_value_t = 200_000)]
    webhooks: usize,
    /// How often each measurement is taken, in turn with the others.
    #[arg(long)]
    repeats: Option<usize>,
    /// Outages of `downstream`: some of 15s, 4m and 30m; all by default, 15s in a quick run.
    #[arg(long, value_delimiter = ',')]
    outages: Vec<String>,
    /// How many times faster `downstream` plays its outage of 30 min, pauses and waits included.
    #[arg(long, default_value_t = 5)]
    speed: u32,
    /// Also how long `house` takes to build, start and check; minutes.
    #[arg(long)]
    time: bool,
    /// The one durability that `turns` measures, stored or synced; both by default.
    #[arg(long)]
    mode: Option<turns::Mode>,
}

impl Options {
    /// One of two sizes.
    fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    fn repeats(&self, full: usize) -> usize {
        self.repeats.unwrap_or(self.pick(full, 1)).max(1)
    }
}

/// A scenario's name and what it answers.
const SCENARIOS: [(&str, &str); 18] = [
    (
        "edge",
        "how fast the ingress stores and acknowledges, against its limits (stored, synced and logged)",
    ),
    (
        "peers",
        "the same load on what a user would pick instead (needs `deploy/dev/tools.sh bench` once)",
    ),
    (
        "overload",
        "how soon what is taken is answered when more comes than can be, with shedding and without",
    ),
    (
        "limits",
        "what bounds the ingress: verifying alone, publishing alone, and both",
    ),
    (
        "outage",
        "whether a 200 survives kill -9, a frozen broker, a restart and the loss of a cluster's leader",
    ),
    (
        "storm",
        "what an outage behind the webhook does to it, against a handler that processes first",
    ),
    (
        "instructions",
        "instructions per webhook for verify, split and stamp, counted by callgrind",
    ),
    (
        "journal",
        "CPU time a turn of a conversation costs the journal, by the size of its batches",
    ),
    (
        "fairness",
        "whether one tenant at a hundred times the others' rate is felt by the others",
    ),
    (
        "campaign",
        "whether the statuses of one tenant's campaign are felt in the conversations of others",
    ),
    (
        "workers-chaos",
        "what becomes of updates while workers are killed, frozen, replaced, and the broker restarts",
    ),
    (
        "downstream",
        "what becomes of updates while bots, endpoints, CRMs and the Graph API are away, and of those beside them",
    ),
    (
        "abuse",
        "whether a tenant that abuses all it may do is felt by another, and what it is answered",
    ),
    ("idle", "what an installation costs that has nothing to do"),
    (
        "scale",
        "how far one process goes, what more processes add, what tenants and conversations cost",
    ),
    (
        "tune",
        "how long a pause or a change of concurrency takes until every process obeys",
    ),
    (
        "turns",
        "what a turn of a conversation costs from webhook to reply, and how many a second are kept up with",
    ),
    (
        "house",
        "how large the code is, how many files a change touches, how long a developer waits (--time)",
    ),
];

/// What every scenario is given.
#[derive(Debug)]
struct Bench<'s> {
    root: PathBuf,
    options: Options,
    screen: &'s Screen,
}

impl Bench<'_> {
    fn say(&self, text: &str) {
        self.screen.line(text);
    }

    fn report(&self, scenario: &'static str, mode: &str) -> report::Report {
        report::Report::new(&self.root, scenario, mode, &self.options)
    }
}

/// Lists the scenarios, or runs one.
///
/// # Errors
/// When something cannot be started or a 200 was a lie.
pub async fn run(name: Option<&str>, options: Options, screen: &Screen) -> Result<bool> {
    let Some(name) = name else {
        screen.line(
            "make bench SCENARIO=<name>   (target/release/ackline-dev bench <name> --quick tries it out)",
        );
        for (name, answers) in SCENARIOS {
            screen.line(&format!("  {name:<14}{answers}"));
        }
        return Ok(true);
    };
    let root = std::env::current_dir().context("finding the working directory")?;
    if !root.join("deploy/dev/tools.sh").is_file() {
        bail!("deploy/dev/tools.sh is not here: run this from the root of the repository");
    }
    crate::serve::install_tls_provider();
    let bench = Bench {
        root,
        options,
        screen,
    };
    let played = async {
        match name {
            "edge" => edge::run(&bench).await,
            "peers" => peers::run(&bench).await,
            "overload" => overload::run(&bench).await,
            "limits" => limits::run(&bench).await,
            "outage" => outage::run(&bench).await,
            "storm" => storm::run(&bench).await,
            "instructions" => instructions::run(&bench).await,
            "journal" => journal::run(&bench).await,
            "fairness" => fairness::run(&bench).await,
            "campaign" => campaign::run(&bench).await,
            "workers-chaos" => chaos::run(&bench).await,
            "downstream" => downstream::run(&bench).await,
            "abuse" => abuse::run(&bench).await,
            "idle" => idle::run(&bench).await,
            "scale" => scale::run(&bench).await,
            "tune" => tune::run(&bench).await,
            "turns" => turns::run(&bench).await,
            "house" => house::run(&bench).await,
            unknown => bail!("there is no scenario {unknown}: `make bench` lists them"),
        }
    };
    let (figures, is_right): (Value, bool) = tokio::select! {
        played = played => played?,
        stopped = crate::serve::stop_signal() => {
            stopped?;
            bail!("interrupted");
        }
    };
    if !is_right {
        screen
            .line("Something was lost, doubled or out of order, or a fault did not happen: see the report.");
    }
    screen.line(&figures.to_string());
    Ok(is_right)
}

/// Runs a blocking load generator beside the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("the load generator panicked")?
}

/// A figure with as many digits as it is worth.
fn rounded(figure: f64) -> f64 {
    let digits = if figure.abs() >= 1_000.0 {
        0
    } else if figure.abs() >= 10.0 {
        1
    } else {
        3
    };
    let scale = 10f64.powi(digits);
    (figure * scale).round() / scale
}
