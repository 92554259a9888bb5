//! The skeleton of a delivery: where its entries, changes, values and elements lie in the bytes.
//!
//! The scan follows the four levels it knows and skips everything else. A structural key that occurs twice
//! is a flaw, because cutting would have to guess which one counts.

use crate::split::contacts::Contact;
use crate::split::element::{Element, Family};
use crate::split::json::{self, Flaw, Scanner, Span, Text};
use crate::split::participants::Participants;
use ackline_shared::ids::{FoundKey, is_token, token};
use ackline_shared::meta;
use std::borrow::Cow;

/// The field that most changes have, as it stands in them.
const MESSAGES: &str = "\"messages\"";

/// Members of a value that may not occur twice.
enum Structural {
    Metadata,
    Contacts,
    Items(Family),
}

impl Structural {
    /// Which one it is, and a bit of its own.
    fn of_key(key: &str) -> Option<(u8, Self)> {
        Some(match key {
            "metadata" => (1, Self::Metadata),
            "contacts" => (2, Self::Contacts),
            "messages" => (4, Self::Items(Family::Message)),
            "statuses" => (8, Self::Items(Family::Status)),
            "message_echoes" => (16, Self::Items(Family::Echo)),
            "calls" => (32, Self::Items(Family::Call)),
            _ => return None,
        })
    }
}

/// An array and the things in it.
#[derive(Debug)]
pub struct Group<T> {
    pub span: Span,
    pub items: Vec<T>,
}

#[derive(Debug, Default)]
pub struct Delivery {
    pub object: Option<Span>,
    pub entries: Option<Group<Entry>>,
    /// Whether it holds more elements than may be, and not all of them are kept.
    pub is_over_limit: bool,
}

#[derive(Debug, Default)]
pub struct Entry {
    pub span: Span,
    pub id: Option<Span>,
    pub time: Option<Span>,
    pub changes: Option<Group<Change>>,
}

#[derive(Debug, Default)]
pub struct Change {
    pub span: Span,
    pub field: Option<Span>,
    pub value_span: Option<Span>,
    /// `value`, when it is an object.
    pub value: Option<ChangeValue>,
}

/// A change's `value`, as runs of members that are kept and arrays that may be cut.
#[derive(Debug, Default)]
pub struct ChangeValue {
    pub span: Span,
    pub segments: Vec<Segment>,
    /// Whether an array of it holds updates, one an element.
    pub has_items: bool,
    pub phone: Option<Span>,
    pub participants: Participants,
    is_over_limit: bool,
}

/// Neighbouring members of a value.
#[derive(Debug)]
pub enum Segment {
    /// Members that are kept as they are, commas between them included.
    Run(Span),
    Contacts(Array<Contact>),
    /// An array of updates that is not empty.
    Items(Family, Array<Element>),
}

/// A member that is an array.
#[derive(Debug)]
pub struct Array<T> {
    key_start: usize,
    span: Span,
    pub items: Vec<T>,
}

impl Delivery {
    /// Scans a whole body, and keeps as many elements.
    pub fn scan(text: &str, elements_max: usize) -> Result<Self, Flaw> {
        let mut scanner = Scanner::new(text);
        let mut delivery = Self::default();
        let mut entry_seen = None;
        let mut room = Room {
            elements: elements_max,
            is_over_limit: false,
        };
        scanner.object(|scanner, key| {
            match &*scanner.name(&key) {
                "object" => once(&mut delivery.object, scanner.value()?, scanner)?,
                "entry" => {
                    once(&mut entry_seen, (), scanner)?;
                    if scanner.peek() != Some(b'[') {
                        return skip(scanner);
                    }
                    delivery.entries = Some(group(scanner, |scanner| {
                        Entry::scan(text, scanner, &mut room)
                    })?);
                }
                _ => skip(scanner)?,
            }
            Ok(())
        })?;
        scanner.end()?;
        delivery.is_over_limit = room.is_over_limit;
        Ok(delivery)
    }
}

/// How many more elements may be kept, so that what is kept of a body is no multiple of it.
struct Room {
    elements: usize,
    /// Whether there were more that are updates.
    is_over_limit: bool,
}

impl Entry {
    fn scan(text: &str, scanner: &mut Scanner<'_>, room: &mut Room) -> Result<Self, Flaw> {
        let mut entry = Self::default();
        if scanner.peek() != Some(b'{') {
            return Ok(Self {
                span: scanner.value()?,
                ..entry
            });
        }
        let mut changes_seen = None;
        entry.span = scanner.object(|scanner, key| {
            match &*scanner.name(&key) {
                "id" => entry.id = Some(scanner.value()?),
                "time" => entry.time = Some(scanner.value()?),
                "changes" => {
                    once(&mut changes_seen, (), scanner)?;
                    if scanner.peek() != Some(b'[') {
                        return skip(scanner);
                    }
                    entry.changes =
                        Some(group(scanner, |scanner| Change::scan(text, scanner, room))?);
                }
                _ => skip(scanner)?,
            }
            Ok(())
        })?;
        Ok(entry)
    }
}

impl Change {
    fn scan(text: &str, scanner: &mut Scanner<'_>, room: &mut Room) -> Result<Self, Flaw> {
        let mut change = Self::default();
        if scanner.peek() != Some(b'{') {
            return Ok(Self {
                span: scanner.value()?,
                ..change
            });
        }
        let elements = room.elements;
        change.span = scanner.object(|scanner, key| {
            match &*scanner.name(&key) {
                "field" => change.field = Some(scanner.value()?),
                "value" if scanner.peek() == Some(b'{') => {
                    let value = ChangeValue::scan(text, scanner, &mut room.elements)?;
                    once(&mut change.value_span, value.span.clone(), scanner)?;
                    change.value = Some(value);
                }
                "value" => once(&mut change.value_span, scanner.value()?, scanner)?,
                _ => skip(scanner)?,
            }
            Ok(())
        })?;
        let is_history = change.field(text).as_deref() == Some("history");
        if let Some(value) = &mut change.value {
            value.has_items &= !is_history;
            if value.has_items {
                room.is_over_limit |= value.is_over_limit;
            } else {
                // It is one update, whatever it holds.
                value.segments = Vec::new();
                room.elements = elements;
            }
        }
        Ok(change)
    }

    pub fn field<'a>(&self, text: &'a str) -> Text<'a> {
        json::text(text, self.field.as_ref()?)
    }

    /// `field` as a token, unless it is `messages`.
    pub fn field_besides_messages<'a>(&self, text: &'a str) -> Text<'a> {
        let span = self.field.as_ref()?;
        if json::slice(text, span) == MESSAGES {
            return None;
        }
        let field =
            json::text(text, span).filter(|field| !field.is_empty() && field != meta::MESSAGES)?;
        Some(if is_token(&field) {
            field
        } else {
            Cow::Owned(token(&field).into_owned())
        })
    }

    /// What happened to the control of a conversation, and of which, when that is what the change tells.
    pub fn handover<'a>(&self, text: &'a str) -> Option<(Option<&'static str>, FoundKey<'a>)> {
        let value = self.value.as_ref().filter(|value| !value.has_items)?;
        if self.field(text)? != meta::HANDOVERS {
            None
        } else {
            value.participants.handover(text)
        }
    }
}

impl ChangeValue {
    fn scan(text: &str, scanner: &mut Scanner<'_>, room: &mut usize) -> Result<Self, Flaw> {
        let mut value = Self::default();
        let (mut seen, mut history) = (0_u8, false);
        value.span = scanner.object(|scanner, key| {
            let name = scanner.name(&key);
            let structural = Structural::of_key(&name);
            if let Some((bit, _)) = structural {
                if seen & bit != 0 {
                    return Err(scanner.flaw());
                }
                seen |= bit;
            }
            match (structural, scanner.peek()) {
                (Some((_, Structural::Metadata)), Some(b'{')) => {
                    let span = value.metadata(scanner)?;
                    value.keep(key.start..span.end);
                }
                (Some((_, Structural::Contacts)), Some(b'[')) => {
                    let array = Array::scan(scanner, key.start, Contact::scan)?;
                    value.put(array, Segment::Contacts);
                }
                (Some((_, Structural::Items(family))), Some(b'[')) => {
                    let mut over_limit = false;
                    let array =
                        Array::scan_some(scanner, key.start, room, &mut over_limit, |scanner| {
                            Element::scan(text, scanner, family)
                        })?;
                    value.is_over_limit |= over_limit;
                    value.has_items |= over_limit || !array.items.is_empty();
                    value.put(array, |array| Segment::Items(family, array));
                }
                _ => {
                    history |= name == "history";
                    let span = value.participants.member(&name, scanner)?;
                    value.keep(key.start..span.end);
                }
            }
            Ok(())
        })?;
        // History is an import of the past, in chunks; it must never look like live traffic.
        value.has_items &= !history;
        Ok(value)
    }

    fn metadata(&mut self, scanner: &mut Scanner<'_>) -> Result<Span, Flaw> {
        scanner.object(|scanner, key| {
            match &*scanner.name(&key) {
                "phone_number_id" => self.phone = Some(scanner.value()?),
                _ => skip(scanner)?,
            }
            Ok(())
        })
    }

    fn put<T>(&mut self, array: Array<T>, segment: impl FnOnce(Array<T>) -> Segment) {
        if array.items.is_empty() {
            self.keep(array.member());
        } else {
            self.segments.push(segment(array));
        }
    }

    fn keep(&mut self, member: Span) {
        match self.segments.last_mut() {
            Some(Segment::Run(run)) => run.end = member.end,
            _ => self.segments.push(Segment::Run(member)),
        }
    }

    /// `contacts`, when there are any.
    pub fn contacts(&self) -> Option<&Array<Contact>> {
        self.segments.iter().find_map(|segment| match segment {
            Segment::Contacts(array) => Some(array),
            _ => None,
        })
    }

    /// The arrays of updates, each with its place among the segments.
    pub fn items(&self) -> impl Iterator<Item = (u32, Family, &Array<Element>)> {
        (0..)
            .zip(&self.segments)
            .filter_map(|(place, segment)| match segment {
                Segment::Items(family, array) => Some((place, *family, array)),
                _ => None,
            })
    }
}

impl Segment {
    /// Bytes that are repeated in the payload of every update of the value, each run with its comma.
    pub fn sibling_bytes(&self) -> usize {
        match self {
            Self::Run(span) => span.len() + 1,
            Self::Contacts(_) | Self::Items(..) => 0,
        }
    }
}

impl<T> Array<T> {
    fn scan<'a>(
        scanner: &mut Scanner<'a>,
        key_start: usize,
        scan: impl FnMut(&mut Scanner<'a>) -> Result<T, Flaw>,
    ) -> Result<Self, Flaw> {
        let Group { span, items } = group(scanner, scan)?;
        Ok(Self {
            key_start,
            span,
            items,
        })
    }

    /// Keeps no more than there is room for, and tells of the rest.
    fn scan_some<'a>(
        scanner: &mut Scanner<'a>,
        key_start: usize,
        room: &mut usize,
        is_over_limit: &mut bool,
        mut scan: impl FnMut(&mut Scanner<'a>) -> Result<T, Flaw>,
    ) -> Result<Self, Flaw> {
        let mut items = Vec::new();
        let span = scanner.array(|scanner| {
            if *room == 0 {
                *is_over_limit = true;
                return skip(scanner);
            }
            *room -= 1;
            items.push(scan(scanner)?);
            Ok(())
        })?;
        Ok(Self {
            key_start,
            span,
            items,
        })
    }

    /// The whole member, key included.
    pub fn member(&self) -> Span {
        self.key_start..self.span.end
    }

    /// The member up to and including its bracket.
    pub fn head(&self) -> Span {
        self.key_start..self.span.start + 1
    }
}

fn group<'a, T>(
    scanner: &mut Scanner<'a>,
    mut scan: impl FnMut(&mut Scanner<'a>) -> Result<T, Flaw>,
) -> Result<Group<T>, Flaw> {
    let mut items = Vec::new();
    let span = scanner.array(|scanner| {
        items.push(scan(scanner)?);
        Ok(())
    })?;
    Ok(Group { span, items })
}

fn skip(scanner: &mut Scanner<'_>) -> Result<(), Flaw> {
    scanner.value().map(drop)
}

fn once<T>(slot: &mut Option<T>, value: T, scanner: &Scanner<'_>) -> Result<(), Flaw> {
    if slot.is_some() {
        return Err(scanner.flaw());
    }
    *slot = Some(value);
    Ok(())
}
