//! How work is owned, ordered, retried and given up; nothing here knows what the work is.
//!
//! One process owns a partition of a pool at a time. Inside it, a conversation's work runs one at a time and in
//! stream order, tenants take turns, and everything that is read ahead, running or waiting is bounded.

pub mod activity;
pub mod adaptive;
pub mod asked;
pub mod attempt;
pub mod batch;
pub mod consumer;
pub mod conversation;
pub mod dead;
pub mod dead_class;
pub mod dedupe;
pub mod direct;
pub mod fate;
pub mod floors;
pub mod following;
pub mod group_commit;
pub mod intake;
pub mod job;
mod linger;
pub mod log;
pub mod long_messages;
pub mod metrics;
pub mod older;
pub mod open_breakers;
pub mod partitions;
pub mod platform;
pub mod pool;
pub mod settings;
pub mod spill;
pub mod status;
pub mod tuning;
pub mod upkeep;
pub mod whole;
