//! The worker pools, the API and the operator's commands.
//!
//! A pool reads one stream, does one kind of work and writes the next stream; pools never call each other.
//! [`core`] knows how work is owned, ordered, retried and given up; the other modules know what the work is.

pub mod api;
pub mod bounded;
pub mod cli;
pub mod conversation;
pub mod core;
pub mod crm;
pub mod dead;
pub mod egress;
pub mod events;
pub mod flows;
pub mod journal;
pub mod platform;
pub mod process;
pub mod quota;
pub mod raw;
pub mod relay;
pub mod replies;
pub mod scaler;
#[cfg(test)]
mod stored;
pub mod surroundings;
#[cfg(test)]
mod testing;
pub mod traces;
