//! The broker dies: the edge says 503, Meta posts again, nothing is lost.

use super::{ACME_PLACES, Play, words};
use crate::dev::stage::ACME;
use crate::dev::witness;
use crate::meta::{Entry, Posting};
use anyhow::{Context, Result};

const MESSAGES: usize = 4;

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
        let accepted = play.stage.simulator().receive(message, Posting::default())?;
        play.enter(&accepted, &ACME_PLACES);
        deliveries.push(*accepted.deliveries.first().context("a message has a delivery")?);
        people.push(person);
    }
    let during = deliveries.get(1..).unwrap_or_default();
    let refused = |entry: &Entry| {
        witness::attempt(entry)
            .is_some_and(|attempt| during.contains(&attempt.delivery) && attempt.status == Some(503))
    };
    witness::entries(play.stage.simulator().journal(), "503 from the edge", since, 1, refused).await?;
    play.stage.start_nats().await?;
    for delivery in &deliveries {
        play.acknowledged(*delivery).await?;
    }
    for person in &people {
        play.replies(person, since, 1).await?;
    }
    Ok(format!("503 while it was away, then {MESSAGES} of {MESSAGES} acknowledged and answered"))
}
