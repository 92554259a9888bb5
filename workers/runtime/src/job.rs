//! What a pool does with one piece of work, and what it says about it.

use super::dedupe::{ConversationRecord, DedupeError};
use ackline_engine::state::{Heard, Target};
pub use ackline_engine::step::Step;
pub use ackline_engine::verdict::{Trouble, TroubleKind, Verdict};
use ackline_shared::envelope::Head;
use ackline_shared::ids::TenantId;
use ackline_shared::registry::Snapshot;
pub use ackline_shared::subjects::LaneSource;
use ackline_shared::subjects::Pool;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

/// A pool's work. `run` is called again with the same [`Work`] when it asked for a retry.
pub trait Job: Send + Sync + 'static {
    const POOL: Pool;

    /// Whether finished updates are remembered per conversation, so that none takes effect twice. Only a pool
    /// that keeps such a memory itself turns this off.
    const REMEMBERS: bool = true;

    /// What the pool reads; one consumer per lane and partition.
    fn lanes() -> Vec<LaneSource> {
        Self::POOL.lanes()
    }

    /// The tenants that may have work here; `None` where any may. What is of no other is not even read.
    fn askers(_snapshot: &Snapshot) -> Option<BTreeSet<TenantId>> {
        None
    }

    /// Whom this update may concern, as far as its head tells; nobody when it asks nothing of this pool. Each target
    /// takes its updates in order and waits for no other.
    fn targets(&self, _head: &Head) -> Vec<Arc<Target>> {
        vec![Arc::default()]
    }

    /// Whether a target wants this update: a look at its payload before anything is recalled or asked.
    fn selects(&self, _head: &Head, _payload: &[u8], _target: &Target) -> bool {
        true
    }

    /// Notes that work is given up that was tried, or waited, long enough; a retry when that could not be noted.
    fn give_up(&self, _work: &Work, reason: &str) -> impl Future<Output = Verdict> + Send {
        let verdict = Verdict::dead(reason);
        async move { verdict }
    }

    /// Whether work for a target asks somebody who may be down, so that what has waited too long is not tried again.
    fn asks(target: &Target) -> bool {
        !target.breakers.is_empty()
    }

    /// Does the work once, for one target. It must finish within the target's time-out or, without one, the pool's; later
    /// it is cancelled and counts as a time-out of the target.
    fn run(&self, work: &Work) -> impl Future<Output = Verdict> + Send;
}

/// One message of a stream on its way through a pool, for one target.
#[derive(Debug)]
pub struct Work {
    /// What is known without reading the payload.
    pub head: Arc<Head>,
    pub payload: Bytes,
    /// The message's sequence in its stream; grows along a conversation.
    pub sequence: u64,
    pub target: Arc<Target>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Whether the pool gives up after this attempt.
    pub last_attempt: bool,
    /// Whether the work has waited as long as it may, so that a wait ends it, too.
    pub overdue: bool,
    /// Parts of the work that are finished.
    pub marks: Marks,
    pub record: ConversationRecord,
    pub answered: Answered,
}

/// Bytes of an answer that are shown.
const SAID_BYTES_MAX: usize = 200;

/// What a request said of its target apart from the verdict, and how the answer to an update that it will never take
/// began: for the dead letter, never for a log.
#[derive(Debug, Clone, Default)]
pub struct Answered(Arc<Mutex<(Heard, Option<String>)>>);

impl Answered {
    pub fn set(&self) {
        self.lock().0 = Heard::Answer;
    }

    /// It did not, although the update is not tried again.
    pub fn lost(&self) {
        self.lock().0 = Heard::Trouble;
    }

    /// It refused the update for good with these bytes.
    pub fn refused(&self, body: &[u8]) {
        let start = String::from_utf8_lossy(body.get(..SAID_BYTES_MAX).unwrap_or(body))
            .trim()
            .to_owned();
        *self.lock() = (Heard::Answer, (!start.is_empty()).then_some(start));
    }

    /// What was heard since this was last asked.
    pub fn take(&self) -> Heard {
        std::mem::take(&mut self.lock().0)
    }

    /// How the answer to what is given up began.
    pub fn said(&self) -> Option<String> {
        self.lock().1.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Heard, Option<String>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    /// Makes the marks durable now, before an effect whose answer may be lost.
    pub async fn persist(&self) -> Result<(), DedupeError> {
        self.record
            .keep(self.head.id.as_str(), self.marks.all())
            .await?;
        self.marks.is_stored_now();
        Ok(())
    }
}

/// Which parts of a piece of work have taken effect, for work that has several; survives retries and takeovers.
///
/// A mark that ends in `?` is in doubt: the effect was begun. One that holds a `!` was refused, with the words
/// behind it. Every other mark is a part that took effect.
#[derive(Debug, Clone, Default)]
pub struct Marks(Arc<Mutex<Marked>>);

#[derive(Debug, Default)]
struct Marked {
    parts: BTreeSet<Step>,
    /// What the conversation's record says.
    stored: BTreeSet<Step>,
}

impl Marks {
    /// The parts that took effect before a replay.
    pub fn of_replay(head: &Head) -> Self {
        let parts: BTreeSet<Step> = head
            .replay
            .iter()
            .flat_map(|replay| &replay.done)
            .map(|part| Step::from(part.as_str()))
            .collect();
        Self(Arc::new(Mutex::new(Marked {
            stored: parts.clone(),
            parts,
        })))
    }

    /// Takes up what the record says.
    pub fn recall(&self, parts: &[String]) {
        let mut marked = self.lock();
        marked.stored = parts.iter().map(|part| Step::from(part.as_str())).collect();
        let stored = marked.stored.clone();
        marked.parts.extend(stored);
    }

    /// Remembers a step. It becomes durable with the attempt's verdict.
    pub fn set(&self, step: Step) {
        self.lock().parts.insert(step);
    }

    pub fn clear(&self, step: &Step) {
        self.lock().parts.remove(step);
    }

    /// Whether a step stands there.
    pub fn has(&self, step: &Step) -> bool {
        self.lock().parts.contains(step)
    }

    /// All of them, as a record spells them.
    pub fn all(&self) -> Vec<String> {
        let mut all: Vec<String> = self.lock().parts.iter().map(ToString::to_string).collect();
        all.sort_unstable();
        all
    }

    /// Notes that the record says so, too.
    pub fn is_stored_now(&self) {
        let mut marked = self.lock();
        marked.stored = marked.parts.clone();
    }

    /// Whether the record says the same: whoever goes by it alone does right.
    pub fn is_stored(&self) -> bool {
        let marked = self.lock();
        marked.stored == marked.parts
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Marked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
