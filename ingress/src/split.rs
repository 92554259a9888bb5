//! Splits a delivery into its updates by one scan over the verified bytes.
//!
//! Invariant: every element of the delivery is in exactly one update, and its bytes, like those of every
//! sibling kept around it, are Meta's own. A delivery with one update is that update, untouched. A batch is
//! cut: each payload is the delivery with all other elements taken out.
//!
//! A body that cannot be cut without guessing (not JSON, a structural key twice, another shape) is an
//! [`Unreadable`], which the caller stores whole; nothing here ever drops or refuses signed bytes.

use crate::contacts::Contacts;
use crate::delivery::{Change, Delivery, Entry, Group, Segment};
use crate::element;
use crate::json::{self, Flaw, Span};
use ackline_shared::ids::{FoundId, FoundKey};
use ackline_shared::subjects::Class;
use bytes::{Bytes, BytesMut};
use std::borrow::Cow;

/// Most updates cut out of one delivery; Meta batches at most 1,000.
pub const UPDATES_MAX: usize = 8192;
/// Most bytes all payloads of one delivery may take together: siblings are repeated in each of them.
pub const PAYLOAD_BYTES_MAX: usize = 128 << 20;

const WHATSAPP: &str = "whatsapp_business_account";

/// Why a signed body is stored whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not UTF-8.
    #[error("the body is not UTF-8")]
    Encoding,
    /// Not JSON, not our shape, or nested too deep.
    #[error(transparent)]
    Json(#[from] Flaw),
    /// No `object`, or no `entry` with anything in it.
    #[error("the body is not a webhook of Meta's: it needs `object` and a filled `entry`")]
    Shape,
    /// More updates, or more bytes when cut, than one delivery may have.
    #[error("the delivery has too many updates to be cut")]
    Size,
}

/// One update found in a delivery; what names it lies in the delivery as long as it can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<'a> {
    /// The lane it travels in.
    pub class: Class,
    /// What it is.
    pub kind: Cow<'static, str>,
    /// Dedupe id.
    pub id: FoundId<'a>,
    /// Where it is ordered.
    pub conversation: FoundKey<'a>,
    place: Place,
}

/// Whom an update concerns, as Meta names them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Address<'d> {
    /// The business number.
    pub phone: Option<&'d str>,
    /// The WhatsApp Business Account.
    pub waba: Option<&'d str>,
}

/// Where in the delivery an update lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is a delivery that is not looked into.
    Whole,
    /// An entry that has no changes.
    Entry(usize),
    /// A change that is one update.
    Change(usize, usize),
    /// An element of a change's array, with the contact that belongs to it.
    Element { entry: usize, change: usize, segment: usize, item: usize, contact: Option<usize> },
}

impl Place {
    fn entry(self) -> Option<usize> {
        match self {
            Self::Whole => None,
            Self::Entry(entry) | Self::Change(entry, _) | Self::Element { entry, .. } => Some(entry),
        }
    }

    fn change(self) -> Option<usize> {
        match self {
            Self::Whole | Self::Entry(_) => None,
            Self::Change(_, change) | Self::Element { change, .. } => Some(change),
        }
    }
}

/// A delivery with the updates found in it.
#[derive(Debug)]
pub struct Split<'a> {
    body: &'a Bytes,
    delivery: Delivery<'a>,
    /// Whether its one update is the delivery as it is.
    untouched: bool,
    /// The updates, in the order of the delivery; never empty.
    pub updates: Vec<Found<'a>>,
}

/// Finds the updates of a delivery.
pub fn split(body: &Bytes) -> Result<Split<'_>, Unreadable> {
    let text = std::str::from_utf8(body).map_err(|_| Unreadable::Encoding)?;
    let delivery = Delivery::scan(text, UPDATES_MAX)?;
    let object = delivery.object.as_deref().ok_or(Unreadable::Shape)?;
    let updates = if object == WHATSAPP {
        find(text, &delivery)?
    } else {
        vec![Found::whole(body, foreign_kind(object))]
    };
    Ok(Split { body, untouched: updates.len() == 1, delivery, updates })
}

impl Found<'_> {
    /// A body stored as it is, with nothing known about it.
    pub fn whole(body: &[u8], kind: String) -> Self {
        Self {
            class: Class::Account,
            kind: kind.into(),
            id: FoundId::of_bytes(body),
            conversation: FoundKey::none(),
            place: Place::Whole,
        }
    }
}

impl<'a> Split<'a> {
    /// Whether the updates' payload is the delivery's own bytes, so that Meta's signature holds for it.
    pub fn is_untouched(&self) -> bool {
        self.untouched
    }

    /// Whom an update concerns.
    pub fn address(&self, found: &Found<'_>) -> Address<'_> {
        let Some(entry) = found.place.entry().and_then(|place| self.delivery.entry(place)) else {
            return Address::default();
        };
        let change = found.place.change().and_then(|place| entry.change(place));
        let value = change.and_then(|change| change.value.as_ref());
        Address { phone: value.and_then(|value| value.phone.as_deref()), waba: entry.id.as_deref() }
    }

    /// The payload of one of this delivery's updates: a delivery with exactly that update.
    pub fn payload(&self, found: &Found<'_>) -> Bytes {
        let entry = found.place.entry().and_then(|place| self.delivery.entry(place));
        let (Some(entries), Some(entry), false) = (&self.delivery.entries, entry, self.untouched) else {
            return self.body.clone();
        };
        let mut out = BytesMut::with_capacity(self.outside(entries, entry));
        self.put(&mut out, 0..entries.span.start + 1);
        match (&entry.changes, found.place.change().and_then(|place| entry.change(place))) {
            (Some(changes), Some(change)) => {
                self.put(&mut out, entry.span.start..changes.span.start + 1);
                self.put_change(&mut out, change, found.place);
                self.put(&mut out, changes.span.end - 1..entry.span.end);
            }
            _ => self.put(&mut out, entry.span.clone()),
        }
        self.put(&mut out, entries.span.end - 1..self.body.len());
        out.freeze()
    }

    fn put_change(&self, out: &mut BytesMut, change: &Change<'_>, place: Place) {
        let (Some(value), Place::Element { segment: wanted, item, contact, .. }) = (&change.value, place)
        else {
            return self.put(out, change.span.clone());
        };
        self.put(out, change.span.start..value.span.start + 1);
        let mut first = true;
        for (index, segment) in value.segments.iter().enumerate() {
            let (member, element) = match segment {
                Segment::Run(span) => (span.clone(), None),
                Segment::Contacts(array) => match contact.and_then(|contact| array.items.get(contact)) {
                    Some(contact) => (array.head(), Some(&contact.span)),
                    None => (array.member(), None),
                },
                Segment::Items(_, array) if index == wanted => {
                    (array.head(), array.items.get(item).map(|element| &element.span))
                }
                Segment::Items(..) => continue,
            };
            if !first {
                out.extend_from_slice(b",");
            }
            first = false;
            self.put(out, member);
            if let Some(element) = element {
                self.put(out, element.clone());
                out.extend_from_slice(b"]");
            }
        }
        self.put(out, value.span.end - 1..change.span.end);
    }

    fn put(&self, out: &mut BytesMut, span: Span) {
        out.extend_from_slice(self.body.get(span).unwrap_or_default());
    }

    fn outside(&self, entries: &Group<Entry<'_>>, entry: &Entry<'_>) -> usize {
        // Room for the frame and one element; a large batch would otherwise reserve its own size each time.
        self.body.len() - entries.span.len() + entry.span.len().min(4096)
    }
}

fn find<'a>(text: &'a str, delivery: &Delivery<'a>) -> Result<Vec<Found<'a>>, Unreadable> {
    let entries = delivery.entries.as_ref().filter(|entries| !entries.items.is_empty());
    let entries = entries.ok_or(Unreadable::Shape)?;
    if delivery.is_crowded {
        return Err(Unreadable::Size);
    }
    let mut finder = Finder { text, found: Vec::new(), frame: 0, bytes: 0 };
    for (index, entry) in entries.items.iter().enumerate() {
        finder.frame = text.len() - entries.span.len();
        finder.entry(index, entry)?;
    }
    Ok(finder.found)
}

/// Collects the updates of a delivery, counting what their payloads will take.
struct Finder<'a> {
    text: &'a str,
    found: Vec<Found<'a>>,
    frame: usize,
    bytes: usize,
}

impl<'a> Finder<'a> {
    fn entry(&mut self, index: usize, entry: &Entry<'a>) -> Result<(), Unreadable> {
        let changes = entry.changes.as_ref().filter(|changes| !changes.items.is_empty());
        let Some(changes) = changes else {
            let waba = entry.id.as_deref().unwrap_or_default();
            let id = hash(&["", waba, json::slice(self.text, &entry.span)]);
            let found = account(None, id, Place::Entry(index));
            return self.push(found, entry.span.len());
        };
        self.frame += entry.span.len() - changes.span.len();
        for (place, change) in changes.items.iter().enumerate() {
            if change.value.as_ref().is_some_and(|value| value.has_items) {
                self.elements((index, place), entry, change)?;
                continue;
            }
            // One update: an account-level field, or whatever has no array we know.
            let field = change.field(self.text);
            let content = change.value_span.as_ref().unwrap_or(&change.span);
            let id = self.hash(field.as_deref().unwrap_or_default(), entry, content);
            let found = account(field.as_deref(), id, Place::Change(index, place));
            self.push(found, change.span.len())?;
        }
        Ok(())
    }

    /// A change whose arrays hold one update an element.
    fn elements(
        &mut self,
        (entry, place): (usize, usize),
        of: &Entry<'a>,
        change: &Change<'a>,
    ) -> Result<(), Unreadable> {
        let Some(value) = &change.value else { return Ok(()) };
        let field = change.field.as_ref().map(|span| json::slice(self.text, span)).unwrap_or_default();
        let all_contacts = value.contacts();
        let contacts = Contacts::new(all_contacts.map(|array| array.items.as_slice()).unwrap_or_default());
        let siblings: usize = value.segments.iter().map(Segment::sibling_bytes).sum();
        let frame = change.span.len() - value.span.len() + siblings;
        self.found.reserve_exact(value.items().map(|(_, _, array)| array.items.len()).sum());
        for (segment, family, array) in value.items() {
            for (item, element) in array.items.iter().enumerate() {
                let contact = contacts.of(element.person());
                let found = Found {
                    class: family.class(),
                    kind: element.kind(family),
                    id: element.update_id(family).unwrap_or_else(|| self.hash(field, of, &element.span)),
                    conversation: element.conversation(contact.map(|(_, contact)| contact)),
                    place: Place::Element {
                        entry,
                        change: place,
                        segment,
                        item,
                        contact: contact.map(|(index, _)| index),
                    },
                };
                let kept = match (contact, all_contacts) {
                    (None, Some(all)) => all.member().len(),
                    _ => 0,
                };
                self.push(found, frame + element.span.len() + kept)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, found: Found<'a>, bytes: usize) -> Result<(), Unreadable> {
        self.bytes += self.frame + bytes;
        // A single update is stored untouched and may be as large as a body may be.
        if self.found.len() == UPDATES_MAX || (self.bytes > PAYLOAD_BYTES_MAX && !self.found.is_empty()) {
            return Err(Unreadable::Size);
        }
        self.found.push(found);
        Ok(())
    }

    /// An id for content of a change that has none of Meta's.
    fn hash(&self, field: &str, entry: &Entry<'_>, content: &Span) -> FoundId<'a> {
        let waba = entry.id.as_deref().unwrap_or_default();
        let time = entry.time.as_ref().map(|span| json::slice(self.text, span)).unwrap_or_default();
        hash(&[field, waba, time, json::slice(self.text, content)])
    }
}

/// An update that is no element of an array we know.
fn account<'a>(field: Option<&str>, id: FoundId<'a>, place: Place) -> Found<'a> {
    Found {
        class: Class::Account,
        kind: element::kind("account", field).into(),
        id,
        conversation: FoundKey::none(),
        place,
    }
}

/// An id for what has none of Meta's: its parts, told apart by their lengths.
fn hash<'a>(parts: &[&str]) -> FoundId<'a> {
    let lengths: String = parts.iter().map(|part| format!("{},", part.len())).collect();
    FoundId::of_bytes([lengths, parts.concat()].concat().as_bytes())
}

/// Messenger's and Instagram's deliveries are stored whole, under the name of their object.
fn foreign_kind(object: &str) -> String {
    match object {
        "page" | "instagram" => element::kind(object, Some("delivery")),
        _ => element::kind("object", Some(object)),
    }
}

/// Kind of a signed body we cannot read.
pub const UNREADABLE: &str = "unreadable";
