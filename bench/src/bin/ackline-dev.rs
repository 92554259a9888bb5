//! `make run`, `make demo` and `make bench`: a whole installation on this machine.

use ackline_bench::dev::{self, PortFlags, Screen};
use ackline_bench::scenarios;
use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use std::process::ExitCode;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Starts Ackline with simulators of Meta and of a customer on this machine.
#[derive(Parser)]
#[command(version, about)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything, play one conversation, stay up until Ctrl-C.
    Run(PortFlags),
    /// Check situations from webhook to reply; the last line is JSON, the exit status 1 when one fails.
    Demo,
    /// Run a scenario, or list them.
    Bench {
        /// Its name.
        scenario: Option<String>,
        #[command(flatten)]
        options: scenarios::Options,
    },
    /// Serve as the limit of the edge: check signatures and store nothing.
    #[command(hide = true)]
    VerifyOnly {
        /// Where to listen.
        address: SocketAddr,
    },
    /// Serve as the design most bots have: call the system behind, then answer.
    #[command(hide = true)]
    ProcessFirst {
        /// Where to listen.
        address: SocketAddr,
        /// The system behind.
        downstream: SocketAddr,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    // The person at the terminal reads the screen; the log is for what should not happen.
    let filter = std::env::var("RUST_LOG")
        .ok()
        .and_then(|filter| filter.parse::<Targets>().ok());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(tracing::Level::ERROR));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .init();
    let screen = Screen::default();
    let ended = match Flags::parse().command {
        Command::Run(ports) => dev::run(ports, &screen).await.map(|()| true),
        Command::Demo => dev::demo(&screen).await,
        Command::Bench { scenario, options } => {
            scenarios::run(scenario.as_deref(), options, &screen).await
        }
        Command::VerifyOnly { address } => scenarios::serve_verify_only(address).map(|()| true),
        Command::ProcessFirst {
            address,
            downstream,
        } => scenarios::serve_process_first(address, downstream)
            .await
            .map(|()| true),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            screen.line(&format!("ackline-dev: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
