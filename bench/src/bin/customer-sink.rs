//! Runs the customer sink until SIGTERM or SIGINT.

use ackline_bench::serve::stop_signal;
use ackline_bench::sink::{self, Options};
use ackline_shared::secret::Secret;
use anyhow::{Context, Result};
use clap::Parser;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A customer's webhook receiver, order system and scripted assistant.
#[derive(Parser)]
#[command(version, about)]
struct Flags {
    /// Where to listen.
    #[arg(long, env = "CUSTOMER_SINK_BIND", default_value = "127.0.0.1:8083")]
    bind: SocketAddr,
    /// `NAME=whsec_…`: a secret of /webhooks/NAME; repeat for more names, or for more secrets of one.
    #[arg(
        long,
        env = "CUSTOMER_SINK_SECRETS",
        value_delimiter = ',',
        hide_env_values = true
    )]
    secret: Vec<String>,
    /// Entries the journal keeps.
    #[arg(long, default_value_t = 100_000)]
    journal_max: usize,
}

impl Flags {
    fn options(self) -> Result<Options> {
        let mut secrets: BTreeMap<String, Vec<Secret<String>>> = BTreeMap::new();
        for named in self.secret {
            let (name, secret) = named.split_once('=').context("--secret is NAME=whsec_…")?;
            secrets
                .entry(name.to_owned())
                .or_default()
                .push(Secret::new(secret.to_owned()));
        }
        Ok(Options {
            bind: self.bind,
            secrets,
            journal_entries_max: self.journal_max,
            ..Options::default()
        })
    }
}

#[tokio::main]
#[allow(
    clippy::print_stdout,
    reason = "the one line that says where it listens"
)]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .init();
    let running = sink::start(Flags::parse().options()?).await?;
    println!("customer-sink ready: {}", running.url());
    stop_signal().await?;
    running.stop().await;
    Ok(())
}
