//! Webhooks as they come: batched, repeated, forged, for nobody we know.

use super::{ACME_PLACES, GLOBEX_PLACES, Play, UNROUTED_PLACES, words};
use crate::dev::stage::{ACME, GLOBEX};
use crate::dev::until;
use crate::dev::witness::{self, WITHIN};
use crate::meta::{Batch, ChangeSpec, EntrySpec, Posting, Signature};
use ackline_shared::signature::SigningKey;
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

/// Four messages for each of two tenants in one POST: each is answered or relayed on its own.
pub async fn batch(play: &mut Play<'_>) -> Result<String> {
    let mut entries = Vec::new();
    let mut people = Vec::new();
    for tenant in [ACME, GLOBEX] {
        let mut messages = Vec::new();
        for _ in 0..4 {
            let person = play.someone();
            messages.push(play.message(&person, tenant, words("Hi"))?);
            people.push(person);
        }
        let change = ChangeSpec {
            phone_number_id: Some(play.number(tenant)?),
            messages,
            ..ChangeSpec::default()
        };
        entries.push(EntrySpec {
            changes: vec![change],
            ..EntrySpec::default()
        });
    }
    let since = play.now();
    let accepted = play
        .stage
        .simulator()
        .deliver(&Batch { entries }, Posting::default())?;
    let (for_acme, for_globex) = accepted.message_ids.split_at(4);
    for (ids, places) in [
        (for_acme, ACME_PLACES.as_slice()),
        (for_globex, GLOBEX_PLACES.as_slice()),
    ] {
        let part = crate::meta::Accepted {
            message_ids: ids.to_vec(),
            ..accepted.clone()
        };
        play.enter(
            &part,
            if places.len() == ACME_PLACES.len() {
                &ACME_PLACES
            } else {
                &GLOBEX_PLACES
            },
        );
    }
    let delivery = *accepted
        .deliveries
        .first()
        .context("a batch has a delivery")?;
    play.acknowledged(delivery).await?;
    for person in people.iter().take(4) {
        play.replies(person, since, 1).await?;
    }
    for id in for_globex {
        let arrived = witness::relayed(play.stage.sink(), id).await?;
        let got = witness::relay(&arrived.entry).context("not relayed")?;
        ensure!(
            got.update_ids.len() == 1,
            "the bot got {} updates in one request",
            got.update_ids.len()
        );
    }
    Ok("4 answered, 4 relayed one by one with signatures of their own".to_owned())
}

/// Meta posts the same bytes three times at once: every copy is acknowledged, one is processed.
pub async fn duplicate(play: &mut Play<'_>) -> Result<String> {
    let person = play.someone();
    let message = play.message(&person, ACME, words("Hi"))?;
    let since = play.now();
    let id = play
        .post(
            message,
            Posting {
                duplicate: 2,
                ..Posting::default()
            },
            &ACME_PLACES,
        )
        .await?;
    play.replies(&person, since, 1).await?;
    // The answer to a later message comes after any second answer to the first would have.
    play.say(&person, words("menu")).await?;
    let replies = play.replies(&person, since, 2).await?;
    ensure!(
        replies.len() == 2,
        "{} answers to two messages",
        replies.len()
    );
    let stored = play.stage.log().await?.updates().await?;
    let copies = stored.iter().filter(|stored| stored.id == id).count();
    ensure!(copies == 1, "stored {copies} times");
    Ok("three times 200, stored once, answered once".to_owned())
}

/// Whatever is not signed with the app's secret is refused and leaves no trace.
pub async fn unsigned(play: &mut Play<'_>) -> Result<String> {
    let mut refused = Vec::new();
    for signature in [Signature::Bad, Signature::Malformed, Signature::Missing] {
        let person = play.someone();
        let message = play.message(&person, ACME, words("forged"))?;
        let posting = Posting {
            signature,
            ..Posting::default()
        };
        let accepted = play.stage.simulator().receive(message, posting)?;
        let delivery = *accepted
            .deliveries
            .first()
            .context("a message has a delivery")?;
        let ended = witness::ended(play.stage.simulator(), delivery).await?;
        let status = witness::attempt(&ended.entry).and_then(|attempt| attempt.status);
        ensure!(status == Some(401), "{signature:?}: answered {status:?}");
        refused.extend(accepted.message_ids);
    }
    let body = json!({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [{
        "field": "messages", "value": {"messaging_product": "whatsapp",
            "metadata": {"phone_number_id": play.number(ACME)?},
            "messages": [{"from": "49151", "id": "wamid.cut", "type": "text", "text": {"body": "cut"}}]}}]}]});
    let body = body.to_string();
    let whole = SigningKey::new(&play.stage.declared().app_secret()?).sign(body.as_bytes());
    let cut = whole.get(..whole.len() - 2).unwrap_or_default();
    let request = play
        .stage
        .http()
        .post(play.stage.webhook_url())
        .header("x-hub-signature-256", cut);
    let status = request.body(body).send().await?.status().as_u16();
    ensure!(
        status == 401,
        "a signature two digits short: answered {status}"
    );
    refused.push("wamid.cut".to_owned());

    let stored = play.stage.log().await?.updates().await?;
    if let Some(leaked) = stored.iter().find(|stored| refused.contains(&stored.id)) {
        bail!("{} was refused and is stored", leaked.id);
    }
    Ok("four times 401, nothing stored".to_owned())
}

/// A number nobody configured: acknowledged, kept, shown.
pub async fn unknown_number(play: &mut Play<'_>) -> Result<String> {
    let person = play.someone();
    let message = play
        .message(&person, ACME, words("Hello?"))?
        .to_number("999000999000999");
    let id = play
        .post(message, Posting::default(), &UNROUTED_PLACES)
        .await?;
    let log = play.stage.log().await?;
    let stored = until("the update in the log", WITHIN, async || {
        Ok(log
            .updates()
            .await?
            .into_iter()
            .find(|stored| stored.id == id))
    });
    let tenant = stored.await?.tenant;
    ensure!(tenant == "_unrouted", "stored under {tenant}");
    let doctor = play.stage.ackline(&["doctor"]).await?;
    let said = String::from_utf8_lossy(&doctor.stdout);
    let shown = said.contains("1 update(s) of numbers that nobody configured");
    ensure!(shown, "`ackline doctor` does not show it:\n{said}");
    Ok("200, stored under _unrouted, shown by `ackline doctor`".to_owned())
}

/// A single message reaches the existing bot as the very bytes Meta signed.
pub async fn relayed(play: &mut Play<'_>) -> Result<String> {
    let person = play.someone();
    let message = play.message(&person, GLOBEX, words("Grüße, is my bike ready? 🚲"))?;
    let id = play
        .post(message, Posting::default(), &GLOBEX_PLACES)
        .await?;
    let arrived = witness::relayed(play.stage.sink(), &id).await?;
    let got = witness::relay(&arrived.entry).context("not relayed")?;
    let posted = play
        .posted
        .last()
        .and_then(|posted| posted.deliveries.first())
        .context("nothing posted")?;
    let ended = witness::ended(play.stage.simulator(), *posted).await?;
    let sent = witness::attempt(&ended.entry).and_then(|attempt| attempt.body.clone());
    ensure!(
        sent.is_some() && sent == got.body,
        "the bot did not get Meta's bytes"
    );
    ensure!(
        got.content_length == u64::try_from(got.body_bytes).ok(),
        "no Content-Length"
    );
    Ok("byte-identical, Meta's signature verified, Content-Length".to_owned())
}
