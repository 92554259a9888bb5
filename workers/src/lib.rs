//! The worker pools and the API.
//!
//! A pool reads one stream, does one kind of work and writes the next stream; pools never call each other.
//! [`core`] knows how work is owned, ordered, retried and given up; the other modules know what the work is.

pub mod cli;
pub mod core;
pub mod flows;
pub mod platform;
