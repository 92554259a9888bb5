//! The dead letter office: reads what was given up, and puts it before its pool again, or discards it.
//!
//! A letter stays in its stream until the retention takes it, whatever is done about it. What is done is an
//! [`Order`]: kept in the `replays` bucket, carried out by whichever process holds its lock, and afterwards the
//! record of who did what to how many. Which letters are settled stands beside the orders ([`settled`]).
//!
//! Invariant: a letter is claimed by an order before it is replayed, and a replay's id follows from the letter
//! and the order. So neither a crash nor a second order over the same letters replays one twice.

pub mod carry;
pub mod clerk;
pub mod count;
pub mod filter;
pub mod letter;
pub mod list;
pub mod office;
pub mod open;
pub mod order;
pub mod past;
pub mod scan;
pub mod settled;
pub mod tally;
pub mod terms;
pub mod time;
pub mod unrouted;
pub mod view;

pub use filter::Filter;
pub use letter::Letter;
pub use office::{Office, OfficeError};
pub use order::{Action, Order, Source, State, Target};
pub use past::Past;
#[cfg(test)]
pub(crate) use settled::Chunk;
pub use settled::Standing;
pub use tally::Count;
