//! `make run`, `make demo` and `make bench`: a whole installation on this machine.

use ackline_bench::dev::{self, PortFlags, Screen};
use ackline_bench::scenarios;
use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

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
}

#[tokio::main]
async fn main() -> ExitCode {
    // The person at the terminal reads the screen; the log is for what should not happen.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    let screen = Screen::default();
    let ended = match Flags::parse().command {
        Command::Run(ports) => dev::run(ports, &screen).await.map(|()| true),
        Command::Demo => dev::demo(&screen).await,
        Command::Bench { scenario, options } => scenarios::run(scenario.as_deref(), options, &screen).await,
        Command::VerifyOnly { address } => scenarios::serve_verify_only(address).map(|()| true),
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
