//! The operator's command line: asks [`ackline_cli`] and prints what it says.

use ackline_cli::agree::AtTerminal;
use std::io::Write;
use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    // Fails only when a provider is installed already.
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let (mut live, mut person) = (std::io::stdout(), AtTerminal);
    let running = ackline_cli::run_live(std::env::args_os(), &environment, &mut live, &mut person);
    let outcome = runtime.block_on(running);
    std::io::stdout().write_all(outcome.out.as_bytes())?;
    std::io::stderr().write_all(outcome.err.as_bytes())?;
    Ok(ExitCode::from(outcome.code))
}
