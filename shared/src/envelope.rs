//! The head of a message in UPDATES or OUTBOUND: what travels beside the payload, in the subject and in headers.
//!
//! Writing and reading are exact inverses; a message that was not written by this module is an error with
//! words, so that a pool can put it among the dead letters.

#[cfg(feature = "client")]
mod headers;

use crate::ids::{AppId, ConversationKey, EntityId, PhoneNumberId, TenantId, UpdateId};
use crate::subjects::{self, Class, Lane, Partition, Pool, header};

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
    /// The webhook field it came under, unless that is `messages`; what an earlier version stored has none.
    pub field: Option<String>,
    /// What it repeats, when somebody put it before a pool again.
    pub replay: Option<Box<Replay>>,
}

/// What a replay repeats, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// The one pool it is for.
    pub pool: Pool,
    /// Where the original is, as `DEAD:seq` or `UPDATES:seq`.
    pub of: String,
    /// The original's id.
    pub id: UpdateId,
    /// The one target of the pool it is for; `None` for all of them.
    pub target: Option<EntityId>,
    /// Parts that took effect already.
    pub done: Vec<String>,
    /// Whether the payload is exactly what the edge stored, through every replay since.
    pub verbatim: bool,
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

/// Stands between the tenant and the id in a message id; no tenant's id holds it.
const MESSAGE_ID_BORDER: u8 = b'/';

/// What the header of a verbatim replay holds; anything else is no such word.
const VERBATIM: &str = "true";

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
        if let (Some(replay), Some(what)) = (&self.replay, self.replayed_as()) {
            return subjects::replay(replay.pool, self.partition, what, &self.tenant);
        }
        match self.family {
            Family::Update(class) => subjects::update(self.partition, class, &self.tenant),
            Family::Record => subjects::record(self.partition, &self.tenant, &self.kind),
            Family::Command(lane) => subjects::outbound(self.partition, lane, &self.tenant),
        }
    }

    /// The class or type in a replay's subject; a command is replayed as a command.
    fn replayed_as(&self) -> Option<&str> {
        match self.family {
            Family::Update(class) => Some(class.as_str()),
            Family::Record => Some(&self.kind),
            Family::Command(_) => None,
        }
    }

    /// The id of what happened: the original's for a replay, its own for everything else.
    pub fn original_id(&self) -> &UpdateId {
        self.replay.as_ref().map_or(&self.id, |replay| &replay.id)
    }

    /// Whether a target of the pool is meant: all are, unless this is a replay for one.
    pub fn is_for(&self, target: &EntityId) -> bool {
        let only = self
            .replay
            .as_ref()
            .and_then(|replay| replay.target.as_ref());
        only.is_none_or(|only| only == target)
    }

    /// Appends the subject to publish on.
    pub fn write_subject(&self, out: &mut Vec<u8>) {
        match self.family {
            Family::Update(class) if self.replay.is_none() => {
                subjects::write_update(out, self.partition, class, &self.tenant);
            }
            _ => out.extend_from_slice(self.subject().as_bytes()),
        }
    }

    /// Appends the headers to publish with, as they travel: from the version's line to the empty line.
    pub fn write_headers(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"NATS/1.0\r\n");
        out.extend_from_slice(header::MSG_ID.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(self.tenant.as_str().as_bytes());
        out.push(MESSAGE_ID_BORDER);
        out.extend_from_slice(self.id.as_str().as_bytes());
        out.extend_from_slice(b"\r\n");
        write_header(out, header::KIND, &self.kind);
        write_header(out, header::CONVERSATION, self.conversation.as_str());
        out.extend_from_slice(header::RECEIVED.as_bytes());
        out.extend_from_slice(b": ");
        subjects::write_decimal(out, self.received_ms);
        out.extend_from_slice(b"\r\n");
        self.each_optional(|name, value| write_header(out, name, value));
        out.extend_from_slice(b"\r\n");
    }

    /// The id to publish under: no tenant's update is ever taken for the repeat of another's.
    pub fn message_id(&self) -> String {
        format!(
            "{}{}{}",
            self.tenant,
            char::from(MESSAGE_ID_BORDER),
            self.id.as_str()
        )
    }

    /// Whether the payload is exactly what the edge stored: false once somebody edited it.
    pub fn is_verbatim(&self) -> bool {
        self.replay.as_ref().is_none_or(|replay| replay.verbatim)
    }

    /// Visits the headers that not every message has.
    fn each_optional(&self, mut visit: impl FnMut(&'static str, &str)) {
        let replay = self.replay.as_deref();
        let done = replay
            .filter(|replay| !replay.done.is_empty())
            .map(|replay| replay.done.join(","));
        let optional = [
            (header::REPLAY_OF, replay.map(|replay| replay.of.as_str())),
            (header::REPLAY_ID, replay.map(|replay| replay.id.as_str())),
            (
                header::REPLAY_TARGET,
                replay
                    .and_then(|replay| replay.target.as_ref())
                    .map(EntityId::as_str),
            ),
            (
                header::REPLAY_VERBATIM,
                replay.filter(|replay| replay.verbatim).map(|_| VERBATIM),
            ),
            (header::DEAD_DONE, done.as_deref()),
            (header::APP, self.app.as_ref().map(AppId::as_str)),
            (
                header::PHONE,
                self.phone.as_ref().map(PhoneNumberId::as_str),
            ),
            (header::SIGNATURE, self.signature.as_deref()),
            (header::TRACEPARENT, self.traceparent.as_deref()),
            (header::FIELD, self.field.as_deref()),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                visit(name, value);
            }
        }
    }
}

/// Reads the update's id out of a message id; one from before tenants stood in them is the id itself.
pub fn read_message_id(tenant: &TenantId, text: &str) -> UpdateId {
    let own = text
        .strip_prefix(tenant.as_str())
        .and_then(|rest| rest.strip_prefix(char::from(MESSAGE_ID_BORDER)));
    UpdateId::new(own.unwrap_or(text))
}

/// Reads a list of parts that took effect.
pub fn parts(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Appends one header; a value cannot end its line.
fn write_header(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    if value.bytes().any(|byte| matches!(byte, b'\r' | b'\n')) {
        out.extend(value.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')));
    } else {
        out.extend_from_slice(value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_nats::HeaderMap;
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
            field: None,
            replay: None,
        }
    }

    #[test]
    fn a_message_without_our_headers_says_which_is_missing() {
        let subject = subjects::update(Partition(3), Class::Message, &head().tenant);
        let error = Head::read(&subject, &HeaderMap::new()).unwrap_err();
        assert_eq!(error, EnvelopeError::Header(header::RECEIVED).clone());
        assert!(matches!(
            Head::read("x", &HeaderMap::new()),
            Err(EnvelopeError::Subject(_))
        ));
    }

    #[test]
    fn a_replay_travels_to_one_pool_and_reads_back() {
        let replay = Replay {
            pool: Pool::Relay,
            of: "DEAD:17".into(),
            id: UpdateId::new("wamid.HBg="),
            target: EntityId::new("old-bot").ok(),
            done: vec!["other".into(), "third".into()],
            verbatim: true,
        };
        let written = Head {
            id: UpdateId::new("wamid.HBg=~rp_1"),
            replay: Some(Box::new(replay)),
            ..head()
        };
        assert_eq!(written.subject(), "rp.relay.3.msg.acme");
        assert_eq!(
            Head::read(&written.subject(), &written.to_headers()),
            Ok(written.clone())
        );
        assert_eq!(written.original_id(), &head().id);
        assert!(written.is_for(&EntityId::new("old-bot").unwrap()));
        assert!(!written.is_for(&EntityId::new("new-bot").unwrap()));
        assert!(written.is_verbatim() && head().is_verbatim());
        let mut edited = written.clone();
        edited.replay.as_mut().unwrap().verbatim = false;
        for word in [None, Some("false"), Some("TRUE"), Some("")] {
            let mut headers = edited.to_headers();
            word.into_iter()
                .for_each(|word| headers.insert(header::REPLAY_VERBATIM, word));
            assert_eq!(
                Head::read(&written.subject(), &headers),
                Ok(edited.clone()),
                "{word:?}"
            );
        }
        let error = Head::read(&written.subject(), &head().to_headers()).unwrap_err();
        assert_eq!(error, EnvelopeError::Header(header::REPLAY_OF));
    }

    #[test]
    fn two_tenants_never_publish_under_one_message_id() {
        let acme = head();
        let globex = Head {
            tenant: TenantId::new("globex").unwrap(),
            ..head()
        };
        assert_eq!(acme.message_id(), "acme/wamid.HBg=");
        assert_ne!(acme.message_id(), globex.message_id());
        // Whatever Meta or a developer writes into an id, it stays within its tenant.
        let forged = Head {
            id: UpdateId::new("acme/wamid.HBg="),
            ..globex
        };
        assert_ne!(forged.message_id(), acme.message_id());
        assert_eq!(
            Head::read(&forged.subject(), &forged.to_headers()).map(|read| read.id),
            Ok(forged.id.clone())
        );
    }

    #[test]
    fn a_message_id_from_before_tenants_stood_in_it_is_the_id() {
        let mut headers = head().to_headers();
        headers.insert(header::MSG_ID, head().id.as_str());
        assert_eq!(Head::read(&head().subject(), &headers), Ok(head()));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            id in "\\PC{0,300}", phone in "[0-9]{1,20}", user in "\\PC{0,200}", kind in "[a-z_.]{1,40}", ms in any::<u64>(),
            field in prop::option::of("[a-z_]{1,20}"),
        ) {
            let written = Head {
                id: UpdateId::new(&id),
                phone: PhoneNumberId::new(phone).ok(),
                conversation: ConversationKey::user(&user),
                kind,
                received_ms: ms,
                field,
                ..head()
            };
            prop_assert_eq!(Head::read(&written.subject(), &written.to_headers()), Ok(written.clone()));
            let (mut subject, mut block) = (Vec::new(), Vec::new());
            written.write_subject(&mut subject);
            written.write_headers(&mut block);
            prop_assert_eq!(subject, written.subject().into_bytes());
            prop_assert_eq!(parse(&block), written.to_headers());
        }

        #[test]
        fn a_value_never_ends_its_line(kind in "[a-z\r\n: ]{0,40}") {
            let mut block = Vec::new();
            let head = Head { kind, ..head() };
            head.write_headers(&mut block);
            prop_assert_eq!(parse(&block).len(), head.to_headers_len());
        }
    }

    impl Head {
        fn to_headers_len(&self) -> usize {
            Self {
                kind: String::new(),
                ..self.clone()
            }
            .to_headers()
            .len()
        }
    }

    fn parse(block: &[u8]) -> HeaderMap {
        let text = std::str::from_utf8(block).unwrap();
        let lines = text
            .strip_prefix("NATS/1.0\r\n")
            .unwrap()
            .strip_suffix("\r\n")
            .unwrap();
        let mut headers = HeaderMap::new();
        for line in lines.split_terminator("\r\n") {
            let (name, value) = line.split_once(": ").unwrap();
            headers.insert(name, value);
        }
        headers
    }
}
