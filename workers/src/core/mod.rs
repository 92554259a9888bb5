//! How work is owned, ordered, retried and given up; nothing here knows what the work is.
//!
//! One process owns a partition of a pool at a time. Inside it, a conversation's work runs one at a time and in
//! stream order, tenants take turns, and everything that is read ahead, running or waiting is bounded.

pub mod activity;
pub mod adaptive;
pub mod assignment;
pub mod attempt;
pub mod backoff;
pub mod batch;
pub mod dead;
pub mod dead_class;
pub mod dedupe;
pub mod direct;
pub mod fate;
pub mod finished;
pub mod following;
pub mod intake;
pub mod janitor;
pub mod job;
pub mod latency;
pub mod lease;
pub mod lock;
pub mod log;
pub mod members;
pub mod membership;
pub mod metrics;
pub mod older;
pub mod open_breakers;
pub mod owners;
pub mod partitions;
pub mod pool;
pub mod pull;
pub mod scaling;
pub mod scheduler;
pub mod settings;
pub mod spill;
pub mod standing;
pub mod state;
pub mod status;
pub mod stream_share;
pub mod toplist;
pub mod tuning;
pub mod upkeep;
pub mod verdict;
pub mod whole;
