//! The pools.

pub mod flows;
