//! The head as async-nats carries it: written into a map of headers, and read out of one.

use super::{EnvelopeError, Family, Head, Replay, VERBATIM, parts, read_message_id};
use crate::ids::{AppId, ConversationKey, EntityId, PhoneNumberId, UpdateId};
use crate::subjects::{Pool, Subject, header};
use async_nats::HeaderMap;

impl Head {
    /// The headers to publish with.
    pub fn to_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::MSG_ID, self.message_id());
        headers.insert(header::KIND, self.kind.as_str());
        headers.insert(header::CONVERSATION, self.conversation.as_str());
        headers.insert(header::RECEIVED, self.received_ms.to_string());
        self.each_optional(|name, value| headers.insert(name, value));
        headers
    }

    /// Reads the head of a message.
    pub fn read(subject: &str, headers: &HeaderMap) -> Result<Self, EnvelopeError> {
        let get = |name: &'static str| headers.get(name).map(|value| value.as_str());
        let need = |name: &'static str| get(name).ok_or(EnvelopeError::Header(name));
        let (partition, tenant, family, pool) = match Subject::parse(subject) {
            Some(Subject::Update(partition, class, tenant)) => {
                (partition, tenant, Family::Update(class), None)
            }
            Some(Subject::Record(partition, tenant, _)) => {
                (partition, tenant, Family::Record, None)
            }
            Some(Subject::Outbound(partition, lane, tenant)) => (
                partition,
                tenant,
                Family::Command(lane),
                get(header::REPLAY_OF).map(|_| Pool::Replies),
            ),
            Some(Subject::Replay(pool, partition, what, tenant)) => (
                partition,
                tenant,
                what.parse().map_or(Family::Record, Family::Update),
                Some(pool),
            ),
            _ => return Err(EnvelopeError::Subject(subject.chars().take(120).collect())),
        };
        let received = need(header::RECEIVED)?.parse();
        let replay = match pool {
            Some(pool) => Some(Box::new(Replay {
                pool,
                of: need(header::REPLAY_OF)?.to_owned(),
                id: UpdateId::new(need(header::REPLAY_ID)?),
                target: match get(header::REPLAY_TARGET) {
                    // Meant for one target, it must never reach all of them.
                    Some(text) => Some(
                        EntityId::new(text)
                            .map_err(|_| EnvelopeError::Header(header::REPLAY_TARGET))?,
                    ),
                    None => None,
                },
                done: get(header::DEAD_DONE).map(parts).unwrap_or_default(),
                verbatim: get(header::REPLAY_VERBATIM) == Some(VERBATIM),
            })),
            None => None,
        };
        Ok(Self {
            id: read_message_id(&tenant, need(header::MSG_ID)?),
            tenant,
            partition,
            family,
            kind: need(header::KIND)?.to_owned(),
            app: get(header::APP).and_then(|text| AppId::new(text).ok()),
            phone: get(header::PHONE).and_then(|text| PhoneNumberId::new(text).ok()),
            conversation: ConversationKey::parse(need(header::CONVERSATION)?)
                .ok_or(EnvelopeError::Header(header::CONVERSATION))?,
            received_ms: received.map_err(|_| EnvelopeError::Header(header::RECEIVED))?,
            signature: get(header::SIGNATURE).map(str::to_owned),
            traceparent: get(header::TRACEPARENT).map(str::to_owned),
            field: get(header::FIELD).map(str::to_owned),
            replay,
        })
    }
}
