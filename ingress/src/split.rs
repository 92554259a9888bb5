//! Splits a delivery into its updates by one scan over the verified bytes.
//!
//! Invariant: every element of the delivery is in exactly one update, and its bytes, like those of every
//! sibling kept around it, are Meta's own. A delivery with one update is that update, untouched. A batch is
//! cut: each payload is the delivery with all other elements taken out.
//!
//! A body that cannot be cut without guessing (not JSON, a structural key twice, another shape) is an
//! [`Unreadable`], which the caller stores whole; nothing here ever drops or refuses signed bytes.

use crate::delivery::{Change, Delivery, Entry, Group, Segment};
use crate::element::{self, Contacts, Element};
use crate::json::{self, Flaw, Span};
use ackline_shared::ids::{ConversationKey, UpdateId};
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

/// One update found in a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<'a> {
    /// The lane it travels in.
    pub class: Class,
    /// What it is.
    pub kind: String,
    /// Dedupe id.
    pub id: UpdateId,
    /// Where it is ordered.
    pub conversation: ConversationKey,
    /// Meta's id of the business number concerned.
    pub phone: Option<Cow<'a, str>>,
    /// The WhatsApp Business Account concerned.
    pub waba: Option<Cow<'a, str>>,
    place: Place,
}

/// Where in the delivery an update lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is the whole delivery.
    Whole,
    /// An entry that has no changes.
    Entry(usize),
    /// A change that is one update.
    Change(usize, usize),
    /// An element of a change's array, with the contact that belongs to it.
    Element { entry: usize, change: usize, segment: usize, item: usize, contact: Option<usize> },
}

/// A delivery with the updates found in it.
#[derive(Debug)]
pub struct Split<'a> {
    body: &'a Bytes,
    delivery: Delivery,
    /// The updates, in the order of the delivery; never empty.
    pub updates: Vec<Found<'a>>,
}

/// Finds the updates of a delivery.
pub fn split(body: &Bytes) -> Result<Split<'_>, Unreadable> {
    std::str::from_utf8(body).map_err(|_| Unreadable::Encoding)?;
    let delivery = Delivery::scan(body)?;
    let object = delivery.object.as_ref().and_then(|span| json::text(body, span)).ok_or(Unreadable::Shape)?;
    let mut split = Split { body, delivery, updates: Vec::new() };
    if object != WHATSAPP {
        split.updates.push(Found::whole(body, foreign_kind(&object)));
        return Ok(split);
    }
    split.updates = split.find()?;
    if let [only] = split.updates.as_mut_slice() {
        only.place = Place::Whole;
    }
    Ok(split)
}

impl<'a> Found<'a> {
    /// A body stored as it is, with nothing known about it.
    pub fn whole(body: &Bytes, kind: String) -> Self {
        Self {
            class: Class::Account,
            kind,
            id: UpdateId::of_bytes(body),
            conversation: ConversationKey::none(),
            phone: None,
            waba: None,
            place: Place::Whole,
        }
    }
}

impl<'a> Split<'a> {
    /// Whether an update's payload is the delivery's own bytes, so that Meta's signature holds for it.
    pub fn is_untouched(&self, found: &Found<'_>) -> bool {
        found.place == Place::Whole
    }

    /// The payload of one of this delivery's updates: a delivery with exactly that update.
    pub fn payload(&self, found: &Found<'_>) -> Bytes {
        let (entry, change) = match found.place {
            Place::Whole => return self.body.clone(),
            Place::Entry(entry) => (entry, None),
            Place::Change(entry, change) | Place::Element { entry, change, .. } => (entry, Some(change)),
        };
        let (Some(entries), Some(entry)) = (&self.delivery.entries, self.delivery.entry(entry)) else {
            return self.body.clone();
        };
        let mut out = BytesMut::with_capacity(self.outside(entries, entry));
        self.put(&mut out, 0..entries.span.start + 1);
        match (&entry.changes, change.and_then(|change| entry.change(change))) {
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

    fn put_change(&self, out: &mut BytesMut, change: &Change, place: Place) {
        let (Some(value), Place::Element { segment: wanted, item, contact, .. }) = (&change.value, place)
        else {
            return self.put(out, change.span.clone());
        };
        self.put(out, change.span.start..value.span.start + 1);
        let mut first = true;
        for (index, segment) in value.segments.iter().enumerate() {
            let cut = match segment {
                Segment::Run(span) => (span.clone(), None),
                Segment::Contacts(array) => (array.member(), contact.and_then(|contact| array.cut(contact))),
                Segment::Items(_, array) if index == wanted => (array.member(), array.cut(item)),
                Segment::Items(..) => continue,
            };
            if !first {
                out.extend_from_slice(b",");
            }
            first = false;
            match cut {
                (member, None) => self.put(out, member),
                (_, Some((head, element))) => {
                    self.put(out, head);
                    self.put(out, element);
                    out.extend_from_slice(b"]");
                }
            }
        }
        self.put(out, value.span.end - 1..change.span.end);
    }

    fn put(&self, out: &mut BytesMut, span: Span) {
        out.extend_from_slice(json::slice(self.body, &span));
    }

    fn outside(&self, entries: &Group<Entry>, entry: &Entry) -> usize {
        // Room for the frame and one element; a large batch would otherwise reserve its own size each time.
        self.body.len() - entries.span.len() + entry.span.len().min(4096)
    }

    fn find(&self) -> Result<Vec<Found<'a>>, Unreadable> {
        let entries = self.delivery.entries.as_ref().filter(|entries| !entries.items.is_empty());
        let entries = entries.ok_or(Unreadable::Shape)?;
        let mut finder = Finder { body: self.body, found: Vec::new(), frame: 0, bytes: 0 };
        let frame = self.body.len() - entries.span.len();
        for (index, entry) in entries.items.iter().enumerate() {
            finder.frame = frame;
            finder.entry(index, entry)?;
        }
        Ok(finder.found)
    }
}

/// Collects the updates of a delivery, counting what their payloads will take.
struct Finder<'a> {
    body: &'a Bytes,
    found: Vec<Found<'a>>,
    frame: usize,
    bytes: usize,
}

impl<'a> Finder<'a> {
    fn entry(&mut self, index: usize, entry: &Entry) -> Result<(), Unreadable> {
        let waba = entry.id.as_ref().and_then(|span| json::text(self.body, span));
        let changes = entry.changes.as_ref().filter(|changes| !changes.items.is_empty());
        let Some(changes) = changes else {
            let whole = Found {
                kind: element::kind("account", None),
                id: self.hash(&[b"", text_bytes(&waba), json::slice(self.body, &entry.span)]),
                waba,
                place: Place::Entry(index),
                ..self.blank()
            };
            return self.push(whole, entry.span.len());
        };
        self.frame += entry.span.len() - changes.span.len();
        for (place, change) in changes.items.iter().enumerate() {
            let field = change.field.as_ref().and_then(|span| json::text(self.body, span));
            let value =
                change.value.as_ref().filter(|value| value.has_items && field.as_deref() != Some("history"));
            match value {
                Some(_) => self.elements(index, place, entry, change, &waba)?,
                None => self.account(index, place, entry, change, &waba)?,
            }
        }
        Ok(())
    }

    /// A change that is one update: an account-level field, or whatever has no array we know.
    fn account(
        &mut self,
        entry: usize,
        place: usize,
        of: &Entry,
        change: &Change,
        waba: &Option<Cow<'a, str>>,
    ) -> Result<(), Unreadable> {
        let field = change.field.as_ref().and_then(|span| json::text(self.body, span));
        let time = of.time.as_ref().map(|span| json::slice(self.body, span)).unwrap_or_default();
        let content = change.value_span.as_ref().unwrap_or(&change.span);
        let found = Found {
            kind: element::kind("account", field.as_deref()),
            id: self.hash(&[text_bytes(&field), text_bytes(waba), time, json::slice(self.body, content)]),
            phone: change.phone(self.body),
            waba: waba.clone(),
            place: Place::Change(entry, place),
            ..self.blank()
        };
        self.push(found, change.span.len())
    }

    /// A change whose arrays hold one update an element.
    fn elements(
        &mut self,
        entry: usize,
        place: usize,
        of: &Entry,
        change: &Change,
        waba: &Option<Cow<'a, str>>,
    ) -> Result<(), Unreadable> {
        let Some(value) = &change.value else { return Ok(()) };
        let phone = change.phone(self.body);
        let field = change.field.as_ref().map(|span| json::slice(self.body, span)).unwrap_or_default();
        let time = of.time.as_ref().map(|span| json::slice(self.body, span)).unwrap_or_default();
        let spans = value.contacts().map(|array| array.items.as_slice()).unwrap_or_default();
        let contacts = Contacts::read(self.body, spans);
        let siblings: usize = value.segments.iter().map(Segment::sibling_bytes).sum();
        let frame = change.span.len() - value.span.len() + siblings;
        for (segment, family, array) in value.items() {
            for (item, span) in array.items.iter().enumerate() {
                let element = Element::read(self.body, span);
                let contact = contacts.of(element.person(family));
                let hash = || self.hash(&[field, text_bytes(waba), time, json::slice(self.body, span)]);
                let found = Found {
                    class: family.class(),
                    kind: element.kind(family),
                    id: element.update_id(family).unwrap_or_else(hash),
                    conversation: element.conversation(family, contact.map(|(_, contact)| contact)),
                    phone: phone.clone(),
                    waba: waba.clone(),
                    place: Place::Element {
                        entry,
                        change: place,
                        segment,
                        item,
                        contact: contact.map(|(index, _)| index),
                    },
                };
                let kept = match (contact, value.contacts()) {
                    (None, Some(all)) => all.member().len(),
                    _ => 0,
                };
                self.push(found, frame + span.len() + kept)?;
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

    fn blank(&self) -> Found<'a> {
        Found {
            class: Class::Account,
            kind: String::new(),
            id: UpdateId::new("-"),
            conversation: ConversationKey::none(),
            phone: None,
            waba: None,
            place: Place::Whole,
        }
    }

    /// An id for what has none of Meta's: field, account, time and content, told apart by their lengths.
    fn hash(&self, parts: &[&[u8]]) -> UpdateId {
        let lengths: String = parts.iter().map(|part| format!("{},", part.len())).collect();
        let content = [lengths.as_bytes(), &parts.concat()].concat();
        UpdateId::of_bytes(&content)
    }
}

fn text_bytes<'t>(text: &'t Option<Cow<'_, str>>) -> &'t [u8] {
    text.as_deref().unwrap_or_default().as_bytes()
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
