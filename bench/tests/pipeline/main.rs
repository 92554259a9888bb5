//! The pipeline as a whole, built as it ships: the real programs on free ports against third-party
//! counterparts, bad input, and crashes.
//!
//! Nothing of Ackline is replaced here; Meta is simulated, because it cannot be had. What a counterpart does by
//! itself is in `counterparts.rs`: if that fails, look there first.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a failure here is a failed test, which shows the programs' logs"
)]

mod bad_input;
mod chatwoot;
mod crash;
mod installation;
mod model;
mod outage;
mod pywa;
mod receiver;
mod responders;
mod standard_webhooks;
