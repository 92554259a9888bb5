//! WhatsApp's Cloud API: the Graph client, what its errors mean, and a number's pace.

pub mod errors;
pub mod graph;
pub mod pacing;
pub mod verdict;
