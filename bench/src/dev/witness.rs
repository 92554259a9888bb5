//! What Meta and the customer saw, waited for with a deadline.

use crate::journal::{Ask, Journal, Numbered, Weigh};
use crate::meta::{self, Author, Outcome, SeenMessage, Simulator, WebhookAttempt};
use crate::sink::{self, Sink};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::time::Duration;

/// The longest anything may take; far more than it does, so that a slow machine is no failure.
pub const WITHIN: Duration = Duration::from_secs(30);

type Seen<T> = Vec<Numbered<T>>;

/// Waits for so many matching entries of a journal after an entry.
pub async fn entries<T: Weigh>(
    journal: &Journal<T>,
    what: &str,
    since: u64,
    count: usize,
    matches: impl Fn(&T) -> bool,
) -> Result<Seen<T>> {
    let ask = Ask {
        since,
        at_least: count,
        wait: WITHIN,
        ..Ask::default()
    };
    let found = journal.read(ask, matches).await.entries;
    if found.len() < count {
        bail!("{what}: {} of {count} within {WITHIN:?}", found.len());
    }
    Ok(found)
}

/// Waits for the end of a delivery: the attempt that was answered 200, or after which Meta gave up.
pub async fn ended(sim: &Simulator, delivery: u64) -> Result<Numbered<meta::Entry>> {
    let ends = |entry: &meta::Entry| {
        attempt(entry).is_some_and(|attempt| {
            attempt.delivery == delivery && !matches!(attempt.outcome, Outcome::Retrying)
        })
    };
    let found = entries(sim.journal(), "the delivery's end", 0, 1, ends).await?;
    found.into_iter().next().context("the delivery's end")
}

/// Waits for so many messages that a person got after an entry.
pub async fn replies(
    sim: &Simulator,
    person: &str,
    since: u64,
    count: usize,
) -> Result<Seen<meta::Entry>> {
    let conversation = sim.conversation(person);
    entries(sim.journal(), "replies", since, count, |entry| {
        is_reply(entry, &conversation)
    })
    .await
}

/// How many messages a person got after an entry, up to now.
pub async fn replies_so_far(sim: &Simulator, person: &str, since: u64) -> usize {
    let conversation = sim.conversation(person);
    let ask = Ask {
        since,
        ..Ask::default()
    };
    sim.journal()
        .read(ask, |entry| is_reply(entry, &conversation))
        .await
        .entries
        .len()
}

fn is_reply(entry: &meta::Entry, conversation: &str) -> bool {
    seen(entry)
        .is_some_and(|seen| seen.author == Author::Business && seen.conversation == conversation)
}

/// Waits for the webhook that tells of a message's status.
pub async fn status(sim: &Simulator, wamid: &str, status: &str) -> Result<Numbered<meta::Entry>> {
    let word = format!("\"status\":\"{status}\"");
    let tells = |entry: &meta::Entry| {
        attempt(entry).is_some_and(|attempt| {
            attempt.message_ids.iter().any(|id| id == wamid)
                && attempt
                    .body
                    .as_deref()
                    .is_some_and(|body| body.contains(&word))
                && matches!(attempt.outcome, Outcome::Delivered)
        })
    };
    let found = entries(sim.journal(), &format!("status {status}"), 0, 1, tells).await?;
    found.into_iter().next().context("the status")
}

/// Waits for the verified event about a message.
pub async fn event(sink: &Sink, kind: &str, wamid: &str) -> Result<Numbered<sink::Entry>> {
    let about = |entry: &sink::Entry| {
        received(entry).is_some_and(|(own, id, _)| own == kind && id == wamid)
    };
    let found = entries(sink.journal(), &format!("event {kind}"), 0, 1, about).await?;
    found.into_iter().next().context("the event")
}

/// A verified event about a message: its type, the wamid, its own id.
pub fn received(entry: &sink::Entry) -> Option<(&str, &str, &str)> {
    let sink::Entry::Webhook(webhook) = entry else {
        return None;
    };
    let body = webhook.body.as_ref().filter(|_| webhook.verified)?;
    let kind = body.get("type").and_then(Value::as_str)?;
    let wamid = body.pointer("/data/wamid").and_then(Value::as_str)?;
    Some((kind, wamid, webhook.webhook_id.as_deref()?))
}

/// Waits for a message in the CRM.
pub async fn crm_entry(sink: &Sink, wamid: &str) -> Result<Numbered<sink::Entry>> {
    let about = |entry: &sink::Entry| {
        crm(entry).is_some_and(|call| call.source_id.as_deref() == Some(wamid))
    };
    let found = entries(sink.journal(), "the CRM's entry", 0, 1, about).await?;
    found.into_iter().next().context("the CRM's entry")
}

/// A message stored in the CRM by its API.
pub fn crm(entry: &sink::Entry) -> Option<&sink::CrmCall> {
    match entry {
        sink::Entry::Crm(call) if call.method == "POST" && call.path.ends_with("/messages") => call
            .status
            .is_some_and(|status| (200..300).contains(&status))
            .then_some(call),
        _ => None,
    }
}

/// Waits for an update at the existing bot.
pub async fn relayed(sink: &Sink, update: &str) -> Result<Numbered<sink::Entry>> {
    let about = |entry: &sink::Entry| {
        relay(entry).is_some_and(|got| got.update_ids.iter().any(|id| id == update))
    };
    let found = entries(sink.journal(), "the relayed webhook", 0, 1, about).await?;
    found.into_iter().next().context("the relayed webhook")
}

/// A webhook the existing bot took.
pub fn relay(entry: &sink::Entry) -> Option<&sink::RelayedWebhook> {
    match entry {
        sink::Entry::Relay(relayed) if relayed.verified && relayed.status == Some(200) => {
            Some(relayed)
        }
        _ => None,
    }
}

/// An attempt to deliver a webhook.
pub fn attempt(entry: &meta::Entry) -> Option<&WebhookAttempt> {
    match entry {
        meta::Entry::Webhook(attempt) => Some(attempt),
        _ => None,
    }
}

/// A message as a person sees it.
pub fn seen(entry: &meta::Entry) -> Option<&SeenMessage> {
    match entry {
        meta::Entry::Message(seen) => Some(seen),
        _ => None,
    }
}

/// The id of the reply button with this title, in a message a person got.
pub fn button(message: &SeenMessage, title: &str) -> Option<String> {
    let content = message.content.as_ref()?;
    // The content may come with or without its type's name around it.
    let inner = content.get("interactive").unwrap_or(content);
    let buttons = inner.pointer("/action/buttons")?.as_array()?;
    let reply = buttons
        .iter()
        .filter_map(|button| button.get("reply"))
        .find(|reply| reply.get("title").and_then(Value::as_str) == Some(title))?;
    reply.get("id").and_then(Value::as_str).map(str::to_owned)
}

/// The titles of the reply buttons of a message a person got.
pub fn buttons(message: &SeenMessage) -> Vec<String> {
    let content = message.content.as_ref();
    let inner = content.and_then(|content| content.get("interactive").or(Some(content)));
    let buttons = inner.and_then(|inner| inner.pointer("/action/buttons")?.as_array());
    let titles = buttons
        .into_iter()
        .flatten()
        .filter_map(|button| button.pointer("/reply/title")?.as_str());
    titles.map(str::to_owned).collect()
}
