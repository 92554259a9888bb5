//! The edge from outside: splitting against a reference, the protocol over a pipe, and a real nats-server.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod against_nats;
mod bodies;
mod certificates;
mod client;
mod configuration;
mod durability;
mod http2;
mod memory_log;
mod nats_access;
mod nats_client;
mod one_reading;
mod overload;
mod per_address_limit;
mod protocol;
mod proxied;
mod reference;
mod routing;
mod spool_disk;
mod spooled;
mod tls;
mod tls_client;
