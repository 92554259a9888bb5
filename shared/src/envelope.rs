//! The head of a message in UPDATES or OUTBOUND: what travels beside the payload, in the subject and in headers.
//!
//! Writing and reading are exact inverses; a message that was not written by this module is an error with
//! words, so that a pool can put it among the dead letters.

use crate::ids::{AppId, ConversationKey, PhoneNumberId, TenantId, UpdateId};
use crate::subjects::{self, Class, Lane, Partition, Subject, header};
use async_nats::HeaderMap;

/// What is known about an update without reading its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Dedupe id.
    pub id: UpdateId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Where it is ordered.
    pub partition: Partition,
    /// Update of a class, record of a type, or command in a lane.
    pub family: Family,
    /// What the payload is: `message.text`, `status.delivered`, `account.<field>`, the record's type, or `send.<type>`.
    pub kind: String,
    /// The app that brought it.
    pub app: Option<AppId>,
    /// The business number concerned.
    pub phone: Option<PhoneNumberId>,
    /// The conversation it belongs to.
    pub conversation: ConversationKey,
    /// When the edge had the delivery whole, in unix milliseconds.
    pub received_ms: u64,
    /// Meta's signature header, when the payload is Meta's own bytes.
    pub signature: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// Which family of subjects a message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `in.…`
    Update(Class),
    /// `ev.…`
    Record,
    /// `out.…`
    Command(Lane),
}

/// Why a message is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The subject is not `in.…`, `ev.…` or `out.…`.
    #[error("the subject `{0}` is not one of ours")]
    Subject(String),
    /// A header is missing or unreadable.
    #[error("the header {0} is missing or unreadable")]
    Header(&'static str),
}

impl Head {
    /// The subject to publish on.
    pub fn subject(&self) -> String {
        match self.family {
            Family::Update(class) => subjects::update(self.partition, class, &self.tenant),
            Family::Record => subjects::record(self.partition, &self.tenant, &self.kind),
            Family::Command(lane) => subjects::outbound(self.partition, lane, &self.tenant),
        }
    }

    /// The headers to publish with.
    pub fn to_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::MSG_ID, self.id.as_str());
        headers.insert(header::KIND, self.kind.as_str());
        headers.insert(header::CONVERSATION, self.conversation.as_str());
        headers.insert(header::RECEIVED, self.received_ms.to_string());
        let optional = [
            (header::APP, self.app.as_ref().map(AppId::as_str)),
            (header::PHONE, self.phone.as_ref().map(PhoneNumberId::as_str)),
            (header::SIGNATURE, self.signature.as_deref()),
            (header::TRACEPARENT, self.traceparent.as_deref()),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        headers
    }

    /// Reads the head of a message.
    pub fn read(subject: &str, headers: &HeaderMap) -> Result<Self, EnvelopeError> {
        let get = |name: &'static str| headers.get(name).map(|value| value.as_str());
        let need = |name: &'static str| get(name).ok_or(EnvelopeError::Header(name));
        let (partition, tenant, family) = match Subject::parse(subject) {
            Some(Subject::Update(partition, class, tenant)) => (partition, tenant, Family::Update(class)),
            Some(Subject::Record(partition, tenant, _)) => (partition, tenant, Family::Record),
            Some(Subject::Outbound(partition, lane, tenant)) => (partition, tenant, Family::Command(lane)),
            _ => return Err(EnvelopeError::Subject(subject.chars().take(120).collect())),
        };
        let received = need(header::RECEIVED)?.parse();
        Ok(Self {
            id: UpdateId::new(need(header::MSG_ID)?),
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
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head() -> Head {
        Head {
            id: UpdateId::new("wamid.HBg="),
            tenant: TenantId::new("acme").unwrap(),
            partition: Partition(3),
            family: Family::Update(Class::Message),
            kind: "message.text".into(),
            app: Some(AppId::new("main").unwrap()),
            phone: None,
            conversation: ConversationKey::user("US.1"),
            received_ms: 1_763_784_000_123,
            signature: Some("sha256=00".into()),
            traceparent: None,
        }
    }

    #[test]
    fn a_message_without_our_headers_says_which_is_missing() {
        let subject = subjects::update(Partition(3), Class::Message, &head().tenant);
        let error = Head::read(&subject, &HeaderMap::new()).unwrap_err();
        assert_eq!(error, EnvelopeError::Header(header::RECEIVED).clone());
        assert!(matches!(Head::read("x", &HeaderMap::new()), Err(EnvelopeError::Subject(_))));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            id in "\\PC{0,300}", phone in "[0-9]{1,20}", user in "\\PC{0,200}", kind in "[a-z_.]{1,40}", ms in any::<u64>(),
        ) {
            let written = Head {
                id: UpdateId::new(&id),
                phone: PhoneNumberId::new(phone).ok(),
                conversation: ConversationKey::user(&user),
                kind,
                received_ms: ms,
                ..head()
            };
            prop_assert_eq!(Head::read(&written.subject(), &written.to_headers()), Ok(written));
        }
    }
}
