//! The pools.
