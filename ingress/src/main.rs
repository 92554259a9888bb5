//! `ackline-ingress`: configuration, logs, sockets, serve, drain.

use ackline_ingress::http::listeners::Listeners;
use ackline_ingress::process;
use ackline_ingress::settings::IngressSettings;
use ackline_shared::config::{EXIT_CONFIG, Reader, Report};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

const HELP: &str = "\
ackline-ingress: the edge of Ackline. Verifies, splits and stores Meta's webhooks, then answers 200.

Usage: ackline-ingress [--config FILE] [--check]

  --config FILE  read settings from FILE (also ACKLINE_CONFIG); the environment overrides it
  --check        report what is wrong with the settings, then exit
  --version      print the version
  --help         print this text

Exit status: 0 after a clean end, 64 for wrong settings, 1 for anything else.";

fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(mistake) => return complain(&format!("{mistake}; try --help"), EXIT_CONFIG),
    };
    match arguments.action {
        Action::Help => say(HELP),
        Action::Version => say(concat!("ackline-ingress ", env!("CARGO_PKG_VERSION"))),
        Action::Check => match load(&arguments) {
            Ok(_) => say("the configuration is right"),
            Err(report) => complain(&report.to_string(), EXIT_CONFIG),
        },
        Action::Run => match load(&arguments) {
            Ok(settings) => match run(settings) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => complain(&format!("ackline-ingress: {error:#}"), 1),
            },
            Err(report) => complain(&report.to_string(), EXIT_CONFIG),
        },
    }
}

fn load(arguments: &Arguments) -> Result<IngressSettings, Report> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut reader = Reader::load(arguments.config.as_deref(), environment);
    let settings = IngressSettings::read(&mut reader);
    reader.finish().map(|()| settings)
}

// Deliveries are served by threads of their own; this one has the signals, the configuration and the private port.
#[tokio::main(flavor = "current_thread")]
async fn run(settings: IngressSettings) -> anyhow::Result<()> {
    settings.telemetry.start();
    let listeners =
        Listeners::bind(settings.listen, settings.threads, settings.private_listen).await?;
    let webhooks = listeners
        .public
        .first()
        .map(|listener| listener.local_addr())
        .transpose()?;
    tracing::info!(
        webhooks = webhooks.map(tracing::field::display),
        private = %listeners.private.local_addr()?,
        threads = listeners.public.len(),
        "serving"
    );
    let (stop, stopped) = watch::channel(false);
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("told to stop; finishing what is in flight");
        stop.send_replace(true);
        // Held open: a watch without a sender would look like the end.
        stop.closed().await;
    });
    process::run(settings, listeners, stopped).await?;
    tracing::info!("stopped");
    Ok(())
}

struct Arguments {
    action: Action,
    config: Option<PathBuf>,
}

enum Action {
    Run,
    Check,
    Help,
    Version,
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let config = std::env::var_os("ACKLINE_CONFIG")
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        let mut arguments = Self {
            action: Action::Run,
            config,
        };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--config" => {
                    let file = words.next().ok_or("--config needs a file")?;
                    arguments.config = Some(PathBuf::from(file));
                }
                "--check" => arguments.action = Action::Check,
                "--help" | "-h" => arguments.action = Action::Help,
                "--version" | "-V" => arguments.action = Action::Version,
                _ => return Err(format!("unknown argument `{word}`")),
            }
        }
        Ok(arguments)
    }
}

#[allow(
    clippy::print_stdout,
    reason = "what the operator asked for goes to standard output"
)]
fn say(text: &str) -> ExitCode {
    println!("{text}");
    ExitCode::SUCCESS
}

#[allow(clippy::print_stderr, reason = "nothing logs yet when this is said")]
fn complain(text: &str, status: u8) -> ExitCode {
    eprintln!("{}", text.trim_end());
    ExitCode::from(status)
}
