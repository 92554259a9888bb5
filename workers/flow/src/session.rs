//! What is remembered of one conversation between two updates: where it waits, what it knows, and what it
//! was last asked to do.
//!
//! A session is a value: JSON of at most [`SESSION_BYTES_MAX`] bytes that is written back by compare and
//! set. It remembers the last updates with their effects, so that a redelivered one can be answered with
//! the same effects without being decided again.

use super::agent::Memory;
use super::compiled::Compiled;
use super::effect::Effect;
use super::limits::{OUTBOX_BYTES_MAX, SEEN_MAX, SESSION_BYTES_MAX, json_bytes};
use super::update::Message;
use super::value::Variables;
use ackline_engine::finished::Finished;
use ackline_engine::owner::{self, Owner};
use ackline_shared::ids::{ConversationKey, UpdateId};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::VecDeque;
use std::fmt;

/// The version of this record's shape.
pub const SCHEMA: u32 = 1;

/// Recent waits remembered, to recognise a press on an older message.
const RECENT_MAX: usize = 8;

/// One conversation of one person with one bot.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    schema: u32,
    /// The epoch of the owner that wrote it; a lower one may not write over it.
    #[serde(default, skip_serializing_if = "is_zero")]
    fence: u64,
    /// Whose the conversation is, when somebody set that; flows carry it along.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "owner::read"
    )]
    owner: Option<Owner>,
    /// When the last message was heard, in unix milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    heard_ms: u64,
    /// When the person wrote last, by Meta's clock, in unix milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    said_ms: u64,
    pub(super) flow: String,
    /// The version of the flow the run was begun with.
    pub(super) version: String,
    pub(super) status: Status,
    /// Identifies the present run; empty before the first.
    pub(super) run: String,
    pub(super) wait: Option<Wait>,
    pub(super) variables: Variables,
    pub contact: Value,
    /// The last message as templates see it.
    pub(super) message: Value,
    pub(super) epoch: u64,
    /// Waits so far; numbers them.
    pub(super) turn: u64,
    /// A message that no node has taken as an answer yet.
    pub(super) unanswered: Option<Message>,
    /// Messages that came while a call was under way.
    pub(super) held: VecDeque<Message>,
    pub(super) memory: Memory,
    /// Answers of the present agent node.
    pub(super) answers: u32,
    pub(super) counters: Counters,
    recent: VecDeque<Recent>,
    /// The last updates by id, whose effects may have to be published again.
    processed: VecDeque<UpdateId>,
    /// Many more that were processed, by their hashes.
    #[serde(default, skip_serializing_if = "Finished::is_empty")]
    finished: Finished,
    /// How many blocks of older ones are written down elsewhere.
    #[serde(default, skip_serializing_if = "is_none")]
    older: u32,
    outbox: VecDeque<Sent>,
}

/// Shows where it is, not what was said.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Session");
        shown
            .field("flow", &self.flow)
            .field("run", &self.run)
            .field("status", &self.status);
        shown.field("wait", &self.wait).finish_non_exhaustive()
    }
}

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    New,
    /// A run waits for a message or a call's outcome.
    Waiting,
    Ended,
    Failed,
}

/// What a run waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// Identifies the wait; presses carry it.
    pub id: String,
    pub node: String,
    /// The node's kind, by which a newer version of the flow is recognised as fitting.
    pub node_kind: String,
    pub on: WaitOn,
    pub attempts: u32,
}

/// What a wait ends by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "snake_case")]
pub enum WaitOn {
    /// A message of the person.
    Reply,
    /// The outcome of a call.
    Effect {
        effect_id: String,
        /// When it counts as timed out, in unix milliseconds.
        deadline_ms: u64,
    },
}

/// How much a conversation has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    pub steps: u64,
    pub sends: u64,
    pub calls: u64,
    /// Messages that found no place.
    pub dropped: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sent {
    update: UpdateId,
    effects: Vec<Effect>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Recent {
    wait: String,
    node: String,
}

/// What every version of a record says.
#[derive(Deserialize)]
struct Version {
    schema: u32,
    /// Only a session has one.
    flow: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "owner::read")]
    owner: Option<Owner>,
    #[serde(default)]
    moved: Option<String>,
    #[serde(default)]
    moved_ms: Option<u64>,
}

/// What the record of a conversation holds.
#[derive(Debug)]
pub struct Kept {
    /// Its session, if a flow ever took it.
    pub session: Option<Session>,
    /// Its owner, if somebody ever set one.
    pub owner: Option<Owner>,
    /// Where the conversation goes on, if its person is known by other ids by now.
    pub moved: Option<Moved>,
}

/// Where a conversation went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    pub to: ConversationKey,
    /// Until when the old key was the same person's, in unix milliseconds; without an end if absent.
    until_ms: Option<u64>,
}

impl Moved {
    /// Whether something that was written at a time is the same person's; what tells no time is.
    pub fn leads(&self, at_ms: Option<u64>) -> bool {
        let pair = at_ms.zip(self.until_ms);
        pair.is_none_or(|(at_ms, until_ms)| at_ms <= until_ms)
    }
}

impl Kept {
    pub fn from_json(bytes: &[u8]) -> Result<Self, SessionError> {
        // A newer one may have any other shape.
        let Version {
            schema,
            flow,
            owner,
            moved,
            moved_ms: until_ms,
        } = serde_json::from_slice(bytes)?;
        if schema > SCHEMA {
            return Err(SessionError::Schema(schema));
        }
        let session = flow.map(|_| serde_json::from_slice(bytes)).transpose()?;
        let moved = moved.and_then(|key| ConversationKey::parse(&key));
        let moved = moved.map(|to| Moved { to, until_ms });
        Ok(Self {
            session,
            owner,
            moved,
        })
    }
}

/// Why stored bytes are not a session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// They do not have a session's shape.
    #[error("the stored session cannot be read: {0}")]
    Shape(#[from] serde_json::Error),
    /// They were written by a newer version.
    #[error(
        "the stored session has schema {0}, this version reads up to {SCHEMA}; upgrade the workers"
    )]
    Schema(u32),
}

impl Session {
    /// Makes a session whose first run has yet to begin.
    pub fn new(flow: &str, compiled: &Compiled) -> Self {
        Self {
            schema: SCHEMA,
            fence: 0,
            owner: None,
            heard_ms: 0,
            said_ms: 0,
            flow: flow.to_owned(),
            version: compiled.version.clone(),
            status: Status::New,
            run: String::new(),
            wait: None,
            variables: Variables::new(),
            contact: Value::Null,
            message: Value::Null,
            epoch: 0,
            turn: 0,
            unanswered: None,
            held: VecDeque::new(),
            memory: Memory::default(),
            answers: 0,
            counters: Counters::default(),
            recent: VecDeque::new(),
            processed: VecDeque::new(),
            finished: Finished::default(),
            older: 0,
            outbox: VecDeque::new(),
        }
    }

    /// Makes a session for another flow that goes on remembering what was processed here.
    pub fn succeed(self, flow: &str, compiled: &Compiled) -> Self {
        Self {
            fence: self.fence,
            owner: self.owner,
            heard_ms: self.heard_ms,
            said_ms: self.said_ms,
            epoch: self.epoch,
            turn: self.turn,
            counters: self.counters,
            processed: self.processed,
            finished: self.finished,
            older: self.older,
            outbox: self.outbox,
            ..Self::new(flow, compiled)
        }
    }

    pub fn from_json(bytes: &[u8]) -> Result<Self, SessionError> {
        match Kept::from_json(bytes)?.session {
            Some(session) => Ok(session),
            None => Ok(serde_json::from_slice(bytes)?),
        }
    }

    /// Writes the session for storing.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The epoch of the owner that wrote it.
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// Puts it under the epoch of the owner that is to write it.
    pub fn fenced(self, fence: u64) -> Self {
        Self { fence, ..self }
    }

    /// Puts it beside the conversation's owner, and notes when a message was heard.
    pub fn owned(self, owner: Option<Owner>, heard_ms: Option<u64>) -> Self {
        Self {
            owner,
            heard_ms: heard_ms.unwrap_or(self.heard_ms),
            ..self
        }
    }

    /// Notes when the person wrote, by Meta's clock.
    pub fn said(self, at_ms: Option<u64>) -> Self {
        Self {
            said_ms: self.said_ms.max(at_ms.unwrap_or_default()),
            ..self
        }
    }

    /// Whose the conversation is, when somebody set that.
    pub fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// When the last message was heard, in unix milliseconds.
    pub fn heard_ms(&self) -> u64 {
        self.heard_ms
    }

    /// The flow it is in, or was in last.
    pub fn flow(&self) -> &str {
        &self.flow
    }

    /// The version of the flow that its run is pinned to.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The present or last run.
    pub fn run(&self) -> &str {
        &self.run
    }

    pub fn status(&self) -> Status {
        self.status
    }

    pub fn wait(&self) -> Option<&Wait> {
        self.wait.as_ref()
    }

    pub fn variables(&self) -> &Variables {
        &self.variables
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether no run is under way, so that a message may start a flow.
    pub fn is_over(&self) -> bool {
        matches!(self.status, Status::Ended | Status::Failed)
    }

    /// Whether an update was already processed.
    pub fn seen(&self, update: &UpdateId) -> bool {
        self.processed.contains(update) || self.finished.has(update.as_str())
    }

    /// How many blocks of updates processed long ago are written down elsewhere.
    pub fn older(&self) -> u32 {
        self.older
    }

    /// The marks that are to be written down there next, when a block is due.
    pub fn due_block(&self) -> Option<&[u8]> {
        self.finished.full_block()
    }

    /// Knows that the block that was due is written down.
    pub fn block_written(&mut self) {
        self.finished.drop_block();
        self.older = self.older.saturating_add(1);
    }

    /// The effects of an update already processed, to be published again; none when it is new.
    pub fn replay(&self, update: &UpdateId) -> Option<Vec<Effect>> {
        let sent = || self.outbox.iter().find(|sent| sent.update == *update);
        self.seen(update)
            .then(|| sent().map(|sent| sent.effects.clone()).unwrap_or_default())
    }

    /// The call it waits for, when it waits for one.
    pub fn pending_effect(&self) -> Option<&str> {
        match self.wait.as_ref().map(|wait| &wait.on) {
            Some(WaitOn::Effect { effect_id, .. }) => Some(effect_id),
            Some(WaitOn::Reply) | None => None,
        }
    }

    /// Remembers what a wait's node was, beyond the wait.
    pub fn note_wait(&mut self, wait: &Wait) {
        self.recent.push_back(Recent {
            wait: wait.id.clone(),
            node: wait.node.clone(),
        });
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
    }

    /// The node of a recent wait.
    pub fn recent_node(&self, wait: &str) -> Option<&str> {
        self.recent
            .iter()
            .find(|recent| recent.wait == wait)
            .map(|recent| recent.node.as_str())
    }

    /// Remembers an update as processed, with its effects, and forgets the oldest.
    pub fn remember(&mut self, update: UpdateId, effects: &[Effect]) {
        self.finished.add(update.as_str());
        self.processed.push_back(update.clone());
        if self.processed.len() > SEEN_MAX {
            self.processed.pop_front();
        }
        if !effects.is_empty() {
            self.outbox.push_back(Sent {
                update,
                effects: effects.to_vec(),
            });
        }
        let processed = &self.processed;
        self.outbox.retain(|sent| processed.contains(&sent.update));
        while self.outbox.len() > 1
            && (json_bytes(&self.outbox) > OUTBOX_BYTES_MAX || json_bytes(self) > SESSION_BYTES_MAX)
        {
            self.outbox.pop_front();
        }
    }
}

/// For serde, which asks by reference.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_none(blocks: &u32) -> bool {
    *blocks == 0
}
