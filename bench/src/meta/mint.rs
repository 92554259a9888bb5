//! Makes identifiers of the shapes Meta uses, unique within and across runs.

use ackline_shared::ids::short_hash;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::atomic::{AtomicU64, Ordering};

/// Who wrote a message; part of what a wamid encodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From a person to the business.
    In,
    /// From the business to a person.
    Out,
}

/// A source of identifiers; the seed keeps two runs apart.
#[derive(Debug)]
pub struct Mint {
    seed: u64,
    next: AtomicU64,
}

impl Mint {
    /// Makes a source from a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            next: AtomicU64::new(1),
        }
    }

    /// A message id: `wamid.` and base64 of the person's digits, the direction and a unique part.
    pub fn wamid(&self, person: &str, direction: Direction) -> String {
        let digits: Vec<u8> = person.bytes().filter(u8::is_ascii_digit).take(20).collect();
        let unique = self.unique();
        let (mark, unique) = match direction {
            Direction::In => (0x12, unique.get(..20).unwrap_or_default()),
            Direction::Out => (0x11, unique.get(..18).unwrap_or_default()),
        };
        let mut bytes = vec![0x1c, 0x18, u8::try_from(digits.len()).unwrap_or_default()];
        bytes.extend(digits);
        bytes.extend([
            0x15,
            0x02,
            0x00,
            mark,
            0x18,
            u8::try_from(unique.len()).unwrap_or_default(),
        ]);
        bytes.extend(unique.bytes());
        bytes.push(0);
        format!("wamid.{}", STANDARD.encode(bytes))
    }

    pub fn media_id(&self) -> String {
        digits_of(&self.unique(), 16)
    }

    /// A support trace id as error bodies carry it.
    pub fn trace_id(&self) -> String {
        format!("A{}", self.unique().get(..22).unwrap_or_default())
    }

    /// A number for the GET handshake's challenge.
    pub fn challenge(&self) -> String {
        digits_of(&self.unique(), 10)
    }

    fn unique(&self) -> String {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        short_hash(format!("{}:{n}", self.seed).as_bytes()).to_uppercase()
    }
}

/// Reduces a text to so many decimal digits, not starting with zero.
pub fn digits_of(text: &str, length: usize) -> String {
    let hash = short_hash(text.as_bytes());
    let digit = |byte: u8| char::from(b'0' + byte % 10);
    let tail: String = hash
        .bytes()
        .map(digit)
        .take(length.saturating_sub(1))
        .collect();
    format!("1{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_are_unique_and_name_the_person_as_metas_do() {
        let mint = Mint::new(7);
        let first = mint.wamid("+16505551234", Direction::In);
        assert_ne!(first, mint.wamid("+16505551234", Direction::In));
        assert_ne!(first, Mint::new(8).wamid("+16505551234", Direction::In));
        assert!(
            first.starts_with("wamid.HBgLMTY1MDU1NTEyMzQVAgASGBR"),
            "{first}"
        );
    }

    #[test]
    fn numeric_ids_have_the_asked_length() {
        assert_eq!(Mint::new(1).media_id().len(), 16);
        assert!(digits_of("x", 20).bytes().all(|b| b.is_ascii_digit()));
    }
}
