//! What the edge's tests and fuzz targets hold it against: a reference splitter, invariants, and a declared
//! configuration to split and route by. No program depends on it.

#[cfg(feature = "connection")]
pub mod connection;
pub mod fixture;
pub mod invariants;
pub mod reference;
pub mod spool;
