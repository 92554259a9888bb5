//! Contact cards: whom they are of and how they are reached.

use super::super::shown;
use super::super::text::{id_at, shown_at};
use serde::Serialize;
use serde_json::Value;
use std::fmt;

/// Cards of a message, and entries of each list of a card.
const CARDS_MAX: usize = 100;
const ENTRIES_MAX: usize = 20;

/// A contact card.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = ContactCard))]
pub struct Card {
    /// The name as it is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Phone numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub phones: Vec<CardPhone>,
    /// Email addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub emails: Vec<String>,
    /// Addresses, each in one line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Pages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Where they work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub company: Option<String>,
    /// As what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// Year, month and day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub birthday: Option<String>,
    /// How the card came to be sent, such as by a request for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// A phone number of a card.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CardPhone {
    /// The number as it is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// The number on WhatsApp, in digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wa_id: Option<String>,
    /// `CELL`, `WORK`, `HOME` or another word.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// Shows nothing: who people are does not belong into logs.
impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Card").finish_non_exhaustive()
    }
}

/// Shows nothing, as a card does.
impl fmt::Debug for CardPhone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CardPhone").finish_non_exhaustive()
    }
}

/// Reads the cards of a message; one that is no object is passed over.
pub(super) fn read(own: &Value) -> Vec<Card> {
    let cards = own.as_array().into_iter().flatten();
    let cards = cards.filter(|card| card.is_object());
    cards.take(CARDS_MAX).map(Card::read).collect()
}

impl Card {
    fn read(card: &Value) -> Self {
        let name = shown_at(card, "/name/formatted_name");
        let name = name.or_else(|| joined(card.get("name")?, &["first_name", "last_name"], " "));
        Self {
            name: name.and_then(|name| shown::name(&name)),
            phones: entries(card, "phones", |phone| {
                let read = CardPhone {
                    phone: shown_at(phone, "/phone"),
                    wa_id: id_at(phone, "/wa_id"),
                    kind: shown_at(phone, "/type"),
                };
                (read.phone.is_some() || read.wa_id.is_some()).then_some(read)
            }),
            emails: entries(card, "emails", |email| shown_at(email, "/email")),
            addresses: entries(card, "addresses", |address| {
                joined(
                    address,
                    &["street", "city", "state", "zip", "country"],
                    ", ",
                )
            }),
            urls: entries(card, "urls", |url| shown_at(url, "/url")),
            company: shown_at(card, "/org/company"),
            position: shown_at(card, "/org/title"),
            birthday: shown_at(card, "/birthday"),
            origin: shown_at(card, "/origin"),
        }
    }
}

fn entries<T>(card: &Value, name: &str, read: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    let list = card.get(name).and_then(Value::as_array);
    let entries = list.into_iter().flatten().take(ENTRIES_MAX);
    entries.filter_map(read).collect()
}

fn joined(value: &Value, names: &[&str], separator: &str) -> Option<String> {
    let parts: Vec<String> = names
        .iter()
        .filter_map(|name| shown_at(value, &format!("/{name}")))
        .collect();
    (!parts.is_empty()).then(|| parts.join(separator))
}
