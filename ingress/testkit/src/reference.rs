//! Splitting again, slowly and from the definition: what every update of a body must be, byte for byte.
//!
//! It parses with `serde_json` level by level into raw values and shares no code with the scanner, the splitter
//! or the routing table. It knows the [`fixture`](crate::fixture)'s tenants.
#![allow(
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "only tests run this; a failure here is a failed test"
)]

use ackline_shared::ids::{ConversationKey, UpdateId, token};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::ops::Range;

const ARRAYS: [&str; 4] = ["messages", "statuses", "message_echoes", "calls"];
const DEPTH_MAX: usize = 100;
const UPDATES_MAX: usize = 8192;
/// What a head counts, and what a delivery may take beside eight times its length.
const HEAD_BYTES: usize = 512;
const STORED_BYTES_BESIDE: usize = 1 << 20;

/// What is stored of one update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub payload: Vec<u8>,
    /// Whether the payload is the delivery's own bytes.
    pub untouched: bool,
    pub id: String,
    pub tenant: String,
    /// The lane: `msg`, `sts` or `acct`.
    pub class: &'static str,
    pub kind: String,
    /// The field it came under, unless that is `messages`.
    pub field: Option<String>,
    /// Whose conversation it is in.
    pub conversation: String,
}

/// The updates of a signed body that this app brought.
pub fn updates(body: &[u8], app: &str) -> Vec<Expected> {
    let found = std::str::from_utf8(body)
        .ok()
        .and_then(|text| Delivery { text }.updates());
    let mut found = found.unwrap_or_else(|| vec![Update::whole(body, "unreadable".to_owned())]);
    if let [only] = found.as_mut_slice() {
        only.payload = body.to_vec();
    }
    let untouched = found.len() == 1;
    found
        .into_iter()
        .map(|update| update.stamped(app, untouched))
        .collect()
}

/// An update before anybody asked whose it is.
#[derive(Clone)]
struct Update {
    payload: Vec<u8>,
    id: UpdateId,
    class: &'static str,
    kind: String,
    field: Option<String>,
    conversation: ConversationKey,
    phone: Option<String>,
    waba: Option<String>,
}

impl Update {
    fn whole(body: &[u8], kind: String) -> Self {
        Self {
            payload: body.to_vec(),
            id: UpdateId::of_bytes(body),
            class: "acct",
            kind,
            field: None,
            conversation: ConversationKey::none(),
            phone: None,
            waba: None,
        }
    }

    fn stamped(self, app: &str, untouched: bool) -> Expected {
        let named = |id: &'_ Option<String>| id.clone().filter(|id| !id.is_empty());
        let owner = match (named(&self.phone).as_deref(), named(&self.waba).as_deref()) {
            (Some("100"), _) | (None, Some("W1")) => Some("acme"),
            (Some("200"), _) | (None, Some("W2")) => Some("globex"),
            _ => None,
        };
        let foreign = app == "globex-own" && owner == Some("acme");
        let tenant = owner.filter(|_| !foreign);
        Expected {
            payload: self.payload,
            untouched,
            id: if foreign {
                UpdateId::new(&format!("{}@{app}", self.id.as_str()))
                    .as_str()
                    .to_owned()
            } else {
                self.id.as_str().to_owned()
            },
            tenant: tenant.unwrap_or("_unrouted").to_owned(),
            class: if tenant.is_some() { self.class } else { "acct" },
            kind: self.kind,
            field: self.field,
            conversation: self.conversation.as_str().to_owned(),
        }
    }
}

/// A body that is text.
#[derive(Clone, Copy)]
struct Delivery<'a> {
    text: &'a str,
}

impl<'a> Delivery<'a> {
    /// `None` when the body cannot be cut without guessing.
    fn updates(self) -> Option<Vec<Update>> {
        let root = serde_json::from_str::<&RawValue>(self.text).ok()?.get();
        if depth(root) > DEPTH_MAX {
            return None;
        }
        let root = self.members(root)?;
        self.unique(&root, &["object", "entry"])?;
        // Every level is checked before the object's name says whether the levels below it matter.
        let entries = match last(&root, "entry").and_then(|entry| elements(entry.raw)) {
            Some(entries) => entries
                .into_iter()
                .map(|raw| self.entry(raw))
                .collect::<Option<Vec<_>>>()?,
            None => Vec::new(),
        };
        let object = last(&root, "object").and_then(|object| text(object.raw))?;
        if object != "whatsapp_business_account" {
            let (family, what) = match object.as_str() {
                "page" | "instagram" => (object.as_str(), "delivery"),
                other => ("object", other),
            };
            return Some(vec![Update::whole(
                self.text.as_bytes(),
                kind(family, Some(what)),
            )]);
        }
        let around = self.span(last(&root, "entry")?.raw);
        let mut found = Vec::new();
        for entry in entries {
            for mut update in self.of_entry(&entry) {
                let cut = std::mem::take(&mut update.payload);
                update.payload = self.wrapped(0..self.text.len(), &around, &cut);
                found.push(update);
            }
        }
        let stored: usize = found
            .iter()
            .map(|update| update.payload.len() + HEAD_BYTES)
            .sum();
        let fits = found.len() == 1 || stored <= 8 * self.text.len() + STORED_BYTES_BESIDE;
        (!found.is_empty() && found.len() <= UPDATES_MAX && fits).then_some(found)
    }

    /// An entry with its changes, refused when a structural key of it occurs twice.
    fn entry(self, raw: &'a str) -> Option<Entry<'a>> {
        let members = self.members(raw).unwrap_or_default();
        self.unique(&members, &["changes"])?;
        let mut entry = Entry {
            raw,
            members,
            changes: Vec::new(),
        };
        let changes = last(&entry.members, "changes").and_then(|changes| elements(changes.raw));
        for raw in changes.unwrap_or_default() {
            let members = self.members(raw).unwrap_or_default();
            self.unique(&members, &["value"])?;
            let value = last(&members, "value")
                .and_then(|value| self.members(value.raw))
                .unwrap_or_default();
            self.unique(&value, &[&ARRAYS[..], &["contacts", "metadata"]].concat())?;
            entry.changes.push(Change {
                raw,
                members,
                value,
            });
        }
        Some(entry)
    }

    fn unique(self, members: &[Member<'_>], names: &[&str]) -> Option<()> {
        let occurs = |name: &str| members.iter().filter(|member| member.name == name).count();
        names.iter().all(|name| occurs(name) < 2).then_some(())
    }

    /// The updates of an entry; payloads are what stands in the array of entries.
    fn of_entry(self, entry: &Entry<'a>) -> Vec<Update> {
        let waba = last(&entry.members, "id").and_then(|id| text(id.raw));
        let time = last(&entry.members, "time")
            .map(|time| time.raw)
            .unwrap_or_default();
        if entry.changes.is_empty() {
            let mut update = Update::whole(entry.raw.as_bytes(), "account.unknown".to_owned());
            update.id = hash(&["", waba.as_deref().unwrap_or_default(), entry.raw]);
            update.waba = waba;
            return vec![update];
        }
        let around = last(&entry.members, "changes").map_or(0..0, |changes| self.span(changes.raw));
        let mut found = Vec::new();
        for change in &entry.changes {
            for mut update in self.of_change(change, waba.as_deref(), time) {
                let cut = std::mem::take(&mut update.payload);
                update.payload = self.wrapped(self.span(entry.raw), &around, &cut);
                found.push(update);
            }
        }
        found
    }

    /// The updates of a change; payloads are what stands in the array of changes.
    fn of_change(self, change: &Change<'a>, waba: Option<&str>, time: &str) -> Vec<Update> {
        let field_raw = last(&change.members, "field")
            .map(|field| field.raw)
            .unwrap_or_default();
        let field = text(field_raw);
        let metadata =
            last(&change.value, "metadata").and_then(|metadata| self.members(metadata.raw));
        let phone = metadata.and_then(|metadata| text(last(&metadata, "phone_number_id")?.raw));
        let party = |side: &str| {
            let members = last(&change.value, side)
                .and_then(|side| self.members(side.raw))
                .unwrap_or_default();
            Said {
                family: "parties",
                members,
                system: Vec::new(),
            }
        };
        let phone = phone
            .filter(|phone| !phone.is_empty())
            .or_else(|| party("recipient").get("phone_number_id"));
        let besides_messages = field
            .clone()
            .filter(|field| !field.is_empty() && field != "messages");
        let besides_messages = besides_messages.map(|field| token(&field).into_owned());
        let is_history =
            field.as_deref() == Some("history") || last(&change.value, "history").is_some();
        let filled: Vec<&Member<'_>> = change
            .value
            .iter()
            .filter(|member| is_cut(member))
            .collect();
        if is_history || filled.is_empty() {
            let content = last(&change.members, "value").map_or(change.raw, |value| value.raw);
            let mut update =
                Update::whole(change.raw.as_bytes(), kind("account", field.as_deref()));
            let parts = [
                field.as_deref().unwrap_or_default(),
                waba.unwrap_or_default(),
                time,
                content,
            ];
            update.id = hash(&parts);
            (update.phone, update.waba) = (phone, waba.map(str::to_owned));
            update.field = besides_messages;
            let person = (
                party("sender").get("user_id"),
                party("sender").get("phone_number"),
            );
            let conversation = match person {
                (Some(user), _) => Some(ConversationKey::user(&user)),
                (None, phone) => phone.map(|phone| ConversationKey::phone(&phone)),
            };
            if let (Some("messaging_handovers"), Some(conversation)) =
                (field.as_deref(), conversation)
            {
                let control = ["control_passed", "control_taken"];
                let told = change
                    .value
                    .iter()
                    .rev()
                    .find(|member| control.contains(&member.name.as_str()));
                (update.class, update.conversation) = ("msg", conversation);
                update.kind = kind("handover", told.map(|member| member.name.as_str()));
            }
            return vec![update];
        }
        let contacts = last(&change.value, "contacts").and_then(|contacts| elements(contacts.raw));
        let contacts: Vec<_> = contacts.unwrap_or_default();
        let value = last(&change.members, "value").map_or(0..0, |value| self.span(value.raw));
        let mut found = Vec::new();
        for array in filled {
            for element in elements(array.raw).unwrap_or_default() {
                let members = self.members(element).unwrap_or_default();
                let system = last(&members, "system").and_then(|system| self.members(system.raw));
                let said = Said {
                    family: &array.name,
                    members,
                    system: system.unwrap_or_default(),
                };
                let contact = said.contact(self, &contacts);
                let inside = self.cut(
                    change,
                    array,
                    element,
                    contact.as_ref().map(|contact| contact.raw),
                );
                let parts = [field_raw, waba.unwrap_or_default(), time, element];
                found.push(Update {
                    payload: self.wrapped(self.span(change.raw), &value, inside.as_bytes()),
                    id: said.id().unwrap_or_else(|| hash(&parts)),
                    class: if array.name == "statuses" {
                        "sts"
                    } else {
                        "msg"
                    },
                    kind: said.kind(),
                    field: besides_messages.clone(),
                    conversation: said.conversation(contact.as_ref()),
                    phone: phone.clone(),
                    waba: waba.map(str::to_owned),
                });
            }
        }
        found
    }

    /// The members of a value with only one element of only one array.
    fn cut(
        self,
        change: &Change<'a>,
        array: &Member<'a>,
        element: &str,
        contact: Option<&str>,
    ) -> String {
        let mut parts: Vec<String> = Vec::new();
        let mut run: Option<Range<usize>> = None;
        for member in &change.value {
            let (start, end) = (member.start, self.span(member.raw).end);
            let one = |element: &str| {
                format!(
                    "{}{element}]",
                    &self.text[start..=self.span(member.raw).start]
                )
            };
            let part = match (
                is_cut(member),
                is_filled(member) && member.name == "contacts",
            ) {
                (true, _) if member.start == array.start => Some(one(element)),
                (true, _) => None,
                (_, true) => Some(contact.map_or_else(|| self.text[start..end].to_owned(), one)),
                _ => {
                    // Neighbours that are kept keep what is between them.
                    run = Some(run.map_or(start, |run| run.start)..end);
                    continue;
                }
            };
            parts.extend(run.take().map(|run| self.text[run].to_owned()));
            parts.extend(part);
        }
        parts.extend(run.map(|run| self.text[run].to_owned()));
        parts.join(",")
    }

    /// What is around the inside of an array or object, with another inside.
    fn wrapped(self, outer: Range<usize>, inner: &Range<usize>, inside: &[u8]) -> Vec<u8> {
        let text = self.text.as_bytes();
        [
            &text[outer.start..=inner.start],
            inside,
            &text[inner.end - 1..outer.end],
        ]
        .concat()
    }

    fn span(self, raw: &str) -> Range<usize> {
        let start = raw.as_ptr() as usize - self.text.as_ptr() as usize;
        start..start + raw.len()
    }

    /// The members of an object, or `None` for anything else.
    fn members(self, raw: &'a str) -> Option<Vec<Member<'a>>> {
        let Members(members) = serde_json::from_str(raw).ok()?;
        let mut end = self.span(raw).start + 1;
        let with_start = members.into_iter().map(|(name, raw)| {
            // Between two members stand only a comma and white space.
            let start = end + self.text[end..].find('"').unwrap_or_default();
            end = self.span(raw).end;
            Member { name, raw, start }
        });
        Some(with_start.collect())
    }
}

struct Entry<'a> {
    raw: &'a str,
    members: Vec<Member<'a>>,
    changes: Vec<Change<'a>>,
}

struct Change<'a> {
    raw: &'a str,
    members: Vec<Member<'a>>,
    value: Vec<Member<'a>>,
}

struct Member<'a> {
    name: String,
    raw: &'a str,
    start: usize,
}

/// What an element says about itself.
struct Said<'a> {
    family: &'a str,
    members: Vec<Member<'a>>,
    /// What a message of that kind says of a person's ids.
    system: Vec<Member<'a>>,
}

struct Contact<'a> {
    raw: &'a str,
    user: Option<String>,
    phone: Option<String>,
}

impl Said<'_> {
    fn get(&self, name: &str) -> Option<String> {
        last(&self.members, name)
            .and_then(|member| text(member.raw))
            .filter(|text| !text.is_empty())
    }

    fn call_event(&self) -> Option<String> {
        self.get("event").or_else(|| self.get("status"))
    }

    fn kind(&self) -> String {
        match self.family {
            "messages" => kind("message", self.get("type").as_deref()),
            "statuses" => kind("status", self.get("status").as_deref()),
            "message_echoes" => kind("echo", self.get("type").as_deref()),
            _ => kind("call", self.call_event().as_deref()),
        }
    }

    fn id(&self) -> Option<UpdateId> {
        let id = self.get("id")?;
        let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
        Some(UpdateId::new(&match self.family {
            "messages" | "message_echoes" => id,
            "calls" => format!("{id}:{}", or_unknown(self.call_event())),
            _ => {
                let of = self
                    .get("recipient_participant_id")
                    .map(|of| format!(":{of}"))
                    .unwrap_or_default();
                format!("{id}:{}{of}", or_unknown(self.get("status")))
            }
        }))
    }

    /// Business-scoped id and phone number of the person on the other side.
    fn person(&self) -> (Option<String>, Option<String>) {
        let incoming = match self.family {
            "messages" => true,
            "calls" => self.get("direction").as_deref() != Some("BUSINESS_INITIATED"),
            _ => false,
        };
        let is_system =
            incoming && self.family == "messages" && self.get("type").as_deref() == Some("system");
        match self.family {
            _ if is_system => {
                let told = |name| {
                    last(&self.system, name)
                        .and_then(|member| text(member.raw))
                        .filter(|text| !text.is_empty())
                };
                (
                    told("user_id").or_else(|| self.get("from_user_id")),
                    told("new_wa_id")
                        .or_else(|| told("wa_id"))
                        .or_else(|| self.get("from")),
                )
            }
            _ if incoming => (self.get("from_user_id"), self.get("from")),
            "statuses" => (self.get("recipient_user_id"), self.get("recipient_id")),
            _ => (
                self.get("to_user_id")
                    .or_else(|| self.get("recipient_user_id")),
                self.get("to"),
            ),
        }
    }

    fn contact<'a>(&self, delivery: Delivery<'a>, contacts: &[&'a str]) -> Option<Contact<'a>> {
        let (user, phone) = self.person();
        let read = |raw: &'a str| {
            let said = Said {
                family: "contacts",
                members: delivery.members(raw).unwrap_or_default(),
                system: Vec::new(),
            };
            Contact {
                raw,
                user: said.get("user_id"),
                phone: said.get("wa_id"),
            }
        };
        let all: Vec<_> = contacts.iter().map(|raw| read(raw)).collect();
        let same =
            |ours: &Option<String>, theirs: &Option<String>| ours.is_some() && ours == theirs;
        let same_number = |ours: &Option<String>, theirs: &Option<String>| {
            let pair = ours.as_ref().zip(theirs.as_ref());
            pair.is_some_and(|(ours, theirs)| {
                ConversationKey::phone(ours) == ConversationKey::phone(theirs)
            })
        };
        let place = if all.len() == 1 {
            Some(0)
        } else {
            let by_user = all.iter().position(|contact| same(&contact.user, &user));
            by_user.or_else(|| {
                all.iter()
                    .position(|contact| same_number(&contact.phone, &phone))
            })
        };
        let contact = all.into_iter().nth(place?)?;
        let agrees = match (&contact.user, &user) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => match (&contact.phone, &phone) {
                (Some(_), Some(_)) => same_number(&contact.phone, &phone),
                _ => true,
            },
        };
        agrees.then_some(contact)
    }

    fn conversation(&self, contact: Option<&Contact<'_>>) -> ConversationKey {
        let to_group = self.get("recipient_type").as_deref() == Some("group");
        if let Some(group) = self
            .get("group_id")
            .or(self.get("recipient_id").filter(|_| to_group))
        {
            return ConversationKey::group(&group);
        }
        let (user, phone) = self.person();
        let user = user.or_else(|| contact.and_then(|contact| contact.user.clone()));
        let phone = phone.or_else(|| contact.and_then(|contact| contact.phone.clone()));
        match (user, phone) {
            (Some(user), _) => ConversationKey::user(&user),
            (None, Some(phone)) => ConversationKey::phone(&phone),
            (None, None) => ConversationKey::none(),
        }
    }
}

/// Whether a member of a value is an array that holds updates.
fn is_cut(member: &Member<'_>) -> bool {
    ARRAYS.contains(&member.name.as_str()) && is_filled(member)
}

fn is_filled(member: &Member<'_>) -> bool {
    elements(member.raw).is_some_and(|elements| !elements.is_empty())
}

fn last<'m, 'a>(members: &'m [Member<'a>], name: &str) -> Option<&'m Member<'a>> {
    members.iter().rev().find(|member| member.name == name)
}

fn elements(raw: &str) -> Option<Vec<&str>> {
    let elements: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
    Some(elements.into_iter().map(RawValue::get).collect())
}

fn text(raw: &str) -> Option<String> {
    match raw.bytes().next()? {
        b'"' => ackline_shared::meta::decoded(raw),
        b'0'..=b'9' => raw.parse::<u64>().ok().map(|_| raw.to_owned()),
        _ => None,
    }
}

fn kind(family: &str, what: Option<&str>) -> String {
    let what = what.filter(|what| !what.is_empty()).unwrap_or("unknown");
    let safe = what.chars().take(48).map(|c| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() || c == '_' || c == '-' => c,
        _ => '_',
    });
    format!("{family}.{}", safe.collect::<String>())
}

fn hash(parts: &[&str]) -> UpdateId {
    let lengths: String = parts
        .iter()
        .map(|part| format!("{},", part.len()))
        .collect();
    UpdateId::of_bytes(format!("{lengths}{}", parts.concat()).as_bytes())
}

/// Deepest nesting of a JSON text.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth -= 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// An object's members in order, none of them parsed; a name that is no Unicode text is empty.
struct Members<'a>(Vec<(String, &'a str)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(name) = map.next_key::<Name>()? {
            members.push((name.0, map.next_value::<&RawValue>()?.get()));
        }
        Ok(Members(members))
    }
}

struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Name, E> {
                Ok(Name(String::from_utf8(bytes.to_vec()).unwrap_or_default()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}
