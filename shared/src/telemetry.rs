//! Logs: one subscriber, set up once by `main`.

use crate::config::Reader;
use std::io::IsTerminal;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// How to log.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    filter: Targets,
    json: bool,
}

impl Telemetry {
    /// Reads the `[telemetry]` section.
    pub fn read(reader: &mut Reader) -> Self {
        let filter = reader.text("telemetry.log").parse();
        let filter = filter.map_err(|error| reader.mistake("telemetry.log", error)).unwrap_or_default();
        let json = reader.choice("telemetry.format", &[("text", false), ("json", true)]).unwrap_or(false);
        Self { filter, json }
    }

    /// Starts logging to standard error; a second call changes nothing.
    pub fn start(&self) {
        let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
        let lines = if self.json { lines.json().boxed() } else { lines.boxed() };
        let registry = tracing_subscriber::registry().with(lines).with(self.filter.clone());
        let _already_started = registry.try_init();
    }
}
