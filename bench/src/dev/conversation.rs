//! One conversation, played and timed: what a person writes, what they see, and how long each stage takes.

use super::log::{Log, Stored};
use super::stage::{ACME, GLOBEX, Stage};
use super::timeline::Turn;
use super::until;
use super::witness::{self, WITHIN};
use crate::journal::{Numbered, unix_micros};
use crate::meta::{Content, Entry, IncomingMessage, Posting, Sender};
use anyhow::{Context, Result, bail};
use std::time::Duration;

/// Plays the demo conversation, then a message to the tenant with an existing bot.
pub async fn play(stage: &Stage) -> Result<Vec<Turn>> {
    let person = person(0);
    let number = stage.declared().number_of(ACME)?;
    let log = stage.log().await?.starting_now().await?;
    let say = |content: Content| from_ada(&person, &number, content);
    let text = |text: &str| Content::Text {
        text: text.to_owned(),
    };
    let (first, greeting) = answered(stage, &log, &person, say(text("Hi")), 1).await?;
    let title = "Order status";
    let greeting = greeting
        .first()
        .and_then(|reply| witness::seen(&reply.entry));
    let reply_id = greeting.and_then(|greeting| witness::button(greeting, title));
    let reply_id = reply_id.context("the greeting has no button for orders")?;
    let press = Content::ButtonReply {
        reply_id,
        title: title.to_owned(),
    };
    let (second, _) = answered(stage, &log, &person, say(press), 1).await?;
    let (third, _) = answered(stage, &log, &person, say(text("1001")), 2).await?;
    Ok(vec![first, second, third, relayed(stage).await?])
}

/// A phone number that nobody had in an earlier run, so that every conversation starts anew.
pub fn person(index: u64) -> String {
    let tail = (unix_micros() / 1000 + index) % 100_000_000;
    format!("4915{tail:08}")
}

fn from_ada(person: &str, number: &str, content: Content) -> IncomingMessage {
    let sender = Sender {
        from: Some(person.to_owned()),
        name: Some("Ada".to_owned()),
        phone_number_id: Some(number.to_owned()),
        ..Sender::default()
    };
    IncomingMessage { sender, content }
}

/// A message on its way in: its id, and when Meta began to post it.
struct Posted {
    id: String,
    at_us: u64,
    edge: Duration,
}

async fn post(stage: &Stage, message: IncomingMessage) -> Result<Posted> {
    let accepted = stage.simulator().receive(message, Posting::default())?;
    let id = accepted
        .message_ids
        .first()
        .context("a message has an id")?
        .clone();
    let delivery = *accepted
        .deliveries
        .first()
        .context("a message has a delivery")?;
    let ended = witness::ended(stage.simulator(), delivery).await?;
    let attempt = witness::attempt(&ended.entry).context("a delivery ends with an attempt")?;
    if attempt.status != Some(200) {
        bail!(
            "the webhook was answered {:?} ({:?})",
            attempt.status,
            attempt.error
        );
    }
    let at_us = ended.at_us.saturating_sub(attempt.duration_us);
    Ok(Posted {
        id,
        at_us,
        edge: Duration::from_micros(attempt.duration_us),
    })
}

async fn answered(
    stage: &Stage,
    log: &Log,
    person: &str,
    message: IncomingMessage,
    replies: usize,
) -> Result<(Turn, Vec<Numbered<Entry>>)> {
    let (simulator, sink) = (stage.simulator(), stage.sink());
    let mut turn = Turn::new("Ada", &message.content.summary());
    let since = simulator.journal().last();
    let posted = post(stage, message).await?;
    let api = stage.api(ACME)?;
    let in_api = async {
        until("the message in the API", WITHIN, async || {
            api.message(&posted.id).await
        })
        .await?;
        anyhow::Ok(unix_micros())
    };
    let (replies, in_api) =
        tokio::join!(witness::replies(simulator, person, since, replies), in_api);
    let replies = replies?;
    let seen: Vec<_> = replies
        .iter()
        .filter_map(|reply| witness::seen(&reply.entry))
        .collect();
    turn.saw = seen.iter().map(|seen| shown(seen)).collect();

    let first = replies.first().context("no reply")?;
    let reply = seen.first().context("no reply")?;
    let opaque = reply.biz_opaque_callback_data.clone().unwrap_or_default();
    let stored = find(&log.updates().await?, &posted.id).unwrap_or(posted.at_us);
    let decided = find(&log.commands().await?, &opaque).unwrap_or(stored);
    let delivered = witness::status(simulator, &reply.message_id, "delivered").await?;
    turn.stage("edge 200", posted.edge);
    turn.stage("flow", between(stored, decided));
    turn.stage("Graph API", between(decided, first.at_us));
    turn.stage("delivered", between(first.at_us, delivered.at_us));

    let event = witness::event(sink, "message.received", &posted.id).await?;
    turn.side("event at the customer", between(posted.at_us, event.at_us));
    let entry = witness::crm_entry(sink, &posted.id).await?;
    turn.side("entry in the CRM", between(posted.at_us, entry.at_us));
    turn.side("in the API", between(posted.at_us, in_api?));
    Ok((turn, replies))
}

async fn relayed(stage: &Stage) -> Result<Turn> {
    let number = stage.declared().number_of(GLOBEX)?;
    let content = Content::Text {
        text: "Is my bike ready?".to_owned(),
    };
    let mut turn = Turn::new(
        "Ada",
        &format!(
            "{} (to Globex, which has a bot of its own)",
            content.summary()
        ),
    );
    let posted = post(stage, from_ada(&person(1), &number, content)).await?;
    let arrived = witness::relayed(stage.sink(), &posted.id).await?;
    turn.stage("edge 200", posted.edge);
    turn.side(
        "Meta's bytes at the existing bot",
        between(posted.at_us, arrived.at_us),
    );
    Ok(turn)
}

fn find(stored: &[Stored], id: &str) -> Option<u64> {
    stored
        .iter()
        .find(|stored| stored.id == id)
        .map(|stored| stored.at_us)
}

fn between(from_us: u64, to_us: u64) -> Duration {
    Duration::from_micros(to_us.saturating_sub(from_us))
}

fn shown(message: &crate::meta::SeenMessage) -> String {
    let buttons = witness::buttons(message);
    let text = message.text.replace('\n', " ");
    if buttons.is_empty() {
        text
    } else {
        format!("{text}  [{}]", buttons.join("] ["))
    }
}
