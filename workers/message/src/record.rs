//! Records: what we did about an update, written back into UPDATES as `ev.<p>.<tenant>.<type>`.
//!
//! The pools that follow (crm, events, journal) and the flow engine itself read these; nothing calls them.

use crate::{Recipient, SendCommand};
use ackline_shared::stored::Stored;
use ackline_shared::subjects::record_kind;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;

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
        /// Whom Meta says it went to, where that says more than the command.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        known_as: Option<Recipient>,
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

/// What a record tells of messages and conversations.
#[derive(Debug, Clone, PartialEq)]
pub enum Brief {
    /// A reply was queued, sent or given up: the whole record.
    Reply(Record),
    /// A step of flows queued these.
    Step(Vec<SendCommand>),
    /// A conversation entered or left a flow.
    Run,
    /// A call's result.
    Result,
}

/// What of a record tells that, read in one pass: an enum that is told by a field is read twice.
#[derive(Deserialize)]
struct Fields<'r> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'r, str>,
    command: Option<Box<SendCommand>>,
    wamid: Option<String>,
    attempts: Option<u32>,
    known_as: Option<Recipient>,
    code: Option<i64>,
    reason: Option<String>,
    ambiguous: Option<bool>,
    facts: Option<Vec<FactFields>>,
}

#[derive(Deserialize)]
struct FactFields {
    command: Option<SendCommand>,
}

impl Brief {
    /// Reads a record, whichever version wrote it, without what it says of flows and calls.
    pub fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let fields: Fields<'_> = serde_json::from_slice(bytes)?;
        let command = || need("command", fields.command);
        Ok(Self::Reply(match fields.kind.as_ref() {
            Record::REPLY_QUEUED => Record::ReplyQueued {
                command: command()?,
            },
            Record::REPLY_SENT => Record::ReplySent {
                command: command()?,
                wamid: need("wamid", fields.wamid)?,
                attempts: need("attempts", fields.attempts)?,
                known_as: fields.known_as,
            },
            Record::REPLY_FAILED => Record::ReplyFailed {
                command: command()?,
                code: fields.code,
                reason: need("reason", fields.reason)?,
                ambiguous: need("ambiguous", fields.ambiguous)?,
            },
            Record::FLOW_STEP => {
                let facts = need("facts", fields.facts)?;
                let commands = facts.into_iter().filter_map(|fact| fact.command);
                return Ok(Self::Step(commands.collect()));
            }
            Record::FLOW_STARTED | Record::FLOW_COMPLETED => return Ok(Self::Run),
            Record::FLOW_RESULT => return Ok(Self::Result),
            _ => return Err(serde_json::Error::custom("unknown type of record")),
        }))
    }
}

fn need<T>(name: &'static str, field: Option<T>) -> Result<T, serde_json::Error> {
    field.ok_or_else(|| serde_json::Error::missing_field(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::stored;
    use serde_json::json;

    #[test]
    fn what_is_read_of_a_step_is_what_it_queued() {
        let command = |id: &str| {
            json!({"id": id, "tenant": "acme", "phone_number_id": "1", "to": {"phone": "49"},
            "content": {"type": "text", "body": "hi"}, "origin": {"by": "api", "key": "k"}, "created_ms": 1})
        };
        let record = json!({"v": 1, "type": "flow_step", "facts": [
            {"fact": "started", "id": "r:started", "flow": "f", "bot": "b", "run": "r"},
            {"fact": "queued", "command": command("m1")},
            {"fact": "of_tomorrow"},
            {"fact": "queued", "command": command("m2")},
            {"fact": "completed", "id": "r:completed", "flow": "f", "bot": "b", "run": "r", "outcome": "o", "variables": {}},
        ]});
        let Brief::Step(commands) = Brief::read(record.to_string().as_bytes()).unwrap() else {
            panic!("a step")
        };
        let ids: Vec<&str> = commands.iter().map(|command| command.id.as_str()).collect();
        assert_eq!(ids, ["m1", "m2"]);
    }

    #[test]
    fn what_is_read_of_a_reply_in_one_pass_is_all_of_it() {
        let command = json!({"id": "m1", "tenant": "acme", "phone_number_id": "1", "to": {"phone": "49"},
            "content": {"type": "text", "body": "hi"}, "origin": {"by": "api", "key": "k"}, "created_ms": 1});
        for (kind, more) in [
            (Record::REPLY_QUEUED, json!({})),
            (Record::REPLY_SENT, json!({"wamid": "w", "attempts": 2})),
            (
                Record::REPLY_SENT,
                json!({"wamid": "w", "attempts": 2, "known_as": {"phone": "50", "user_id": "US.1"}}),
            ),
            (
                Record::REPLY_FAILED,
                json!({"reason": "no", "ambiguous": true, "code": 131_026}),
            ),
            (
                Record::REPLY_FAILED,
                json!({"reason": "no", "ambiguous": false, "v": 9, "of": ["tomorrow"]}),
            ),
        ] {
            let mut record = json!({"type": kind, "command": command});
            let fields = record.as_object_mut().unwrap();
            fields.extend(more.as_object().unwrap().clone());
            let bytes = record.to_string().into_bytes();
            let whole = stored::decode::<Record>(&bytes).unwrap();
            assert_eq!(Brief::read(&bytes).unwrap(), Brief::Reply(whole), "{kind}");
            for name in more
                .as_object()
                .unwrap()
                .keys()
                .filter(|name| !["code", "known_as"].contains(&name.as_str()))
            {
                let mut record = record.clone();
                record.as_object_mut().unwrap().remove(name);
                let bytes = record.to_string().into_bytes();
                let is_read = stored::decode::<Record>(&bytes).is_ok();
                assert_eq!(
                    Brief::read(&bytes).is_ok(),
                    is_read,
                    "{kind} without {name}"
                );
            }
        }
        let run = |kind: &str| json!({"type": kind, "flow": "f", "bot": "b", "run": "r", "variables": {"a": [1]}});
        let read = |record: Value| Brief::read(record.to_string().as_bytes());
        assert_eq!(read(run(Record::FLOW_STARTED)).unwrap(), Brief::Run);
        assert_eq!(read(run(Record::FLOW_COMPLETED)).unwrap(), Brief::Run);
        assert_eq!(read(run(Record::FLOW_RESULT)).unwrap(), Brief::Result);
        for none in [
            run("from_the_future"),
            json!({"type": Record::REPLY_QUEUED}),
            json!("text"),
            json!({}),
        ] {
            assert!(read(none).is_err());
        }
    }
}
