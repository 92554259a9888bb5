//! A target that fails when told to: it refuses, resets, hangs, is slow, throttles or flaps, and notes every request.
//!
//! It answers for itself or passes requests on to a program behind it, such as a stand-in for Chatwoot. Requests are
//! told apart by the parts of the path it was given, so that one address can fail for one number and work for another.

mod note;
mod server;

pub use note::{Ending, Note};

use anyhow::{Context, Result};
use note::Notes;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

const CHANGED_WITHIN: Duration = Duration::from_secs(10);

/// What it does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Does the work and answers.
    Works,
    /// Does nothing and answers with a status.
    Answers(Refusal),
    /// Does the work and resets the connection in place of an answer.
    Resets,
    /// Reads the request and never answers.
    Hangs,
    /// Works, this long after the request came.
    Slow(Duration),
    /// Answers with a status for a while, works for a while, and so on.
    Flaps {
        /// How long it does not work.
        down: Duration,
        up: Duration,
        refusal: Refusal,
    },
}

/// An answer other than the one that was hoped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub body: &'static str,
}

impl Refusal {
    /// An answer of a status alone.
    pub fn plain(status: u16) -> Self {
        Self {
            status,
            retry_after: None,
            body: "{}",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub enum Behind {
    /// The target itself, which answers this JSON.
    Nobody(&'static str),
    /// A program that listens here.
    Program(SocketAddr),
}

/// A running target; dropping it closes it.
#[derive(Debug)]
pub struct Target {
    address: SocketAddr,
    shared: Arc<Shared>,
    is_wanted: watch::Sender<bool>,
    is_open: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

/// What the target's connections share.
#[derive(Debug)]
struct Shared {
    /// Parts of paths, in the order given; the last mode is for what has none of them.
    parts: BTreeMap<String, usize>,
    modes: Mutex<Vec<(Mode, Instant)>>,
    notes: Notes,
    behind: Behind,
    serial_in: SerialIn,
    http: reqwest::Client,
}

/// Finds the serial number of the update in a body.
pub type SerialIn = fn(&[u8]) -> Option<u32>;

impl Target {
    /// Starts a target that works; requests are told apart by `parts` of their paths.
    pub async fn start(behind: Behind, parts: Vec<String>, serial_in: SerialIn) -> Result<Self> {
        crate::serve::install_tls_provider();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("binding a target")?;
        let address = listener.local_addr()?;
        let modes = vec![(Mode::Works, Instant::now()); parts.len() + 1];
        let shared = Arc::new(Shared {
            parts: parts.into_iter().zip(0..).collect(),
            modes: Mutex::new(modes),
            notes: Notes::default(),
            behind,
            serial_in,
            http: reqwest::Client::builder().no_proxy().build()?,
        });
        let (is_wanted, wanted) = watch::channel(true);
        let (opened, is_open) = watch::channel(true);
        let task = tokio::spawn(server::serve(listener, shared.clone(), wanted, opened));
        Ok(Self {
            address,
            shared,
            is_wanted,
            is_open,
            task,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what it does with requests of the part with this number, or with all that have none.
    pub fn set(&self, part: Option<usize>, mode: Mode) {
        let mut modes = self.shared.modes();
        let last = modes.len().saturating_sub(1);
        if let Some(held) = modes.get_mut(part.unwrap_or(last)) {
            *held = (mode, Instant::now());
        }
    }

    /// Resets every connection and refuses new ones, on a port that stays its own.
    pub async fn refuse(&self) -> Result<()> {
        self.open(false).await
    }

    pub async fn listen(&self) -> Result<()> {
        self.open(true).await
    }

    async fn open(&self, wanted: bool) -> Result<()> {
        self.is_wanted.send_replace(wanted);
        let mut is_open = self.is_open.clone();
        let changed = timeout(CHANGED_WITHIN, is_open.wait_for(|open| *open == wanted)).await;
        changed
            .context("a target did not change in time")?
            .context("a target lost its port")?;
        Ok(())
    }

    /// What was asked so far, by the time it came.
    pub fn notes(&self) -> Vec<Note> {
        self.shared.notes.all()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// The number of the part that a path has.
    fn part(&self, path: &str) -> Option<usize> {
        path.split('/')
            .find_map(|part| self.parts.get(part).copied())
    }

    /// What happens to a request, and since when.
    fn mode(&self, part: Option<usize>) -> (Mode, Instant) {
        let modes = self.modes();
        let last = modes.len().saturating_sub(1);
        modes
            .get(part.unwrap_or(last))
            .copied()
            .unwrap_or((Mode::Works, Instant::now()))
    }

    fn modes(&self) -> MutexGuard<'_, Vec<(Mode, Instant)>> {
        self.modes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
