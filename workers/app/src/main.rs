//! The workers: pools and the REST API, chosen by `--pools`.

use ackline_shared::config::{EXIT_CONFIG, Reader};
use ackline_workers::process::{self, Parts, Settings};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The work of an update is many small pieces of memory that one thread takes and another gives back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs Ackline's worker pools and its REST API.
#[derive(Debug, Parser)]
#[command(name = "ackline-workers", version)]
struct Arguments {
    /// Settings that override the built-in defaults.
    #[arg(long, env = "ACKLINE_CONFIG")]
    config: Option<PathBuf>,
    /// What to run: `all`, or a list of flows, replies, relay, crm, events, journal, api.
    #[arg(long, default_value = "all", value_parser = Parts::parse)]
    pools: Parts,
    /// Check the settings and end.
    #[arg(long)]
    check: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let settings = match Settings::read(Reader::load(arguments.config.as_deref(), std::env::vars()))
    {
        Ok(settings) => settings,
        Err(report) => return say(&report, EXIT_CONFIG),
    };
    if arguments.check {
        return ExitCode::SUCCESS;
    }
    settings.telemetry.start();
    let _another_provider_is_as_good = rustls::crypto::ring::default_provider().install_default();
    let (stop, shutdown) = watch::channel(false);
    tokio::spawn(async move {
        wait_for_signal().await;
        stop.send_replace(true);
    });
    match process::run(settings, arguments.pools, shutdown).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => say(&format_args!("ackline-workers: {error:#}\n"), 1),
    }
}

async fn wait_for_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[allow(
    clippy::print_stderr,
    reason = "what ends the program is said where it was started"
)]
fn say(what: &dyn std::fmt::Display, status: u8) -> ExitCode {
    eprint!("{what}");
    ExitCode::from(status)
}
