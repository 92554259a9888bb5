//! What a pool does with one piece of work, and what it says about it.

use super::ring::{Keeper, RingError};
use ackline_shared::envelope::Head;
use ackline_shared::subjects::{Partition, Pool};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A pool's work. `run` is called again with the same [`Work`] when it asked for a retry.
pub trait Job: Send + Sync + 'static {
    /// Which pool this is.
    const POOL: Pool;

    /// Whether finished updates are remembered per conversation, so that none takes effect twice. Only a pool
    /// that keeps such a memory itself turns this off.
    const REMEMBERS: bool = true;

    /// What the pool reads; one consumer per lane and partition.
    fn lanes() -> Vec<LaneSource>;

    /// Whether there may be anything to do for this update: a cheap look that spares the rest the memory.
    fn concerns(&self, _head: &Head) -> bool {
        true
    }

    /// Does the work once. It must finish within the pool's attempt timeout; later it is cancelled and retried.
    fn run(&self, work: &Work) -> impl Future<Output = Verdict> + Send;
}

/// A lane of a pool: the subjects it reads, and its share when several lanes have work.
#[derive(Debug, Clone, Copy)]
pub struct LaneSource {
    /// Part of the consumers' durable name.
    pub name: &'static str,
    /// The stream.
    pub stream: &'static str,
    /// The subjects of one partition.
    pub filters: fn(Partition) -> Vec<String>,
    /// Its weight against the pool's other lanes; every lane gets at least its share of turns.
    pub weight: u32,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The effect took place; it is remembered and never repeated.
    Done,
    /// There was nothing to do here for this update.
    Idle,
    /// Not now; the reason says why.
    Retry {
        /// In words, without personal data.
        reason: String,
        /// The least to wait, when the other side said so.
        after: Option<Duration>,
    },
    /// Nothing was tried, for a downstream is left alone for now; uses up no attempt.
    Wait {
        /// In words, without personal data.
        reason: String,
        /// How long to wait.
        after: Duration,
    },
    /// Never; goes to the dead letters with the reason.
    Dead {
        /// In words, without personal data.
        reason: String,
    },
}

impl Verdict {
    /// Why it was not done, where there is a reason.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Done | Self::Idle => None,
            Self::Retry { reason, .. } | Self::Wait { reason, .. } | Self::Dead { reason } => Some(reason),
        }
    }

    /// A retry at the pool's own pace.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { reason: reason.into(), after: None }
    }

    /// A dead letter.
    pub fn dead(reason: impl Into<String>) -> Self {
        Self::Dead { reason: reason.into() }
    }
}

/// One message of a stream on its way through a pool.
#[derive(Debug)]
pub struct Work {
    /// What is known without reading the payload.
    pub head: Head,
    /// The payload.
    pub payload: Bytes,
    /// The message's sequence in its stream; grows along a conversation.
    pub sequence: u64,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Whether the pool gives up after this attempt.
    pub last_attempt: bool,
    /// Whether the work has waited as long as it may, so that a [`Verdict::Wait`] ends it, too.
    pub overdue: bool,
    /// Parts of the work that are finished.
    pub marks: Marks,
    /// Where marks become durable.
    pub keeper: Keeper,
}

impl Work {
    /// Makes the marks durable now, before an effect whose answer may be lost.
    pub async fn persist(&self) -> Result<(), RingError> {
        self.keeper.keep(self.head.id.as_str(), self.marks.all()).await
    }
}

/// The mark of work that took effect as a whole and only has to be remembered.
pub const WHOLE: &str = "*";

/// Which parts of a piece of work have taken effect, for work that has several; survives retries and takeovers.
///
/// A mark that ends in `?` is in doubt: the effect was begun. One that holds a `!` was refused, with the words
/// behind it. Every other mark is a part that took effect.
#[derive(Debug, Clone, Default)]
pub struct Marks(Arc<Mutex<BTreeSet<String>>>);

impl Marks {
    /// The parts that took effect before a replay.
    pub fn of_replay(head: &Head) -> Self {
        let done = head.replay.iter().flat_map(|replay| replay.done.iter().cloned()).collect();
        Self(Arc::new(Mutex::new(done)))
    }

    /// Remembers that a part took effect. It becomes durable with the attempt's verdict.
    pub fn set(&self, part: &str) {
        self.lock().insert(part.to_owned());
    }

    /// Forgets a part.
    pub fn clear(&self, part: &str) {
        self.lock().remove(part);
    }

    /// Whether a part has taken effect.
    pub fn has(&self, part: &str) -> bool {
        self.lock().contains(part)
    }

    /// All parts that have.
    pub fn all(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
