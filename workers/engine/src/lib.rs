//! The decisions of the worker engine: where every update stands, in which order, and when it is tried again; pure.

pub mod backoff;
pub mod finished;
pub mod latency;
pub mod owner;
pub mod pull;
pub mod scheduler;
pub mod state;
pub mod step;
pub mod toplist;
pub mod verdict;
