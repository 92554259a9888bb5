//! Whether NATS is reachable.

use tokio::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionStatus {
    Up,
    Down(Instant),
    New,
}

impl ConnectionStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "connected",
            Self::Down(_) => "away",
            Self::New => "connecting",
        }
    }
}
