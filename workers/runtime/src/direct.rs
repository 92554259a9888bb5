//! Reading what a stream has under one subject by direct gets: no consumer to make, to set back or to wait behind.

use ackline_shared::subjects::header::NUM_PENDING;
use async_nats::jetstream::Context;
use async_nats::jetstream::message::StreamMessage;
use futures_util::StreamExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// Bytes of one read; the first message comes whatever its size.
const BYTES_MAX: usize = 1 << 20;
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// The sequence of the first message that was stored since then, in unix milliseconds; none when there is none.
pub async fn first_since(
    context: &Context,
    stream: &str,
    since_ms: u64,
) -> Result<Option<u64>, async_nats::Error> {
    let since = Timestamp::from_millisecond(i64::try_from(since_ms)?)?;
    let query = json!({"start_time": since.to_string(), "next_by_subj": ">", "batch": 1});
    let (messages, _) = ask(context, stream, &query).await?;
    Ok(messages.first().map(|message| message.sequence))
}

/// The next messages of a subject from a sequence on, oldest first, and how many it has after them; none when it has
/// no more.
pub async fn next_of(
    context: &Context,
    stream: &str,
    subject: &str,
    from: u64,
    max: usize,
) -> Result<(Vec<StreamMessage>, u64), async_nats::Error> {
    let query =
        json!({"seq": from.max(1), "next_by_subj": subject, "batch": max, "max_bytes": BYTES_MAX});
    ask(context, stream, &query).await
}

async fn ask(
    context: &Context,
    stream: &str,
    query: &Value,
) -> Result<(Vec<StreamMessage>, u64), async_nats::Error> {
    let client = context.client();
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await?;
    let place = format!("$JS.API.DIRECT.GET.{stream}");
    client
        .publish_with_reply(place, inbox, query.to_string().into())
        .await?;
    let (mut messages, mut left) = (Vec::new(), 0);
    loop {
        let answer = timeout(ANSWER_WAIT, answers.next()).await?;
        let answer = answer.ok_or("the connection closed")?;
        let pending = answer
            .headers
            .as_ref()
            .and_then(|headers| headers.get(NUM_PENDING));
        left = pending
            .and_then(|pending| pending.as_str().parse().ok())
            .unwrap_or(left);
        match answer.status {
            None => messages.push(StreamMessage::try_from(answer)?),
            // The end of a batch, and no message at all.
            Some(status) if matches!(status.as_u16(), 204 | 404) => return Ok((messages, left)),
            Some(status) => {
                let words = answer.description.as_deref().unwrap_or("no words");
                return Err(format!("{status} {words}").into());
            }
        }
    }
}
