//! Logs: one subscriber, set up once by `main`.

use crate::config::Reader;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    filter: String,
    json: bool,
}

impl Telemetry {
    /// Reads the `[telemetry]` section.
    pub fn read(reader: &mut Reader) -> Self {
        let filter = reader.text("telemetry.log");
        if let Err(error) = EnvFilter::try_new(&filter) {
            reader.mistake("telemetry.log", error);
        }
        let json = reader.choice("telemetry.format", &[("text", false), ("json", true)]).unwrap_or(false);
        Self { filter, json }
    }

    /// Starts logging to standard error; a second call changes nothing.
    pub fn start(&self) {
        let is_terminal = std::io::stderr().is_terminal();
        let builder = fmt()
            .with_env_filter(EnvFilter::new(&self.filter))
            .with_writer(std::io::stderr)
            .with_ansi(is_terminal);
        let _already_started = if self.json { builder.json().try_init() } else { builder.try_init() };
    }
}
