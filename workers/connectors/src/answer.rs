//! What agents do on its way back: from the CRM's webhook to the send command and to whose the conversation is.
//!
//! Storing both is left to the caller, which answers the webhook only then; a webhook that comes twice gives the
//! same and is stored once.

use super::Thread;
use super::hook::{self, AgentMessage, HookContact, HookError, Part, Release, is_wamid};
use super::known::{Attempt, Fate, KnownMessage, KnownMessages};
use super::link::{LinkedPeople, LinkedPerson, LinkedPersonError, Route};
use ackline_message::check_command;
use ackline_message::{Content, Recipient, SendCommand};
use ackline_runtime::conversation::Event;
use ackline_runtime::platform::Platform;
use ackline_shared::ids::PhoneNumberId;
use ackline_shared::model::CrmLink;
use ackline_shared::vault::VaultError;
use std::time::Duration;

/// A webhook as it arrived at a link's address.
#[derive(Debug, Clone, Copy)]
pub struct Arrived<'a> {
    pub timestamp: Option<&'a str>,
    pub signature: Option<&'a str>,
    pub body: &'a [u8],
}

/// Why an answer is not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The webhook is not genuine (401).
    #[error(transparent)]
    Forged(#[from] HookError),
    /// It cannot be sent; the CRM shows the words to the agent (422).
    #[error("{0}")]
    Unsendable(String),
    /// The link's secret does not open (500).
    #[error(transparent)]
    Secret(#[from] VaultError),
    /// The way back could not be looked up; the webhook may be sent again (503).
    #[error(transparent)]
    Place(#[from] LinkedPersonError),
}

const NO_ADDRESS: &str = "the contact has no phone number; enter it with its country code, such as +49 151 23456789, and send again";
const NO_NUMBER: &str = "it is not known which WhatsApp number this conversation belongs to; the person has to write once more";

const A_GROUP: &str = "this is a WhatsApp group, and groups are not written to from here";

/// What a webhook asks for.
#[derive(Debug, Default)]
pub struct Asked {
    /// The messages that are sent, in order.
    pub commands: Vec<SendCommand>,
    /// What it says of whose a conversation is: of a number with a person.
    pub turn: Option<(PhoneNumberId, Recipient, Event)>,
}

/// Tells what a webhook asks for; flows rest for a while in a conversation in which an agent answered.
pub async fn read(
    platform: &Platform,
    link: &CrmLink,
    arrived: Arrived<'_>,
    rest: Duration,
    now_ms: u64,
) -> Result<Asked, AnswerError> {
    let secret = link
        .webhook_secret
        .as_ref()
        .map(|field| platform.open(link, field))
        .transpose()?;
    hook::verify(
        secret.as_ref(),
        arrived.timestamp,
        arrived.signature,
        arrived.body,
        now_ms,
    )?;
    if let Some(release) = Release::parse(arrived.body) {
        return released(platform, link, &release, now_ms).await;
    }
    let message = hook::parse(arrived.body)
        .filter(|message| message.is_for(link) && !message.is_stale(now_ms));
    match message {
        Some(message) => written(platform, link, message, rest, now_ms).await,
        None => Ok(Asked::default()),
    }
}

async fn written(
    platform: &Platform,
    link: &CrmLink,
    mut message: AgentMessage,
    rest: Duration,
    now_ms: u64,
) -> Result<Asked, AnswerError> {
    let known = KnownMessages::new(platform.buckets.sessions.clone());
    let parts = due(&known, link, &message).await?;
    if parts.is_empty() {
        return Ok(Asked::default());
    }
    if let Some(words) = message.refusal() {
        return Err(AnswerError::Unsendable(words));
    }
    let route = route_of(platform, link, &message, now_ms).await?;
    if route.to == Recipient::default() {
        return Err(AnswerError::Unsendable(A_GROUP.to_owned()));
    }
    if let (None, Some(quoted)) = (&message.reply_to, message.quotes) {
        let quoted = known.of_message(link, quoted, 0).await?;
        message.reply_to = quoted
            .and_then(|quoted| quoted.wamid)
            .filter(|id| is_wamid(id));
    }
    let mut commands = Vec::with_capacity(parts.len());
    for (part, content) in parts {
        let command = hook::command(link, &route, &message, (part, content), now_ms);
        check_command(&command).map_err(|refused| AnswerError::Unsendable(refused.to_string()))?;
        commands.push(command.clone());
        let on_its_way = KnownMessage {
            message: message.message_id,
            conversation: message.conversation_id.unwrap_or_default(),
            part: part.number,
            wamid: None,
            command: Some(command.id),
            source_id: None,
            fate: Fate::Pending,
            retries: part.retries,
            written_ms: now_ms,
        };
        known.save(link, &on_its_way).await?;
    }
    let turn = message.by_person.then(|| {
        let at_ms = message
            .written_ms
            .map_or(now_ms, |written| written.min(now_ms));
        (
            route.number,
            route.to,
            Event::Answered {
                link: link.id.to_string(),
                at_ms,
                rest,
            },
        )
    });
    Ok(Asked { commands, turn })
}

/// Which of the messages that an agent's message becomes are to be sent, by what is known of each.
async fn due(
    known: &KnownMessages,
    link: &CrmLink,
    message: &AgentMessage,
) -> Result<Vec<(Part, Content)>, LinkedPersonError> {
    let mut due = Vec::new();
    for (number, content) in (0..).zip(message.messages()) {
        let before = known.of_message(link, message.message_id, number).await?;
        if let Attempt::Send(retries) = Attempt::choose(message.is_update, before.as_ref()) {
            due.push((Part { number, retries }, content));
        }
    }
    Ok(due)
}

/// The way to the person of a conversation. One that an agent began is remembered, so that the person's answer comes
/// into it.
async fn route_of(
    platform: &Platform,
    link: &CrmLink,
    message: &AgentMessage,
    now_ms: u64,
) -> Result<Route, AnswerError> {
    let places = LinkedPeople::new(platform.buckets.sessions.clone());
    let known = places.of_source(link, &message.source_id).await?;
    let known = known.filter(|known| message.contact.agrees(&message.source_id, known));
    let route = route(platform, link, &message.source_id, &message.contact).await?;
    let route = route.map_err(|words| AnswerError::Unsendable(words.to_owned()))?;
    let thread = message.contact.id.zip(message.conversation_id);
    if let (None, Some((contact, conversation))) = (known, thread) {
        let place = LinkedPerson {
            source_id: message.source_id.clone(),
            thread: Thread {
                contact,
                conversation,
            },
            number: route.number.clone(),
            phone: route.to.phone.clone(),
            user_id: route.to.user_id.clone(),
            others: Vec::new(),
            // An agent gave it its name.
            named: true,
            written_ms: now_ms,
        };
        places.save(link, &place).await?;
    }
    Ok(route)
}

async fn released(
    platform: &Platform,
    link: &CrmLink,
    release: &Release,
    now_ms: u64,
) -> Result<Asked, AnswerError> {
    if !release.is_for(link) {
        return Ok(Asked::default());
    }
    // Whoever never wrote to a number of ours has no conversation to be released.
    let Ok(route) = route(platform, link, &release.source_id, &release.contact).await? else {
        return Ok(Asked::default());
    };
    let at_ms = release.at_ms.map_or(now_ms, |at_ms| at_ms.min(now_ms));
    let event = Event::Released {
        link: link.id.to_string(),
        at_ms,
        to_bot: release.to_bot,
    };
    Ok(Asked {
        commands: Vec::new(),
        turn: Some((route.number, route.to, event)),
    })
}

/// The way to a person, or why there is none.
async fn route(
    platform: &Platform,
    link: &CrmLink,
    source_id: &str,
    contact: &HookContact,
) -> Result<Result<Route, &'static str>, LinkedPersonError> {
    let places = LinkedPeople::new(platform.buckets.sessions.clone());
    let to = contact.address(source_id);
    let place = places.of_source(link, source_id).await?;
    let mut place = place.filter(|place| contact.agrees(source_id, place));
    if place.is_none() {
        place = place_of(&places, link, to.as_ref()).await?;
    }
    let Some(to) = to.or_else(|| place.as_ref().map(LinkedPerson::recipient)) else {
        return Ok(Err(NO_ADDRESS));
    };
    let route = Route::back(&platform.snapshot(), link, place.as_ref(), &to);
    Ok(route.ok_or(NO_NUMBER))
}

/// The place of whoever has this address.
async fn place_of(
    places: &LinkedPeople,
    link: &CrmLink,
    to: Option<&Recipient>,
) -> Result<Option<LinkedPerson>, LinkedPersonError> {
    let Some(to) = to else {
        return Ok(None);
    };
    for id in [&to.phone, &to.user_id].into_iter().flatten() {
        if let Some(place) = places.of_source(link, id).await? {
            return Ok(Some(place));
        }
    }
    Ok(None)
}
