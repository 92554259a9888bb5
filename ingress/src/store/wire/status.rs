//! Whether NATS is reachable.

use tokio::time::Instant;

/// Whether NATS is reachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionStatus {
    /// Connected.
    Up,
    /// Not connected since then.
    Down(Instant),
    /// Not connected yet.
    New,
}

impl ConnectionStatus {
    /// The state's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "connected",
            Self::Down(_) => "away",
            Self::New => "connecting",
        }
    }
}
