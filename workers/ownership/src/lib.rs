//! Which process owns which partition of a pool.

pub mod assignment;
pub mod lease;
pub mod lock;
pub mod members;
pub mod membership;
pub mod owners;
pub mod standing;
