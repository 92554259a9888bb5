//! WhatsApp's Cloud API: what a message may hold, the Graph client, and what its errors mean.

pub mod body;
pub mod content;
pub mod errors;
pub mod graph;
pub mod pacing;
pub mod verdict;
