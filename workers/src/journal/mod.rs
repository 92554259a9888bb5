//! The read model: every conversation and message in SQL, for queries.
//!
//! Everything in it comes from the log and can be written again in any amount: an update that was written
//! before changes nothing, and what belongs together is brought together whatever comes first. Nothing
//! that answers a person reads from here.

mod contact;
pub mod fold;
pub mod progress;
pub mod query;
pub mod store;
#[cfg(test)]
mod tests;
mod write;

pub use store::{Journal, JournalError, Rejected};
