//! What a CRM shows of an update or a record: who it is about, and one line of the transcript.

use super::clean;
use ackline_message::command::is_id;
use ackline_message::plain;
use ackline_message::{Origin, Recipient, SendCommand};
use ackline_shared::ids::{EntityId, PhoneNumberId};
use ackline_shared::meta::incoming::Media;
use ackline_shared::meta::{Body, Update};
use bytes::Bytes;

/// Chatwoot's own bound on a message is 150,000 characters.
const CONTENT_CHARS_MAX: usize = 100_000;
const NAME_CHARS_MAX: usize = 120;
/// Errors of one status that are told.
const CAUSES_MAX: usize = 3;

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
        let id = |id: &Option<String>| {
            let id = clean::line(id.as_deref().unwrap_or_default());
            Some(id.trim_start_matches('+').to_owned()).filter(|id| !id.is_empty())
        };
        let (phone, user_id) = (id(&ids.phone), id(&ids.user_id));
        let name = name.map(clean::line).filter(|name| !name.is_empty());
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

/// A file as a CRM gets it.
#[derive(Clone, PartialEq, Eq)]
pub struct CrmFile {
    pub name: String,
    pub mime_type: String,
    pub bytes: Bytes,
}

impl std::fmt::Debug for CrmFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CrmFile({}, {} bytes)", self.mime_type, self.bytes.len())
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
    /// Our id of the command that sent it, where one did.
    pub command: Option<String>,
    /// What is read of it, where its file is not there.
    pub content: String,
    /// The words beside its file.
    pub caption: Option<String>,
    /// The file it is about, at Meta.
    pub media: Option<Media>,
    /// The file itself, once it is fetched.
    pub file: Option<CrmFile>,
    /// Meta's id of the message that it quotes.
    pub in_reply_to: Option<String>,
    /// The CRM's id of that message, where it is known.
    pub quotes: Option<u64>,
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
        source_id: clean::line(&message.id),
        command: None,
        content: bounded(text),
        caption: message.content.text.as_deref().map(clean::text),
        media: message.content.media.clone(),
        file: None,
        opens,
        in_reply_to: message.content.context_id().map(clean::line),
        quotes: None,
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
        command: Some(command.id.clone()),
        content: bounded(plain(&command.content)),
        caption: None,
        media: None,
        file: None,
        in_reply_to: command.reply_to.clone(),
        quotes: None,
        audience,
        opens: true,
    })
}

/// A message of ours that did not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedEntry {
    /// Our id of the command, where we sent it.
    pub command: Option<String>,
    /// Meta's id of the message, where it has one.
    pub wamid: Option<String>,
    /// Why, for the agent.
    pub words: String,
    /// Whether it may have arrived all the same.
    pub is_unsure: bool,
    /// The note that says so where it cannot be shown at the message.
    pub note: CrmEntry,
}

/// What became of a message that an agent wrote and that was given up; `None` when no agent wrote it.
pub fn of_failure(
    command: &SendCommand,
    code: Option<i64>,
    reason: &str,
    ambiguous: bool,
) -> Option<FailedEntry> {
    let Origin::Agent { link, .. } = &command.origin else {
        return None;
    };
    let fate = if ambiguous {
        "Perhaps not sent to WhatsApp"
    } else {
        "Not sent to WhatsApp"
    };
    let code = code.map(|code| code.to_string());
    let code = code.filter(|code| !reason.contains(code.as_str()));
    let code = code
        .map(|code| format!(" (code {code})"))
        .unwrap_or_default();
    let words = bounded(format!("{fate}: {reason}{code}"));
    Some(FailedEntry {
        command: Some(command.id.clone()),
        wamid: None,
        is_unsure: ambiguous,
        note: CrmEntry {
            direction: Direction::Note,
            number: command.phone_number_id.clone(),
            person: Person::new(&command.to, None)?,
            source_id: format!("failed:{}", command.id),
            command: None,
            content: words.clone(),
            caption: None,
            media: None,
            file: None,
            in_reply_to: None,
            quotes: None,
            audience: Audience::Only(link.clone()),
            opens: true,
        },
        words,
    })
}

/// A message of ours that arrived, and at whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveredEntry {
    pub number: PhoneNumberId,
    pub person: Person,
    /// Our id of its command, and Meta's of it.
    pub ids: Vec<String>,
}

/// At whom a message arrived; `None` for anything else, and for a group, which is nobody.
pub fn of_delivery(update: &Update) -> Option<DeliveredEntry> {
    let Body::Status(status) = &update.body else {
        return None;
    };
    let is_group = status
        .raw
        .get("recipient_type")
        .is_some_and(|kind| kind == "group");
    if status.status != "delivered" || update.is_standby() || is_group {
        return None;
    }
    let number = PhoneNumberId::new(update.phone_number_id.as_deref()?).ok()?;
    let command = status.callback_data.clone().filter(|id| is_id(id));
    Some(DeliveredEntry {
        number,
        person: Person::new(&status.recipient, None)?,
        ids: command
            .into_iter()
            .chain([clean::line(&status.id)])
            .collect(),
    })
}

/// What became of a message that Meta took and could not deliver; `None` for anything else.
pub fn of_status(update: &Update) -> Option<FailedEntry> {
    let Body::Status(status) = &update.body else {
        return None;
    };
    if status.status != "failed" || update.is_standby() {
        return None;
    }
    let number = PhoneNumberId::new(update.phone_number_id.as_deref()?).ok()?;
    let causes = status.errors.iter().take(CAUSES_MAX);
    let causes: Vec<String> = causes
        .map(|error| format!("{} (code {})", error.text, error.code))
        .collect();
    let causes = match causes.is_empty() {
        true => "Meta names no reason".to_owned(),
        false => causes.join("; "),
    };
    let words = bounded(format!("Not delivered by WhatsApp: {causes}"));
    let wamid = clean::line(&status.id);
    let command = status.callback_data.clone();
    Some(FailedEntry {
        command: command.filter(|id| is_id(id)),
        is_unsure: false,
        note: CrmEntry {
            direction: Direction::Note,
            number,
            person: Person::new(&status.recipient, None)?,
            source_id: format!("failed:{wamid}"),
            command: None,
            content: words.clone(),
            caption: None,
            media: None,
            file: None,
            in_reply_to: Some(wamid.clone()),
            quotes: None,
            audience: Audience::All,
            opens: false,
        },
        wamid: Some(wamid),
        words,
    })
}

/// A CRM refuses an empty message, and an endless one.
fn bounded(text: String) -> String {
    let text = clean::text(&text);
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
    fn nothing_that_a_database_refuses_is_in_an_entry() {
        let value = json!({
            "metadata": {"phone_number_id": "1065"},
            "contacts": [{"profile": {"name": "A\u{0}na\n"}, "wa_id": "15550001"}],
            "messages": [{"id": "wamid.1\u{0}", "from": "15550001", "type": "text",
                "text": {"body": "mail a\u{0}b\u{1b}.example"}, "context": {"id": "wamid.\u{0}0"}}],
        });
        let envelope =
            json!({"entry": [{"id": "W", "changes": [{"field": "messages", "value": value}]}]});
        let update = meta::read(envelope.to_string().as_bytes()).unwrap();
        let entry = of_update(&update).unwrap().unwrap();
        assert_eq!(entry.content, "mail ab.example");
        assert_eq!(entry.person.name.as_deref(), Some("Ana"));
        for text in [&entry.source_id, &entry.in_reply_to.unwrap()] {
            assert!(!text.contains('\u{0}'), "{text:?}");
        }
    }

    #[test]
    fn a_failure_that_a_status_tells_names_its_code() {
        let status = |word: &str, errors: Value| {
            let status = json!({"id": "wamid.1", "status": word, "recipient_id": "15550001",
                "biz_opaque_callback_data": "crm-1", "errors": errors});
            let value = json!({"metadata": {"phone_number_id": "1065"}, "statuses": [status]});
            let envelope =
                json!({"entry": [{"id": "W", "changes": [{"field": "messages", "value": value}]}]});
            of_status(&meta::read(envelope.to_string().as_bytes()).unwrap())
        };
        let window = json!([{"code": 131_047, "title": "Re-engagement message"}]);
        let failed = status("failed", window).unwrap();
        assert_eq!(
            failed.words,
            "Not delivered by WhatsApp: Re-engagement message (code 131047)"
        );
        assert_eq!(
            (failed.command.as_deref(), failed.wamid.as_deref()),
            (Some("crm-1"), Some("wamid.1"))
        );
        assert!(
            status("failed", json!([]))
                .unwrap()
                .words
                .contains("no reason")
        );
        assert_eq!(status("read", json!([])), None);
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
