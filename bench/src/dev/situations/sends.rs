//! Messages we send: by the API, through Meta's errors, to their final status.

use super::{Play, words};
use crate::dev::api::text;
use crate::dev::stage::ACME;
use crate::dev::until;
use crate::dev::witness::{self, WITHIN};
use crate::meta::{Entry, Ladder, Rule, StatusKind, StatusSpec};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

fn hello(phone: &str) -> Value {
    json!({"to": {"phone": phone}, "content": {"type": "text", "body": "Your table is ready."}})
}

fn has(message: Value, status: &str) -> Option<Value> {
    (text(&message, "status").as_deref() == Some(status)).then_some(message)
}

/// 202 with an id; the same id tells later that the person has read it.
pub async fn by_api(play: &mut Play<'_>) -> Result<String> {
    let person = play.someone();
    let since = play.now();
    let api = play.stage.api(ACME)?;
    let id = api.send(&hello(&person)).await?;
    let replies = play.replies(&person, since, 1).await?;
    let seen = replies
        .first()
        .and_then(|reply| witness::seen(&reply.entry))
        .context("no message")?;
    ensure!(
        seen.biz_opaque_callback_data.as_deref() == Some(id.as_str()),
        "Meta was not given our id"
    );
    let read = until("status `read` in the API", WITHIN, async || {
        Ok(api
            .message(&id)
            .await?
            .and_then(|message| has(message, "read")))
    });
    let read = read.await?;
    ensure!(
        text(&read, "wamid").as_deref() == Some(seen.message_id.as_str()),
        "another wamid"
    );
    Ok("202, sent, and `read` under the same id".to_owned())
}

/// `read`, `delivered`, `sent`, in this order: the message stays read.
pub async fn statuses(play: &mut Play<'_>) -> Result<String> {
    let person = play.someone();
    let simulator = play.stage.simulator().clone();
    let ladder = simulator.ladder();
    simulator.set_ladder(Ladder {
        enabled: false,
        ..ladder
    });
    let outcome = reversed(play, &person).await;
    simulator.set_ladder(ladder);
    outcome
}

async fn reversed(play: &mut Play<'_>, person: &str) -> Result<String> {
    let api = play.stage.api(ACME)?;
    let id = api.send(&hello(person)).await?;
    let accepted = until("Meta's id in the API", WITHIN, async || {
        Ok(api
            .message(&id)
            .await?
            .and_then(|message| text(&message, "wamid")))
    });
    let wamid = accepted.await?;
    let status = |status| StatusSpec {
        message_id: wamid.clone(),
        status,
        to: None,
        user_id: None,
        timestamp: None,
        biz_opaque_callback_data: None,
        code: None,
    };
    let reverse = [StatusKind::Read, StatusKind::Delivered, StatusKind::Sent].map(status);
    play.stage
        .simulator()
        .send_statuses(reverse.to_vec())
        .await?;
    let all = until("all three statuses in the API", WITHIN, async || {
        let message = api.message(&id).await?;
        let known = |message: &Value, name: &str| {
            message.pointer(&format!("/status_times/{name}")).is_some()
        };
        Ok(message.filter(|message| {
            ["sent", "delivered", "read"]
                .iter()
                .all(|name| known(message, name))
        }))
    });
    let status = text(&all.await?, "status");
    ensure!(status.as_deref() == Some("read"), "it ended as {status:?}");
    Ok("read, delivered, sent: all kept, final status read".to_owned())
}

/// Meta answers "something went wrong" twice: the reply is sent once it no longer does.
pub async fn recovers(play: &mut Play<'_>) -> Result<String> {
    let person = play.someone();
    let rule = Rule {
        times: 2,
        recipient: Some(person.clone()),
        code: Some(131_000),
        ..Rule::default()
    };
    play.stage.simulator().rules().add(rule)?;
    let since = play.now();
    play.say(&person, words("Hi")).await?;
    let replies = play.replies(&person, since, 1).await?;
    ensure!(
        replies.len() == 1,
        "{} answers to one message",
        replies.len()
    );
    let failed = |entry: &Entry| matches!(entry, Entry::Graph(call) if call.injected && call.code == Some(131_000));
    let failed = witness::entries(
        play.stage.simulator().journal(),
        "refused sends",
        since,
        2,
        failed,
    )
    .await?;
    Ok(format!("{} refused, then sent once", failed.len()))
}

/// Meta says the message can never arrive: no further attempt, and the API tells why.
pub async fn given_up(play: &mut Play<'_>) -> Result<String> {
    let person = play.someone();
    let rule = Rule {
        times: 100,
        recipient: Some(person.clone()),
        code: Some(131_026),
        ..Rule::default()
    };
    play.stage.simulator().rules().add(rule)?;
    let api = play.stage.api(ACME)?;
    let id = api.send(&hello(&person)).await?;
    let letter = until("the dead letter in the API", WITHIN, async || {
        let letters = api.dead_letters("replies").await?;
        Ok(letters
            .into_iter()
            .find(|letter| letter.to_string().contains(&id)))
    });
    let letter = letter.await?;
    let reason = text(&letter, "reason").unwrap_or_default();
    ensure!(reason.contains("131026"), "the reason is `{reason}`");
    let failed = until("status `failed` in the API", WITHIN, async || {
        Ok(api
            .message(&id)
            .await?
            .and_then(|message| has(message, "failed")))
    });
    failed.await?;
    Ok(format!("dead letter, message failed: {reason}"))
}
