//! Turns descriptions of messages and statuses into one webhook body, within Meta's batch limits.

use super::entry::{Author, SeenMessage};
use super::errors::status_error;
use super::incoming::{IncomingMessage, Picture};
use super::mint::Direction;
use super::payload::{self, Status, StatusKind};
use super::simulator::{SentMessage, Simulator};
use super::{escape, media};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

/// Most updates Meta puts into one webhook.
pub const UPDATES_MAX: usize = 1000;
/// Largest webhook body Meta sends.
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// A webhook with any number of entries.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    pub entries: Vec<EntrySpec>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EntrySpec {
    /// The business account; that of the first change's number when absent.
    pub waba_id: Option<String>,
    /// Unix seconds; set on account-level entries when absent.
    pub time: Option<u64>,
    pub changes: Vec<ChangeSpec>,
}

/// One `changes[]` element: messages and statuses of one number, or any other field with its value.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChangeSpec {
    /// The number; the simulator's first one when absent.
    pub phone_number_id: Option<String>,
    pub messages: Vec<IncomingMessage>,
    /// Statuses of messages to people.
    pub statuses: Vec<StatusSpec>,
    /// Whether another responder has the conversations, so that they come under the field `standby`.
    pub standby: bool,
    /// Another field, such as `account_update`.
    pub field: Option<String>,
    /// That field's value, passed on as it is.
    pub value: Option<Value>,
}

/// One status; for a message sent through this simulator only id and status are needed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusSpec {
    pub message_id: String,
    pub status: StatusKind,
    /// The recipient's phone number, for a message this simulator does not know.
    pub to: Option<String>,
    /// The recipient's user id, for a message this simulator does not know.
    pub user_id: Option<String>,
    /// Unix seconds; now when absent.
    pub timestamp: Option<u64>,
    /// The sender's reference; the one sent with the message when absent.
    pub biz_opaque_callback_data: Option<String>,
    /// The code of a failure, 131000 when absent.
    pub code: Option<u32>,
}

/// Why a batch cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadBatch {
    #[error("the batch holds no update")]
    Empty,
    /// More than Meta sends at once.
    #[error("{0} updates are more than the {UPDATES_MAX} Meta sends at once")]
    TooMany(usize),
    #[error("{0} bytes are more than the {BODY_BYTES_MAX} Meta sends at once")]
    TooLarge(usize),
    /// A person without any address.
    #[error(
        "a message needs `from` or `user_id`, and a status of an unknown message `to` or `user_id`"
    )]
    Nobody,
    /// Not the shape of a user id.
    #[error("`{0}` is not a business-scoped user id such as US.13491208655302741918")]
    NotAUser(String),
    #[error("a change has `field` and `value`, or `messages` and `statuses`")]
    Change,
    /// A picture that was never uploaded.
    #[error("no media `{0}`; upload it first")]
    NoMedia(String),
}

/// A body ready to be posted.
#[derive(Debug, Default)]
pub struct Composed {
    pub body: Bytes,
    /// How many updates they carry.
    pub updates: usize,
    /// The conversation, when there is exactly one.
    pub conversation: Option<String>,
    /// The messages its updates are about, in order.
    pub message_ids: Vec<String>,
    /// The messages as the people see them.
    pub seen: Vec<SeenMessage>,
}

/// Makes the body of a batch, entering its people in the directory.
pub fn compose(sim: &Simulator, batch: &Batch) -> Result<Composed, BadBatch> {
    let changes = || batch.entries.iter().flat_map(|entry| &entry.changes);
    let updates = changes().map(count).sum();
    match updates {
        0 => return Err(BadBatch::Empty),
        more if more > UPDATES_MAX => return Err(BadBatch::TooMany(more)),
        _ => {}
    }
    let mut made = Made::default();
    let mut entries = Vec::with_capacity(batch.entries.len());
    for entry in &batch.entries {
        let mut changes = Vec::with_capacity(entry.changes.len());
        for change in &entry.changes {
            changes.push(made.change(sim, change)?);
        }
        let number = entry.changes.first().and_then(|change| change.number());
        let waba_id = entry
            .waba_id
            .clone()
            .unwrap_or_else(|| sim.number(number).waba_id);
        let account = entry.changes.iter().any(|change| change.field.is_some());
        let time = entry.time.or_else(|| account.then(|| sim.unix_seconds()));
        entries.push(payload::entry(&waba_id, time, changes));
    }
    let body = Bytes::from(escape::to_wire(&payload::envelope(entries)));
    if body.len() > BODY_BYTES_MAX {
        return Err(BadBatch::TooLarge(body.len()));
    }
    made.conversations.sort();
    made.conversations.dedup();
    let conversation = made
        .conversations
        .pop()
        .filter(|_| made.conversations.is_empty());
    Ok(Composed {
        body,
        updates,
        conversation,
        message_ids: made.message_ids,
        seen: made.seen,
    })
}

fn count(change: &ChangeSpec) -> usize {
    change.messages.len() + change.statuses.len() + usize::from(change.field.is_some())
}

impl ChangeSpec {
    fn number(&self) -> Option<&str> {
        let of_message = || {
            self.messages
                .first()
                .and_then(|m| m.sender.phone_number_id.as_deref())
        };
        self.phone_number_id.as_deref().or_else(of_message)
    }
}

#[derive(Default)]
struct Made {
    conversations: Vec<String>,
    message_ids: Vec<String>,
    seen: Vec<SeenMessage>,
}

impl Made {
    fn change(&mut self, sim: &Simulator, spec: &ChangeSpec) -> Result<Value, BadBatch> {
        match (&spec.field, &spec.value) {
            (Some(field), Some(value)) if spec.messages.is_empty() && spec.statuses.is_empty() => {
                return Ok(payload::change(field, value.clone()));
            }
            (None, None) => {}
            _ => return Err(BadBatch::Change),
        }
        let number = sim.number(spec.number());
        let metadata = payload::metadata(&number.display_phone_number, &number.phone_number_id);
        let (mut contacts, mut messages, mut statuses) = (Vec::new(), Vec::new(), Vec::new());
        for message in &spec.messages {
            let (contact, message) = self.message(sim, &number, message)?;
            contacts.extend(contact);
            messages.push(message);
        }
        for status in &spec.statuses {
            let (contact, status) = self.status(sim, status)?;
            contacts.extend(contact);
            statuses.push(status);
        }
        let value = payload::messaging_value(metadata, contacts, messages, statuses);
        Ok(payload::change(
            if spec.standby { "standby" } else { "messages" },
            value,
        ))
    }

    fn message(
        &mut self,
        sim: &Simulator,
        number: &super::Number,
        message: &IncomingMessage,
    ) -> Result<(Option<Value>, Value), BadBatch> {
        let sender = &message.sender;
        let (phone, user) = named(sender.from.as_deref(), sender.user_id.as_deref())?;
        let picture = picture(sim, message.content.media_id().unwrap_or(media::SAMPLE_ID))?;
        let (person, id) = {
            let mut people = sim.people();
            let mut person = people.meet(phone, user, sender.name.as_deref());
            if let Some(hides) = sender.hide_phone {
                people.set_hides_phone(&person.user_id, hides);
                person.hides_phone = hides;
            }
            let id = sender.wamid.clone();
            let id = id.unwrap_or_else(|| sim.mint().wamid(person.address(), Direction::In));
            people.hear(&number.phone_number_id, &person.user_id, &id, sim.now());
            (person, id)
        };
        let context = sender.context.as_ref();
        let context = context.map(|id| json!({"from": number.display_phone_number, "id": id}));
        let timestamp = sender.timestamp.unwrap_or_else(|| sim.unix_seconds());
        let content = (&message.content, &picture);
        let element = payload::message(&person, &id, timestamp, context, content);
        self.message_ids.push(id.clone());
        self.seen.push(SeenMessage {
            conversation: person.user_id.clone(),
            phone_number_id: number.phone_number_id.clone(),
            author: Author::User,
            message_id: id,
            kind: message.content.kind().to_owned(),
            text: message.content.summary(),
            biz_opaque_callback_data: None,
            content: message.content.payload(&picture),
        });
        self.conversations.push(person.user_id.clone());
        let contact = (message.content.kind() != "system").then(|| payload::contact(&person));
        Ok((contact, element))
    }

    fn status(
        &mut self,
        sim: &Simulator,
        spec: &StatusSpec,
    ) -> Result<(Option<Value>, Value), BadBatch> {
        let sent = match sim.sent(&spec.message_id) {
            Some(sent) => sent,
            None => {
                let (phone, user) = named(spec.to.as_deref(), spec.user_id.as_deref())?;
                let person = sim.people().meet(phone, user, None);
                SentMessage {
                    person,
                    sent_to_phone: phone.is_some(),
                    ..SentMessage::default()
                }
            }
        };
        let failed = spec.status == StatusKind::Failed;
        let element = payload::status(&Status {
            message_id: &spec.message_id,
            kind: spec.status,
            timestamp: spec.timestamp.unwrap_or_else(|| sim.unix_seconds()),
            person: &sent.person,
            sent_to_phone: sent.sent_to_phone,
            opaque: spec
                .biz_opaque_callback_data
                .as_deref()
                .or(sent.opaque.as_deref()),
            template: sent.template,
            error: failed.then(|| status_error(spec.code.unwrap_or(131_000))),
        });
        self.message_ids.push(spec.message_id.clone());
        self.conversations.push(sent.person.user_id.clone());
        Ok(((!failed).then(|| payload::contact(&sent.person)), element))
    }
}

fn named<'a>(
    phone: Option<&'a str>,
    user: Option<&'a str>,
) -> Result<(Option<&'a str>, Option<&'a str>), BadBatch> {
    let phone = phone.filter(|phone| phone.bytes().any(|b| b.is_ascii_digit()));
    if let Some(user) = user.filter(|user| !super::validate::is_user_id(user)) {
        return Err(BadBatch::NotAUser(user.to_owned()));
    }
    if phone.is_none() && user.is_none() {
        Err(BadBatch::Nobody)
    } else {
        Ok((phone, user))
    }
}

fn picture(sim: &Simulator, id: &str) -> Result<Picture, BadBatch> {
    let file = sim
        .media()
        .get(id)
        .ok_or_else(|| BadBatch::NoMedia(id.to_owned()))?;
    let url = sim.media_url(id);
    Ok(Picture {
        id: id.to_owned(),
        mime_type: file.mime_type,
        sha256: file.sha256,
        url,
    })
}
