//! Conversations with a person: by a flow, by an AI agent, by an agent in the CRM.

use super::{ACME_PLACES, Play, expect_words, press, words};
use crate::dev::stage::ACME;
use crate::dev::until;
use crate::dev::witness::{self, WITHIN};
use crate::meta::{Entry, IncomingMessage, Posting};
use crate::sink;
use anyhow::{Context, Result, bail};

/// "Hi", a button, an order number: the answer holds what the customer's system says.
pub async fn flow(play: &mut Play<'_>) -> Result<String> {
    let person = play.someone();
    let since = play.now();
    let hi = play.say(&person, words("Hi")).await?;
    let greeting = play.replies(&person, since, 1).await?;
    let since = play.now();
    play.say(
        &person,
        press(greeting.first().context("no greeting")?, "Order status")?,
    )
    .await?;
    let question = play.replies(&person, since, 1).await?;
    expect_words(question.first(), "order number")?;
    let since = play.now();
    play.say(&person, words("1001")).await?;
    let answer = play.replies(&person, since, 2).await?;
    expect_words(answer.first(), "on its way")?;
    expect_words(answer.first(), "tomorrow")?;

    let sink = play.stage.sink();
    witness::event(sink, "message.received", &hi).await?;
    let wamid = answer
        .first()
        .and_then(|reply| witness::seen(&reply.entry))
        .context("no answer")?;
    witness::event(sink, "message.delivered", &wamid.message_id).await?;
    witness::crm_entry(sink, &wamid.message_id).await?;
    let api = play.stage.api(ACME)?;
    until("the answer in the API", WITHIN, async || {
        api.message(&wamid.message_id).await
    })
    .await?;
    Ok("greeting, question, order looked up, answer; signed events, CRM entries, API".to_owned())
}

/// The flow hands over to an agent on an OpenAI-compatible endpoint.
pub async fn assistant(play: &mut Play<'_>) -> Result<String> {
    let person = play.someone();
    let since = play.now();
    play.say(&person, words("Hi")).await?;
    let greeting = play.replies(&person, since, 1).await?;
    let since = play.now();
    play.say(
        &person,
        press(greeting.first().context("no greeting")?, "Talk to us")?,
    )
    .await?;
    play.replies(&person, since, 1).await?;
    let since = play.now();
    play.say(&person, words("When do you open?")).await?;
    let answer = play.replies(&person, since, 1).await?;
    expect_words(answer.first(), "9:00")?;
    let asked = |entry: &sink::Entry| match entry {
        sink::Entry::Chat(chat) => chat
            .request
            .as_ref()
            .is_some_and(|request| request.to_string().contains("When do you open?")),
        _ => false,
    };
    witness::entries(
        play.stage.sink().journal(),
        "a question to the model",
        0,
        1,
        asked,
    )
    .await?;
    Ok("a model on an OpenAI-compatible address was asked, its answer arrived".to_owned())
}

/// A person with a username: no phone number in the webhook, the reply goes to `recipient`.
pub async fn without_phone(play: &mut Play<'_>) -> Result<String> {
    let tail = play.someone();
    let user = format!("US.{tail}0001");
    let number = play.number(ACME)?;
    let since = play.now();
    let message = IncomingMessage::text_without_phone(&user, "Hi").to_number(&number);
    play.post(message, Posting::default(), &ACME_PLACES).await?;
    play.replies(&user, since, 1).await?;
    let simulator = play.stage.simulator();
    let to_user = |entry: &Entry| match entry {
        Entry::Graph(call) => call.body.as_ref().is_some_and(|body| {
            body.get("recipient").and_then(serde_json::Value::as_str) == Some(user.as_str())
                && body.get("to").is_none()
                && call.status == Some(200)
        }),
        _ => false,
    };
    witness::entries(
        simulator.journal(),
        "a send to `recipient`",
        since,
        1,
        to_user,
    )
    .await?;
    Ok("answered by `recipient` without `to`".to_owned())
}

/// What an agent writes in the CRM goes out once and does not come back as a second entry.
pub async fn agent(play: &mut Play<'_>) -> Result<String> {
    let person = play.someone();
    let since = play.now();
    let hi = play.say(&person, words("Hi")).await?;
    witness::crm_entry(play.stage.sink(), &hi).await?;
    let greeting = play.replies(&person, since, 1).await?;
    let greeting = greeting
        .first()
        .and_then(|reply| witness::seen(&reply.entry))
        .context("no greeting")?;
    witness::crm_entry(play.stage.sink(), &greeting.message_id).await?;

    let since = play.now();
    let answered = play
        .stage
        .sink()
        .agent_answers(&person, "A colleague here: **how** can I help?")
        .await;
    let answered = answered.context("the CRM has no conversation with the person")?;
    if answered
        .status
        .is_none_or(|status| !(200..300).contains(&status))
    {
        bail!("Chatwoot's webhook was answered {:?}", answered.status);
    }
    let replies = play.replies(&person, since, 1).await?;
    expect_words(replies.first(), "*how* can I help")?;
    let sent = replies
        .first()
        .and_then(|reply| witness::seen(&reply.entry))
        .context("no reply")?;
    witness::event(play.stage.sink(), "message.delivered", &sent.message_id).await?;

    // The flow rests beside the agent: what comes meanwhile is the agent's, and the flow's again once that is resolved.
    let since = play.now();
    let meanwhile = play.say(&person, words("menu")).await?;
    witness::crm_entry(play.stage.sink(), &meanwhile).await?;
    witness::event(play.stage.sink(), "message.received", &meanwhile).await?;
    let resolved = play.stage.sink().agent_resolves(&person).await;
    if resolved != Some(200) {
        bail!("Chatwoot's webhook was answered {resolved:?}");
    }
    // Later entries in the same conversation show that an echo, and an answer of the flow, would have been there by now.
    for answers in 1..=2 {
        let later = play.say(&person, words("menu")).await?;
        witness::crm_entry(play.stage.sink(), &later).await?;
        play.replies(&person, since, answers).await?;
    }
    let answers = witness::replies_so_far(play.stage.simulator(), &person, since).await;
    if answers != 2 {
        bail!("the flow answered {answers} times, and was to answer twice");
    }
    let echoes = |entry: &sink::Entry| {
        witness::crm(entry)
            .is_some_and(|call| call.source_id.as_deref() == Some(sent.message_id.as_str()))
    };
    let echoed = play
        .stage
        .sink()
        .journal()
        .read(crate::journal::Ask::default(), echoes)
        .await;
    if !echoed.entries.is_empty() {
        bail!("the agent's answer was written into the CRM a second time");
    }
    Ok(
        "sent once with WhatsApp's marks, no echo in the CRM; the flow rests until it is resolved"
            .to_owned(),
    )
}
