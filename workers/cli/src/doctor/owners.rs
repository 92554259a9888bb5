//! A look at who has the conversations that flows rest in: persons, and other responders at Meta.
//!
//! It reads the records that were written last, a bounded number of them, and no more.

use super::finding::Finding;
use ackline_runtime::conversation::{Owner, Who, owner_in};
use ackline_shared::nats::layout::bucket_subject;
use ackline_shared::subjects::{BUCKET_SESSIONS, Pool};
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use futures_util::StreamExt;
use std::time::Duration;
use tokio::time::timeout;

const CHECK: &str = "conversations";
/// So many of the bucket's last writes are looked at, of all pools.
const WRITES_MAX: u64 = 20_000;
const READ_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, Default, PartialEq, Eq)]
struct Shares {
    records: u64,
    persons: u64,
    /// Of the persons': until somebody gives them back.
    endless: u64,
    responders: u64,
    /// There are older ones that were not looked at.
    is_part: bool,
}

impl Shares {
    fn add(&mut self, owner: Option<&Owner>, now_ms: u64) {
        self.records += 1;
        let Some(owner) = owner.filter(|owner| !owner.is_over(now_ms)) else {
            return;
        };
        match &owner.who {
            Who::Person => {
                self.persons += 1;
                self.endless += u64::from(owner.until_ms.is_none());
            }
            Who::Responder => self.responders += 1,
            Who::Bot | Who::Idle | Who::Other(_) => {}
        }
    }

    fn words(&self) -> String {
        let Self {
            records,
            persons,
            endless,
            responders,
            is_part,
        } = self;
        let of = match is_part {
            true => format!("of the last {records} that flows know"),
            false => format!("of {records} that flows know"),
        };
        format!(
            "{of}, {persons} are a person's ({endless} without an end) and {responders} another responder's; flows rest there"
        )
    }
}

pub async fn check(context: &Context, now_ms: u64) -> Finding {
    match timeout(READ_WAIT, read(context, now_ms)).await {
        Ok(Ok(shares)) => Finding::ok(CHECK, shares.words()),
        Ok(Err(error)) => Finding::warn(CHECK, format_args!("cannot be read: {error}")),
        Err(_) => Finding::warn(CHECK, "cannot be read: no answer in time"),
    }
}

async fn read(context: &Context, now_ms: u64) -> Result<Shares, async_nats::Error> {
    let mut shares = Shares::default();
    // A bucket that is missing is told by another check.
    let Ok(bucket) = context.get_key_value(BUCKET_SESSIONS).await else {
        return Ok(shares);
    };
    let state = &bucket.stream.cached_info().state;
    let start_sequence = (state.last_sequence + 1).saturating_sub(WRITES_MAX).max(1);
    shares.is_part = state.first_sequence < start_sequence;
    let config = OrderedConfig {
        filter_subject: bucket_subject(BUCKET_SESSIONS, &format!("{}.>", Pool::Flows)),
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence },
        ..OrderedConfig::default()
    };
    let mut consumer = bucket.stream.create_consumer(config).await?;
    let mut left = consumer.info().await?.num_pending;
    let mut messages = consumer.messages().await?;
    while left > 0 {
        let Some(message) = messages.next().await else {
            break;
        };
        shares.add(owner_in(&message?.payload).as_ref(), now_ms);
        left -= 1;
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_conversation_now_is_counted() {
        let mut shares = Shares::default();
        for (who, until_ms) in [
            ("person", Some(900)),
            ("person", Some(2000)),
            ("person", None),
            ("responder", Some(2000)),
            ("bot", None),
            ("somebody new", None),
        ] {
            let record = serde_json::json!({"schema": 1, "owner": {
                "v": 1, "who": who, "since_ms": 1, "set_ms": 1, "until_ms": until_ms, "why": "x"}});
            shares.add(owner_in(record.to_string().as_bytes()).as_ref(), 1000);
        }
        shares.add(owner_in(b"").as_ref(), 1000);
        assert_eq!(
            (
                shares.records,
                shares.persons,
                shares.endless,
                shares.responders
            ),
            (7, 2, 1, 1)
        );
        shares.is_part = true;
        assert!(shares.words().starts_with("of the last 7 "));
    }
}
