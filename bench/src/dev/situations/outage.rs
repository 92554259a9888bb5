//! Crashes: the workers die and go on where they were; the broker dies, the edge says 503, Meta posts again.

use super::{ACME_PLACES, Play, words};
use crate::dev::api::text;
use crate::dev::stage::ACME;
use crate::dev::until;
use crate::dev::witness::{self, WITHIN};
use crate::meta::{Entry, Posting};
use anyhow::{Context, Result, bail};
use serde_json::Value;

const MESSAGES: usize = 4;

/// The workers die while they work on messages: each is answered once, except that a send which was cut off
/// on its way to Meta is not repeated but shown as unknown, because the person may have got it.
pub async fn workers(play: &mut Play<'_>) -> Result<String> {
    let since = play.now();
    let mut people = Vec::new();
    for index in 0..2 * MESSAGES {
        if index == MESSAGES {
            play.stage.kill_workers().await;
        }
        let person = play.someone();
        play.say(&person, words("Hi")).await?;
        people.push(person);
    }
    play.stage.start_workers().await?;
    let api = play.stage.api(ACME)?;
    let (mut answered, mut unknown) = (0, 0);
    for person in &people {
        let what = "an answer, or a dead letter that says why not";
        let simulator = play.stage.simulator();
        let ends = until(what, WITHIN, async || {
            let replies = witness::replies_so_far(simulator, person, since).await;
            let letters = if replies == 0 {
                api.dead_letters("replies").await?
            } else {
                Vec::new()
            };
            let lost = |letter: &Value| {
                letter.to_string().contains(person.as_str())
                    && text(letter, "reason")
                        .is_some_and(|reason| reason.contains("answer was lost"))
            };
            let known = replies > 0 || letters.iter().any(lost);
            Ok(known.then_some(replies))
        });
        match ends.await? {
            0 => unknown += 1,
            1 => answered += 1,
            more => bail!("{more} answers to one message"),
        }
    }
    Ok(match unknown {
        0 => format!("{answered} of {answered} acknowledged and answered once"),
        _ => format!(
            "all acknowledged, {answered} answered once, {unknown} cut off on the way and shown as such"
        ),
    })
}

/// Messages arrive before, during and after the death of nats-server.
pub async fn broker(play: &mut Play<'_>) -> Result<String> {
    let mut people = Vec::new();
    let mut deliveries = Vec::new();
    let since = play.now();
    for index in 0..MESSAGES {
        if index == 1 {
            play.stage.kill_nats().await;
        }
        let person = play.someone();
        let message = play.message(&person, ACME, words("Hi"))?;
        let accepted = play
            .stage
            .simulator()
            .receive(message, Posting::default())?;
        play.enter(&accepted, &ACME_PLACES);
        deliveries.push(
            *accepted
                .deliveries
                .first()
                .context("a message has a delivery")?,
        );
        people.push(person);
    }
    let during = deliveries.get(1..).unwrap_or_default();
    let refused = |entry: &Entry| {
        witness::attempt(entry).is_some_and(|attempt| {
            during.contains(&attempt.delivery) && attempt.status == Some(503)
        })
    };
    witness::entries(
        play.stage.simulator().journal(),
        "503 from the edge",
        since,
        1,
        refused,
    )
    .await?;
    play.stage.start_nats().await?;
    for delivery in &deliveries {
        play.acknowledged(*delivery).await?;
    }
    for person in &people {
        play.replies(person, since, 1).await?;
    }
    Ok(format!(
        "503 while it was away, then {MESSAGES} of {MESSAGES} acknowledged and answered"
    ))
}
