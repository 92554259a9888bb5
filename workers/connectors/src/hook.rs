//! Chatwoot's webhook: whether it is genuine, whether an agent wrote it, and the send command it becomes.
//!
//! Everything we post into Chatwoot carries its `source_id` from the first moment, so a message without one
//! was written there. Only top-level fields count: `conversation.messages` holds the newest message, which
//! need not be this one. Chatwoot sends a message once or more and in any order; the command's id makes
//! repeats one.

use super::attachment::{self, Attachment};
use super::link::{LinkedPerson, Route, address};
use ackline_message::markdown;
use ackline_message::{Content, Origin, Recipient, SendCommand};
use ackline_message::{Unsendable, check};
use ackline_shared::ids::{hex, short_hash};
use ackline_shared::model::CrmLink;
use ackline_shared::secret::Secret;
use ackline_shared::signature::SigningKey;
use serde_json::Value;
use subtle::ConstantTimeEq;

/// Header with the unix seconds that are part of what is signed.
pub const TIMESTAMP_HEADER: &str = "X-Chatwoot-Timestamp";
/// Header with `sha256=` and the hex HMAC of `{timestamp}.{body}`.
pub const SIGNATURE_HEADER: &str = "X-Chatwoot-Signature";

const TOLERANCE_S: u64 = 300;

/// Why a webhook is not accepted; none of these says what would have been right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// A secret is configured and the webhook is not signed.
    #[error(
        "the webhook is not signed; headers X-Chatwoot-Timestamp and X-Chatwoot-Signature are expected"
    )]
    Unsigned,
    /// The timestamp is not one, or too far from now.
    #[error("the webhook's timestamp is unreadable or more than five minutes from now")]
    Timestamp,
    /// The signature is another one.
    #[error("the webhook's signature does not match; is webhook_secret the secret of this inbox?")]
    Mismatch,
}

/// Checks Chatwoot's signature over the exact bytes; without a secret everything passes, since old versions
/// sign nothing and the unguessable address is then the only proof.
pub fn verify(
    secret: Option<&Secret<String>>,
    timestamp: Option<&str>,
    signature: Option<&str>,
    body: &[u8],
    now_ms: u64,
) -> Result<(), HookError> {
    let Some(secret) = secret else { return Ok(()) };
    let (Some(timestamp), Some(signature)) = (timestamp, signature) else {
        return Err(HookError::Unsigned);
    };
    let seconds: u64 = timestamp.parse().map_err(|_| HookError::Timestamp)?;
    if seconds.abs_diff(now_ms / 1000) > TOLERANCE_S {
        return Err(HookError::Timestamp);
    }
    let digest = SigningKey::new(secret).digest(&[timestamp.as_bytes(), b".", body]);
    let expected = format!("sha256={}", hex(&digest));
    if bool::from(expected.as_bytes().ct_eq(signature.trim().as_bytes())) {
        Ok(())
    } else {
        Err(HookError::Mismatch)
    }
}

/// What Chatwoot tells of a message anew for this long; older ones are left alone, for it is not remembered any more
/// whether they went out.
const UPDATED_MS_MAX: u64 = 7 * 24 * 3600 * 1000;

/// The contact of a conversation, as the CRM has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HookContact {
    pub id: Option<u64>,
    pub phone_number: Option<String>,
    pub identifier: Option<String>,
}

impl HookContact {
    fn read(conversation: &Value) -> Self {
        let text = |pointer: &str| {
            let text = conversation.pointer(pointer).and_then(Value::as_str);
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        Self {
            id: conversation
                .pointer("/meta/sender/id")
                .and_then(Value::as_u64),
            phone_number: text("/meta/sender/phone_number"),
            identifier: text("/meta/sender/identifier"),
        }
    }

    /// Where the person can be reached: at the source id, if it is an address, else at the phone number of the contact.
    pub fn address(&self, source_id: &str) -> Option<Recipient> {
        let others = [self.phone_number.as_deref(), self.identifier.as_deref()];
        let texts = [Some(source_id)].into_iter().chain(others).flatten();
        texts.into_iter().find_map(address)
    }

    /// Whether what is remembered of a source id is still of this contact. An id that is an address always is; under a
    /// random one an agent may have corrected the contact's number since.
    pub fn agrees(&self, source_id: &str, place: &LinkedPerson) -> bool {
        if address(source_id).is_some() {
            return true;
        }
        let Some(to) = self.address(source_id) else {
            return true;
        };
        let is = |ours: &Option<String>, theirs: &Option<String>| ours.is_some() && ours == theirs;
        is(&to.phone, &place.phone) || is(&to.user_id, &place.user_id)
    }
}

/// A message an agent (or the CRM's own automation) wrote to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentMessage {
    pub account_id: u64,
    /// The CRM's id of the message, unique in the account.
    pub message_id: u64,
    pub inbox_id: u64,
    /// The conversation it was written in.
    pub conversation_id: Option<u64>,
    /// The id of the contact in the inbox: an address of the person's, or a random one where an agent began.
    pub source_id: String,
    pub contact: HookContact,
    /// Whether it is told of once more: since it changed, or since an agent sends again what failed.
    pub is_update: bool,
    /// The text, in WhatsApp's marks.
    pub content: String,
    /// The wamid of the message it quotes.
    pub reply_to: Option<String>,
    /// The CRM's id of the message it quotes.
    pub quotes: Option<u64>,
    /// The files it carries.
    pub attachments: Vec<Attachment>,
    /// Whether a person wrote it, and no automation.
    pub by_person: bool,
    /// When it was written, in unix milliseconds, by the CRM's clock.
    pub written_ms: Option<u64>,
}

/// A conversation that agents are done with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    account_id: Option<u64>,
    inbox_id: Option<u64>,
    /// The id of the contact in the inbox.
    pub source_id: String,
    pub contact: HookContact,
    /// Whether it was given back to the bot, and not closed.
    pub to_bot: bool,
    /// When, in unix milliseconds, by the CRM's clock.
    pub at_ms: Option<u64>,
}

impl Release {
    /// Whether it was in the inbox of this link.
    pub fn is_for(&self, link: &CrmLink) -> bool {
        self.account_id.is_none_or(|id| id == link.account_id)
            && self.inbox_id.is_none_or(|id| id == link.inbox_id)
    }

    /// Reads a webhook that tells that a conversation was resolved, or is the bot's again (`pending`).
    pub fn parse(body: &[u8]) -> Option<Self> {
        let event: Value = serde_json::from_slice(body).ok()?;
        let text = |pointer: &str| {
            event
                .pointer(pointer)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
        };
        let number = |pointer: &str| event.pointer(pointer).and_then(Value::as_u64);
        if !matches!(
            text("/event"),
            Some("conversation_status_changed" | "conversation_resolved")
        ) {
            return None;
        }
        let to_bot = match text("/status") {
            Some("resolved") => false,
            Some("pending") => true,
            _ => return None,
        };
        let changed = event
            .get("changed_attributes")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let changed = changed
            .filter_map(|one| one.pointer("/updated_at/current_value"))
            .find_map(moment_ms);
        Some(Self {
            account_id: number("/account/id").or_else(|| number("/messages/0/account_id")),
            inbox_id: number("/inbox_id"),
            source_id: text("/contact_inbox/source_id")?.to_owned(),
            contact: HookContact::read(&event),
            to_bot,
            at_ms: event.get("updated_at").and_then(moment_ms).or(changed),
        })
    }
}

/// A time as Chatwoot writes them: seconds, whole or not, or RFC 3339.
fn moment_ms(value: &Value) -> Option<u64> {
    if let Some(text) = value.as_str() {
        return u64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_millisecond()).ok();
    }
    let duration = std::time::Duration::try_from_secs_f64(value.as_f64()?).ok()?;
    u64::try_from(duration.as_millis()).ok()
}

impl AgentMessage {
    /// Whether it was written in the inbox of this link.
    pub fn is_for(&self, link: &CrmLink) -> bool {
        self.account_id == link.account_id && self.inbox_id == link.inbox_id
    }

    /// Whether it is told of anew so late that it is not known any more what became of it.
    pub fn is_stale(&self, now_ms: u64) -> bool {
        let age = self
            .written_ms
            .map_or(0, |at_ms| now_ms.saturating_sub(at_ms));
        self.is_update && age > UPDATED_MS_MAX
    }

    /// Why it cannot be sent; the CRM shows it to the agent when the webhook is answered with an error.
    pub fn refusal(&self) -> Option<String> {
        if self.attachments.iter().any(|file| file.kind.is_none()) {
            let words = "WhatsApp gets text, images, voice, video and documents from here; send it without the rest";
            return Some(words.to_owned());
        }
        let has_files = !self.attachments.is_empty();
        let texts = self.messages().into_iter();
        let texts = texts.filter(|content| !has_files || content.as_file().is_none());
        texts
            .filter_map(|content| Unsendable::unless_none(&check(&content)).err())
            .map(|refused| refused.to_string())
            .next()
    }

    /// The messages it becomes, in order.
    pub fn messages(&self) -> Vec<Content> {
        attachment::messages(&self.content, &self.attachments)
    }
}

/// Reads a webhook; `None` when it is anything but a message to be sent to a person.
pub fn parse(body: &[u8]) -> Option<AgentMessage> {
    let event: Value = serde_json::from_slice(body).ok()?;
    let flag = |pointer: &str| {
        event
            .pointer(pointer)
            .and_then(Value::as_bool)
            .unwrap_or(false)
    };
    let text = |pointer: &str| {
        event
            .pointer(pointer)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let number = |pointer: &str| event.pointer(pointer).and_then(Value::as_u64);
    let is_update = match text("/event") {
        Some("message_created") => false,
        // Retry is told as a change. Our own word that it failed is one as well, and carries the reason; Retry takes it away.
        Some("message_updated") if text("/content_attributes/external_error").is_none() => true,
        _ => return None,
    };
    let written_there = matches!(text("/message_type"), Some("outgoing" | "template"))
        && event.get("source_id").is_none_or(Value::is_null)
        && !flag("/private")
        && !flag("/content_attributes/external_echo")
        && !flag("/content_attributes/deleted");
    if !written_there {
        return None;
    }
    Some(AgentMessage {
        account_id: number("/account/id")?,
        message_id: number("/id")?,
        inbox_id: number("/inbox/id").or_else(|| number("/conversation/inbox_id"))?,
        conversation_id: number("/conversation/id"),
        contact: event
            .get("conversation")
            .map(HookContact::read)
            .unwrap_or_default(),
        is_update,
        source_id: text("/conversation/contact_inbox/source_id")?.to_owned(),
        content: markdown::to_whatsapp(text("/content").unwrap_or_default()),
        reply_to: text("/content_attributes/in_reply_to_external_id")
            .filter(|id| is_wamid(id))
            .map(str::to_owned),
        quotes: number("/content_attributes/in_reply_to"),
        attachments: Attachment::all_of(&event),
        by_person: text("/message_type") == Some("outgoing")
            && text("/sender/type") == Some("user")
            && event
                .pointer("/content_attributes/automation_rule_id")
                .is_none_or(Value::is_null),
        written_ms: event.get("created_at").and_then(moment_ms),
    })
}

/// Whether an id is Meta's of a message.
pub fn is_wamid(id: &str) -> bool {
    id.starts_with("wamid.")
}

/// Which attempt at which of the messages that an agent's message becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part {
    /// Which message, from 0.
    pub number: u32,
    /// How often it was sent again.
    pub retries: u32,
}

/// The command that sends one of its messages; the same attempt at the same message always gives the same id.
pub fn command(
    link: &CrmLink,
    route: &Route,
    message: &AgentMessage,
    (part, content): (Part, Content),
    now_ms: u64,
) -> SendCommand {
    let mut identity = format!(
        "{}/{}/{}/{}",
        link.tenant, link.id, message.account_id, message.message_id
    );
    for (name, number) in [("part", part.number), ("again", part.retries)] {
        if number > 0 {
            identity.push_str(&format!("/{name}/{number}"));
        }
    }
    SendCommand {
        id: format!("crm-{}", short_hash(identity.as_bytes())),
        tenant: link.tenant.clone(),
        phone_number_id: route.number.clone(),
        to: route.to.clone(),
        content,
        reply_to: message.reply_to.clone().filter(|_| part.number == 0),
        origin: Origin::Agent {
            link: link.id.to_string(),
            message: message.message_id.to_string(),
        },
        created_ms: now_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::ids::PhoneNumberId;
    use serde_json::json;

    const BODY: &[u8] = br#"{"event":"message_created","id":1}"#;
    const SIGNATURE: &str =
        "sha256=5edd5afedd7ea62edb707dec5e16760dcce8076f63e459105a3af09dbaa4aa3b";
    const SIGNED_MS: u64 = 1_700_000_000_000;

    fn check(
        timestamp: Option<&str>,
        signature: Option<&str>,
        now_ms: u64,
    ) -> Result<(), HookError> {
        verify(
            Some(&Secret::new("test_secret".to_owned())),
            timestamp,
            signature,
            BODY,
            now_ms,
        )
    }

    #[test]
    fn a_signature_of_chatwoots_own_code_is_accepted_for_five_minutes() {
        let (timestamp, signature) = (Some("1700000000"), Some(SIGNATURE));
        assert_eq!(check(timestamp, signature, SIGNED_MS), Ok(()));
        assert_eq!(check(timestamp, signature, SIGNED_MS + 300_000), Ok(()));
        assert_eq!(
            check(timestamp, signature, SIGNED_MS + 301_000),
            Err(HookError::Timestamp)
        );
        assert_eq!(
            check(timestamp, signature, SIGNED_MS - 301_000),
            Err(HookError::Timestamp)
        );
    }

    #[test]
    fn anything_else_is_refused_when_a_secret_is_configured() {
        let at = |timestamp, signature| check(timestamp, signature, SIGNED_MS);
        assert_eq!(at(None, Some(SIGNATURE)), Err(HookError::Unsigned));
        assert_eq!(at(Some("1700000000"), None), Err(HookError::Unsigned));
        assert_eq!(at(Some("now"), Some(SIGNATURE)), Err(HookError::Timestamp));
        assert_eq!(
            at(Some("1700000001"), Some(SIGNATURE)),
            Err(HookError::Mismatch)
        );
        assert_eq!(
            at(Some("1700000000"), Some("sha256=00")),
            Err(HookError::Mismatch)
        );
        assert_eq!(verify(None, None, None, BODY, 0), Ok(()));
    }

    fn event() -> Value {
        json!({
            "event": "message_created", "id": 42, "content": "**Hello** there", "message_type": "outgoing",
            "private": false, "source_id": null, "content_type": "text", "content_attributes": {},
            "account": {"id": 3, "name": "A"}, "inbox": {"id": 7, "name": "WhatsApp"},
            "sender": {"id": 1, "type": "user"},
            "conversation": {"id": 11, "inbox_id": 7, "contact_inbox": {"source_id": "15550001"}, "messages": [{"id": 43}]},
        })
    }

    fn with(pointer: &str, value: Value) -> Vec<u8> {
        let mut event = event();
        *event.pointer_mut(pointer).unwrap() = value;
        event.to_string().into_bytes()
    }

    fn link() -> CrmLink {
        serde_json::from_value(json!({
            "id": "desk", "tenant": "acme", "kind": "chatwoot", "url": "https://chat.example", "account_id": 3,
            "inbox_id": 7, "inbox_identifier": "abc", "access_token": "t", "hook_token": "h",
        }))
        .unwrap()
    }

    #[test]
    fn an_agents_message_becomes_a_send_command_with_an_id_of_its_own() {
        let message = parse(event().to_string().as_bytes()).unwrap();
        assert!(message.is_for(&link()) && message.refusal().is_none());
        let to = Recipient {
            user_id: Some("US.1".into()),
            phone: Some(message.source_id.clone()),
        };
        let route = Route {
            number: PhoneNumberId::new("1065").unwrap(),
            to: to.clone(),
        };
        let first_of = |message: &AgentMessage, retries| {
            let content = message.messages().remove(0);
            let part = Part { number: 0, retries };
            command(&link(), &route, message, (part, content), 1)
        };
        let first = first_of(&message, 0);
        assert_eq!(
            first.id,
            first_of(&message, 0).id,
            "sent twice, stored once"
        );
        assert_eq!((first.tenant.as_str(), first.to), ("acme", to));
        assert_eq!(
            first.content,
            Content::Text {
                body: "*Hello* there".into(),
                preview_url: true
            }
        );
        assert_eq!(
            first.origin,
            Origin::Agent {
                link: "desk".into(),
                message: "42".into()
            }
        );
        assert_ne!(first.id, first_of(&message, 1).id);
        let other = AgentMessage {
            message_id: 43,
            reply_to: Some("wamid.9".into()),
            ..message
        };
        let other = first_of(&other, 0);
        assert_ne!(first.id, other.id);
        assert_eq!(
            (first.reply_to, other.reply_to.as_deref()),
            (None, Some("wamid.9"))
        );
    }

    #[test]
    fn our_own_echo_and_everything_else_is_left_alone() {
        let table = [
            ("/source_id", json!("wamid.1")),
            ("/event", json!("message_deleted")),
            ("/message_type", json!("incoming")),
            ("/message_type", json!("activity")),
            ("/private", json!(true)),
            ("/content_attributes", json!({"external_echo": true})),
            ("/content_attributes", json!({"deleted": true})),
            ("/conversation", json!({})),
            ("/account", json!({})),
        ];
        for (pointer, value) in table {
            assert_eq!(
                parse(&with(pointer, value.clone())),
                None,
                "{pointer} {value}"
            );
        }
        assert_eq!(parse(b"not json"), None);
    }

    #[test]
    fn what_an_agent_sends_again_is_told_from_our_own_word_that_it_failed() {
        let updated = |attributes: Value| {
            let mut event = event();
            event["event"] = json!("message_updated");
            event["content_attributes"] = attributes;
            event["created_at"] = json!(1_796_025_600);
            parse(event.to_string().as_bytes())
        };
        let again = updated(json!({})).unwrap();
        assert!(again.is_update);
        let week = 7 * 24 * 3600 * 1000;
        assert!(!again.is_stale(1_796_025_600_000 + week));
        assert!(again.is_stale(1_796_025_600_000 + week + 1));
        assert_eq!(updated(json!({"external_error": "Not delivered"})), None);
    }

    #[test]
    fn a_conversation_that_an_agent_began_is_with_the_contacts_phone() {
        let mut event = event();
        let begun = |event: &Value| {
            let message = parse(event.to_string().as_bytes()).unwrap();
            message.contact.address(&message.source_id)
        };
        event["conversation"]["contact_inbox"]["source_id"] =
            json!("1b4e28ba-2fa1-41d2-883f-0016d3cca427");
        assert_eq!(begun(&event), None);
        event["conversation"]["meta"] = json!({"sender": {"id": 33, "identifier": "US.7"}});
        assert_eq!(begun(&event).unwrap().user_id.as_deref(), Some("US.7"));
        event["conversation"]["meta"]["sender"]["phone_number"] = json!("+15550009");
        assert_eq!(begun(&event).unwrap().phone.as_deref(), Some("15550009"));
        event["conversation"]["contact_inbox"]["source_id"] = json!("15550001");
        assert_eq!(begun(&event).unwrap().phone.as_deref(), Some("15550001"));
    }

    #[test]
    fn a_person_is_told_from_an_automation() {
        let by_person =
            |pointer: &str, value: Value| parse(&with(pointer, value)).unwrap().by_person;
        assert!(by_person("/id", json!(42)));
        assert!(!by_person("/message_type", json!("template")));
        assert!(!by_person("/sender", json!({"id": 1, "type": "agent_bot"})));
        assert!(!by_person("/sender", Value::Null));
        assert!(!by_person(
            "/content_attributes",
            json!({"automation_rule_id": 4})
        ));
        let mut event = event();
        for (created, ms) in [
            (json!("2026-11-30T08:00:00.250Z"), Some(1_796_025_600_250)),
            (json!(1_796_025_600), Some(1_796_025_600_000)),
            (json!("today"), None),
        ] {
            event["created_at"] = created;
            assert_eq!(parse(event.to_string().as_bytes()).unwrap().written_ms, ms);
        }
    }

    #[test]
    fn a_conversation_is_released_when_it_is_resolved_or_pending() {
        let event = |status: &str, more: Value| {
            let mut event = json!({"event": "conversation_status_changed", "id": 11, "inbox_id": 7, "status": status,
                "contact_inbox": {"source_id": "15550001"}, "messages": [{"account_id": 3}]});
            event
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            Release::parse(event.to_string().as_bytes())
        };
        let resolved = event("resolved", json!({"updated_at": 1_796_025_600.5})).unwrap();
        assert!(resolved.is_for(&link()) && !resolved.to_bot);
        assert_eq!(
            (resolved.source_id.as_str(), resolved.at_ms),
            ("15550001", Some(1_796_025_600_500))
        );
        let changed =
            json!([{"status": {}}, {"updated_at": {"current_value": "2026-11-30T08:00:00Z"}}]);
        let pending = event("pending", json!({"changed_attributes": changed})).unwrap();
        assert!(pending.to_bot);
        assert_eq!(pending.at_ms, Some(1_796_025_600_000));
        assert_eq!(event("open", json!({})), None);
        assert_eq!(
            event("resolved", json!({"event": "conversation_updated"})),
            None
        );
        assert_eq!(event("resolved", json!({"contact_inbox": {}})), None);
        assert!(
            !event("resolved", json!({"inbox_id": 8}))
                .unwrap()
                .is_for(&link())
        );
        assert!(
            !event("resolved", json!({"account": {"id": 4}}))
                .unwrap()
                .is_for(&link())
        );
    }

    #[test]
    fn another_inbox_is_not_ours_and_what_is_no_file_is_refused_in_words() {
        let elsewhere = parse(&with("/inbox", json!({"id": 8}))).unwrap();
        assert!(!elsewhere.is_for(&link()));
        let mut event = event();
        let mut refusal = |file_type: &str, content: &str| {
            event["content"] = json!(content);
            event["attachments"] =
                json!([{"id": 1, "file_type": file_type, "data_url": "http://chat/x.pdf"}]);
            parse(event.to_string().as_bytes()).unwrap().refusal()
        };
        assert!(refusal("location", "").unwrap().contains("documents"));
        assert_eq!(refusal("file", ""), None);
        assert!(
            refusal("audio", &"x".repeat(4097))
                .unwrap()
                .contains("4096")
        );
    }
}
