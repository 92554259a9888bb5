//! What a person reads while it runs: whole lines on standard output, written at once.

use std::io::Write;
use std::time::Duration;

/// Writes lines to standard output; a reader that went away is no reason to stop.
#[derive(Debug, Default)]
pub struct Screen {
    quiet: bool,
}

impl Screen {
    /// One that writes nothing, for tests.
    pub fn quiet() -> Self {
        Self { quiet: true }
    }

    pub fn line(&self, text: &str) {
        if self.quiet {
            return;
        }
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }

    /// Writes several lines and a blank one, or nothing.
    pub fn block(&self, text: &str) {
        if !text.is_empty() {
            self.line(&format!("{}\n", text.trim_end()));
        }
    }

    /// Writes that a step is done.
    pub fn done(&self, what: &str, detail: &str, took: Duration) {
        let line = format!("✓ {what:<38} {:>6} ms  {detail}", took.as_millis());
        self.line(line.trim_end());
    }
}
