//! Chatwoot's webhook: whether it is genuine, whether an agent wrote it, and the send command it becomes.
//!
//! Everything we post into Chatwoot carries its `source_id` from the first moment, so a message without one
//! was written there. Only top-level fields count: `conversation.messages` holds the newest message, which
//! need not be this one. Chatwoot sends a message once or more and in any order; the command's id makes
//! repeats one.

use super::link::Route;
use super::markdown;
use ackline_shared::command::{Content, Origin, SendCommand};
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
    #[error("the webhook is not signed; headers X-Chatwoot-Timestamp and X-Chatwoot-Signature are expected")]
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
    let (Some(timestamp), Some(signature)) = (timestamp, signature) else { return Err(HookError::Unsigned) };
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

/// A message an agent (or the CRM's own automation) wrote to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentMessage {
    /// The CRM's account.
    pub account_id: u64,
    /// The CRM's id of the message, unique in the account.
    pub message_id: u64,
    /// The CRM's inbox.
    pub inbox_id: u64,
    /// Who the conversation is with: a phone number or a business-scoped user id.
    pub source_id: String,
    /// The text, in WhatsApp's marks.
    pub content: String,
    /// The wamid of the message it answers.
    pub reply_to: Option<String>,
    /// How many files it carries.
    pub attachments: usize,
}

impl AgentMessage {
    /// Whether it was written in the inbox of this link.
    pub fn is_for(&self, link: &CrmLink) -> bool {
        self.account_id == link.account_id && self.inbox_id == link.inbox_id
    }

    /// Why it cannot be sent; the CRM shows it to the agent when the webhook is answered with an error.
    pub fn refusal(&self) -> Option<&'static str> {
        if self.attachments > 0 {
            Some("files from the CRM are not sent to WhatsApp yet; send the text without them")
        } else if self.content.trim().is_empty() {
            Some("the message has no text")
        } else {
            None
        }
    }
}

/// Reads a webhook; `None` when it is anything but a message to be sent to a person.
pub fn parse(body: &[u8]) -> Option<AgentMessage> {
    let event: Value = serde_json::from_slice(body).ok()?;
    let flag = |pointer: &str| event.pointer(pointer).and_then(Value::as_bool).unwrap_or(false);
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    let number = |pointer: &str| event.pointer(pointer).and_then(Value::as_u64);
    let written_there = text("/event") == Some("message_created")
        && matches!(text("/message_type"), Some("outgoing" | "template"))
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
        source_id: text("/conversation/contact_inbox/source_id")?.to_owned(),
        content: markdown::to_whatsapp(text("/content").unwrap_or_default()),
        reply_to: text("/content_attributes/in_reply_to_external_id").map(str::to_owned),
        attachments: event.get("attachments").and_then(Value::as_array).map_or(0, Vec::len),
    })
}

/// The command that sends it; the same message always gives the same id.
pub fn command(link: &CrmLink, route: &Route, message: &AgentMessage, now_ms: u64) -> SendCommand {
    let identity = format!("{}/{}/{}/{}", link.tenant, link.id, message.account_id, message.message_id);
    SendCommand {
        id: format!("crm-{}", short_hash(identity.as_bytes())),
        tenant: link.tenant.clone(),
        phone_number_id: route.number.clone(),
        to: route.to.clone(),
        content: Content::Text { body: message.content.clone(), preview_url: true },
        reply_to: message.reply_to.clone().filter(|id| id.starts_with("wamid.")),
        origin: Origin::Agent { link: link.id.to_string(), message: message.message_id.to_string() },
        created_ms: now_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::command::Recipient;
    use ackline_shared::ids::PhoneNumberId;
    use serde_json::json;

    const BODY: &[u8] = br#"{"event":"message_created","id":1}"#;
    const SIGNATURE: &str = "sha256=5edd5afedd7ea62edb707dec5e16760dcce8076f63e459105a3af09dbaa4aa3b";
    const SIGNED_MS: u64 = 1_700_000_000_000;

    fn check(timestamp: Option<&str>, signature: Option<&str>, now_ms: u64) -> Result<(), HookError> {
        verify(Some(&Secret::new("test_secret".to_owned())), timestamp, signature, BODY, now_ms)
    }

    #[test]
    fn a_signature_of_chatwoots_own_code_is_accepted_for_five_minutes() {
        let (timestamp, signature) = (Some("1700000000"), Some(SIGNATURE));
        assert_eq!(check(timestamp, signature, SIGNED_MS), Ok(()));
        assert_eq!(check(timestamp, signature, SIGNED_MS + 300_000), Ok(()));
        assert_eq!(check(timestamp, signature, SIGNED_MS + 301_000), Err(HookError::Timestamp));
        assert_eq!(check(timestamp, signature, SIGNED_MS - 301_000), Err(HookError::Timestamp));
    }

    #[test]
    fn anything_else_is_refused_when_a_secret_is_configured() {
        let at = |timestamp, signature| check(timestamp, signature, SIGNED_MS);
        assert_eq!(at(None, Some(SIGNATURE)), Err(HookError::Unsigned));
        assert_eq!(at(Some("1700000000"), None), Err(HookError::Unsigned));
        assert_eq!(at(Some("now"), Some(SIGNATURE)), Err(HookError::Timestamp));
        assert_eq!(at(Some("1700000001"), Some(SIGNATURE)), Err(HookError::Mismatch));
        assert_eq!(at(Some("1700000000"), Some("sha256=00")), Err(HookError::Mismatch));
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
        let to = Recipient { user_id: Some("US.1".into()), phone: Some(message.source_id.clone()) };
        let route = Route { number: PhoneNumberId::new("1065").unwrap(), to: to.clone() };
        let first = command(&link(), &route, &message, 1);
        assert_eq!(first.id, command(&link(), &route, &message, 2).id, "sent twice, stored once");
        assert_eq!((first.tenant.as_str(), first.to), ("acme", to));
        assert_eq!(first.content, Content::Text { body: "*Hello* there".into(), preview_url: true });
        assert_eq!(first.origin, Origin::Agent { link: "desk".into(), message: "42".into() });
        let other = AgentMessage { message_id: 43, reply_to: Some("wamid.9".into()), ..message };
        let other = command(&link(), &route, &other, 1);
        assert_ne!(first.id, other.id);
        assert_eq!((first.reply_to, other.reply_to.as_deref()), (None, Some("wamid.9")));
    }

    #[test]
    fn our_own_echo_and_everything_else_is_left_alone() {
        let table = [
            ("/source_id", json!("wamid.1")),
            ("/event", json!("message_updated")),
            ("/message_type", json!("incoming")),
            ("/message_type", json!("activity")),
            ("/private", json!(true)),
            ("/content_attributes", json!({"external_echo": true})),
            ("/content_attributes", json!({"deleted": true})),
            ("/conversation", json!({})),
            ("/account", json!({})),
        ];
        for (pointer, value) in table {
            assert_eq!(parse(&with(pointer, value.clone())), None, "{pointer} {value}");
        }
        assert_eq!(parse(b"not json"), None);
    }

    #[test]
    fn another_inbox_is_not_ours_and_files_are_refused_in_words() {
        let elsewhere = parse(&with("/inbox", json!({"id": 8}))).unwrap();
        assert!(!elsewhere.is_for(&link()));
        let mut event = event();
        event["attachments"] = json!([{"id": 1}]);
        assert!(parse(event.to_string().as_bytes()).unwrap().refusal().unwrap().contains("files"));
    }
}
