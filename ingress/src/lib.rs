//! The edge: verifies, splits and routes Meta's webhooks, stores every update in the log, then answers 200.
//!
//! This crate knows nothing of flows, SQL, the Graph API or any tenant's URL. It keeps no state that a
//! restart would miss: what is acknowledged is in the log, and what is not is sent again by Meta.
//!
//! Modules use each other in one direction: [`http`] uses [`split`], which uses [`routing`], which uses [`store`], and
//! none of them knows who uses it. [`process`] puts them together as [`settings`] say, and nothing imports it.

pub mod budget;
pub mod configuration;
pub mod http;
pub mod metrics;
pub mod private;
pub mod process;
pub mod routing;
pub mod settings;
pub mod split;
pub mod store;
