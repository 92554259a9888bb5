//! Runs the Meta simulator until SIGTERM or SIGINT.

use ackline_bench::meta::{self, Ladder, Limits, Number, Options};
use ackline_bench::serve::stop_signal;
use ackline_shared::secret::Secret;
use anyhow::Result;
use clap::Parser;
use std::net::SocketAddr;

/// A simulator of Meta's webhooks and of the WhatsApp Cloud API.
#[derive(Parser)]
#[command(version, about)]
struct Flags {
    /// Where to listen.
    #[arg(long, env = "META_SIM_BIND", default_value = "127.0.0.1:8082")]
    bind: SocketAddr,
    /// Where webhooks are posted; can be set later at PUT /_sim/webhook.
    #[arg(long, env = "META_SIM_WEBHOOK_URL")]
    webhook_url: Option<String>,
    /// Signs webhooks.
    #[arg(
        long,
        env = "META_SIM_APP_SECRET",
        default_value = "simulated-app-secret",
        hide_env_values = true
    )]
    app_secret: String,
    /// Sent in the GET handshake.
    #[arg(
        long,
        env = "META_SIM_VERIFY_TOKEN",
        default_value = "simulated-verify-token",
        hide_env_values = true
    )]
    verify_token: String,
    /// The access token the Graph API accepts.
    #[arg(
        long,
        env = "META_SIM_TOKEN",
        default_value = "simulated-access-token",
        hide_env_values = true
    )]
    token: String,
    /// A number that exists; repeat for more, the first is the default.
    #[arg(long, default_value = "100000000000101")]
    phone_number_id: Vec<String>,
    /// The business account of the numbers.
    #[arg(long, default_value = "200000000000201")]
    waba_id: String,
    /// The Graph API version in the printed URL; every version is accepted.
    #[arg(long, default_value = "v26.0")]
    graph_version: String,
    /// Multiplies the webhook retry schedule; 1 is seven days, 0.001 ten minutes.
    #[arg(long, default_value_t = 1.0)]
    retry_scale: f64,
    /// Multiplies every duration of the sending limits and of the 24-hour window.
    #[arg(long, default_value_t = 1.0)]
    pacing_scale: f64,
    /// Messages a second per number; 0 is no limit.
    #[arg(long, default_value_t = 80)]
    mps: u32,
    /// Messages at once to one person; 0 is no limit.
    #[arg(long, default_value_t = 45)]
    pair_burst: u32,
    /// Sends no status webhooks.
    #[arg(long)]
    no_statuses: bool,
    /// Refuses free-form messages outside the 24-hour window.
    #[arg(long)]
    enforce_window: bool,
    /// A template that exists; repeat for more. Without any, every name exists.
    #[arg(long)]
    template: Vec<String>,
    /// Entries the journal keeps.
    #[arg(long, default_value_t = 200_000)]
    journal_max: usize,
}

impl Flags {
    fn options(self) -> Options {
        Options {
            bind: self.bind,
            webhook_url: self.webhook_url,
            app_secret: Secret::new(self.app_secret),
            verify_token: Secret::new(self.verify_token),
            tokens: vec![Secret::new(self.token)],
            numbers: self
                .phone_number_id
                .iter()
                .map(|id| Number::new(id, &self.waba_id))
                .collect(),
            graph_version: self.graph_version,
            retry_scale: self.retry_scale,
            pacing: Limits {
                mps: self.mps,
                pair_burst: self.pair_burst,
                scale: self.pacing_scale,
                ..Limits::default()
            },
            ladder: Ladder {
                enabled: !self.no_statuses,
                ..Ladder::default()
            },
            enforce_window: self.enforce_window,
            templates: (!self.template.is_empty()).then_some(self.template),
            journal_entries_max: self.journal_max,
            ..Options::default()
        }
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
    let running = meta::start(Flags::parse().options()).await?;
    println!(
        "meta-simulator ready: {} (Graph API {})",
        running.url(),
        running.graph_url()
    );
    stop_signal().await?;
    running.stop().await;
    Ok(())
}
