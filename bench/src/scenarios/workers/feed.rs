//! Puts updates into the stream as the ingress would: Meta's bytes, signature, headers, partition.

use super::super::rig::APP_SECRET;
use super::{phone, second_phone, tenant};
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{AppId, ConversationKey, PhoneNumberId, TenantId, UpdateId};
use ackline_shared::partition;
use ackline_shared::secret::Secret;
use ackline_shared::signature::SigningKey;
use ackline_shared::subjects::{self, Class, Pool, UPDATES, header, session_key};
use anyhow::{Context, Result, anyhow};
use async_nats::jetstream::{self, context::PublishAckFuture};
use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

/// Partitions of the installation; the default.
pub const PARTITIONS: u16 = 32;
const SHARDS: u8 = 4;
const IN_FLIGHT: usize = 512;
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_millis(100);
const RETRIES: usize = 300;
const ID_START: &str = "wamid.WORK";

/// One update to be worked on.
#[derive(Debug, Clone, Copy)]
pub struct Update {
    /// Its number; no two are alike.
    pub serial: u32,
    pub tenant: usize,
    /// Who wrote, within the tenant.
    pub person: u32,
    /// A status instead of a message.
    pub is_status: bool,
    /// Whether it came to the tenant's second number.
    pub second: bool,
}

impl Update {
    /// The business number it came to.
    fn phone(&self) -> String {
        if self.second {
            second_phone(self.tenant)
        } else {
            phone(self.tenant)
        }
    }

    fn conversation(&self) -> ConversationKey {
        ConversationKey::user(&format!("US.{:012}", self.person))
    }

    /// Where flows keep what they know of its conversation.
    pub fn session(&self) -> Result<String> {
        let owner =
            TenantId::new(tenant(self.tenant)).map_err(|error| anyhow!("a made-up id: {error}"))?;
        Ok(session_key::of(
            Pool::Flows,
            &owner,
            &self.phone(),
            &self.conversation(),
        ))
    }
}

#[derive(Debug)]
pub struct Feed {
    context: jetstream::Context,
    key: SigningKey,
}

impl Feed {
    /// Opens a feed on a broker.
    pub fn new(context: jetstream::Context) -> Self {
        Self {
            context,
            key: SigningKey::new(&Secret::new(APP_SECRET.to_owned())),
        }
    }

    /// Stores updates as fast as the broker takes them; each is in the stream when this returns.
    pub async fn fill(&self, updates: impl Iterator<Item = Update>) -> Result<()> {
        let mut waiting = VecDeque::with_capacity(IN_FLIGHT);
        for update in updates {
            if waiting.len() == IN_FLIGHT {
                self.settle(waiting.pop_front()).await?;
            }
            waiting.push_back((update, Instant::now(), self.publish(&update).await?));
        }
        while !waiting.is_empty() {
            self.settle(waiting.pop_front()).await?;
        }
        Ok(())
    }

    /// Stores updates each at its time after `start`, whatever became of the ones before; late is late.
    pub async fn offer(
        &self,
        start: Instant,
        updates: impl Iterator<Item = (Duration, Update)>,
    ) -> Result<()> {
        let mut waiting = VecDeque::with_capacity(IN_FLIGHT);
        for (due, update) in updates {
            sleep_until(start + due).await;
            if waiting.len() == IN_FLIGHT {
                self.settle(waiting.pop_front()).await?;
            }
            waiting.push_back((update, Instant::now(), self.publish(&update).await?));
        }
        while !waiting.is_empty() {
            self.settle(waiting.pop_front()).await?;
        }
        Ok(())
    }

    async fn settle(&self, waiting: Option<(Update, Instant, PublishAckFuture)>) -> Result<()> {
        let Some((update, published, receipt)) = waiting else {
            return Ok(());
        };
        if matches!(
            timeout_at(published + ACKNOWLEDGED_WITHIN, receipt).await,
            Ok(Ok(_))
        ) {
            return Ok(());
        }
        // The broker was away: again under the same id, which is stored once.
        for _ in 0..RETRIES {
            if let Ok(receipt) = self.publish(&update).await
                && matches!(timeout(ACKNOWLEDGED_WITHIN, receipt).await, Ok(Ok(_)))
            {
                return Ok(());
            }
            sleep(RETRY).await;
        }
        Err(anyhow!("the broker did not take update {}", update.serial))
    }

    /// Stores dead letters of the relay, as the pool would leave them; each is in the stream when this returns.
    pub async fn bury(&self, updates: impl Iterator<Item = Update>) -> Result<()> {
        let mut waiting = VecDeque::with_capacity(IN_FLIGHT);
        for update in updates {
            if waiting.len() == IN_FLIGHT {
                stored(waiting.pop_front()).await?;
            }
            waiting.push_back(self.publish_dead(&update).await?);
        }
        while !waiting.is_empty() {
            stored(waiting.pop_front()).await?;
        }
        Ok(())
    }

    async fn publish_dead(&self, update: &Update) -> Result<PublishAckFuture> {
        let body = body(update);
        let head = head(update, &self.key.sign(body.as_bytes()))?;
        let mut headers = head.to_headers();
        let origin = format!(
            "{UPDATES}:{}:{}",
            update.serial.saturating_add(1),
            head.subject()
        );
        headers.insert(header::MSG_ID, format!("dead:{}", head.id.as_str()));
        headers.insert(header::DEAD_ID, head.id.as_str());
        headers.insert(
            header::DEAD_REASON,
            "gave up after 6 attempts: bot: answered 503",
        );
        headers.insert(header::DEAD_ATTEMPTS, "6");
        headers.insert(header::DEAD_AT, head.received_ms.to_string());
        headers.insert(header::DEAD_ORIGIN, origin);
        let subject = subjects::dead(Pool::Relay, &head.tenant);
        self.context
            .publish_with_headers(subject, headers, body.into())
            .await
            .context("publishing a letter")
    }

    async fn publish(&self, update: &Update) -> Result<PublishAckFuture> {
        let body = body(update);
        let head = head(update, &self.key.sign(body.as_bytes()))?;
        let published =
            self.context
                .publish_with_headers(head.subject(), head.to_headers(), body.into());
        published.await.context("publishing an update")
    }
}

async fn stored(receipt: Option<PublishAckFuture>) -> Result<()> {
    if let Some(receipt) = receipt {
        timeout(ACKNOWLEDGED_WITHIN, receipt)
            .await
            .context("the broker did not answer")??;
    }
    Ok(())
}

/// The id an update is deduplicated by.
pub fn id(serial: u32) -> String {
    format!("{ID_START}{serial:08x}")
}

/// The serial number behind the first id of ours in some bytes.
pub fn serial_in(bytes: &[u8]) -> Option<u32> {
    let start = bytes
        .windows(ID_START.len())
        .position(|window| window == ID_START.as_bytes())?;
    let from = start + ID_START.len();
    u32::from_str_radix(std::str::from_utf8(bytes.get(from..from + 8)?).ok()?, 16).ok()
}

fn head(update: &Update, signature: &str) -> Result<Head> {
    let bad = |error: &dyn std::fmt::Display| anyhow!("a made-up id is refused: {error}");
    let owner = TenantId::new(tenant(update.tenant)).map_err(|error| bad(&error))?;
    let conversation = update.conversation();
    let (class, kind, id) = if update.is_status {
        (
            Class::Status,
            "status.delivered",
            format!("{}:delivered", id(update.serial)),
        )
    } else {
        (Class::Message, "message.text", id(update.serial))
    };
    Ok(Head {
        id: UpdateId::new(&id),
        partition: partition::of_conversation(&owner, &conversation, SHARDS, PARTITIONS),
        tenant: owner,
        family: Family::Update(class),
        kind: kind.to_owned(),
        app: Some(AppId::new("main").map_err(|error| bad(&error))?),
        phone: Some(PhoneNumberId::new(update.phone()).map_err(|error| bad(&error))?),
        conversation,
        received_ms: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0)),
        signature: Some(signature.to_owned()),
        traceparent: None,
        field: None,
        replay: None,
    })
}

fn body(update: &Update) -> String {
    let Update {
        serial,
        tenant,
        person,
        is_status,
        ..
    } = *update;
    let (id, phone) = (id(serial), update.phone());
    let content = if is_status {
        format!(
            r#""statuses":[{{"id":"{id}","status":"delivered","timestamp":"1795300000","recipient_id":"1555{person:07}","recipient_user_id":"US.{person:012}"}}]"#
        )
    } else {
        format!(
            r#""contacts":[{{"profile":{{"name":"Person {person}"}},"wa_id":"1555{person:07}","user_id":"US.{person:012}"}}],"messages":[{{"from":"1555{person:07}","from_user_id":"US.{person:012}","id":"{id}","timestamp":"1795300000","text":{{"body":"The parcel {id} left the depot."}},"type":"text"}}]"#
        )
    };
    format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"W{tenant}","changes":[{{"value":{{"messaging_product":"whatsapp","metadata":{{"display_phone_number":"15550783881","phone_number_id":"{phone}"}},{content}}},"field":"messages"}}]}}]}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn an_update_is_json_that_carries_its_serial_number() {
        for is_status in [false, true] {
            let update = Update {
                serial: 77,
                tenant: 3,
                person: 9,
                is_status,
                second: false,
            };
            let body = body(&update);
            let _: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(serial_in(body.as_bytes()), Some(77));
            let head = head(&update, "sha256=00").unwrap();
            assert_eq!(serial_in(head.id.as_str().as_bytes()), Some(77));
        }
        assert_eq!(serial_in(b"wamid.other"), None);
    }
}
