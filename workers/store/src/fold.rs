//! What one piece of the log means for the read model; pure.
//!
//! Every record of a reply carries its whole command, so a message can be written from whichever of its
//! records comes first. What says nothing about conversations folds to nothing.

use super::progress::{Fault, Status, Step};
use super::usual;
use super::write::json;
use ackline_message::{Brief, Recipient, Record, SendCommand};
use ackline_runtime::job::Work;
use ackline_shared::envelope::Family;
use ackline_shared::ids::{ConversationKey, short_hash};
use ackline_shared::meta::{self, Body, Message, Update};
use ackline_shared::spelling;
use ackline_shared::subjects::Class;

const TEXT_CHARS_MAX: usize = 4096;

/// What stands for the origin of a message in a conversation that another responder has.
pub const BY_STANDBY: &str = "standby";
/// What stands for the origin of a message that was sent from the Business app.
pub const BY_APP: &str = "app";

/// What is to be written.
#[derive(Debug, Clone, PartialEq)]
pub enum JournalEntry {
    /// A message, or more about one.
    Message(Box<MessageEntry>),
    /// A status of a message that was sent.
    Status(Box<StatusEntry>),
    /// Something else that happened in a conversation, which may have begun with it.
    Contact(Box<ContactEntry>),
    Nothing,
}

/// A message as one piece of the log tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageEntry {
    pub id: String,
    pub phone_number_id: String,
    /// Who is on the other side.
    pub person: Person,
    /// Whether it tells more ids of them than the message was known to go to.
    pub tells_ids: bool,
    pub direction: Direction,
    /// Its type, such as `text`.
    pub kind: String,
    /// What a person reads of it.
    pub text: Option<String>,
    /// What stands for it in a list of conversations.
    pub preview: String,
    /// All of it as JSON, in Meta's shape for incoming messages and in ours for outgoing ones.
    pub content: String,
    pub wamid: Option<String>,
    pub reply_to: Option<String>,
    /// Who asked for it as JSON, for messages we sent.
    pub origin: Option<String>,
    /// When it was written, in unix milliseconds.
    pub created_ms: u64,
    /// When we had it, in unix milliseconds.
    pub received_ms: u64,
    /// Its place in the log.
    pub sequence: u64,
    /// What this says about its progress.
    pub step: Step,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ContactEntry {
    pub phone_number_id: String,
    /// Who is on the other side.
    pub person: Person,
    /// When we had it, in unix milliseconds.
    pub received_ms: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct StatusEntry {
    /// Meta's id of the message.
    pub wamid: String,
    /// Our id of it, when Meta repeated it.
    pub message: Option<String>,
    /// The business number, when it is told.
    pub phone_number_id: Option<String>,
    pub person: Person,
    pub step: Step,
    /// When we had it, in unix milliseconds.
    pub received_ms: u64,
}

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// A person wrote to the business.
    In,
    /// The business wrote to a person.
    Out,
}

impl Direction {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// Who is on the other side: a person by one or two ids and a name, or a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Person {
    pub user_id: Option<String>,
    pub phone: Option<String>,
    /// The group, when it is one; then the other ids are absent.
    pub group_id: Option<String>,
    /// The name in the profile.
    pub name: Option<String>,
    /// Ids that they are known not to have any more, or to be known by as well.
    pub formerly: Option<Recipient>,
}

impl Person {
    fn new(recipient: &Recipient, key: &ConversationKey, name: Option<String>) -> Self {
        if let Some(group) = key.as_str().strip_prefix("g:") {
            return Self {
                group_id: Some(group.to_owned()),
                ..Self::default()
            };
        }
        let owned = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Self {
            user_id: recipient
                .user_id
                .clone()
                .or_else(|| key.as_user().and_then(owned)),
            phone: recipient
                .phone
                .as_deref()
                .or(key.as_phone())
                .and_then(|phone| owned(phone.trim_start_matches('+'))),
            group_id: None,
            name,
            formerly: None,
        }
    }

    /// Whether a user id is theirs, or was.
    pub fn is_user(&self, user_id: &str) -> bool {
        let formerly = self.formerly.as_ref();
        let ids = [
            self.user_id.as_deref(),
            formerly.and_then(|formerly| formerly.user_id.as_deref()),
        ];
        ids.contains(&Some(user_id))
    }

    /// The keys a conversation with them is found by; the first decides.
    pub fn keys(&self) -> Vec<ConversationKey> {
        let group = self.group_id.as_deref().map(ConversationKey::group);
        let now = Recipient {
            user_id: self.user_id.clone(),
            phone: self.phone.clone(),
        };
        let formerly = self.formerly.iter().flat_map(Recipient::keys);
        let keys: Vec<_> = group
            .into_iter()
            .chain(now.keys())
            .chain(formerly)
            .collect();
        if keys.is_empty() {
            vec![ConversationKey::none()]
        } else {
            keys
        }
    }

    /// Whether anything tells who it is.
    pub fn is_somebody(&self) -> bool {
        [&self.group_id, &self.user_id, &self.phone]
            .into_iter()
            .any(Option::is_some)
    }
}

/// Why something of the log cannot be written, now or later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// An update that is not an envelope.
    #[error(transparent)]
    Update(#[from] meta::ReadError),
    /// A record that does not parse.
    #[error("the record does not parse: {0}")]
    Record(String),
    /// The edge took it for a message.
    #[error("there is no message in it")]
    NoMessage,
    /// The edge took it for a status.
    #[error("there is no status of a message in it")]
    NoStatus,
    #[error("the message names no business number")]
    NoNumber,
}

/// Says what a piece of the log means, in order.
pub fn fold(work: &Work) -> Result<Vec<JournalEntry>, FoldError> {
    let means = match work.head.family {
        Family::Update(Class::Message) => fold_message(work, meta::read(&work.payload)?)?,
        Family::Update(Class::Status) => match usual::status(&work.payload) {
            Some(update) => fold_status(work, update)?,
            None => fold_status(work, meta::read(&work.payload)?)?,
        },
        Family::Record => {
            let brief = Brief::read(&work.payload);
            match brief.map_err(|error| FoldError::Record(error.to_string()))? {
                Brief::Step(commands) if !commands.is_empty() => {
                    let queued = commands.into_iter().map(|command| queued(work, command));
                    return Ok(queued.collect());
                }
                brief => fold_record(work, brief),
            }
        }
        Family::Update(Class::Account) | Family::Command(_) => JournalEntry::Nothing,
    };
    Ok(vec![means])
}

fn fold_message(work: &Work, update: Update) -> Result<JournalEntry, FoldError> {
    let number = number_of(work, &update);
    if let Some(reported) = update.handover() {
        return Ok(contact(work, number, &reported.person));
    }
    let by_standby = update
        .is_standby()
        .then(|| serde_json::json!({"by": BY_STANDBY}).to_string());
    if by_standby.is_some() && number.is_none() {
        // Of another responder's conversations, Meta may leave out with which number they are.
        return Ok(JournalEntry::Nothing);
    }
    let entry = match update.body {
        Body::Message(message) => incoming(work, number.ok_or(FoldError::NoNumber)?, *message),
        Body::Echo(echo) => echoed(work, number.ok_or(FoldError::NoNumber)?, *echo),
        Body::Other(_) if work.head.kind.starts_with("message.") => {
            return Err(FoldError::NoMessage);
        }
        Body::Other(_) => return Ok(JournalEntry::Nothing),
        Body::Status(_) => return fold_status(work, update),
    };
    let origin = by_standby.or(entry.origin);
    Ok(JournalEntry::Message(Box::new(MessageEntry {
        origin,
        ..entry
    })))
}

/// Where something happened that is no message: the conversation is there to be asked for.
fn contact(work: &Work, number: Option<String>, person: &Recipient) -> JournalEntry {
    let person = Person::new(person, &work.head.conversation, None);
    match number.filter(|_| person.is_somebody()) {
        Some(phone_number_id) => {
            let received_ms = work.head.received_ms;
            JournalEntry::Contact(Box::new(ContactEntry {
                phone_number_id,
                person,
                received_ms,
            }))
        }
        None => JournalEntry::Nothing,
    }
}

fn number_of(work: &Work, update: &Update) -> Option<String> {
    update
        .phone_number_id
        .clone()
        .or_else(|| work.head.phone.as_ref().map(ToString::to_string))
}

fn incoming(work: &Work, phone_number_id: String, message: Message) -> MessageEntry {
    let wamid = if message.id.is_empty() {
        work.head.id.as_str().to_owned()
    } else {
        message.id
    };
    let created_ms = meta::happened_ms(message.timestamp, work.head.received_ms);
    MessageEntry {
        id: id_of(work, &wamid),
        phone_number_id,
        person: Person {
            formerly: message.formerly.filter(|_| message.group_id.is_none()),
            ..Person::new(&message.from, &work.head.conversation, message.name)
        },
        tells_ids: false,
        direction: Direction::In,
        preview: cut(&message.content.line()),
        text: message.content.text.as_deref().map(cut),
        reply_to: message.content.context_id().map(str::to_owned),
        kind: message.content.kind,
        content: message.raw.to_string(),
        wamid: Some(wamid),
        origin: None,
        created_ms,
        received_ms: work.head.received_ms,
        sequence: work.sequence,
        step: Step {
            status: Status::Received,
            at_ms: work.head.received_ms,
            fault: None,
        },
    }
}

/// What somebody sent from the phone's own app; Meta tells us afterwards.
fn echoed(work: &Work, phone_number_id: String, echo: Message) -> MessageEntry {
    let entry = incoming(work, phone_number_id, echo);
    MessageEntry {
        direction: Direction::Out,
        origin: Some(serde_json::json!({"by": BY_APP}).to_string()),
        step: Step {
            status: Status::Accepted,
            at_ms: entry.created_ms,
            fault: None,
        },
        ..entry
    }
}

fn fold_status(work: &Work, update: Update) -> Result<JournalEntry, FoldError> {
    let phone_number_id = number_of(work, &update);
    let Body::Status(status) = update.body else {
        return Err(FoldError::NoStatus);
    };
    if status.id.is_empty() && status.callback_data.is_none() {
        return Err(FoldError::NoStatus);
    }
    let Some(known) = Status::of_meta(&status.status) else {
        return Ok(JournalEntry::Nothing);
    };
    let at_ms = meta::happened_ms(status.timestamp, work.head.received_ms);
    let fault = (known == Status::Failed).then(|| match status.errors.first() {
        Some(error) => Fault {
            at_ms,
            code: Some(error.code),
            reason: error.text.clone(),
        },
        None => Fault {
            at_ms,
            code: None,
            reason: "Meta gave no reason".to_owned(),
        },
    });
    Ok(JournalEntry::Status(Box::new(StatusEntry {
        wamid: status.id,
        message: status.callback_data,
        phone_number_id,
        person: Person::new(&status.recipient, &work.head.conversation, None),
        step: Step {
            status: known,
            at_ms,
            fault,
        },
        received_ms: work.head.received_ms,
    })))
}

fn fold_record(work: &Work, brief: Brief) -> JournalEntry {
    let at_ms = work.head.received_ms;
    let step = |status, fault| Step {
        status,
        at_ms,
        fault,
    };
    let record = match brief {
        Brief::Reply(record) => record,
        Brief::Step(_) | Brief::Run => return flow_contact(work),
        Brief::Result => return JournalEntry::Nothing,
    };
    match record {
        Record::ReplyQueued { command } => queued(work, *command),
        Record::ReplySent {
            command,
            wamid,
            known_as,
            ..
        } => {
            let accepted = step(Status::Accepted, None);
            let sent = outgoing(work, *command, Some(wamid), accepted);
            match known_as {
                Some(known_as) => also(sent, known_as),
                None => sent,
            }
        }
        Record::ReplyFailed {
            command,
            code,
            reason,
            ambiguous,
        } => {
            let status = if ambiguous {
                Status::Unknown
            } else {
                Status::Failed
            };
            let fault = Fault {
                at_ms,
                code,
                reason,
            };
            outgoing(work, *command, None, step(status, Some(fault)))
        }
        Record::FlowStarted { .. }
        | Record::FlowCompleted { .. }
        | Record::FlowStep { .. }
        | Record::FlowResult { .. } => JournalEntry::Nothing,
    }
}

/// A message whose receiver Meta knows by other ids, too.
fn also(entry: JournalEntry, known_as: Recipient) -> JournalEntry {
    match entry {
        JournalEntry::Message(mut message) => {
            let person = &mut message.person;
            let differs = |phone: &String| {
                let told = person.phone.as_deref();
                told.is_some_and(|told| !spelling::is_same(told, phone))
            };
            person.formerly = person
                .phone
                .clone()
                .filter(|_| known_as.phone.as_ref().is_some_and(differs))
                .map(|phone| Recipient {
                    user_id: None,
                    phone: Some(phone),
                });
            person.phone = known_as.phone.or_else(|| person.phone.take());
            person.user_id = person.user_id.take().or(known_as.user_id);
            message.tells_ids = true;
            JournalEntry::Message(message)
        }
        other => other,
    }
}

fn queued(work: &Work, command: SendCommand) -> JournalEntry {
    let step = Step {
        status: Status::Queued,
        at_ms: command.created_ms,
        fault: None,
    };
    outgoing(work, command, None, step)
}

/// The conversation that entered or left a flow.
fn flow_contact(work: &Work) -> JournalEntry {
    let number = work.head.phone.as_ref().map(ToString::to_string);
    let nobody_named = Recipient {
        user_id: None,
        phone: None,
    };
    contact(work, number, &nobody_named)
}

fn outgoing(work: &Work, command: SendCommand, wamid: Option<String>, step: Step) -> JournalEntry {
    let summary = cut(&command.content.summary());
    JournalEntry::Message(Box::new(MessageEntry {
        phone_number_id: command.phone_number_id.to_string(),
        person: Person::new(&command.to, &work.head.conversation, None),
        tells_ids: false,
        direction: Direction::Out,
        kind: command.content.kind().to_owned(),
        text: Some(summary.clone()),
        preview: summary,
        content: json(&command.content),
        wamid,
        reply_to: command.reply_to,
        origin: Some(json(&command.origin)),
        created_ms: command.created_ms,
        received_ms: command.created_ms,
        sequence: work.sequence,
        step,
        id: command.id,
    }))
}

/// Our id of a message Meta named; the same whenever it is seen, and safe in a path.
fn id_of(work: &Work, wamid: &str) -> String {
    format!(
        "m_{}",
        short_hash(format!("{}/{wamid}", work.head.tenant).as_bytes())
    )
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}
