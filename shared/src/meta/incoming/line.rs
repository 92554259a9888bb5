//! A message as a person reads it in a transcript: what is not text is named in brackets.

use super::super::shown;
use super::{Card, Details, Incoming, OrderItem, Referral};
use serde_json::{Map, Value};

/// Longest name of a kind that is shown.
const KIND_CHARS_MAX: usize = 40;
/// Fields of a form, cards and products of an order that are shown.
const PARTS_MAX: usize = 50;
/// Longest value that is shown, of a form or of anything else that is named.
const VALUE_CHARS_MAX: usize = 1000;

/// Writes the line.
pub(super) fn of(message: &Incoming) -> String {
    let text = message.text.as_deref();
    let mut line = match (label(message), text) {
        (Some(label), Some(text)) => format!("{label} {text}"),
        (Some(label), None) => label,
        (None, Some(text)) => text.to_owned(),
        (None, None) => bracketed(&message.kind),
    };
    let context = message.context.as_ref();
    if context.is_some_and(|context| context.forwarded) {
        line.insert_str(0, "[forwarded] ");
    }
    if let Some(product) = context.and_then(|context| context.referred_product.as_ref()) {
        let id = product.product_retailer_id.as_deref().unwrap_or("unknown");
        line.push_str(&format!("\n[about the product {id}]"));
    }
    if let Some(referral) = &message.referral {
        line.push_str(&format!("\n[{}]", advertisement(referral)));
    }
    line
}

/// What stands before the text; the text of what is pressed or written speaks for itself.
fn label(message: &Incoming) -> Option<String> {
    let Some(details) = &message.details else {
        let filename = message
            .media
            .as_ref()
            .and_then(|media| media.filename.as_ref());
        return match (message.kind.as_str(), filename) {
            ("text", _) => None,
            ("document", Some(filename)) => Some(named("document", Some(filename))),
            (kind, _) => Some(bracketed(kind)),
        };
    };
    Some(match details {
        Details::Button { .. } | Details::ButtonReply { .. } | Details::ListReply { .. } => {
            return None;
        }
        Details::Form {
            name,
            fields,
            response,
            ..
        } => form(name.as_deref(), fields, response.as_deref()),
        Details::CallPermission { response, .. } => named("call permission", response.as_deref()),
        Details::Location {
            latitude,
            longitude,
            name,
            address,
            ..
        } => {
            let place = latitude.zip(*longitude);
            let place = place.map(|(latitude, longitude)| format!("{latitude}, {longitude}"));
            let parts = ["[location]"].map(str::to_owned).into_iter();
            let parts = parts
                .chain(place)
                .chain(name.clone())
                .chain(address.clone());
            parts.collect::<Vec<_>>().join(" ")
        }
        Details::Contacts { contacts } => {
            let cards: Vec<String> = contacts.iter().take(PARTS_MAX).map(card).collect();
            match cards.is_empty() {
                true => bracketed("contacts"),
                false => cards.join("\n"),
            }
        }
        Details::Order { items, .. } => {
            let items: Vec<String> = items.iter().take(PARTS_MAX).map(item).collect();
            match items.is_empty() {
                true => bracketed("order"),
                false => format!("[order: {}]", items.join(", ")),
            }
        }
        Details::Reaction { removed: true, .. } => bracketed("reaction removed"),
        Details::Edit { .. } => bracketed("edited"),
        Details::Revoke { .. } => bracketed("deleted a message"),
        Details::RequestWelcome {} => bracketed("opened the chat"),
        Details::Unsupported { what, .. } => named("unsupported", what.as_deref()),
        Details::Reaction { .. } | Details::System { .. } | Details::Unknown => {
            bracketed(&message.kind)
        }
    })
}

fn bracketed(words: &str) -> String {
    let words: String = words.chars().take(KIND_CHARS_MAX).collect();
    format!("[{}]", shown::text(&words))
}

fn named(words: &str, what: Option<&str>) -> String {
    match what.filter(|what| !what.is_empty()) {
        Some(what) => format!("[{words}: {}]", value_of(what)),
        None => bracketed(words),
    }
}

/// A value as it is shown: as much of it as anybody reads.
fn value_of(text: &str) -> String {
    let end = text.char_indices().nth(VALUE_CHARS_MAX);
    let text = end.map_or(text, |(end, _)| text.get(..end).unwrap_or_default());
    shown::text(text).into_owned()
}

/// A line for each field; the token is the business's own.
fn form(name: Option<&str>, fields: &Map<String, Value>, response: Option<&str>) -> String {
    let mut lines = vec![named("form", name)];
    let filled = fields.iter().filter(|(name, _)| *name != "flow_token");
    for (name, value) in filled.take(PARTS_MAX) {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Array(list) if list.iter().all(Value::is_string) => {
                let texts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
                texts.join(", ")
            }
            other => other.to_string(),
        };
        lines.push(format!("{}: {}", value_of(name), value_of(&value)));
    }
    lines.extend(response.map(value_of));
    lines.join("\n")
}

fn card(card: &Card) -> String {
    let numbers = card.phones.iter();
    let numbers = numbers.filter_map(|phone| phone.phone.clone().or_else(|| phone.wa_id.clone()));
    let parts = card.name.clone().into_iter().chain(numbers);
    let parts: Vec<String> = parts.chain(card.emails.iter().cloned()).collect();
    named("contact", Some(parts.join(", ").as_str()))
}

fn item(item: &OrderItem) -> String {
    let id = value_of(item.product_retailer_id.as_deref().unwrap_or("unknown"));
    let quantity = item.quantity.as_ref().map(|number| format!("{number} × "));
    let price = item.item_price.as_ref().map(|price| {
        let currency = value_of(item.currency.as_deref().unwrap_or_default());
        format!(" at {price} {currency}").trim_end().to_owned()
    });
    format!(
        "{}{id}{}",
        quantity.unwrap_or_default(),
        price.unwrap_or_default()
    )
}

fn advertisement(referral: &Referral) -> String {
    let kind = referral.source_type.as_deref().unwrap_or("ad");
    let named = referral
        .headline
        .as_deref()
        .or(referral.source_id.as_deref());
    let parts = [Some(kind), named, referral.source_url.as_deref()];
    let parts: Vec<&str> = parts.into_iter().flatten().collect();
    format!("from the {}", parts.join(" "))
}
