//! An upstream bot that takes its time and notes what reached it, and when.

use super::super::rig::free_address;
use crate::serve::Server;
use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

const ASK_EVERY: Duration = Duration::from_millis(20);

/// An update that reached the bot.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub serial: u32,
    pub at: Instant,
    /// Requests being answered then, this one included.
    pub running: usize,
}

#[derive(Debug)]
pub struct Bot {
    server: Server,
    notes: Arc<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    takes_us: AtomicU64,
    running: AtomicUsize,
    arrivals: Mutex<Vec<Arrival>>,
}

impl Bot {
    /// Starts a bot that answers each webhook after some time.
    pub async fn start(takes: Duration) -> Result<Self> {
        let notes = Arc::new(Notes::default());
        let listener = TcpListener::bind(free_address().await?)
            .await
            .context("binding the bot")?;
        let router = Router::new()
            .route("/bot", post(receive))
            .with_state(notes.clone());
        let bot = Self {
            server: Server::start(listener, router)?,
            notes,
        };
        bot.take(takes);
        Ok(bot)
    }

    /// Changes how long an answer takes.
    pub fn take(&self, takes: Duration) {
        let micros = u64::try_from(takes.as_micros()).unwrap_or(u64::MAX);
        self.notes.takes_us.store(micros, Ordering::Relaxed);
    }

    pub fn address(&self) -> SocketAddr {
        self.server.addr()
    }

    /// How many webhooks have arrived.
    pub fn arrived(&self) -> usize {
        self.notes.lock().len()
    }

    /// Gives what has arrived so far, and forgets it.
    pub fn collect(&self) -> Vec<Arrival> {
        std::mem::take(&mut *self.notes.lock())
    }

    /// Waits until so many have arrived.
    pub async fn wait_for(&self, count: usize, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        while self.arrived() < count {
            if Instant::now() > deadline {
                bail!(
                    "{} of {count} updates reached the bot within {within:?}",
                    self.arrived()
                );
            }
            sleep(ASK_EVERY).await;
        }
        Ok(())
    }
}

impl Notes {
    fn lock(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn receive(State(notes): State<Arc<Notes>>, body: Bytes) -> StatusCode {
    let at = Instant::now();
    let running = notes.running.fetch_add(1, Ordering::Relaxed) + 1;
    let Some(serial) = super::feed::serial_in(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    notes.lock().push(Arrival {
        serial,
        at,
        running,
    });
    let takes = Duration::from_micros(notes.takes_us.load(Ordering::Relaxed));
    if !takes.is_zero() {
        sleep(takes).await;
    }
    notes.running.fetch_sub(1, Ordering::Relaxed);
    StatusCode::OK
}
