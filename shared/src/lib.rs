//! What every part of Ackline agrees on: names on the wire, configuration, signatures, envelopes.
//!
//! This crate knows nothing of HTTP servers, SQL or the Graph API, and nothing in it decides what to do
//! with an update; it only fixes the shapes that the edge and the pools exchange through NATS.

#![warn(missing_docs)]

pub mod clock;
pub mod config;
pub mod envelope;
pub mod ids;
pub mod meta;
pub mod model;
pub mod nats;
pub mod overdraft;
pub mod page;
pub mod partition;
pub mod raw;
pub mod recipient;
pub mod registry;
pub mod secret;
pub mod shutdown;
pub mod signature;
pub mod spelling;
pub mod standard_webhooks;
pub mod stored;
pub mod subjects;
pub mod surroundings;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod vault;
