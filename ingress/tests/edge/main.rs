//! The edge from outside: splitting against a reference, the protocol over a pipe, and a real nats-server.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod against_nats;
mod bodies;
mod client;
mod durability;
mod memory_log;
mod protocol;
mod reference;
