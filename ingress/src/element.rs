//! What one element of a delivery says about itself: its kind, its dedupe id and whose conversation it is in.
//!
//! Only top-level members of the element are read. Everything is optional: an element that says nothing
//! still gets a kind (`…unknown`), an id (a hash) and a conversation (none).

use crate::json::{self, Flaw, Scanner, Span};
use ackline_shared::ids::{ConversationKey, UpdateId};
use ackline_shared::subjects::Class;
use std::borrow::Cow;
use std::collections::HashMap;

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
    /// `calls`.
    Call,
}

impl Family {
    /// The family whose array has this key.
    pub fn of_key(key: &str) -> Option<Self> {
        match key {
            "messages" => Some(Self::Message),
            "statuses" => Some(Self::Status),
            "message_echoes" => Some(Self::Echo),
            "calls" => Some(Self::Call),
            _ => None,
        }
    }

    /// The lane its updates travel in.
    pub fn class(self) -> Class {
        match self {
            Self::Message | Self::Echo | Self::Call => Class::Message,
            Self::Status => Class::Status,
        }
    }
}

type Text<'a> = Option<Cow<'a, str>>;

/// The members of an element that identify it.
#[derive(Debug, Default)]
pub struct Element<'a> {
    id: Text<'a>,
    kind: Text<'a>,
    status: Text<'a>,
    event: Text<'a>,
    direction: Text<'a>,
    from: Text<'a>,
    from_user: Text<'a>,
    to: Text<'a>,
    to_user: Text<'a>,
    recipient: Text<'a>,
    recipient_user: Text<'a>,
    recipient_type: Text<'a>,
    participant: Text<'a>,
    group: Text<'a>,
}

impl<'a> Element<'a> {
    /// Reads an element; one that is not an object says nothing.
    pub fn read(bytes: &'a [u8], span: &Span) -> Self {
        let mut element = Self::default();
        // The span was scanned before; a failing scan leaves what was read so far.
        let _scanned = members(bytes, span, |name, value| {
            let slot = match name {
                "id" => &mut element.id,
                "type" => &mut element.kind,
                "status" => &mut element.status,
                "event" => &mut element.event,
                "direction" => &mut element.direction,
                "from" => &mut element.from,
                "from_user_id" => &mut element.from_user,
                "to" => &mut element.to,
                "to_user_id" => &mut element.to_user,
                "recipient_id" => &mut element.recipient,
                "recipient_user_id" => &mut element.recipient_user,
                "recipient_type" => &mut element.recipient_type,
                "recipient_participant_id" => &mut element.participant,
                "group_id" => &mut element.group,
                _ => return,
            };
            *slot = json::text(bytes, value).filter(|text| !text.is_empty());
        });
        element
    }

    /// What it is, such as `message.text` or `status.read`.
    pub fn kind(&self, family: Family) -> String {
        match family {
            Family::Message => kind("message", self.kind.as_deref()),
            Family::Status => kind("status", self.status.as_deref()),
            Family::Echo => kind("echo", self.kind.as_deref()),
            Family::Call => kind("call", self.call_event()),
        }
    }

    /// Its dedupe id, when it has an id of Meta's.
    pub fn update_id(&self, family: Family) -> Option<UpdateId> {
        let id = self.id.as_deref()?;
        Some(match family {
            Family::Message | Family::Echo => UpdateId::new(id),
            Family::Call => UpdateId::new(&format!("{id}:{}", self.call_event().unwrap_or("unknown"))),
            Family::Status => {
                let status = self.status.as_deref().unwrap_or("unknown");
                match self.participant.as_deref() {
                    Some(participant) => UpdateId::new(&format!("{id}:{status}:{participant}")),
                    None => UpdateId::new(&format!("{id}:{status}")),
                }
            }
        })
    }

    /// The BSUID and the phone number of the person on the other side.
    pub fn person(&self, family: Family) -> Person<'_> {
        let (user, phone) = match family {
            Family::Message => (&self.from_user, &self.from),
            Family::Status => (&self.recipient_user, &self.recipient),
            Family::Call if self.direction.as_deref() != Some("BUSINESS_INITIATED") => {
                (&self.from_user, &self.from)
            }
            Family::Echo | Family::Call if self.to_user.is_some() => (&self.to_user, &self.to),
            Family::Echo | Family::Call => (&self.recipient_user, &self.to),
        };
        Person { user: user.as_deref(), phone: phone.as_deref() }
    }

    /// The conversation it belongs to: the group, else the person's BSUID, else the person's phone number.
    pub fn conversation(&self, family: Family, contact: Option<&Contact<'_>>) -> ConversationKey {
        let group = self.group.as_deref().or_else(|| {
            self.recipient.as_deref().filter(|_| self.recipient_type.as_deref() == Some("group"))
        });
        if let Some(group) = group {
            return ConversationKey::group(group);
        }
        let person = self.person(family);
        let user = person.user.or(contact.and_then(|contact| contact.user.as_deref()));
        let phone = person.phone.or(contact.and_then(|contact| contact.phone.as_deref()));
        match (user, phone) {
            (Some(user), _) => ConversationKey::user(user),
            (None, Some(phone)) => ConversationKey::phone(phone),
            (None, None) => ConversationKey::none(),
        }
    }

    fn call_event(&self) -> Option<&str> {
        self.event.as_deref().or(self.status.as_deref())
    }
}

/// How an element names the person on the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Person<'a> {
    /// Business-scoped user id.
    pub user: Option<&'a str>,
    /// Phone number.
    pub phone: Option<&'a str>,
}

/// One of a value's `contacts`.
#[derive(Debug, Default)]
pub struct Contact<'a> {
    user: Text<'a>,
    phone: Text<'a>,
}

/// A value's `contacts`, to be found by person.
#[derive(Debug, Default)]
pub struct Contacts<'a> {
    list: Vec<Contact<'a>>,
    by_user: HashMap<Cow<'a, str>, usize>,
    by_phone: HashMap<Cow<'a, str>, usize>,
}

impl<'a> Contacts<'a> {
    /// Reads the contacts at these places.
    pub fn read(bytes: &'a [u8], spans: &[Span]) -> Self {
        let mut contacts = Self { list: Vec::with_capacity(spans.len()), ..Self::default() };
        for (index, span) in spans.iter().enumerate() {
            let mut contact = Contact::default();
            let _scanned = members(bytes, span, |name, value| match name {
                "user_id" => contact.user = json::text(bytes, value).filter(|text| !text.is_empty()),
                "wa_id" => contact.phone = json::text(bytes, value).filter(|text| !text.is_empty()),
                _ => {}
            });
            // One contact needs no index, and is by far the most frequent case.
            if spans.len() > 1 {
                contact.user.iter().for_each(|user| {
                    contacts.by_user.entry(user.clone()).or_insert(index);
                });
                contact.phone.iter().for_each(|phone| {
                    contacts.by_phone.entry(phone.clone()).or_insert(index);
                });
            }
            contacts.list.push(contact);
        }
        contacts
    }

    /// The contact of a person, and its place, when it can be told.
    pub fn of(&self, person: Person<'_>) -> Option<(usize, &Contact<'a>)> {
        let index = match self.list.as_slice() {
            [] => None,
            [only] => only.may_be(person).then_some(0),
            _ => person
                .user
                .and_then(|user| self.by_user.get(user))
                .or_else(|| person.phone.and_then(|phone| self.by_phone.get(phone)))
                .copied(),
        }?;
        self.list.get(index).filter(|contact| contact.may_be(person)).map(|contact| (index, contact))
    }
}

impl Contact<'_> {
    /// Whether nothing speaks against this being the person.
    fn may_be(&self, person: Person<'_>) -> bool {
        match (self.user.as_deref(), person.user) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => match (self.phone.as_deref(), person.phone) {
                (Some(ours), Some(theirs)) => ours == theirs,
                _ => true,
            },
        }
    }
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
    let safe = what.chars().take(KIND_TOKEN_BYTES_MAX).map(|c| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '_' | '-') => c,
        _ => '_',
    });
    out.extend(safe);
    out
}

fn members(bytes: &[u8], span: &Span, mut visit: impl FnMut(&str, &Span)) -> Result<(), Flaw> {
    let mut scanner = Scanner::at(bytes, span);
    if scanner.peek() != Some(b'{') {
        return Ok(());
    }
    scanner.object(|scanner, key| {
        let value = scanner.value()?;
        if let Some(name) = json::text(bytes, &key) {
            visit(&name, &value);
        }
        Ok(())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(family: Family, element: &str, contacts: &[&str]) -> String {
        let element = Element::read(element.as_bytes(), &(0..element.len()));
        let joined = contacts.concat();
        let mut end = 0;
        let spans: Vec<Span> = contacts
            .iter()
            .map(|contact| {
                let start = end;
                end += contact.len();
                start..end
            })
            .collect();
        let contacts = Contacts::read(joined.as_bytes(), &spans);
        let contact = contacts.of(element.person(family)).map(|(_, contact)| contact);
        element.conversation(family, contact).to_string()
    }

    #[test]
    fn a_conversation_is_a_group_then_a_user_id_then_a_phone_number() {
        let of = conversation;
        assert_eq!(of(Family::Message, r#"{"from":"49","from_user_id":"US.1","group_id":"G"}"#, &[]), "g:G");
        assert_eq!(of(Family::Message, r#"{"from":"49","from_user_id":"US.1"}"#, &[]), "u:US.1");
        assert_eq!(of(Family::Message, r#"{"from":"+49"}"#, &[]), "p:49");
        assert_eq!(of(Family::Message, "{}", &[]), "-");
        assert_eq!(of(Family::Message, "null", &[]), "-");
        assert_eq!(of(Family::Status, r#"{"recipient_id":"G","recipient_type":"group"}"#, &[]), "g:G");
        assert_eq!(of(Family::Status, r#"{"recipient_id":"49","recipient_user_id":"US.1"}"#, &[]), "u:US.1");
        assert_eq!(of(Family::Echo, r#"{"from":"1","to":"49"}"#, &[]), "p:49");
        assert_eq!(of(Family::Call, r#"{"from":"49","to":"1","direction":"USER_INITIATED"}"#, &[]), "p:49");
        assert_eq!(
            of(Family::Call, r#"{"from":"1","to":"49","direction":"BUSINESS_INITIATED"}"#, &[]),
            "p:49"
        );
    }

    #[test]
    fn a_contact_lends_its_user_id_only_to_its_own_person() {
        let two = [r#"{"wa_id":"49","user_id":"US.1"}"#, r#"{"wa_id":"50","user_id":"US.2"}"#];
        assert_eq!(conversation(Family::Message, r#"{"from":"50"}"#, &two), "u:US.2");
        assert_eq!(conversation(Family::Message, r#"{"from":"51"}"#, &two), "p:51");
        assert_eq!(conversation(Family::Message, r#"{"from":"51"}"#, &two[..1]), "p:51");
        assert_eq!(conversation(Family::Message, "{}", &two[..1]), "u:US.1");
        assert_eq!(conversation(Family::Message, r#"{"from":"51"}"#, &[r#"{"user_id":"US.3"}"#]), "u:US.3");
    }

    #[test]
    fn ids_follow_metas_own() {
        let id = |family, json: &str| Element::read(json.as_bytes(), &(0..json.len())).update_id(family);
        let text = |family, json| id(family, json).map(|id| id.to_string());
        assert_eq!(text(Family::Message, r#"{"id":"wamid.A="}"#).as_deref(), Some("wamid.A="));
        assert_eq!(
            text(Family::Status, r#"{"id":"wamid.A","status":"read"}"#).as_deref(),
            Some("wamid.A:read")
        );
        let of_group = r#"{"id":"wamid.A","status":"read","recipient_participant_id":"49"}"#;
        assert_eq!(text(Family::Status, of_group).as_deref(), Some("wamid.A:read:49"));
        assert_eq!(
            text(Family::Call, r#"{"id":"wacid.A","event":"connect"}"#).as_deref(),
            Some("wacid.A:connect")
        );
        assert_eq!(id(Family::Message, "{}"), None);
    }

    #[test]
    fn a_kind_is_always_two_safe_tokens() {
        assert_eq!(kind("message", Some("text")), "message.text");
        assert_eq!(kind("call", Some("RINGING")), "call.ringing");
        assert_eq!(kind("message", Some("a.b > \u{1F600}")), "message.a_b____");
        assert_eq!(kind("message", Some(&"x".repeat(99))).len(), 8 + KIND_TOKEN_BYTES_MAX);
        assert_eq!(kind("message", None), "message.unknown");
    }
}
