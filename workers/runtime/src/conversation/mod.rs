//! Who may answer in a conversation: its owner, what changes it, and the one place where it is kept.
//!
//! Whoever learns something about that, the flows from Meta, the API from a CRM or a caller, puts it as an
//! [`Event`] to [`Owners`]; what follows is decided by [`Owner::after`] alone. Nothing else writes an owner. Whoever learns
//! that a person has other ids by now tells [`Moves`].

mod moved;
mod record;
mod store;

pub use ackline_engine::owner::{Event, Owner, Who, read};
pub use moved::{HOPS_MAX, Moves};
pub use store::{OwnerError, Owners, Side, owner_in};
