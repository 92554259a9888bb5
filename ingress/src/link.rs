//! Whether NATS is reachable; whoever waits for an answer hears at once when it is not.

use crate::slots::Slots;
use async_nats::Event;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

/// Whether NATS is reachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Connected.
    Up,
    /// Not connected since then.
    Down(Instant),
    /// Not connected yet.
    New,
}

impl Link {
    /// The state's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "connected",
            Self::Down(_) => "away",
            Self::New => "connecting",
        }
    }
}

/// Turns the client's events into the state of the link.
#[derive(Debug)]
pub struct Follower {
    /// Where the state is told.
    pub link: watch::Sender<Link>,
    /// Who waits for an answer.
    pub slots: Arc<Slots>,
}

impl Follower {
    /// Follows one event.
    pub fn follow(&self, event: &Event) {
        match event {
            Event::Connected => {
                tracing::info!("connected to NATS");
                self.link.send_replace(Link::Up);
            }
            Event::Disconnected | Event::Closed => {
                tracing::warn!("NATS is away; deliveries get 503 until it is back");
                self.link.send_replace(Link::Down(Instant::now()));
                self.slots.lose_all();
            }
            other => tracing::debug!(event = %other, "NATS"),
        }
    }
}
