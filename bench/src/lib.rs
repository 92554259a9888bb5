//! Simulators of Meta and of a customer, and the programs that tests across components start.
//!
//! Nothing here depends on the edge or the pools: a simulator speaks HTTP to whatever it is pointed at, and
//! the real binaries are started as child processes.

pub mod dev;
mod faulty;
pub mod journal;
pub mod load;
pub mod meta;
pub mod processes;
pub mod scenarios;
pub mod serve;
pub mod sink;
pub mod source;
