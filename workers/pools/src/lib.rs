//! The worker pools: flows, replies, relay and events.

pub mod events;
pub mod flows;
pub mod relay;
pub mod replies;
