//! Tests across the crates of the workers, against a real nats-server.

mod api;
mod cli;
mod jobs;
mod letter;
mod pools;
mod stored;
