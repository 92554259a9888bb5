//! Splits a delivery into its updates by one scan over the verified bytes.
//!
//! Invariant: every element of the delivery is in exactly one update, and its bytes, like those of every
//! sibling kept around it, are Meta's own. A delivery with one update is that update, untouched. A batch is
//! cut: each payload is the delivery with all other elements taken out.
//!
//! A body that cannot be cut without guessing (not JSON, a structural key twice, another shape) is an
//! [`Unreadable`], which the caller stores whole; nothing here ever drops or refuses signed bytes.

pub mod contacts;
pub mod delivery;
pub mod element;
pub mod json;
pub mod participants;
pub mod stamping;

use ackline_shared::ids::{FoundId, FoundKey};
use ackline_shared::subjects::Class;
use bytes::{Bytes, BytesMut};
use contacts::Contacts;
use delivery::{Change, ChangeValue, Delivery, Entry, Group, Segment};
use json::{Flaw, Piece, Span, Text};
use std::borrow::Cow;

/// Most updates cut out of one delivery; Meta batches at most 1,000.
pub const UPDATES_MAX: usize = 8192;
/// What all updates of a delivery may take together in the log, beside so many times its own length: siblings are
/// repeated in each payload. A delivery that would take more is stored whole.
///
/// The smallest update that Meta sends has some 140 bytes and what is repeated around it at most 900, names of
/// emoji included; so its largest batch, 1,000 of these, takes 1.6 MB of the 2.2 MB it may.
pub const STORED_BYTES_BESIDE: usize = 1 << 20;
/// How many times its own length a delivery may take in the log.
pub const STORED_TIMES: usize = 8;
/// What subject and headers of an update take in the log.
pub const HEAD_BYTES: usize = 512;

const WHATSAPP: &str = "whatsapp_business_account";

/// Why a signed body is stored whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("the body is not UTF-8")]
    Encoding,
    /// Not JSON, not our shape, or nested too deep.
    #[error(transparent)]
    Json(#[from] Flaw),
    /// No `object`, or no `entry` with anything in it.
    #[error("the body is not a webhook of Meta's: it needs `object` and a filled `entry`")]
    Shape,
    /// More updates, or more bytes when cut, than one delivery may have.
    #[error("the delivery has too many updates, or repeats too much in each, to be cut")]
    Size,
}

/// One update found in a delivery; what names it lies in the delivery as long as it can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<'a> {
    /// The lane it travels in.
    pub class: Class,
    pub kind: Cow<'static, str>,
    pub id: FoundId<'a>,
    pub conversation: FoundKey<'a>,
    /// The field it came under, unless that is `messages`.
    pub field: Text<'a>,
    place: Place,
}

/// Whom an update concerns, as Meta names them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Address<'a> {
    pub phone: Text<'a>,
    pub waba: Text<'a>,
}

/// Where in the delivery an update lies; a batch has thousands, so it is small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is a delivery that is not looked into.
    Whole,
    /// An entry that has no changes.
    Entry(u32),
    /// A change that is one update.
    Change(u32, u32),
    /// An element of a change's array, with the contact that belongs to it.
    Element {
        entry: u32,
        change: u32,
        segment: u32,
        item: u32,
        contact: Option<u32>,
    },
}

impl Place {
    fn entry(self, delivery: &Delivery) -> Option<&Entry> {
        match self {
            Self::Whole => None,
            Self::Entry(entry) | Self::Change(entry, _) | Self::Element { entry, .. } => {
                delivery.entries.as_ref()?.items.get(at(entry))
            }
        }
    }

    fn change(self, entry: &Entry) -> Option<&Change> {
        match self {
            Self::Whole | Self::Entry(_) => None,
            Self::Change(_, change) | Self::Element { change, .. } => {
                entry.changes.as_ref()?.items.get(at(change))
            }
        }
    }

    /// Whether both are of one change, or of one entry without changes.
    fn is_beside(self, other: Self) -> bool {
        let of = |place| match place {
            Self::Whole => (None, None),
            Self::Entry(entry) => (Some(entry), None),
            Self::Change(entry, change) | Self::Element { entry, change, .. } => {
                (Some(entry), Some(change))
            }
        };
        of(self) == of(other)
    }
}

fn at(place: u32) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

/// A delivery with the updates found in it.
#[derive(Debug)]
pub struct Split<'a> {
    body: &'a Bytes,
    text: &'a str,
    delivery: Delivery,
    places: Vec<Place>,
    counts: Counts,
    stored_bytes: usize,
}

/// How many updates of each class there are.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    messages: u64,
    statuses: u64,
    accounts: u64,
}

impl Counts {
    fn of(&mut self, class: Class) -> &mut u64 {
        match class {
            Class::Message => &mut self.messages,
            Class::Status => &mut self.statuses,
            Class::Account => &mut self.accounts,
        }
    }
}

/// Finds the updates of a delivery.
pub fn split(body: &Bytes) -> Result<Split<'_>, Unreadable> {
    let text = std::str::from_utf8(body).map_err(|_| Unreadable::Encoding)?;
    if text.len() > Piece::TEXT_BYTES_MAX {
        return Err(Unreadable::Size);
    }
    let delivery = Delivery::scan(text, UPDATES_MAX)?;
    let object = delivery
        .object
        .as_ref()
        .and_then(|span| json::text(text, span))
        .ok_or(Unreadable::Shape)?;
    let mut finder = Finder::new(text);
    if object == WHATSAPP {
        finder.find(&delivery)?;
    } else {
        finder.push(Place::Whole, Class::Account, 0)?;
    }
    let Finder {
        places,
        counts,
        bytes,
        ..
    } = finder;
    Ok(Split {
        body,
        text,
        delivery,
        places,
        counts,
        stored_bytes: bytes,
    })
}

impl Found<'_> {
    /// A body stored as it is, with nothing known about it.
    pub fn whole(body: &[u8], kind: String) -> Self {
        Self {
            class: Class::Account,
            kind: kind.into(),
            id: FoundId::of_bytes(body),
            conversation: FoundKey::none(),
            field: None,
            place: Place::Whole,
        }
    }
}

impl<'a> Split<'a> {
    /// How many updates there are; never none.
    #[expect(clippy::len_without_is_empty, reason = "a delivery has an update")]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// What the updates take in the log together.
    pub fn stored_bytes(&self) -> usize {
        self.stored_bytes
    }

    /// How many updates of each class there are.
    pub fn counts(&self) -> [(Class, u64); 3] {
        let mut counts = self.counts;
        [Class::Message, Class::Status, Class::Account].map(|class| (class, *counts.of(class)))
    }

    /// The updates, in the order of the delivery.
    pub fn updates(&self) -> impl Iterator<Item = Found<'a>> {
        (0..self.len()).filter_map(|place| self.update(place))
    }

    pub fn update(&self, place: usize) -> Option<Found<'a>> {
        let place = *self.places.get(place)?;
        let Some(entry) = place.entry(&self.delivery) else {
            let object = json::text(self.text, self.delivery.object.as_ref()?)?;
            return Some(Found::whole(self.body, foreign_kind(&object)));
        };
        let Some(change) = place.change(entry) else {
            let id = hash(&["", &self.waba(entry), json::slice(self.text, &entry.span)]);
            return Some(account(None, id, place));
        };
        let (
            Some(value),
            Place::Element {
                segment,
                item,
                contact,
                ..
            },
        ) = (&change.value, place)
        else {
            // One update: an account-level field, or whatever has no array we know.
            let field = change.field(self.text);
            let content = change.value_span.as_ref().unwrap_or(&change.span);
            let id = self.hash(field.as_deref().unwrap_or_default(), entry, content);
            let found = account(field.as_deref(), id, place);
            let found = Found {
                field: change.field_besides_messages(self.text),
                ..found
            };
            return Some(match change.handover(self.text) {
                Some((what, conversation)) => Found {
                    class: Class::Message,
                    kind: element::kind("handover", what).into(),
                    conversation,
                    ..found
                },
                None => found,
            });
        };
        let Segment::Items(family, array) = value.segments.get(at(segment))? else {
            return None;
        };
        let (family, element) = (*family, array.items.get(at(item))?);
        let contact = contact.and_then(|contact| value.contacts()?.items.get(at(contact)));
        let id = element.update_id(self.text, family).unwrap_or_else(|| {
            let field = change
                .field
                .as_ref()
                .map(|span| json::slice(self.text, span));
            self.hash(field.unwrap_or_default(), entry, &element.span)
        });
        Some(Found {
            class: family.class(),
            kind: element.kind(self.text, family),
            id,
            conversation: element.conversation(self.text, contact),
            field: change.field_besides_messages(self.text),
            place,
        })
    }

    /// Whether the one update's payload is the delivery's own bytes, so that Meta's signature holds for it.
    pub fn is_untouched(&self) -> bool {
        self.len() == 1
    }

    /// Whether two updates have the same address without a look at it.
    pub fn are_beside(&self, one: usize, other: usize) -> bool {
        let place = |place: usize| self.places.get(place);
        place(one)
            .zip(place(other))
            .is_some_and(|(one, other)| one.is_beside(*other))
    }

    pub fn address(&self, found: &Found<'_>) -> Address<'a> {
        let Some(entry) = found.place.entry(&self.delivery) else {
            return Address::default();
        };
        let value = found
            .place
            .change(entry)
            .and_then(|change| change.value.as_ref());
        // What is empty names nobody.
        let text =
            |span: Option<&Span>| json::text(self.text, span?).filter(|text| !text.is_empty());
        let named = || value.and_then(|value| value.participants.number.text(self.text));
        let phone = text(value.and_then(|value| value.phone.as_ref())).or_else(named);
        Address {
            phone,
            waba: text(entry.id.as_ref()),
        }
    }

    fn waba(&self, entry: &Entry) -> Cow<'a, str> {
        entry
            .id
            .as_ref()
            .and_then(|span| json::text(self.text, span))
            .unwrap_or_default()
    }

    /// An id for content of a change that has none of Meta's.
    fn hash(&self, field: &str, entry: &Entry, content: &Span) -> FoundId<'a> {
        let time = entry
            .time
            .as_ref()
            .map(|span| json::slice(self.text, span))
            .unwrap_or_default();
        hash(&[
            field,
            &self.waba(entry),
            time,
            json::slice(self.text, content),
        ])
    }

    /// The payload of one of this delivery's updates: a delivery with exactly that update.
    pub fn payload(&self, found: &Found<'_>) -> Bytes {
        let entry = found.place.entry(&self.delivery);
        let (Some(entries), Some(entry), false) =
            (&self.delivery.entries, entry, self.is_untouched())
        else {
            return self.body.clone();
        };
        let mut out = BytesMut::with_capacity(self.outside(entries, entry));
        self.put(&mut out, 0..entries.span.start + 1);
        match (&entry.changes, found.place.change(entry)) {
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
        let (
            Some(value),
            Place::Element {
                segment: wanted,
                item,
                contact,
                ..
            },
        ) = (&change.value, place)
        else {
            return self.put(out, change.span.clone());
        };
        self.put(out, change.span.start..value.span.start + 1);
        let mut first = true;
        for (index, segment) in (0..).zip(&value.segments) {
            let (member, element) = match segment {
                Segment::Run(span) => (span.clone(), None),
                Segment::Contacts(array) => {
                    match contact.and_then(|contact| array.items.get(at(contact))) {
                        Some(contact) => (array.head(), Some(&contact.span)),
                        None => (array.member(), None),
                    }
                }
                Segment::Items(_, array) if index == wanted => (
                    array.head(),
                    array.items.get(at(item)).map(|element| &element.span),
                ),
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

    fn outside(&self, entries: &Group<Entry>, entry: &Entry) -> usize {
        // Room for the frame and one element; a large batch would otherwise reserve its own size each time.
        self.body.len() - entries.span.len() + entry.span.len().min(4096)
    }
}

/// An object or array that is cut keeps its brackets.
const BRACKETS: usize = 2;

/// Collects where the updates of a delivery lie, counting what their payloads will take.
struct Finder<'a> {
    text: &'a str,
    places: Vec<Place>,
    counts: Counts,
    frame: usize,
    bytes: usize,
}

impl<'a> Finder<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            places: Vec::new(),
            counts: Counts::default(),
            frame: 0,
            bytes: 0,
        }
    }

    fn find(&mut self, delivery: &Delivery) -> Result<(), Unreadable> {
        let entries = delivery
            .entries
            .as_ref()
            .filter(|entries| !entries.items.is_empty());
        let entries = entries.ok_or(Unreadable::Shape)?;
        if delivery.is_over_limit {
            return Err(Unreadable::Size);
        }
        (0..).zip(&entries.items).try_for_each(|(index, entry)| {
            self.frame = self.text.len() - entries.span.len() + BRACKETS;
            self.entry(index, entry)
        })
    }

    fn entry(&mut self, index: u32, entry: &Entry) -> Result<(), Unreadable> {
        let changes = entry
            .changes
            .as_ref()
            .filter(|changes| !changes.items.is_empty());
        let Some(changes) = changes else {
            return self.push(Place::Entry(index), Class::Account, entry.span.len());
        };
        self.frame += entry.span.len() - changes.span.len() + BRACKETS;
        (0..)
            .zip(&changes.items)
            .try_for_each(|(place, change)| match &change.value {
                Some(value) if value.has_items => self.elements((index, place), change, value),
                _ => {
                    let is_handover = change.handover(self.text).is_some();
                    let class = if is_handover {
                        Class::Message
                    } else {
                        Class::Account
                    };
                    self.push(Place::Change(index, place), class, change.span.len())
                }
            })
    }

    /// A change whose arrays hold one update an element.
    fn elements(
        &mut self,
        (entry, place): (u32, u32),
        of: &Change,
        value: &ChangeValue,
    ) -> Result<(), Unreadable> {
        let all = value.contacts();
        let contacts = Contacts::new(
            self.text,
            all.map(|array| array.items.as_slice()).unwrap_or_default(),
        );
        let siblings: usize = value.segments.iter().map(Segment::sibling_bytes).sum();
        let frame = of.span.len() - value.span.len() + BRACKETS + siblings;
        for (segment, family, array) in value.items() {
            self.places.reserve(array.items.len());
            for (item, element) in (0..).zip(&array.items) {
                let contact = contacts.of(&element.person(self.text));
                let of_contacts = all.map_or(0, |all| {
                    let one = contact.and_then(|contact| all.items.get(at(contact)));
                    one.map_or(all.member().len(), |one| {
                        all.head().len() + one.span.len() + 1
                    }) + 1
                });
                let of_element = array.head().len() + element.span.len() + 1;
                let place = Place::Element {
                    entry,
                    change: place,
                    segment,
                    item,
                    contact,
                };
                self.push(place, family.class(), frame + of_contacts + of_element)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, place: Place, class: Class, bytes: usize) -> Result<(), Unreadable> {
        self.bytes += self.frame + bytes + HEAD_BYTES;
        let most = self
            .text
            .len()
            .saturating_mul(STORED_TIMES)
            .saturating_add(STORED_BYTES_BESIDE);
        // A single update is stored untouched and may be as large as a body may be.
        if self.places.len() == UPDATES_MAX || (self.bytes > most && !self.places.is_empty()) {
            return Err(Unreadable::Size);
        }
        self.places.push(place);
        *self.counts.of(class) += 1;
        Ok(())
    }
}

/// An update that is no element of an array we know.
fn account<'a>(field: Option<&str>, id: FoundId<'a>, place: Place) -> Found<'a> {
    Found {
        class: Class::Account,
        kind: element::kind("account", field).into(),
        id,
        conversation: FoundKey::none(),
        field: None,
        place,
    }
}

/// An id for what has none of Meta's: its parts, told apart by their lengths.
fn hash<'a>(parts: &[&str]) -> FoundId<'a> {
    let lengths: String = parts
        .iter()
        .map(|part| format!("{},", part.len()))
        .collect();
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
