//! The edge: verifies, splits and routes Meta's webhooks, stores every update in the log, then answers 200.
//!
//! This crate knows nothing of flows, SQL, the Graph API or any tenant's URL. It keeps no state that a
//! restart would miss: what is acknowledged is in the log, and what is not is sent again by Meta.

pub mod acceptor;
pub mod acknowledged;
pub mod admission;
pub mod budget;
pub mod caller;
pub mod configuration;
#[cfg(any(test, feature = "testing"))]
pub mod connection;
pub mod contacts;
pub mod crowding;
pub mod delivery;
pub mod durability;
pub mod element;
#[cfg(any(test, feature = "testing"))]
pub mod fixture;
pub mod forwarded;
mod group;
mod head_timer;
pub mod http2;
#[cfg(any(test, feature = "testing"))]
pub mod invariants;
pub mod json;
pub mod link;
pub mod listeners;
pub mod metrics;
pub mod participants;
pub mod private;
pub mod process;
pub mod proxy_protocol;
pub mod publisher;
mod receipt;
#[cfg(any(test, feature = "testing"))]
pub mod reference;
pub mod refusal;
pub mod routing;
pub mod server;
pub mod settings;
pub mod slots;
pub mod split;
pub mod spool;
pub mod stamping;
pub mod strangers;
pub mod stream_restore;
pub mod thread;
pub mod tls;
pub mod update_log;
pub mod webhook;
pub mod wire;
