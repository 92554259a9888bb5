//! One job, or one store of the runtime, over a platform against a real nats-server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod chatwoot;
mod crm;
mod older;
mod people;
mod platform;
mod replies;
mod spill_queue;
