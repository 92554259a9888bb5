//! What a piece of work is to the flows: something to answer, something that tells who has the conversation, or nothing.

use ackline_flow::update::{CallOutcome, Contact, Message, Update};
use ackline_message::{Recipient, Record};
use ackline_runtime::conversation::Event;
use ackline_runtime::job::Work;
use ackline_shared::clock::now_ms;
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::UpdateId;
use ackline_shared::meta::{self, Body, Incoming, ReadError, incoming};
use ackline_shared::stored;
use ackline_shared::subjects;
use serde_json::{Map, Value, json};

/// The messages that may tell of a person's new ids.
const RENAMING: &str = "message.system";

/// What a piece of work is.
pub(super) enum Input {
    /// Something to answer, if the conversation is ours.
    Update(Box<Update>, Heard),
    /// Something that tells of a person's conversation whose it is.
    OwnerEvent(Recipient, Event),
    /// Somebody has other ids from now on.
    Renamed(Renamed),
    Nothing,
}

/// The ids that a person had and has.
#[derive(Debug)]
pub(super) struct Renamed {
    pub formerly: Recipient,
    pub now: Recipient,
    /// When they changed, in unix milliseconds: the end of the second that Meta names.
    pub at_ms: u64,
}

/// When something to answer was written, for what a person wrote, and when it was received.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    pub at_ms: Option<u64>,
    pub received_ms: u64,
}

/// Whether an update may be for a bot to answer, as far as its head tells.
pub(super) fn may_be_answered(head: &Head) -> bool {
    // Whoever speaks in a group speaks to all who are in it.
    let is_private = head.conversation.as_group().is_none();
    is_private && (head.family == Family::Record || (is_spoken(head) && head.field.is_none()))
}

/// Whether an update may tell that a person has other ids from now on, as far as its head tells.
pub(super) fn may_rename(head: &Head) -> bool {
    head.kind == RENAMING && head.field.is_none() && !is_past(head)
}

/// Whether an update tells who has its conversation, as far as its head tells.
pub(super) fn concerns_owner(head: &Head) -> bool {
    head.family != Family::Record
        && !is_past(head)
        && match head.field.as_deref() {
            Some(meta::STANDBY) => is_spoken(head),
            Some(meta::HANDOVERS) => true,
            _ => false,
        }
}

/// The past, put before the flows again, tells nothing of now.
fn is_past(head: &Head) -> bool {
    let replay = head.replay.as_ref();
    replay.is_some_and(|replay| !replay.of.starts_with(subjects::DEAD))
}

fn is_spoken(head: &Head) -> bool {
    let kind = head.kind.strip_prefix("message.");
    kind.is_some_and(incoming::is_speech)
}

/// Why a piece of work cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("not a record: {0}")]
    Record(serde_json::Error),
    #[error("not the outcome of a call: {0}")]
    Outcome(serde_json::Error),
    #[error(transparent)]
    Update(#[from] ReadError),
    #[error("the edge took it for a {0}, and there is no message in it")]
    NoMessage(String),
}

/// Reads a piece of work.
pub(super) fn read(work: &Work) -> Result<Input, Unreadable> {
    let received_ms = work.head.received_ms;
    // Who puts it before the flows again wants it to be answered now.
    let heard = |at_ms| Heard {
        at_ms,
        received_ms: if work.head.replay.is_some() {
            now_ms()
        } else {
            received_ms
        },
    };
    if work.head.family == Family::Record {
        let record = stored::decode(&work.payload).map_err(Unreadable::Record)?;
        let Record::FlowResult { effect, outcome } = record else {
            return Ok(Input::Nothing);
        };
        let outcome: CallOutcome = serde_json::from_value(outcome).map_err(Unreadable::Outcome)?;
        let update = Update::EffectDone {
            effect_id: effect,
            outcome,
        };
        return Ok(Input::Update(Box::new(update), heard(None)));
    }
    let update = meta::read(&work.payload)?;
    if let Some(handover) = update.handover() {
        let role = |role: &Option<String>| role.as_deref().unwrap_or("unknown").to_owned();
        let event = Event::Handover {
            is_gained: handover.is_gained,
            roles: format!(
                "{} to {}",
                role(&handover.previous_role),
                role(&handover.new_role)
            ),
            at_ms: meta::happened_ms(handover.timestamp, received_ms),
        };
        return Ok(Input::OwnerEvent(handover.person, event));
    }
    let (is_ours, is_standby) = (update.is_ours(), update.is_standby());
    let message = match update.body {
        Body::Message(message) => message,
        _ if work.head.kind.starts_with("message.") => {
            return Err(Unreadable::NoMessage(work.head.kind.clone()));
        }
        _ => return Ok(Input::Nothing),
    };
    let at_ms = meta::happened_ms(message.timestamp, received_ms);
    if is_standby {
        return Ok(Input::OwnerEvent(message.from, Event::Overheard { at_ms }));
    }
    if !is_ours || message.group_id.is_some() {
        return Ok(Input::Nothing);
    }
    if may_rename(&work.head) {
        let now = message.from;
        let renamed = message.formerly.map(|formerly| Renamed {
            formerly,
            now,
            at_ms: at_ms.saturating_add(999),
        });
        return Ok(renamed.map_or(Input::Nothing, Input::Renamed));
    }
    if !message.content.is_speech() {
        return Ok(Input::Nothing);
    }
    let more = more(&message.content);
    let is_worded = message.content.text.is_some();
    let line = (!is_worded).then(|| message.content.line());
    let content = message.content;
    let pressed = content.payload_id.is_some();
    let text = content.text.unwrap_or_default();
    let update = Update::Message(Message {
        id: identity(&work.head),
        kind: content.kind,
        title: pressed.then(|| text.clone()),
        text: if pressed { String::new() } else { text },
        payload_id: content.payload_id,
        more,
        line: line.unwrap_or_default(),
        contact: Contact {
            name: message.name,
            phone: message.from.phone,
            user_id: message.from.user_id,
        },
    });
    Ok(Input::Update(Box::new(update), heard(Some(at_ms))))
}

/// What a message holds beyond its text and what was pressed, as templates see it.
fn more(content: &Incoming) -> Map<String, Value> {
    let members = [
        ("media", json!(content.media)),
        ("details", json!(content.details)),
        ("context", json!(content.context)),
        ("referral", json!(content.referral)),
    ];
    let there = members.into_iter().filter(|(_, value)| !value.is_null());
    there
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// What the session knows the update by: a replayed dead letter is the update it was, so that only the effects
/// it still lacks take place; a replay of the past is a new one.
fn identity(head: &Head) -> UpdateId {
    let is_letter = head
        .replay
        .as_ref()
        .is_some_and(|replay| replay.of.starts_with(subjects::DEAD));
    if is_letter {
        head.original_id().clone()
    } else {
        head.id.clone()
    }
}
