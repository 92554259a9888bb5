//! Follows the declared configuration: what the `config` bucket holds of what routing needs, and each change of it.
//!
//! The server sends the last value of every key and then what changes, through a consumer that it keeps for as long
//! as somebody listens. The consumer numbers what it sends: when something is missing, the server falls silent or
//! the connection breaks, all of it is read anew, and readers keep the last whole table meanwhile.

use crate::store::wire::client::{Client, Received};
use ackline_shared::nats::api::{self, ApiError, Unanswered};
use ackline_shared::nats::layout::{bucket_stream, bucket_subject};
use ackline_shared::registry::RegistryWriter;
use ackline_shared::subjects::{BUCKET_CONFIG, config_key};
use serde::Deserialize;
use serde_json::json;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Pause before the bucket is read anew.
const PAUSE: Duration = Duration::from_millis(500);
/// How often the server says that nothing changed.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Longest the server may be silent: as long as three of these.
const SILENCE_MAX: Duration = Duration::from_secs(6);
/// How long the server keeps a consumer that nobody listens to.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);
/// Messages that wait to be taken; the server waits for a word of ours before it sends more than a few MB.
const WAITING_MAX: usize = 4 << 10;
/// The status of what the consumer says beside messages.
const CONTROL: u16 = 100;

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Refused(#[from] ApiError),
    #[error("the connection broke")]
    Lost,
    #[error("the server is silent")]
    Silent,
    #[error("the server sent more than was received")]
    Gap,
    #[error("the server sent something that is no message of a consumer")]
    Unreadable,
}

/// What a message of the consumer means.
#[derive(Debug, PartialEq, Eq)]
enum Event<'m> {
    /// A key has a value, or none any more.
    Entry {
        number: u64,
        pending: u64,
        key: Option<&'m str>,
        value: Option<&'m [u8]>,
    },
    /// Nothing was sent after this one.
    Idle { number: u64 },
    /// It waits for a word on this subject.
    Paused { subject: &'m str },
}

/// What the consumer says of itself.
#[derive(Deserialize)]
struct Consumer {
    num_pending: u64,
    delivered: Delivered,
}

#[derive(Deserialize)]
struct Delivered {
    consumer_seq: u64,
}

/// Fills a registry through its writer, for as long as it is polled.
pub async fn follow(client: &Client, mut writer: RegistryWriter) -> Infallible {
    loop {
        client.connected().await;
        match read(client, &mut writer).await {
            Broken::Lost | Broken::Refused(ApiError::Unanswered(Unanswered::Away)) => {}
            error => tracing::warn!(%error, "the configuration is read anew"),
        }
        sleep(PAUSE).await;
    }
}

/// Reads the whole table, then follows changes, until it breaks.
async fn read(client: &Client, writer: &mut RegistryWriter) -> Broken {
    match try_read(client, writer).await {
        Ok(never) => match never {},
        Err(broken) => broken,
    }
}

async fn try_read(client: &Client, writer: &mut RegistryWriter) -> Result<Infallible, Broken> {
    let mut subscription = client.subscribe(WAITING_MAX).map_err(ApiError::from)?;
    let stream = bucket_stream(BUCKET_CONFIG);
    let name = format!("edge-{:016x}", rand::random::<u64>());
    let filters = config_key::EDGE_FILTERS.map(|filter| bucket_subject(BUCKET_CONFIG, filter));
    let request = json!({
        "stream_name": stream,
        "config": {
            "name": name,
            "description": "the edge follows the configuration",
            "deliver_subject": subscription.subject(),
            "deliver_policy": "last_per_subject",
            "filter_subjects": filters,
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "flow_control": true,
            "idle_heartbeat": nanoseconds(HEARTBEAT),
            "inactive_threshold": nanoseconds(FORGOTTEN_AFTER),
            "num_replicas": 1,
            "mem_storage": true,
        },
    });
    let created: Consumer = api::call(
        client,
        &format!("CONSUMER.CREATE.{stream}.{name}"),
        &request,
    )
    .await?;
    writer.begin();
    if created.is_done(0) {
        writer.complete();
    }
    let mut sequence = Sequence::default();
    loop {
        let message = timeout(SILENCE_MAX, subscription.next())
            .await
            .map_err(|_| Broken::Silent)?;
        let message = message.ok_or(Broken::Lost)?;
        let event = Event::read(&message).ok_or(Broken::Unreadable)?;
        sequence.follow(&event)?;
        match event {
            Event::Entry {
                pending,
                key,
                value,
                ..
            } => {
                if let Some(key) = key {
                    writer.take(key, value);
                }
                if pending == 0 {
                    writer.complete();
                }
            }
            // The server may be slow, or what was still to come was taken out of the bucket.
            Event::Idle { number } if !writer.is_whole() => {
                let consumer: Consumer = api::call(
                    client,
                    &format!("CONSUMER.INFO.{stream}.{name}"),
                    &json!({}),
                )
                .await?;
                if consumer.is_done(number) {
                    writer.complete();
                }
            }
            Event::Idle { .. } => {}
            Event::Paused { subject } => client.acknowledge(subject).map_err(ApiError::from)?,
        }
    }
}

impl Consumer {
    /// Whether everything that was there was received, which was so many messages.
    fn is_done(&self, received: u64) -> bool {
        self.num_pending == 0 && self.delivered.consumer_seq == received
    }
}

/// How far a consumer's numbers were received.
#[derive(Debug, Default)]
struct Sequence {
    received: u64,
}

impl Sequence {
    /// Takes what comes next; an error means that something before it is missing.
    fn follow(&mut self, event: &Event<'_>) -> Result<(), Broken> {
        match event {
            Event::Entry { number, .. } if *number == self.received + 1 => self.received = *number,
            Event::Idle { number } if *number == self.received => {}
            Event::Paused { .. } => {}
            Event::Entry { .. } | Event::Idle { .. } => return Err(Broken::Gap),
        }
        Ok(())
    }
}

impl<'m> Event<'m> {
    fn read(message: &'m Received) -> Option<Self> {
        let headers = message.headers();
        match headers.status() {
            Some(CONTROL) if !message.reply.is_empty() => Some(Self::Paused {
                subject: &message.reply,
            }),
            Some(CONTROL) => match headers.get("Nats-Consumer-Stalled") {
                Some(subject) => Some(Self::Paused { subject }),
                None => Some(Self::Idle {
                    number: headers.get("Nats-Last-Consumer")?.parse().ok()?,
                }),
            },
            Some(_) => None,
            None => {
                let (number, pending) = delivered_numbers(&message.reply)?;
                let is_removed = matches!(headers.get("KV-Operation"), Some("DEL" | "PURGE"))
                    || headers.get("Nats-Marker-Reason").is_some();
                let prefix = bucket_subject(BUCKET_CONFIG, "");
                let key = message.subject.strip_prefix(&prefix);
                let value = (!is_removed).then_some(&message.payload[..]);
                Some(Self::Entry {
                    number,
                    pending,
                    key,
                    value,
                })
            }
        }
    }
}

/// The number that the consumer gave a message, and how many are still to come, out of
/// `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<number>.<time>.<pending>`; newer servers write two tokens
/// more after the second.
fn delivered_numbers(reply: &str) -> Option<(u64, u64)> {
    let tokens: Vec<_> = reply.split('.').collect();
    let added = match tokens.len() {
        9 => 0,
        11.. => 2,
        _ => return None,
    };
    if !reply.starts_with("$JS.ACK.") {
        return None;
    }
    let number = |at: usize| tokens.get(at + added)?.parse().ok();
    Some((number(6)?, number(8)?))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_missing_is_a_gap() {
        let entry = |number| Event::Entry {
            number,
            pending: 0,
            key: None,
            value: None,
        };
        let mut sequence = Sequence::default();
        sequence.follow(&Event::Idle { number: 0 }).unwrap();
        for event in [
            entry(1),
            Event::Paused { subject: "a" },
            entry(2),
            Event::Idle { number: 2 },
        ] {
            sequence.follow(&event).unwrap();
        }
        // Of what is missing, the server's word that it fell silent tells as well as the next message.
        for event in [
            entry(4),
            entry(2),
            Event::Idle { number: 3 },
            Event::Idle { number: 1 },
        ] {
            assert!(
                matches!(sequence.follow(&event), Err(Broken::Gap)),
                "{event:?}"
            );
        }
        sequence.follow(&entry(3)).unwrap();
    }

    #[test]
    fn a_table_is_whole_when_nothing_is_still_to_come_or_on_its_way() {
        let consumer = |answer: &str| serde_json::from_str::<Consumer>(answer).unwrap();
        let all_sent =
            consumer(r#"{"num_pending":0,"delivered":{"consumer_seq":7,"stream_seq":40}}"#);
        assert!(all_sent.is_done(7) && !all_sent.is_done(6));
        let more = consumer(r#"{"num_pending":1,"delivered":{"consumer_seq":7,"stream_seq":40}}"#);
        assert!(!more.is_done(7));
    }

    #[test]
    fn what_a_consumer_says_is_told_by_status_and_headers() {
        let reply = "$JS.ACK.KV_config.edge-1.1.40.7.1763784000123456789.5";
        let message = |reply: &str, headers: &str| {
            Received::new("$KV.config.tenant.acme", reply, headers.as_bytes(), b"{}")
        };
        let entry = |value| {
            Some(Event::Entry {
                number: 7,
                pending: 5,
                key: Some("tenant.acme"),
                value,
            })
        };
        assert_eq!(
            Event::read(&message(reply, "")),
            entry(Some(b"{}".as_slice()))
        );
        for removed in [
            "KV-Operation: DEL",
            "KV-Operation: PURGE",
            "Nats-Marker-Reason: MaxAge",
        ] {
            assert_eq!(
                Event::read(&message(reply, &format!("NATS/1.0\r\n{removed}\r\n\r\n"))),
                entry(None)
            );
        }
        let beat =
            "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 7\r\nNats-Last-Stream: 40\r\n";
        assert_eq!(
            Event::read(&message("", &format!("{beat}\r\n"))),
            Some(Event::Idle { number: 7 })
        );
        let paused = Some(Event::Paused {
            subject: "$JS.FC.a",
        });
        let stalled = message(
            "",
            &format!("{beat}Nats-Consumer-Stalled: $JS.FC.a\r\n\r\n"),
        );
        assert_eq!(Event::read(&stalled), paused);
        assert_eq!(
            Event::read(&message(
                "$JS.FC.a",
                "NATS/1.0 100 FlowControl Request\r\n\r\n"
            )),
            paused
        );
        for other in [
            message("", ""),
            message("", "NATS/1.0 100\r\n\r\n"),
            message(reply, "NATS/1.0 409 Gone\r\n\r\n"),
        ] {
            assert_eq!(Event::read(&other), None, "{other:?}");
        }
    }

    #[test]
    fn a_message_says_its_number_and_how_many_follow() {
        assert_eq!(
            delivered_numbers("$JS.ACK.KV_config.edge-1.1.40.7.1763784000123456789.5"),
            Some((7, 5))
        );
        assert_eq!(
            delivered_numbers("$JS.ACK.hub.ACC.KV_config.edge-1.1.40.7.1763784000123456789.5"),
            Some((7, 5))
        );
        assert_eq!(
            delivered_numbers("$JS.ACK.hub.ACC.KV_config.edge-1.1.40.7.1763784000123456789.5.x"),
            Some((7, 5))
        );
        for other in [
            "",
            "$JS.ACK.a.b.1.2.3.4",
            "$JS.ACK.a.b.1.2.x.4.5",
            "a.b.c.d.1.2.3.4.5",
        ] {
            assert_eq!(delivered_numbers(other), None, "{other}");
        }
    }
}
