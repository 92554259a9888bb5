//! An agent's answer on its way back: from the CRM's webhook to the send command that the API stores.
//!
//! Storing the command is left to the caller, which answers the webhook only then; a webhook that comes
//! twice gives the same command and is stored once.

use super::hook::{self, HookError};
use super::link::{PlaceError, Places, Route};
use crate::platform::Platform;
use ackline_shared::command::SendCommand;
use ackline_shared::model::CrmLink;
use ackline_shared::vault::VaultError;

/// A webhook as it arrived at a link's address.
#[derive(Debug, Clone, Copy)]
pub struct Arrived<'a> {
    /// The header [`hook::TIMESTAMP_HEADER`].
    pub timestamp: Option<&'a str>,
    /// The header [`hook::SIGNATURE_HEADER`].
    pub signature: Option<&'a str>,
    /// The exact bytes.
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
    Unsendable(&'static str),
    /// The link's secret does not open (500).
    #[error(transparent)]
    Secret(#[from] VaultError),
    /// The way back could not be looked up; the webhook may be sent again (503).
    #[error(transparent)]
    Place(#[from] PlaceError),
}

const NO_NUMBER: &str =
    "it is not known which WhatsApp number this conversation belongs to; the person has to write once more";

/// Turns a webhook into the command to store; `None` when there is nothing to send.
pub async fn to_command(
    platform: &Platform,
    link: &CrmLink,
    arrived: Arrived<'_>,
    now_ms: u64,
) -> Result<Option<SendCommand>, AnswerError> {
    let secret = link.webhook_secret.as_ref().map(|field| platform.open(link, field)).transpose()?;
    hook::verify(secret.as_ref(), arrived.timestamp, arrived.signature, arrived.body, now_ms)?;
    let Some(message) = hook::parse(arrived.body).filter(|message| message.is_for(link)) else {
        return Ok(None);
    };
    if let Some(words) = message.refusal() {
        return Err(AnswerError::Unsendable(words));
    }
    let places = Places::new(platform.buckets.sessions.clone());
    let place = places.of_source(link, &message.source_id).await?;
    let route = Route::back(&platform.snapshot(), link, place.as_ref(), &message.source_id);
    let route = route.ok_or(AnswerError::Unsendable(NO_NUMBER))?;
    Ok(Some(hook::command(link, &route, &message, now_ms)))
}
