//! What is declared: reading, checking, planning and its limits.

pub mod check;
pub mod difference;
pub mod document;
#[cfg(any(test, feature = "testing"))]
pub mod fixture;
pub mod ownership;
pub mod part;
pub mod plan;
pub mod quota;
pub mod references;
#[cfg(any(test, feature = "testing"))]
pub mod samples;
pub mod stored;
pub mod write;
