//! What agents do on its way back: from the CRM's webhook to the send command and to whose the conversation is.
//!
//! Storing both is left to the caller, which answers the webhook only then; a webhook that comes twice gives the
//! same and is stored once.

use super::hook::{self, HookError, Release};
use super::link::{LinkedPeople, LinkedPersonError, Route};
use ackline_message::check_command;
use ackline_message::{Recipient, SendCommand};
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

const NO_NUMBER: &str = "it is not known which WhatsApp number this conversation belongs to; the person has to write once more";

const A_GROUP: &str = "this is a WhatsApp group, and groups are not written to from here";

/// What a webhook asks for.
#[derive(Debug, Default)]
pub struct Asked {
    pub command: Option<SendCommand>,
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
    let Some(message) = hook::parse(arrived.body).filter(|message| message.is_for(link)) else {
        return Ok(Asked::default());
    };
    if let Some(words) = message.refusal() {
        return Err(AnswerError::Unsendable(words));
    }
    let route = route(platform, link, &message.source_id).await?;
    let route = route.ok_or_else(|| AnswerError::Unsendable(NO_NUMBER.to_owned()))?;
    if route.to == Recipient::default() {
        return Err(AnswerError::Unsendable(A_GROUP.to_owned()));
    }
    let command = hook::command(link, &route, &message, now_ms);
    check_command(&command).map_err(|refused| AnswerError::Unsendable(refused.to_string()))?;
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
    Ok(Asked {
        command: Some(command),
        turn,
    })
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
    let Some(route) = route(platform, link, &release.source_id).await? else {
        return Ok(Asked::default());
    };
    let at_ms = release.at_ms.map_or(now_ms, |at_ms| at_ms.min(now_ms));
    let event = Event::Released {
        link: link.id.to_string(),
        at_ms,
        to_bot: release.to_bot,
    };
    Ok(Asked {
        command: None,
        turn: Some((route.number, route.to, event)),
    })
}

async fn route(
    platform: &Platform,
    link: &CrmLink,
    source_id: &str,
) -> Result<Option<Route>, LinkedPersonError> {
    let places = LinkedPeople::new(platform.buckets.sessions.clone());
    let place = places.of_source(link, source_id).await?;
    Ok(Route::back(
        &platform.snapshot(),
        link,
        place.as_ref(),
        source_id,
    ))
}
