//! Simulators of Meta and of a customer, real enough to test and demonstrate the platform against.
//!
//! Nothing here depends on the edge or the pools: a simulator speaks HTTP to whatever it is pointed at.

pub mod journal;
pub mod meta;
pub mod serve;
pub mod sink;
