//! Dead letters: reads what was given up, and puts it before its pool again, or discards it.
//!
//! A letter stays in its stream until the retention takes it, whatever is done about it. What is done is an
//! [`ReplayJob`]: kept in the `replays` bucket, carried out by whichever process holds its lock, and afterwards the
//! record of who did what to how many. Which letters are settled stands beside the jobs ([`settled`]).
//!
//! Invariant: a letter is claimed by a job before it is replayed, and a replay's id follows from the letter
//! and the job. So neither a crash nor a second job over the same letters replays one twice.

pub mod carry;
pub mod count;
pub mod filter;
pub mod job;
pub mod letter;
pub mod letters;
pub mod list;
pub mod open;
pub mod past;
pub mod pool_rules;
pub mod runner;
pub mod scan;
pub mod settled;
pub mod tally;
pub mod terms;
pub mod time;
pub mod unrouted;
pub mod view;

pub use filter::Filter;
pub use job::{Action, ReplayJob, ReplayTarget, Source, State};
pub use letter::Letter;
pub use letters::{DeadLetters, DeadLettersError};
pub use past::Past;
pub use pool_rules::PoolRules;
pub use settled::Chunk;
pub use settled::Standing;
pub use tally::Count;
