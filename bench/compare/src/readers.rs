//! Finding what the edge needs in a body: for every message its bytes, its id and its sender; the bytes of every
//! contact; the number and the account they belong to.
//!
//! `split` is the edge's whole work on a body: the same, and it refuses keys that occur twice, hashes the
//! dedupe id, finds the conversation and matches contacts.

use crate::Candidate;
use ackline_ingress::json::{self, Flaw, Scanner, Span};
use ackline_ingress::split::split;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use simd_json::prelude::ValueAsScalar;
use simd_json::{Buffers, Tape};
use sonic_rs::LazyValue;
use std::borrow::Cow;
use std::hint::black_box;

/// What was found, as sums that every reader must agree on.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Found {
    messages: usize,
    /// Bytes of messages and contacts as they stand in the body; 0 for a reader that cannot tell.
    raw: usize,
    /// Bytes of ids, senders, number and account.
    names: usize,
}

/// All readers of one body, after a check that they find the same.
pub fn candidates(body: &[u8]) -> Result<Vec<Candidate<'_>>> {
    let found = scan(body).ok().context("the scan fails")?;
    let owned = Bytes::copy_from_slice(body);
    ensure!(
        found.messages > 0 && split(&owned)?.len() == found.messages,
        "the split finds something else"
    );
    ensure!(
        typed_serde(body) == Some(found),
        "serde_json finds something else"
    );
    ensure!(
        typed_sonic(body) == Some(found),
        "sonic-rs finds something else"
    );
    let mut simd = Simd::default();
    ensure!(
        simd.read(body) == Some(Found { raw: 0, ..found }),
        "simd-json finds something else"
    );
    Ok(vec![
        Candidate::new("ours, the same job", move || scan(body).ok()),
        Candidate::new("ours, the whole split", move || {
            split(&owned)
                .map(|split| split.updates().map(black_box).count())
                .ok()
        }),
        Candidate::new("serde_json, raw values", move || typed_serde(body)),
        Candidate::new("sonic-rs, lazy values", move || typed_sonic(body)),
        Candidate::new("simd-json, tape of a copy", move || simd.read(body)),
    ])
}

/// For each reader: damaged bodies it accepts and `serde_json` refuses, and the reverse.
pub fn verdicts(body: &[u8]) -> Vec<(&'static str, usize, usize)> {
    let mut simd = Simd::default();
    let mut counts = [
        ("ours", 0, 0),
        ("sonic-rs, lazy values", 0, 0),
        ("simd-json, tape of a copy", 0, 0),
    ];
    for at in 0..body.len() {
        for damage in [0x01, b'"', b'{', b'}', b',', b'\\', b'x', 0xff] {
            let mut body = body.to_vec();
            body[at] = damage;
            let right = serde_json::from_slice::<&RawValue>(&body).is_ok();
            let is_json = |body: &[u8]| {
                let Ok(body) = std::str::from_utf8(body) else {
                    return false;
                };
                let mut scanner = Scanner::new(body);
                scanner.value().and_then(|_| scanner.end()).is_ok()
            };
            let verdicts = [
                is_json(&body),
                sonic_rs::from_slice::<LazyValue<'_>>(&body).is_ok(),
                simd.parse(&body).is_some(),
            ];
            for ((_, accepted, refused), verdict) in counts.iter_mut().zip(verdicts) {
                *accepted += usize::from(verdict && !right);
                *refused += usize::from(right && !verdict);
            }
        }
    }
    counts.to_vec()
}

fn scan(body: &[u8]) -> Result<Found, Flaw> {
    let body = std::str::from_utf8(body).map_err(|_| Flaw { at: 0 })?;
    let mut found = Found::default();
    let mut scanner = Scanner::new(body);
    scanner.object(|scanner, key| match json::slice(body, &key) {
        r#""entry""# => scanner
            .array(|scanner| entry(body, scanner, &mut found))
            .map(drop),
        _ => scanner.value().map(drop),
    })?;
    scanner.end()?;
    Ok(found)
}

fn entry(body: &str, scanner: &mut Scanner<'_>, found: &mut Found) -> Result<(), Flaw> {
    let of_entry = |scanner: &mut Scanner<'_>, key: Span| match json::slice(body, &key) {
        r#""id""# => scanner
            .value()
            .map(|span| found.names += text_len(body, &span)),
        r#""changes""# => scanner
            .array(|scanner| change(body, scanner, found))
            .map(drop),
        _ => scanner.value().map(drop),
    };
    scanner.object(of_entry).map(drop)
}

fn change(body: &str, scanner: &mut Scanner<'_>, found: &mut Found) -> Result<(), Flaw> {
    let of_value =
        |scanner: &mut Scanner<'_>, key: Span, found: &mut Found| match json::slice(body, &key) {
            r#""metadata""# => scanner.object(|scanner, key| {
                let span = scanner.value()?;
                if json::slice(body, &key) == r#""phone_number_id""# {
                    found.names += text_len(body, &span);
                }
                Ok(())
            }),
            r#""contacts""# => {
                scanner.array(|scanner| scanner.value().map(|span| found.raw += span.len()))
            }
            r#""messages""# => scanner.array(|scanner| message(body, scanner, found)),
            _ => scanner.value(),
        };
    let of_change = |scanner: &mut Scanner<'_>, key: Span| match json::slice(body, &key) {
        r#""value""# => scanner
            .object(|scanner, key| of_value(scanner, key, found).map(drop))
            .map(drop),
        _ => scanner.value().map(drop),
    };
    scanner.object(of_change).map(drop)
}

fn message(body: &str, scanner: &mut Scanner<'_>, found: &mut Found) -> Result<(), Flaw> {
    let span = scanner.object(|scanner, key| {
        let span = scanner.value()?;
        if matches!(json::slice(body, &key), r#""id""# | r#""from""#) {
            found.names += text_len(body, &span);
        }
        Ok(())
    })?;
    found.messages += 1;
    found.raw += span.len();
    Ok(())
}

fn text_len(body: &str, span: &Span) -> usize {
    json::text(body, span).map_or(0, |text| text.len())
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "R: Deserialize<'de>"))]
struct Delivery<'a, R> {
    #[serde(borrow)]
    entry: Vec<Entry<'a, R>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "R: Deserialize<'de>"))]
struct Entry<'a, R> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    changes: Vec<Change<'a, R>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "R: Deserialize<'de>"))]
struct Change<'a, R> {
    #[serde(borrow)]
    value: Value<'a, R>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "R: Deserialize<'de>"))]
struct Value<'a, R> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    contacts: Vec<R>,
    messages: Vec<R>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    phone_number_id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    from: Cow<'a, str>,
}

impl<R> Delivery<'_, R> {
    /// Reads each message's own text once more, for its id and sender.
    fn found<'r>(
        &'r self,
        raw: impl Fn(&'r R) -> &'r str,
        message: impl Fn(&'r str) -> Option<Message<'r>>,
    ) -> Option<Found> {
        let mut found = Found::default();
        for entry in &self.entry {
            found.names += entry.id.len();
            for Change { value } in &entry.changes {
                found.names += value.metadata.phone_number_id.len();
                found.raw += value
                    .contacts
                    .iter()
                    .map(|contact| raw(contact).len())
                    .sum::<usize>();
                for text in value.messages.iter().map(&raw) {
                    let message = message(text)?;
                    found.messages += 1;
                    found.raw += text.len();
                    found.names += message.id.len() + message.from.len();
                }
            }
        }
        Some(found)
    }
}

fn typed_serde(body: &[u8]) -> Option<Found> {
    let delivery: Delivery<'_, &RawValue> = serde_json::from_slice(body).ok()?;
    delivery.found(|raw| raw.get(), |text| serde_json::from_str(text).ok())
}

fn typed_sonic(body: &[u8]) -> Option<Found> {
    let delivery: Delivery<'_, LazyValue<'_>> = sonic_rs::from_slice(body).ok()?;
    delivery.found(|raw| raw.as_raw_str(), |text| sonic_rs::from_str(text).ok())
}

/// simd-json writes into its input, so the body is copied first; it has no place for a value's own bytes.
#[derive(Default)]
struct Simd {
    copy: Vec<u8>,
    buffers: Buffers,
}

impl Simd {
    fn parse(&mut self, body: &[u8]) -> Option<Tape<'_>> {
        self.copy.clear();
        self.copy.extend_from_slice(body);
        simd_json::to_tape_with_buffers(&mut self.copy, &mut self.buffers).ok()
    }

    fn read(&mut self, body: &[u8]) -> Option<Found> {
        let tape = self.parse(body)?;
        let mut found = Found::default();
        for entry in tape.as_value().get("entry")?.as_array()?.iter() {
            found.names += entry.get("id")?.as_str()?.len();
            for change in entry.get("changes")?.as_array()?.iter() {
                let value = change.get("value")?;
                found.names += value
                    .get("metadata")?
                    .get("phone_number_id")?
                    .as_str()?
                    .len();
                for message in value.get("messages")?.as_array()?.iter() {
                    found.messages += 1;
                    found.names +=
                        message.get("id")?.as_str()?.len() + message.get("from")?.as_str()?.len();
                }
            }
        }
        Some(found)
    }
}
