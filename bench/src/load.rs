//! Load on an edge: signed deliveries made beforehand, an open and a closed loop, and what came of them.
//!
//! Everything is bounded in count and in time. The generator shares the machine with what it measures, so it
//! writes prepared bytes to plain sockets from one or two threads, and its own CPU is part of each report.

pub mod answer;
pub mod closed;
pub mod deck;
pub mod ledger;
pub mod open;
pub mod people;
pub mod tally;
pub mod usage;

pub use answer::{Answer, parse};
pub use closed::Closed;
pub use deck::{Deck, Mix, Target};
pub use ledger::{Ledger, Verdict};
pub use open::Open;
pub use tally::Tally;
pub use usage::Usage;

use std::time::Duration;

/// A wait that never ends would hang a run.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
