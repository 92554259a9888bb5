//! The REST API: one resource a file, one error type, one place where everything is bounded.
//!
//! [`build`] makes the whole service as a value, so that tests call it without a socket. A handler sees only
//! its key's tenant. The API writes commands and configuration, and reads the read model; it never talks to
//! Meta, to a CRM or to another pool. Its document at `/openapi.json` is generated from the handlers.

mod auth;
mod bots;
mod connections;
mod conversations;
mod dead_letters;
mod declared;
mod flows;
mod hooks;
mod input;
mod limit;
mod listener;
mod messages;
mod owner;
mod page;
mod pools;
pub mod private;
pub mod problem;
mod queue;
mod rate;
mod replays;
mod revision;
mod running;
mod service;
pub mod settings;
mod shape;
mod slots;
mod tuning;
mod usage;

pub use listener::serve;
pub use private::{PrivateState, build_private, register_unreadable};
pub use service::document;
pub use settings::ApiSettings;

use ackline_catalog::quota::Limits;
use ackline_catalog::write::Catalog;
use ackline_fleet::board::Board;
use ackline_fleet::scaling::Targets;
use ackline_replay::{DeadLetters, PoolRules};
use ackline_runtime::platform::Platform;
use ackline_runtime::settings::Concurrency;
use ackline_store::{Journal, JournalError};
use async_nats::connection::State as Connection;
use axum::Router;
use problem::Problem;
use std::ops::Deref;
use std::sync::Arc;

/// What the API works with.
#[derive(Debug)]
pub struct ApiState {
    /// The log, the configuration and the means to open secrets.
    pub platform: Platform,
    pub journal: Journal,
    pub settings: ApiSettings,
    pub board: Board,
    /// What the number of wanted workers is to achieve.
    pub targets: Targets,
    /// The pools' jobs at once as configured.
    pub concurrency: Concurrency,
    /// What one tenant may declare.
    pub limits: Limits,
    /// What the pools say of replays.
    pub pools: PoolRules,
}

pub fn build(state: ApiState) -> Router {
    let limiter = limit::Limiter::new(
        state.settings.requests_per_second,
        state.settings.requests_burst,
    );
    let shapes = shape::Shapes::of(&document());
    let (keys, slots) = (auth::Keys::default(), slots::Slots::default());
    let catalog = Catalog::new(
        state.platform.buckets.config.clone(),
        state.platform.registry.clone(),
        state.limits.clone(),
    );
    let running = running::Running::default();
    service::router(App(Arc::new(Inner {
        state,
        keys,
        limiter,
        shapes,
        slots,
        catalog,
        running,
    })))
}

/// What every handler is given.
#[derive(Debug, Clone)]
struct App(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: ApiState,
    keys: auth::Keys,
    limiter: limit::Limiter,
    shapes: shape::Shapes,
    slots: slots::Slots,
    catalog: Catalog,
    running: running::Running,
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Deref for Inner {
    type Target = ApiState;

    fn deref(&self) -> &ApiState {
        &self.state
    }
}

impl App {
    /// Refuses at once while NATS is away, before anything waits for it or is left in the client's queue.
    fn reach_log(&self) -> Result<(), Problem> {
        match self.platform.log.context().client().connection_state() {
            Connection::Connected => Ok(()),
            Connection::Pending | Connection::Disconnected => Err(Problem::NatsAway),
        }
    }

    fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(self.platform.log.clone(), &self.platform.buckets)
    }
}

fn journal_away(error: JournalError) -> Problem {
    tracing::warn!(%error, "the read model cannot be read");
    Problem::JournalAway
}
