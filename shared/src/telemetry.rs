//! Logs: one subscriber, set up once by `main`.

use crate::config::Reader;
use std::io::IsTerminal;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterFn, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// How to log.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    filter: Targets,
    json: bool,
}

/// At the finest level other people's code prints what it carries: messages, headers, keys. Ours never does.
fn is_ours_to_report(metadata: &Metadata<'_>) -> bool {
    *metadata.level() != Level::TRACE || metadata.target().starts_with("ackline")
}

impl Telemetry {
    /// Reads the `[telemetry]` section.
    pub fn read(reader: &mut Reader) -> Self {
        let filter = reader.text("telemetry.log").parse();
        let filter = filter
            .map_err(|error| reader.mistake("telemetry.log", error))
            .unwrap_or_default();
        let json = reader
            .choice("telemetry.format", &[("text", false), ("json", true)])
            .unwrap_or(false);
        Self { filter, json }
    }

    /// Starts logging to standard error; a second call changes nothing.
    pub fn start(&self) {
        let lines = fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        let lines = if self.json {
            lines.json().boxed()
        } else {
            lines.boxed()
        };
        let lines = lines.with_filter(FilterFn::new(is_ours_to_report));
        let registry = tracing_subscriber::registry()
            .with(lines)
            .with(self.filter.clone());
        let _already_started = registry.try_init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Debug, Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn other_peoples_code_does_not_print_what_it_carries() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = fmt::layer()
            .with_writer(move || writer.clone())
            .with_filter(FilterFn::new(is_ours_to_report));
        let everything: Targets = "trace".parse().unwrap();
        tracing::subscriber::with_default(
            tracing_subscriber::registry().with(layer).with(everything),
            || {
                tracing::trace!(target: "async_nats", "a whole payload");
                tracing::debug!(target: "async_nats", "a connection");
                tracing::trace!(target: "ackline_workers::core", "a step");
            },
        );
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(
            !text.contains("a whole payload")
                && text.contains("a connection")
                && text.contains("a step")
        );
    }
}
