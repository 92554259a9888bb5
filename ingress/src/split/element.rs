//! What one element of a delivery says about itself: its kind, its dedupe id and whose conversation it is in.
//!
//! Only top-level members of the element are read, while it is scanned for the first and only time. Everything is
//! optional: an element that says nothing still gets a kind (`…unknown`), an id (a hash) and a conversation (none).

use crate::split::contacts::Contact;
use crate::split::json::{Flaw, Piece, Scanner, Span, Text};
use ackline_shared::ids::{FoundId, FoundKey};
use ackline_shared::meta;
use ackline_shared::subjects::Class;
use std::borrow::Cow;

const KIND_TOKEN_BYTES_MAX: usize = 48;

/// The arrays of a change's value that hold one update an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `messages`: what people sent to the business.
    Message,
    /// `statuses`: what became of what the business sent.
    Status,
    /// `message_echoes`: what a person sent from the Business app.
    Echo,
    Call,
}

impl Family {
    /// The lane its updates travel in.
    pub fn class(self) -> Class {
        match self {
            Self::Message | Self::Echo | Self::Call => Class::Message,
            Self::Status => Class::Status,
        }
    }

    /// The first token of its updates' kind.
    fn word(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Status => "status",
            Self::Echo => "echo",
            Self::Call => "call",
        }
    }
}

/// An element, and where the members lie that identify it and its conversation.
#[derive(Debug, Default)]
pub struct Element {
    pub span: Span,
    id: Piece,
    /// Its type, status or event.
    what: Piece,
    participant: Piece,
    user: Piece,
    phone: Piece,
    group: Piece,
}

/// The members of an element that may matter, by what they are called.
#[derive(Debug, Default)]
struct Members {
    id: Piece,
    kind: Piece,
    status: Piece,
    event: Piece,
    direction: Piece,
    from: Piece,
    from_user: Piece,
    to: Piece,
    to_user: Piece,
    recipient: Piece,
    recipient_user: Piece,
    recipient_type: Piece,
    participant: Piece,
    group: Piece,
    system: Renamed,
}

/// Who somebody is from now on, as a message of the kind `system` tells it.
#[derive(Debug, Default)]
struct Renamed {
    user: Piece,
    phone: Piece,
    new_phone: Piece,
}

impl Renamed {
    fn scan(scanner: &mut Scanner<'_>) -> Result<Self, Flaw> {
        let mut renamed = Self::default();
        if scanner.peek() != Some(b'{') {
            return scanner.value().map(|_| renamed);
        }
        scanner.object(|scanner, key| {
            let slot = match &*scanner.name(&key) {
                "user_id" => &mut renamed.user,
                "wa_id" => &mut renamed.phone,
                "new_wa_id" => &mut renamed.new_phone,
                _ => return scanner.value().map(drop),
            };
            *slot = scanner.piece()?;
            Ok(())
        })?;
        Ok(renamed)
    }
}

impl Element {
    /// Scans an element of the text; one that is not an object says nothing.
    pub fn scan(text: &str, scanner: &mut Scanner<'_>, family: Family) -> Result<Self, Flaw> {
        if scanner.peek() != Some(b'{') {
            return Ok(Self {
                span: scanner.value()?,
                ..Self::default()
            });
        }
        let mut members = Members::default();
        let span = scanner.object(|scanner, key| {
            let slot = match &*scanner.name(&key) {
                "id" => &mut members.id,
                "type" => &mut members.kind,
                "status" => &mut members.status,
                "event" => &mut members.event,
                "direction" => &mut members.direction,
                "from" => &mut members.from,
                "from_user_id" => &mut members.from_user,
                "to" => &mut members.to,
                "to_user_id" => &mut members.to_user,
                "recipient_id" => &mut members.recipient,
                "recipient_user_id" => &mut members.recipient_user,
                "recipient_type" => &mut members.recipient_type,
                "recipient_participant_id" => &mut members.participant,
                "group_id" => &mut members.group,
                "system" if family == Family::Message => {
                    members.system = Renamed::scan(scanner)?;
                    return Ok(());
                }
                _ => return scanner.value().map(drop),
            };
            *slot = scanner.piece()?;
            Ok(())
        })?;
        Ok(members.of(text, family, span))
    }

    /// What it is, such as `message.text` or `status.read`.
    pub fn kind(&self, text: &str, family: Family) -> Cow<'static, str> {
        let what = self.what.text(text);
        let known = match (family, what.as_deref()) {
            (Family::Message, Some("text")) => "message.text",
            (Family::Message, Some("image")) => "message.image",
            (Family::Message, Some("audio")) => "message.audio",
            (Family::Message, Some("interactive")) => "message.interactive",
            (Family::Message, Some("button")) => "message.button",
            (Family::Message, Some("reaction")) => "message.reaction",
            (Family::Status, Some("sent")) => "status.sent",
            (Family::Status, Some("delivered")) => "status.delivered",
            (Family::Status, Some("read")) => "status.read",
            (Family::Status, Some("failed")) => "status.failed",
            (family, what) => return Cow::Owned(kind(family.word(), what)),
        };
        Cow::Borrowed(known)
    }

    /// Its dedupe id, when it has an id of Meta's.
    pub fn update_id<'a>(&self, text: &'a str, family: Family) -> Option<FoundId<'a>> {
        let id = self.id.text(text)?;
        if matches!(family, Family::Message | Family::Echo) {
            return Some(FoundId::new(id));
        }
        let (what, participant) = (self.what.text(text), self.participant.text(text));
        let what = what.as_deref().unwrap_or("unknown");
        let joined = match participant.as_deref().filter(|_| family == Family::Status) {
            Some(participant) => [&id, ":", what, ":", participant].concat(),
            None => [&id, ":", what].concat(),
        };
        Some(FoundId::new(joined.into()))
    }

    /// The BSUID and the phone number of the person on the other side.
    pub fn person<'a>(&self, text: &'a str) -> Person<'a> {
        Person {
            user: self.user.text(text),
            phone: self.phone.text(text),
        }
    }

    /// The conversation it belongs to: the group, else the person's BSUID, else the person's phone number.
    pub fn conversation<'a>(&self, text: &'a str, contact: Option<&Contact>) -> FoundKey<'a> {
        if let Some(group) = self.group.text(text) {
            return FoundKey::group(group);
        }
        let (user, phone) =
            contact.map_or_else(Default::default, |contact| (contact.user, contact.phone));
        match (self.user.or(user).text(text), || {
            self.phone.or(phone).text(text)
        }) {
            (Some(user), _) => FoundKey::user(user),
            (None, phone) => phone().map_or_else(FoundKey::none, FoundKey::phone),
        }
    }
}

impl Members {
    fn of(self, text: &str, family: Family, span: Span) -> Element {
        let is_ours = || self.direction.text(text).as_deref() == Some("BUSINESS_INITIATED");
        let is_system = || self.kind.text(text).as_deref() == Some(meta::SYSTEM);
        let renamed = &self.system;
        let (user, phone) = match family {
            // It is ordered before what comes under the new ids.
            Family::Message if is_system() => (
                renamed.user.or(self.from_user),
                renamed.new_phone.or(renamed.phone).or(self.from),
            ),
            Family::Message => (self.from_user, self.from),
            Family::Status => (self.recipient_user, self.recipient),
            Family::Call if !is_ours() => (self.from_user, self.from),
            Family::Echo | Family::Call if !self.to_user.is_none() => (self.to_user, self.to),
            Family::Echo | Family::Call => (self.recipient_user, self.to),
        };
        let is_to_group = self.recipient_type.text(text).as_deref() == Some("group");
        Element {
            span,
            id: self.id,
            what: match family {
                Family::Message | Family::Echo => self.kind,
                Family::Status => self.status,
                Family::Call => self.event.or(self.status),
            },
            participant: self.participant,
            user,
            phone,
            group: self.group.or(if is_to_group {
                self.recipient
            } else {
                Piece::default()
            }),
        }
    }
}

/// How an element names the person on the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person<'a> {
    pub user: Text<'a>,
    pub phone: Text<'a>,
}

/// Writes `<family>.<what>` with the second token made safe and short; absent is `unknown`.
pub fn kind(family: &str, what: Option<&str>) -> String {
    let what = what.filter(|what| !what.is_empty()).unwrap_or("unknown");
    let mut out = String::with_capacity(family.len() + 1 + what.len().min(KIND_TOKEN_BYTES_MAX));
    out.push_str(family);
    out.push('.');
    let is_safe = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    if what.len() <= KIND_TOKEN_BYTES_MAX && what.bytes().all(is_safe) {
        out.push_str(what);
        return out;
    }
    let safe = what
        .chars()
        .take(KIND_TOKEN_BYTES_MAX)
        .map(|c| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9' | '_' | '-') => c,
            _ => '_',
        });
    out.extend(safe);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::contacts::Contacts;
    use ackline_shared::ids::ConversationKey;

    fn element(family: Family, json: &str) -> Element {
        Element::scan(json, &mut Scanner::new(json), family).unwrap()
    }

    fn conversation(family: Family, json: &str, contacts: &[&str]) -> String {
        let text = format!("[[{}],{json}]", contacts.join(","));
        let mut scanner = Scanner::new(&text);
        let (mut list, mut element) = (Vec::new(), None);
        scanner
            .array(|scanner| {
                if element.is_none() && scanner.peek() == Some(b'[') {
                    let contacts = scanner
                        .array(|scanner| Contact::scan(scanner).map(|contact| list.push(contact)));
                    return contacts.map(drop);
                }
                element = Some(Element::scan(&text, scanner, family)?);
                Ok(())
            })
            .unwrap();
        let element = element.unwrap();
        let contact = Contacts::new(&text, &list)
            .of(&element.person(&text))
            .and_then(|at| list.get(at as usize));
        ConversationKey::from(element.conversation(&text, contact))
            .as_str()
            .to_owned()
    }

    #[test]
    fn a_conversation_is_a_group_then_a_user_id_then_a_phone_number() {
        let of = conversation;
        assert_eq!(
            of(
                Family::Message,
                r#"{"from":"49","from_user_id":"US.1","group_id":"G"}"#,
                &[]
            ),
            "g:G"
        );
        assert_eq!(
            of(
                Family::Message,
                r#"{"from":"49","from_user_id":"US.1"}"#,
                &[]
            ),
            "u:US.1"
        );
        assert_eq!(of(Family::Message, r#"{"from":"+49"}"#, &[]), "p:49");
        assert_eq!(of(Family::Message, "{}", &[]), "-");
        assert_eq!(of(Family::Message, "null", &[]), "-");
        assert_eq!(
            of(
                Family::Status,
                r#"{"recipient_id":"G","recipient_type":"group"}"#,
                &[]
            ),
            "g:G"
        );
        assert_eq!(
            of(
                Family::Status,
                r#"{"recipient_id":"49","recipient_user_id":"US.1"}"#,
                &[]
            ),
            "u:US.1"
        );
        assert_eq!(of(Family::Echo, r#"{"from":"1","to":"49"}"#, &[]), "p:49");
        assert_eq!(
            of(
                Family::Call,
                r#"{"from":"49","to":"1","direction":"USER_INITIATED"}"#,
                &[]
            ),
            "p:49"
        );
        assert_eq!(
            of(
                Family::Call,
                r#"{"from":"1","to":"49","direction":"BUSINESS_INITIATED"}"#,
                &[]
            ),
            "p:49"
        );
    }

    #[test]
    fn a_change_of_ids_is_ordered_with_what_comes_under_the_new_ones() {
        let of = |json: &str| conversation(Family::Message, json, &[]);
        let renamed = |system: &str| {
            of(&format!(
                r#"{{"from":"49","from_user_id":"US.1","type":"system","system":{system}}}"#
            ))
        };
        assert_eq!(
            renamed(
                r#"{"type":"user_changed_user_id","user_id":"US.2","previous_user_id":"US.1"}"#
            ),
            "u:US.2"
        );
        assert_eq!(renamed(r#"{"wa_id":"50"}"#), "u:US.1");
        assert_eq!(renamed("7"), "u:US.1");
        assert_eq!(
            of(r#"{"from":"49","type":"system","system":{"wa_id":"49","new_wa_id":"50"}}"#),
            "p:50"
        );
        assert_eq!(
            of(r#"{"from":"49","system":{"wa_id":"50"},"type":"text"}"#),
            "p:49"
        );
    }

    #[test]
    fn a_person_has_one_conversation_in_both_spellings() {
        let of = |json: &str, contacts: &[&str]| conversation(Family::Message, json, contacts);
        assert_eq!(of(r#"{"from":"5521987654321"}"#, &[]), "p:552187654321");
        assert_eq!(of(r#"{"from":"552187654321"}"#, &[]), "p:552187654321");
        let contact = r#"{"wa_id":"552187654321","user_id":"BR.1"}"#;
        assert_eq!(of(r#"{"from":"5521987654321"}"#, &[contact]), "u:BR.1");
        let other = r#"{"wa_id":"50","user_id":"US.2"}"#;
        assert_eq!(
            of(r#"{"from":"5521987654321"}"#, &[other, contact]),
            "u:BR.1"
        );
    }

    #[test]
    fn a_contact_lends_its_user_id_only_to_its_own_person() {
        let two = [
            r#"{"wa_id":"49","user_id":"US.1"}"#,
            r#"{"wa_id":"50","user_id":"US.2"}"#,
        ];
        assert_eq!(
            conversation(Family::Message, r#"{"from":"50"}"#, &two),
            "u:US.2"
        );
        assert_eq!(
            conversation(Family::Message, r#"{"from":"51"}"#, &two),
            "p:51"
        );
        assert_eq!(
            conversation(Family::Message, r#"{"from":"51"}"#, &two[..1]),
            "p:51"
        );
        assert_eq!(conversation(Family::Message, "{}", &two[..1]), "u:US.1");
        assert_eq!(
            conversation(
                Family::Message,
                r#"{"from":"51"}"#,
                &[r#"{"user_id":"US.3"}"#]
            ),
            "u:US.3"
        );
    }

    #[test]
    fn ids_follow_metas_own() {
        let text = |family, json| {
            element(family, json)
                .update_id(json, family)
                .map(|id| id.as_str().to_owned())
        };
        assert_eq!(
            text(Family::Message, r#"{"id":"wamid.A="}"#).as_deref(),
            Some("wamid.A=")
        );
        assert_eq!(
            text(Family::Status, r#"{"id":"wamid.A","status":"read"}"#).as_deref(),
            Some("wamid.A:read")
        );
        let of_group = r#"{"id":"wamid.A","status":"read","recipient_participant_id":"49"}"#;
        assert_eq!(
            text(Family::Status, of_group).as_deref(),
            Some("wamid.A:read:49")
        );
        assert_eq!(
            text(Family::Call, r#"{"id":"wacid.A","event":"connect"}"#).as_deref(),
            Some("wacid.A:connect")
        );
        assert_eq!(text(Family::Message, "{}"), None);
    }

    #[test]
    fn a_kind_is_the_same_whether_it_is_written_down_or_made() {
        for (family, member) in [
            (Family::Message, "type"),
            (Family::Status, "status"),
            (Family::Call, "event"),
        ] {
            for what in [
                "text",
                "image",
                "audio",
                "interactive",
                "button",
                "reaction",
                "sent",
                "delivered",
                "read",
                "failed",
            ] {
                let json = format!(r#"{{"{member}":"{what}"}}"#);
                assert_eq!(
                    element(family, &json).kind(&json, family),
                    kind(family.word(), Some(what))
                );
            }
        }
    }

    #[test]
    fn a_kind_is_always_two_safe_tokens() {
        assert_eq!(kind("message", Some("text")), "message.text");
        assert_eq!(kind("call", Some("RINGING")), "call.ringing");
        assert_eq!(kind("message", Some("a.b > \u{1F600}")), "message.a_b____");
        assert_eq!(
            kind("message", Some(&"x".repeat(99))).len(),
            8 + KIND_TOKEN_BYTES_MAX
        );
        assert_eq!(kind("message", None), "message.unknown");
    }
}
