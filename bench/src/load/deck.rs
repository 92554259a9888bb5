//! Signed deliveries, whole HTTP requests made before a run: many tenants, many conversations, ~1 KB each.
//!
//! Every update has a serial number that its id carries, so that a ledger can find it in the stream. The
//! shape is Meta's of 2026; no two updates of a deck are the same.

use super::people;
use ackline_shared::signature::SigningKey;
use std::fmt::Write;
use std::ops::Range;

/// A business number that deliveries are for.
#[derive(Debug, Clone)]
pub struct Target {
    pub phone_number_id: String,
    pub waba_id: String,
}

/// What the deliveries of a deck hold.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    pub deliveries: usize,
    pub updates: usize,
    /// Every so many-th delivery holds statuses instead of messages; 0 for none.
    pub status_every: usize,
    /// Different conversations over all tenants.
    pub conversations: u32,
    /// Characters of a message's text.
    pub text_bytes: usize,
    /// The number of the first turn: texts name their turns then, and [`people`] says who writes.
    pub turns_from: Option<u32>,
}

impl Mix {
    /// Single text messages of about 1 KB with their envelope.
    pub fn texts(deliveries: usize) -> Self {
        Self {
            deliveries,
            updates: 1,
            status_every: 0,
            conversations: 6_400,
            text_bytes: 560,
            turns_from: None,
        }
    }

    /// Turns of conversations, each a short text message that names its turn.
    pub fn turns(first: u32, deliveries: usize) -> Self {
        Self {
            text_bytes: 60,
            turns_from: Some(first),
            ..Self::texts(deliveries)
        }
    }

    /// Batches of small messages: 1,000 are about 700 KB, as Meta's largest are after an outage.
    pub fn batches(deliveries: usize, updates: usize) -> Self {
        Self {
            deliveries,
            updates,
            status_every: 0,
            conversations: 6_400,
            text_bytes: 440,
            turns_from: None,
        }
    }
}

/// One request and the updates in it.
#[derive(Debug, Clone)]
struct Card {
    bytes: Range<usize>,
    body_start: usize,
    serials: Range<u32>,
}

/// Requests in the order they are sent.
#[derive(Debug)]
pub struct Deck {
    run: u32,
    conversations: u32,
    turns_from: Option<u32>,
    bytes: Vec<u8>,
    cards: Vec<Card>,
    updates: u32,
}

impl Deck {
    /// Makes and signs every request; `run` keeps the ids of two decks apart.
    pub fn make(run: u32, path: &str, targets: &[Target], key: &SigningKey, mix: &Mix) -> Self {
        let mut deck = Self {
            run,
            conversations: mix.conversations.max(1),
            turns_from: mix.turns_from,
            bytes: Vec::new(),
            cards: Vec::with_capacity(mix.deliveries),
            updates: 0,
        };
        let filler = filler(mix.text_bytes);
        let mut body = String::new();
        for delivery in 0..mix.deliveries {
            let first = deck.updates;
            let last = first + u32::try_from(mix.updates).unwrap_or(1);
            let statuses =
                mix.status_every > 0 && delivery % mix.status_every == mix.status_every - 1;
            body.clear();
            deck.write_body(
                &mut body,
                targets,
                first..last,
                statuses.then_some(()),
                &filler,
            );
            deck.updates = last;
            deck.push(path, &body, &key.sign(body.as_bytes()), first..last);
        }
        deck
    }

    fn push(&mut self, path: &str, body: &str, signature: &str, serials: Range<u32>) {
        let start = self.bytes.len();
        let mut head = String::with_capacity(256);
        // Writing to a String cannot fail.
        let _ = write!(
            head,
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: facebookexternalua\r\naccept: */*\r\n\
             content-type: application/json\r\nx-hub-signature-256: {signature}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.bytes.extend_from_slice(head.as_bytes());
        let body_start = self.bytes.len();
        self.bytes.extend_from_slice(body.as_bytes());
        self.cards.push(Card {
            bytes: start..self.bytes.len(),
            body_start,
            serials,
        });
    }

    /// The updates of one delivery are of one tenant, as Meta groups them by number.
    fn write_body(
        &self,
        body: &mut String,
        targets: &[Target],
        serials: Range<u32>,
        statuses: Option<()>,
        filler: &str,
    ) {
        let conversation = self.conversation(serials.start);
        let place = usize::try_from(conversation).unwrap_or(0) % targets.len().max(1);
        let Some(target) = targets.get(place) else {
            return;
        };
        let _ = write!(
            body,
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"{}","changes":[{{"value":{{"messaging_product":"whatsapp","metadata":{{"display_phone_number":"15550783881","phone_number_id":"{}"}}"#,
            target.waba_id, target.phone_number_id
        );
        if statuses.is_none() {
            body.push_str(r#","contacts":["#);
            let mut separator = "";
            for serial in serials
                .clone()
                .take(usize::try_from(self.conversations).unwrap_or(usize::MAX))
            {
                let person = self.conversation(serial);
                let _ = write!(
                    body,
                    r#"{separator}{{"profile":{{"name":"Person {person}"}},"wa_id":"1555{person:07}","user_id":"US.{person:012}"}}"#
                );
                separator = ",";
            }
            body.push(']');
        }
        body.push_str(if statuses.is_some() {
            r#","statuses":["#
        } else {
            r#","messages":["#
        });
        for serial in serials.clone() {
            let (person, id) = (self.conversation(serial), self.id(serial));
            let turn = self.turn(serial).map(people::name).unwrap_or_default();
            if serial > serials.start {
                body.push(',');
            }
            let _ = if statuses.is_some() {
                write!(
                    body,
                    r#"{{"id":"{id}","status":"delivered","timestamp":"1795300000","recipient_id":"1555{person:07}","recipient_user_id":"US.{person:012}","pricing":{{"billable":false,"pricing_model":"PMP","type":"free_customer_service","category":"service"}}}}"#
                )
            } else {
                write!(
                    body,
                    r#"{{"from":"1555{person:07}","from_user_id":"US.{person:012}","id":"{id}","timestamp":"1795300000","text":{{"body":"{turn}{filler}"}},"type":"text"}}"#
                )
            };
        }
        body.push_str(r#"]},"field":"messages"}]}]}"#);
    }

    fn id(&self, serial: u32) -> String {
        format!("{ID_START}{:08x}{serial:08x}", self.run)
    }

    /// The serial number in an update's id, when the update is of this deck.
    pub fn serial_of(&self, id: &str) -> Option<u32> {
        let digits = id.strip_prefix(ID_START)?;
        let run = u32::from_str_radix(digits.get(..8)?, 16).ok()?;
        let serial = u32::from_str_radix(digits.get(8..16)?, 16).ok()?;
        (run == self.run && serial < self.updates).then_some(serial)
    }

    /// The conversation an update is in.
    pub fn conversation(&self, serial: u32) -> u32 {
        match self.turn(serial) {
            Some(turn) => people::writer(turn),
            None => serial % self.conversations,
        }
    }

    /// The turn that an update is, in a deck of turns.
    pub fn turn(&self, serial: u32) -> Option<u32> {
        Some(self.turns_from?.saturating_add(serial))
    }

    pub fn len(&self) -> usize {
        self.cards.len()
    }

    pub fn is_empty(&self) -> bool {
        self.cards.is_empty()
    }

    pub fn updates(&self) -> u32 {
        self.updates
    }

    /// The bytes of a request, head and body.
    pub fn request(&self, place: usize) -> Option<&[u8]> {
        self.bytes.get(self.cards.get(place)?.bytes.clone())
    }

    /// The bytes of a request's body.
    pub fn body(&self, place: usize) -> Option<&[u8]> {
        let card = self.cards.get(place)?;
        self.bytes.get(card.body_start..card.bytes.end)
    }

    /// The serial numbers of the updates in a request.
    pub fn serials(&self, place: usize) -> Range<u32> {
        self.cards
            .get(place)
            .map_or(0..0, |card| card.serials.clone())
    }
}

const ID_START: &str = "wamid.LOAD";

fn filler(bytes: usize) -> String {
    let words = "The parcel left the depot this morning and should be with you before noon. ";
    words.chars().cycle().take(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::secret::Secret;
    use ackline_shared::signature;
    use serde_json::Value;

    fn deck(mix: &Mix) -> Deck {
        let target = |id: &str| Target {
            phone_number_id: id.into(),
            waba_id: format!("W{id}"),
        };
        Deck::make(
            7,
            "/webhooks/meta/main",
            &[target("100"), target("200")],
            &key(),
            mix,
        )
    }

    fn key() -> SigningKey {
        SigningKey::new(&Secret::new("secret".to_owned()))
    }

    #[test]
    fn a_request_is_signed_json_of_about_a_kilobyte() {
        let deck = deck(&Mix::texts(3));
        for place in 0..3 {
            let request = std::str::from_utf8(deck.request(place).unwrap()).unwrap();
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            let header = head
                .lines()
                .find_map(|line| line.strip_prefix("x-hub-signature-256: "))
                .unwrap();
            signature::verify(&[key()], Some(header.as_bytes()), body.as_bytes()).unwrap();
            assert!((900..1100).contains(&body.len()), "{}", body.len());
            let value: Value = serde_json::from_str(body).unwrap();
            let id = value
                .pointer("/entry/0/changes/0/value/messages/0/id")
                .unwrap()
                .as_str()
                .unwrap();
            assert_eq!(deck.serial_of(id), Some(u32::try_from(place).unwrap()));
            assert_eq!(deck.body(place).unwrap(), body.as_bytes());
        }
    }

    #[test]
    fn a_batch_of_a_thousand_is_about_700_kilobytes() {
        let deck = deck(&Mix::batches(1, 1_000));
        let body = deck.body(0).unwrap();
        assert!((600_000..800_000).contains(&body.len()), "{}", body.len());
        let value: Value = serde_json::from_slice(body).unwrap();
        let messages = value
            .pointer("/entry/0/changes/0/value/messages")
            .unwrap()
            .as_array()
            .unwrap();
        assert_eq!((messages.len(), deck.serials(0)), (1_000, 0..1_000));
    }

    #[test]
    fn statuses_are_mixed_in_and_foreign_ids_are_not_ours() {
        let deck = deck(&Mix {
            status_every: 2,
            ..Mix::texts(2)
        });
        let second: Value = serde_json::from_slice(deck.body(1).unwrap()).unwrap();
        let id = second
            .pointer("/entry/0/changes/0/value/statuses/0/id")
            .unwrap()
            .as_str()
            .unwrap();
        assert_eq!(deck.serial_of(&format!("{id}:delivered")), Some(1));
        assert_eq!(deck.serial_of("wamid.other"), None);
        assert_eq!(deck.serial_of(&format!("{ID_START}0000000800000001")), None);
    }
}
