//! Records: what we did about an update, written back into UPDATES as `ev.<p>.<tenant>.<type>`.
//!
//! The pools that follow (crm, events, journal) and the flow engine itself read these; nothing calls them.

use crate::SendCommand;
use ackline_shared::stored::Stored;
use ackline_shared::subjects::record_kind;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One thing we did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Record {
    /// A send command was accepted into OUTBOUND (written by whoever issues it: flows, api, crm).
    ReplyQueued {
        /// The command.
        command: Box<SendCommand>,
    },
    /// Meta accepted a message.
    ReplySent {
        /// The command as it was sent.
        command: Box<SendCommand>,
        /// Meta's id of the message.
        wamid: String,
        /// How many attempts it took.
        attempts: u32,
    },
    /// A message was given up; its dead letter holds the same reason.
    ReplyFailed {
        /// The command.
        command: Box<SendCommand>,
        /// Meta's error code, when Meta answered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<i64>,
        /// Why, in words.
        reason: String,
        /// True when Meta may have accepted it: its answer was lost.
        ambiguous: bool,
    },
    /// A conversation entered a flow.
    FlowStarted {
        /// The flow.
        flow: String,
        /// The bot that chose it.
        bot: String,
        /// Identifies this run of the flow.
        run: String,
    },
    /// A conversation left a flow.
    FlowCompleted {
        /// The flow.
        flow: String,
        /// The bot that chose it.
        bot: String,
        /// Identifies this run of the flow.
        run: String,
        /// `completed`, `failed`, `restarted`.
        outcome: String,
        /// The variables it ended with.
        variables: Value,
    },
    /// What one step of a conversation's flows did, in this order.
    FlowStep {
        /// Each thing.
        facts: Vec<FlowFact>,
    },
    /// The result of a call a flow asked for; the flow engine's own input.
    FlowResult {
        /// Which call it answers.
        effect: String,
        /// What came of it.
        outcome: Value,
    },
}

/// One thing that a step of a conversation's flows did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum FlowFact {
    /// A send command was accepted into OUTBOUND.
    Queued {
        /// The command.
        command: Box<SendCommand>,
    },
    /// The conversation entered a flow.
    Started {
        /// Identifies what happened, whichever record tells it.
        id: String,
        /// The flow.
        flow: String,
        /// The bot that chose it.
        bot: String,
        /// Identifies this run of the flow.
        run: String,
    },
    /// The conversation left a flow.
    Completed {
        /// Identifies what happened, whichever record tells it.
        id: String,
        /// The flow.
        flow: String,
        /// The bot that chose it.
        bot: String,
        /// Identifies this run of the flow.
        run: String,
        /// `completed`, `failed`, `restarted`.
        outcome: String,
        /// The variables it ended with.
        variables: Value,
    },
}

impl Stored for Record {}

impl Record {
    /// The subject token of a queued command.
    pub const REPLY_QUEUED: &str = record_kind::REPLY_QUEUED;
    /// The subject token of an accepted message.
    pub const REPLY_SENT: &str = record_kind::REPLY_SENT;
    /// The subject token of a message given up.
    pub const REPLY_FAILED: &str = record_kind::REPLY_FAILED;
    /// The subject token of an entered flow.
    pub const FLOW_STARTED: &str = record_kind::FLOW_STARTED;
    /// The subject token of a left flow.
    pub const FLOW_COMPLETED: &str = record_kind::FLOW_COMPLETED;
    /// The subject token of a step that entered and left no flow.
    pub const FLOW_STEP: &str = record_kind::FLOW_STEP;
    /// The subject token of a call's result.
    pub const FLOW_RESULT: &str = record_kind::FLOW_RESULT;

    /// The last token of the subject: the type, and of a step the most that it did, so that whoever follows flows
    /// reads nothing else.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::FlowStep { facts } => {
                let has = |wanted: fn(&FlowFact) -> bool| facts.iter().any(wanted);
                if has(|fact| matches!(fact, FlowFact::Completed { .. })) {
                    Self::FLOW_COMPLETED
                } else if has(|fact| matches!(fact, FlowFact::Started { .. })) {
                    Self::FLOW_STARTED
                } else {
                    Self::FLOW_STEP
                }
            }
            Self::ReplyQueued { .. } => Self::REPLY_QUEUED,
            Self::ReplySent { .. } => Self::REPLY_SENT,
            Self::ReplyFailed { .. } => Self::REPLY_FAILED,
            Self::FlowStarted { .. } => Self::FLOW_STARTED,
            Self::FlowCompleted { .. } => Self::FLOW_COMPLETED,
            Self::FlowResult { .. } => Self::FLOW_RESULT,
        }
    }
}
