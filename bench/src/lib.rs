//! bench

pub mod processes;
