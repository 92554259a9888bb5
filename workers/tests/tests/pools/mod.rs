//! The pools against a real nats-server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod adaptive;
mod asked;
mod core;
mod dead;
mod floors;
mod flows;
mod given_up;
mod group_commit;
mod identity;
mod janitor;
mod journal;
mod lost;
mod once;
mod outage;
mod oversized;
mod owner;
mod ownership;
mod processes;
mod scaler;
mod speech;
mod spill;
mod stage;
mod status;
mod stream_share;
mod traces;
mod tuning;
mod unreadable;
