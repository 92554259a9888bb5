//! WhatsApp's Cloud API: the Graph client, media, what its errors mean, and a number's pace.

pub mod errors;
pub mod graph;
pub mod media;
pub mod pacing;
pub mod verdict;
