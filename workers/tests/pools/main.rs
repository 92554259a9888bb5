//! The pools against a real nats-server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod core;
mod dead;
mod flows;
mod ownership;
mod processes;
mod stage;
mod tuning;
