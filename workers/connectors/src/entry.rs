//! What a CRM shows of an update or a record: who it is about, and one line of the transcript.

use ackline_message::plain;
use ackline_message::{Origin, Recipient, SendCommand};
use ackline_shared::ids::{EntityId, PhoneNumberId};
use ackline_shared::meta::{Body, Update};

/// Chatwoot's own bound on a message is 150,000 characters.
const CONTENT_CHARS_MAX: usize = 100_000;
const NAME_CHARS_MAX: usize = 120;

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the person to the business.
    Incoming,
    /// From the business to the person.
    Outgoing,
    /// To nobody but the agents.
    Note,
}

/// Which links of a tenant an entry belongs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    All,
    /// All but the one whose agent wrote it: it is there already.
    AllBut(String),
    /// Only the one whose agent has to know.
    Only(String),
}

impl Audience {
    /// Whether a link is among them.
    pub fn includes(&self, link: &EntityId) -> bool {
        match self {
            Self::All => true,
            Self::AllBut(other) => other != link.as_str(),
            Self::Only(only) => only == link.as_str(),
        }
    }
}

/// The person a conversation is with; at least one id is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Phone number in digits, without `+`.
    pub phone: Option<String>,
    pub user_id: Option<String>,
    /// The name in their profile.
    pub name: Option<String>,
    /// What else they were, or may be, known by.
    pub others: Vec<String>,
}

impl Person {
    fn new(ids: &Recipient, name: Option<&str>) -> Option<Self> {
        let phone = ids
            .phone
            .as_deref()
            .map(|phone| phone.trim_start_matches('+').to_owned());
        let phone = phone.filter(|phone| !phone.is_empty());
        let user_id = ids.user_id.clone().filter(|user_id| !user_id.is_empty());
        let name = name.map(|name| name.chars().take(NAME_CHARS_MAX).collect());
        (phone.is_some() || user_id.is_some()).then_some(Self {
            phone,
            user_id,
            name,
            others: Vec::new(),
        })
    }

    /// The same person, who is or was known by other ids besides.
    fn also(mut self, besides: Option<&Recipient>) -> Self {
        let ids = besides.map(|ids| [&ids.phone, &ids.user_id]);
        let known = ids.into_iter().flatten().flatten();
        self.others.extend(known.cloned());
        self
    }

    /// A group, which is nobody's private conversation: it is known by its id alone.
    fn group(id: &str) -> Self {
        Self {
            phone: None,
            user_id: None,
            name: Some("WhatsApp group".to_owned()),
            others: vec![id.to_owned()],
        }
    }

    /// The id a CRM knows the person by: the phone number, the user id only without one.
    pub fn source_id(&self) -> &str {
        self.ids().next().unwrap_or_default()
    }

    /// Every id the person may be looked up by, the preferred one first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.phone
            .as_deref()
            .into_iter()
            .chain(self.user_id.as_deref())
            .chain(self.others.iter().map(String::as_str))
    }
}

/// One message as a CRM shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrmEntry {
    pub direction: Direction,
    /// The business number it came to or left from.
    pub number: PhoneNumberId,
    pub person: Person,
    /// Meta's id of the message, or one of ours; marks it as known when the CRM reports it back.
    pub source_id: String,
    pub content: String,
    pub in_reply_to: Option<String>,
    pub audience: Audience,
    /// Whether a conversation is opened to show it in.
    pub opens: bool,
}

/// The entry of a message of a person's or of the Business app's; `None` for anything else, and an error for a message that lacks what an entry needs.
///
/// What another responder is to answer is a note, and opens no conversation: agents see it where they have one and are not
/// asked for an answer. Meta may leave out with which number that is; then there is no place for it.
pub fn of_update(update: &Update) -> Result<Option<CrmEntry>, &'static str> {
    let (message, is_echo) = match &update.body {
        Body::Message(message) => (message, false),
        // It was sent from the Business app, and the agents' transcript has it, too.
        Body::Echo(echo) => (echo, true),
        Body::Status(_) | Body::Other(_) => return Ok(None),
    };
    let number = update
        .phone_number_id
        .as_deref()
        .and_then(|id| PhoneNumberId::new(id).ok());
    let number = match number {
        None if update.is_standby() => return Ok(None),
        number => number.ok_or("the message names no business number")?,
    };
    let person = match &message.group_id {
        Some(group) => Some(Person::group(group)),
        None => Person::new(&message.from, message.name.as_deref())
            .map(|person| person.also(message.formerly.as_ref())),
    };
    let person = person.ok_or("the message does not say who wrote it")?;
    if message.id.is_empty() {
        return Err("the message has no id");
    }
    let line = message.content.line();
    let text = match (&message.group_id, &message.name) {
        (Some(_), Some(name)) if !is_echo => format!("{name}: {line}"),
        _ => line,
    };
    let (direction, text, opens) = match update.is_standby() {
        true => (
            Direction::Note,
            format!("[standby: another responder answers] {text}"),
            false,
        ),
        false if is_echo => (Direction::Outgoing, text, true),
        false => (Direction::Incoming, text, true),
    };
    Ok(Some(CrmEntry {
        direction,
        number,
        person,
        source_id: message.id.clone(),
        content: bounded(text),
        opens,
        in_reply_to: message.content.context_id().map(str::to_owned),
        audience: Audience::All,
    }))
}

/// The entry of a message that went out.
pub fn of_reply(
    command: &SendCommand,
    wamid: &str,
    known_as: Option<&Recipient>,
) -> Option<CrmEntry> {
    let audience = match &command.origin {
        Origin::Agent { link, .. } => Audience::AllBut(link.clone()),
        Origin::Flow { .. } | Origin::Api { .. } => Audience::All,
    };
    Some(CrmEntry {
        direction: Direction::Outgoing,
        number: command.phone_number_id.clone(),
        person: Person::new(&command.to, None)?.also(known_as),
        source_id: wamid.to_owned(),
        content: bounded(plain(&command.content)),
        in_reply_to: command.reply_to.clone(),
        audience,
        opens: true,
    })
}

/// The note that tells an agent that their message was given up; `None` when no agent wrote it.
pub fn of_failure(command: &SendCommand, reason: &str, ambiguous: bool) -> Option<CrmEntry> {
    let Origin::Agent { link, .. } = &command.origin else {
        return None;
    };
    let fate = if ambiguous {
        "Perhaps not sent to WhatsApp"
    } else {
        "Not sent to WhatsApp"
    };
    Some(CrmEntry {
        direction: Direction::Note,
        number: command.phone_number_id.clone(),
        person: Person::new(&command.to, None)?,
        source_id: format!("failed:{}", command.id),
        content: bounded(format!("{fate}: {reason}")),
        in_reply_to: None,
        audience: Audience::Only(link.clone()),
        opens: true,
    })
}

/// A CRM refuses an empty message, and an endless one.
fn bounded(text: String) -> String {
    if text.trim().is_empty() {
        return "[empty message]".to_owned();
    }
    match text.char_indices().nth(CONTENT_CHARS_MAX) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::meta;
    use serde_json::{Value, json};

    fn incoming(message: Value) -> Result<Option<CrmEntry>, &'static str> {
        let value = json!({
            "metadata": {"phone_number_id": "1065"},
            "contacts": [{"profile": {"name": "Ana"}, "wa_id": "15550001", "user_id": "US.1"}],
            "messages": [message],
        });
        let envelope =
            json!({"entry": [{"id": "W", "changes": [{"field": "messages", "value": value}]}]});
        of_update(&meta::read(envelope.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn a_person_is_known_by_phone_number_first() {
        let entry = incoming(
            json!({"id": "wamid.1", "from": "15550001", "type": "text", "text": {"body": "hi"}}),
        )
        .unwrap()
        .unwrap();
        assert_eq!(
            (entry.person.source_id(), entry.content.as_str()),
            ("15550001", "hi")
        );
        assert_eq!(entry.person.ids().collect::<Vec<_>>(), ["15550001", "US.1"]);
        assert_eq!(
            (entry.direction, entry.number.as_str()),
            (Direction::Incoming, "1065")
        );
    }

    #[test]
    fn what_is_not_text_is_named_and_keeps_its_caption() {
        let table = [
            (
                json!({"type": "image", "image": {"id": "9", "mime_type": "image/jpeg", "caption": "Look"}}),
                "[image] Look",
            ),
            (
                json!({"type": "document", "document": {"id": "9", "filename": "bill.pdf"}}),
                "[document: bill.pdf]",
            ),
            (
                json!({"type": "location", "location": {"latitude": 52.5, "longitude": 13.4, "name": "Pub"}}),
                "[location] 52.5, 13.4 Pub",
            ),
            (
                json!({"type": "reaction", "reaction": {"message_id": "w", "emoji": "👍"}}),
                "[reaction] 👍",
            ),
            (
                json!({"type": "interactive", "interactive": {"button_reply": {"id": "y", "title": "Yes"}}}),
                "Yes",
            ),
            (
                json!({"type": "interactive", "interactive": {"type": "nfm_reply", "nfm_reply":
                    {"name": "flow", "body": "Sent", "response_json": "{\"flow_token\":\"t\",\"rating\":\"good\"}"}}}),
                "[form: flow]\nrating: good",
            ),
            (json!({"type": "hologram"}), "[hologram]"),
            (
                json!({"type": "text", "text": {"body": " "}}),
                "[empty message]",
            ),
        ];
        for (mut message, content) in table {
            message["id"] = json!("wamid.1");
            assert_eq!(incoming(message).unwrap().unwrap().content, content);
        }
    }

    #[test]
    fn who_has_other_ids_is_found_by_the_old_ones_and_a_group_is_nobodys_conversation() {
        let renamed = incoming(
            json!({"id": "s", "from": "15550001", "from_user_id": "US.0", "type": "system",
            "system": {"body": "changed", "wa_id": "15550009", "user_id": "US.9"}}),
        );
        let person = renamed.unwrap().unwrap().person;
        let ids: Vec<_> = person.ids().collect();
        assert_eq!(ids, ["15550009", "US.9", "15550001", "US.0"]);
        let said = incoming(
            json!({"id": "g", "from": "15550001", "group_id": "G1", "type": "text",
            "text": {"body": "hi"}}),
        );
        let said = said.unwrap().unwrap();
        assert_eq!(said.person.ids().collect::<Vec<_>>(), ["G1"]);
        assert_eq!(said.content, "Ana: hi");
    }

    #[test]
    fn a_message_of_nobody_or_without_an_id_says_what_it_lacks() {
        assert_eq!(
            incoming(json!({"type": "text"})),
            Err("the message has no id")
        );
        let envelope = json!({"entry": [{"changes": [{"value": {"metadata": {"phone_number_id": "1"}, "messages": [{"id": "w"}]}}]}]});
        let read =
            |envelope: Value| of_update(&meta::read(envelope.to_string().as_bytes()).unwrap());
        assert_eq!(read(envelope), Err("the message does not say who wrote it"));
        let nowhere =
            json!({"entry": [{"changes": [{"value": {"messages": [{"id": "w", "from": "1"}]}}]}]});
        assert_eq!(
            read(nowhere.clone()),
            Err("the message names no business number")
        );
        let mut standby = nowhere;
        standby["entry"][0]["changes"][0]["field"] = json!("standby");
        assert_eq!(read(standby), Ok(None), "Meta may leave it out");
        let echo = json!({"entry": [{"changes": [{"value": {"metadata": {"phone_number_id": "1"},
            "message_echoes": [{"id": "w", "from": "1", "to": "49", "type": "text", "text": {"body": "from the phone"}}]}}]}]});
        let echo = read(echo).unwrap().unwrap();
        assert_eq!(
            (
                echo.direction,
                echo.person.source_id(),
                echo.content.as_str()
            ),
            (Direction::Outgoing, "49", "from the phone")
        );
    }
}
