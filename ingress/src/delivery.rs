//! The skeleton of a delivery: where its entries, changes, values and elements lie in the bytes.
//!
//! The scan follows the four levels it knows and skips everything else. A structural key that occurs twice
//! is a flaw, because cutting would have to guess which one counts.

use crate::element::Family;
use crate::json::{self, Flaw, Scanner, Span};
use std::borrow::Cow;

/// Keys of a value that may not occur twice.
const STRUCTURAL: [&str; 6] = ["messages", "contacts", "metadata", "statuses", "message_echoes", "calls"];

/// An array and the things in it.
#[derive(Debug)]
pub struct Group<T> {
    /// From bracket to bracket.
    pub span: Span,
    /// What is in it.
    pub items: Vec<T>,
}

/// A whole delivery.
#[derive(Debug, Default)]
pub struct Delivery {
    /// `object`.
    pub object: Option<Span>,
    /// `entry[]`.
    pub entries: Option<Group<Entry>>,
}

/// One of `entry[]`.
#[derive(Debug, Default)]
pub struct Entry {
    /// All of it.
    pub span: Span,
    /// `id`: the WABA.
    pub id: Option<Span>,
    /// `time`.
    pub time: Option<Span>,
    /// `changes[]`.
    pub changes: Option<Group<Change>>,
}

/// One of `changes[]`.
#[derive(Debug, Default)]
pub struct Change {
    /// All of it.
    pub span: Span,
    /// `field`.
    pub field: Option<Span>,
    /// `value`, whatever it is.
    pub value_span: Option<Span>,
    /// `value`, when it is an object.
    pub value: Option<ChangeValue>,
}

/// A change's `value`, as runs of members that are kept and arrays that may be cut.
#[derive(Debug, Default)]
pub struct ChangeValue {
    /// All of it.
    pub span: Span,
    /// Its members in order.
    pub segments: Vec<Segment>,
    /// Whether an array of it holds updates, one an element.
    pub has_items: bool,
    phone: Option<Span>,
}

/// Neighbouring members of a value.
#[derive(Debug)]
pub enum Segment {
    /// Members that are kept as they are, commas between them included.
    Run(Span),
    /// `contacts`.
    Contacts(Array),
    /// An array of updates that is not empty.
    Items(Family, Array),
}

/// A member that is an array.
#[derive(Debug)]
pub struct Array {
    key_start: usize,
    span: Span,
    /// Its elements.
    pub items: Vec<Span>,
}

impl Delivery {
    /// Scans a whole body.
    pub fn scan(bytes: &[u8]) -> Result<Self, Flaw> {
        let mut scanner = Scanner::new(bytes);
        let mut delivery = Self::default();
        let mut entry_seen = None;
        scanner.object(|scanner, key| {
            let name = name(bytes, &key);
            if name == "entry" {
                once(&mut entry_seen, (), scanner)?;
            }
            match &*name {
                "object" => once(&mut delivery.object, scanner.value()?, scanner)?,
                "entry" if scanner.peek() == Some(b'[') => {
                    delivery.entries = Some(group(scanner, |scanner| Entry::scan(bytes, scanner))?);
                }
                _ => skip(scanner)?,
            }
            Ok(())
        })?;
        scanner.end()?;
        Ok(delivery)
    }

    /// The entry at a place.
    pub fn entry(&self, place: usize) -> Option<&Entry> {
        self.entries.as_ref()?.items.get(place)
    }
}

impl Entry {
    fn scan(bytes: &[u8], scanner: &mut Scanner<'_>) -> Result<Self, Flaw> {
        let mut entry = Self::default();
        if scanner.peek() != Some(b'{') {
            return Ok(Self { span: scanner.value()?, ..entry });
        }
        let mut changes_seen = None;
        entry.span = scanner.object(|scanner, key| {
            let name = name(bytes, &key);
            if name == "changes" {
                once(&mut changes_seen, (), scanner)?;
            }
            match &*name {
                "id" => entry.id = Some(scanner.value()?),
                "time" => entry.time = Some(scanner.value()?),
                "changes" if scanner.peek() == Some(b'[') => {
                    entry.changes = Some(group(scanner, |scanner| Change::scan(bytes, scanner))?);
                }
                _ => skip(scanner)?,
            }
            Ok(())
        })?;
        Ok(entry)
    }

    /// The change at a place.
    pub fn change(&self, place: usize) -> Option<&Change> {
        self.changes.as_ref()?.items.get(place)
    }
}

impl Change {
    fn scan(bytes: &[u8], scanner: &mut Scanner<'_>) -> Result<Self, Flaw> {
        let mut change = Self::default();
        if scanner.peek() != Some(b'{') {
            return Ok(Self { span: scanner.value()?, ..change });
        }
        change.span = scanner.object(|scanner, key| {
            match &*name(bytes, &key) {
                "field" => change.field = Some(scanner.value()?),
                "value" if scanner.peek() == Some(b'{') => {
                    let value = ChangeValue::scan(bytes, scanner)?;
                    once(&mut change.value_span, value.span.clone(), scanner)?;
                    change.value = Some(value);
                }
                "value" => once(&mut change.value_span, scanner.value()?, scanner)?,
                _ => skip(scanner)?,
            }
            Ok(())
        })?;
        Ok(change)
    }

    /// `value.metadata.phone_number_id`.
    pub fn phone<'a>(&self, bytes: &'a [u8]) -> Option<Cow<'a, str>> {
        json::text(bytes, self.value.as_ref()?.phone.as_ref()?)
    }
}

impl ChangeValue {
    fn scan(bytes: &[u8], scanner: &mut Scanner<'_>) -> Result<Self, Flaw> {
        let mut value = Self::default();
        let (mut seen, mut history) = (0_u8, false);
        value.span = scanner.object(|scanner, key| {
            let name = name(bytes, &key);
            let family = Family::of_key(&name);
            if let Some(place) = STRUCTURAL.iter().position(|known| *known == name) {
                if seen & (1 << place) != 0 {
                    return Err(scanner.flaw());
                }
                seen |= 1 << place;
            }
            if name == "metadata" && scanner.peek() == Some(b'{') {
                let span = value.metadata(bytes, scanner)?;
                value.keep(key.start..span.end);
                return Ok(());
            }
            if (family.is_none() && name != "contacts") || scanner.peek() != Some(b'[') {
                history |= name == "history";
                let span = scanner.value()?;
                value.keep(key.start..span.end);
                return Ok(());
            }
            let Group { span, items } = group(scanner, |scanner| scanner.value())?;
            match family {
                _ if items.is_empty() => value.keep(key.start..span.end),
                Some(family) => {
                    value.has_items = true;
                    value.segments.push(Segment::Items(family, Array { key_start: key.start, span, items }));
                }
                None => value.segments.push(Segment::Contacts(Array { key_start: key.start, span, items })),
            }
            Ok(())
        })?;
        // History is an import of the past, in chunks; it must never look like live traffic.
        value.has_items &= !history;
        Ok(value)
    }

    fn metadata(&mut self, bytes: &[u8], scanner: &mut Scanner<'_>) -> Result<Span, Flaw> {
        scanner.object(|scanner, key| {
            let span = scanner.value()?;
            if name(bytes, &key) == "phone_number_id" {
                self.phone = Some(span);
            }
            Ok(())
        })
    }

    fn keep(&mut self, member: Span) {
        match self.segments.last_mut() {
            Some(Segment::Run(run)) => run.end = member.end,
            _ => self.segments.push(Segment::Run(member)),
        }
    }

    /// `contacts`, when there are any.
    pub fn contacts(&self) -> Option<&Array> {
        self.segments.iter().find_map(|segment| match segment {
            Segment::Contacts(array) => Some(array),
            _ => None,
        })
    }

    /// The arrays of updates, each with its place among the segments.
    pub fn items(&self) -> impl Iterator<Item = (usize, Family, &Array)> {
        self.segments.iter().enumerate().filter_map(|(place, segment)| match segment {
            Segment::Items(family, array) => Some((place, *family, array)),
            _ => None,
        })
    }
}

impl Segment {
    /// Bytes that are repeated in the payload of every update of the value.
    pub fn sibling_bytes(&self) -> usize {
        match self {
            Self::Run(span) => span.len(),
            Self::Contacts(_) | Self::Items(..) => 0,
        }
    }
}

impl Array {
    /// The whole member, key included.
    pub fn member(&self) -> Span {
        self.key_start..self.span.end
    }

    /// The member up to and including its bracket, and one element of it.
    pub fn cut(&self, item: usize) -> Option<(Span, Span)> {
        Some((self.key_start..self.span.start + 1, self.items.get(item)?.clone()))
    }
}

fn group<T>(
    scanner: &mut Scanner<'_>,
    mut scan: impl FnMut(&mut Scanner<'_>) -> Result<T, Flaw>,
) -> Result<Group<T>, Flaw> {
    let mut items = Vec::new();
    let span = scanner.array(|scanner| {
        items.push(scan(scanner)?);
        Ok(())
    })?;
    Ok(Group { span, items })
}

fn skip(scanner: &mut Scanner<'_>) -> Result<(), Flaw> {
    scanner.value().map(|_| ())
}

fn name<'a>(bytes: &'a [u8], key: &Span) -> Cow<'a, str> {
    json::text(bytes, key).unwrap_or_default()
}

fn once<T>(slot: &mut Option<T>, value: T, scanner: &Scanner<'_>) -> Result<(), Flaw> {
    if slot.is_some() {
        return Err(scanner.flaw());
    }
    *slot = Some(value);
    Ok(())
}
