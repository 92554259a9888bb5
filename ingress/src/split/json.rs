//! A strict JSON scanner that finds where values begin and end, and builds nothing.
//!
//! It accepts exactly JSON (RFC 8259) nested at most [`DEPTH_MAX`] deep, without recursion, so a hostile body
//! costs time in proportion to its length and no stack.

use ackline_shared::meta;
use std::borrow::Cow;
use std::ops::Range;

/// Deepest nesting accepted; below the 128 levels at which the pools' JSON reader stops.
pub const DEPTH_MAX: u32 = 100;

/// Where a value lies in the scanned bytes.
pub type Span = Range<usize>;

/// A value's text, if it has any.
pub type Text<'a> = Option<Cow<'a, str>>;

/// Where the text of a value lies; nowhere if there is none, or no character of it.
///
/// A string with escapes has its quotes with it, so that it is not taken for what it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Piece {
    start: u32,
    end: u32,
}

impl Piece {
    /// Longest text whose pieces can be told.
    pub const TEXT_BYTES_MAX: usize = u32::MAX as usize;

    fn new(span: Span) -> Self {
        // A longer text is not scanned for pieces; of one, nothing would be found.
        let at = |place| u32::try_from(place).unwrap_or_default();
        Self {
            start: at(span.start),
            end: at(span.end),
        }
    }

    /// Whether there is no text.
    pub fn is_none(self) -> bool {
        self.start == self.end
    }

    /// This one, or the other if there is no text.
    pub fn or(self, other: Self) -> Self {
        if self.is_none() { other } else { self }
    }

    /// The text, in the whole it was found in.
    pub fn text(self, whole: &str) -> Text<'_> {
        if self.is_none() {
            return None;
        }
        let span = self.span();
        match slice(whole, &span) {
            raw if raw.starts_with('"') => text(whole, &span),
            plain => Some(Cow::Borrowed(plain)),
        }
    }

    /// Where it lies.
    pub fn span(self) -> Span {
        let at = |place| usize::try_from(place).unwrap_or_default();
        at(self.start)..at(self.end)
    }
}

/// The bytes are not JSON, or are nested too deep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not JSON, or nested too deep, at byte {at}")]
pub struct Flaw {
    /// Where the scan stopped.
    pub at: usize,
}

/// A position in the text being scanned.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth: u32,
    /// Where the last escape ended.
    escaped_to: usize,
}

impl<'a> Scanner<'a> {
    /// Starts at the first byte.
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            at: 0,
            depth: 0,
            escaped_to: 0,
        }
    }

    /// Scans a value; tells where its text lies, if it is text.
    pub fn piece(&mut self) -> Result<Piece, Flaw> {
        let span = self.value()?;
        Ok(match self.bytes.get(span.start) {
            Some(b'"') if !self.has_escape(&span) => Piece::new(span.start + 1..span.end - 1),
            _ if text(self.text, &span).is_some() => Piece::new(span),
            _ => Piece::default(),
        })
    }

    /// Whether the string that was scanned last has an escape.
    fn has_escape(&self, span: &Span) -> bool {
        self.escaped_to > span.start
    }

    /// The key that was scanned last; empty for one that is no Unicode text.
    pub fn name(&self, key: &Span) -> Cow<'a, str> {
        if self.has_escape(key) {
            return text(self.text, key).unwrap_or_default();
        }
        Cow::Borrowed(
            self.text
                .get(key.start + 1..key.end - 1)
                .unwrap_or_default(),
        )
    }

    /// The position as a flaw, for a reader that expected something else here.
    pub fn flaw(&self) -> Flaw {
        Flaw { at: self.at }
    }

    /// The first byte of the next value.
    pub fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.bytes.get(self.at).copied()
    }

    /// Requires that only whitespace is left.
    pub fn end(&mut self) -> Result<(), Flaw> {
        if self.peek().is_none() {
            Ok(())
        } else {
            Err(self.flaw())
        }
    }

    /// Visits the members of the object here; the visitor gets the key's span and must consume the value.
    pub fn object(
        &mut self,
        mut visit: impl FnMut(&mut Self, Span) -> Result<(), Flaw>,
    ) -> Result<Span, Flaw> {
        let start = self.open(b'{')?;
        if self.peek() != Some(b'}') {
            loop {
                let key = self.key()?;
                visit(self, key)?;
                if !self.comma(b'}')? {
                    break;
                }
            }
        }
        self.close(start)
    }

    /// Visits the elements of the array here; the visitor must consume each.
    pub fn array(
        &mut self,
        mut visit: impl FnMut(&mut Self) -> Result<(), Flaw>,
    ) -> Result<Span, Flaw> {
        let start = self.open(b'[')?;
        if self.peek() != Some(b']') {
            loop {
                visit(self)?;
                if !self.comma(b']')? {
                    break;
                }
            }
        }
        self.close(start)
    }

    /// Consumes one value of any kind.
    pub fn value(&mut self) -> Result<Span, Flaw> {
        let first = self.peek();
        let start = self.at;
        if first == Some(b'"') {
            self.string()?;
            return Ok(start..self.at);
        }
        // One bit a level: set for an object, clear for an array.
        let mut levels = 0_u128;
        let mut depth = 0_u32;
        loop {
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    self.at += 1;
                    depth += 1;
                    if self.depth + depth > DEPTH_MAX {
                        return Err(self.flaw());
                    }
                    levels = (levels << 1) | u128::from(open == b'{');
                    if self.peek() != Some(closing(levels)) {
                        if open == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                    self.at += 1;
                    levels >>= 1;
                    depth -= 1;
                }
                _ => self.scalar()?,
            }
            while depth > 0 && !self.comma(closing(levels))? {
                self.at += 1;
                levels >>= 1;
                depth -= 1;
            }
            if depth == 0 {
                return Ok(start..self.at);
            }
            if closing(levels) == b'}' {
                self.key()?;
            }
        }
    }

    fn open(&mut self, bracket: u8) -> Result<usize, Flaw> {
        if self.peek() != Some(bracket) || self.depth >= DEPTH_MAX {
            return Err(self.flaw());
        }
        self.depth += 1;
        self.at += 1;
        Ok(self.at - 1)
    }

    fn close(&mut self, start: usize) -> Result<Span, Flaw> {
        self.depth -= 1;
        self.at += 1;
        Ok(start..self.at)
    }

    /// Consumes a comma and tells true, or leaves the closing bracket and tells false.
    fn comma(&mut self, closing: u8) -> Result<bool, Flaw> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == closing => Ok(false),
            _ => Err(self.flaw()),
        }
    }

    fn key(&mut self) -> Result<Span, Flaw> {
        self.skip_space();
        let start = self.at;
        self.string()?;
        let key = start..self.at;
        if self.peek() != Some(b':') {
            return Err(self.flaw());
        }
        self.at += 1;
        Ok(key)
    }

    fn scalar(&mut self) -> Result<(), Flaw> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'n') => self.literal(b"null"),
            _ => Err(self.flaw()),
        }
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), Flaw> {
        if self.rest().starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.flaw())
        }
    }

    fn string(&mut self) -> Result<(), Flaw> {
        if self.bytes.get(self.at) != Some(&b'"') {
            return Err(self.flaw());
        }
        self.at += 1;
        loop {
            self.at += plain(self.rest());
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                _ => return Err(self.flaw()),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Flaw> {
        self.at += match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') => {
                let digits = self
                    .bytes
                    .get(self.at + 2..self.at + 6)
                    .ok_or_else(|| self.flaw())?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(self.flaw());
                }
                6
            }
            _ => return Err(self.flaw()),
        };
        self.escaped_to = self.at;
        Ok(())
    }

    fn number(&mut self) -> Result<(), Flaw> {
        self.skip_byte(b'-');
        if !self.skip_byte(b'0') {
            self.digits()?;
        }
        if self.skip_byte(b'.') {
            self.digits()?;
        }
        if self.skip_byte(b'e') || self.skip_byte(b'E') {
            let _signed = self.skip_byte(b'+') || self.skip_byte(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Flaw> {
        let count = self
            .rest()
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        self.at += count;
        if count > 0 { Ok(()) } else { Err(self.flaw()) }
    }

    fn skip_byte(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn skip_space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }
}

/// How many bytes at the start mean only themselves in a string: no quote, backslash or control character.
fn plain(bytes: &[u8]) -> usize {
    // Most strings end within two words; long ones go by blocks, which the compiler does with vectors.
    let start = plain_by_words(bytes.get(..SHORT).unwrap_or(bytes));
    if start < SHORT {
        return start;
    }
    let (blocks, _) = bytes.get(SHORT..).unwrap_or_default().as_chunks::<BLOCK>();
    let plain_blocks = blocks.iter().take_while(|block| {
        !block
            .iter()
            .fold(false, |any, byte| any | is_special(*byte))
    });
    let start = SHORT + BLOCK * plain_blocks.count();
    start + plain_by_words(bytes.get(start..).unwrap_or_default())
}

/// Bytes that are looked at before blocks are.
const SHORT: usize = 16;
const BLOCK: usize = 64;

fn plain_by_words(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (place, word) in words.iter().enumerate() {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            return 8 * place + usize::try_from(special.trailing_zeros() / 8).unwrap_or_default();
        }
    }
    8 * words.len()
        + rest
            .iter()
            .position(|byte| is_special(*byte))
            .unwrap_or(rest.len())
}

fn is_special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < 0x20)
}

/// Sets the highest bit of special bytes; above the lowest one set, bits may be wrong.
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let is_zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let is_control = word.wrapping_sub(ONES * 0x20) & !word;
    (is_zero(word ^ (ONES * u64::from(b'"')))
        | is_zero(word ^ (ONES * u64::from(b'\\')))
        | is_control)
        & (ONES * 0x80)
}

fn closing(levels: u128) -> u8 {
    if levels & 1 == 1 { b'}' } else { b']' }
}

/// The text of a span; empty for a span of another text.
pub fn slice<'a>(text: &'a str, span: &Span) -> &'a str {
    text.get(span.clone()).unwrap_or_default()
}

/// Reads a string, or a number that may be an id, as text, as the pools do; `None` for anything else.
pub fn text<'a>(whole: &'a str, span: &Span) -> Text<'a> {
    let raw = slice(whole, span);
    match raw.as_bytes().first()? {
        b'"' => match raw.get(1..raw.len() - 1)? {
            inner if !inner.contains('\\') => Some(Cow::Borrowed(inner)),
            _ => meta::decoded(raw).map(Cow::Owned),
        },
        b'0'..=b'9' if meta::is_id(raw) => Some(Cow::Borrowed(raw)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    fn whole(text: &str) -> Result<Span, Flaw> {
        let mut scanner = Scanner::new(text);
        let span = scanner.value()?;
        scanner.end().map(|()| span)
    }

    #[test]
    fn nesting_is_bounded_and_costs_no_stack() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = |depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
            assert!(whole(&nested(100)).is_ok());
            assert!(whole(&nested(101)).is_err());
            assert!(whole(&open.repeat(1_000_000)).is_err());
        }
    }

    #[test]
    fn texts_are_decoded_and_other_kinds_are_not_texts() {
        let read = |json: &str| text(json, &(0..json.len())).map(Cow::into_owned);
        assert_eq!(read(r#""a\u00e9\/b""#).as_deref(), Some("aé/b"));
        assert_eq!(
            read("18446744073709551615").as_deref(),
            Some("18446744073709551615")
        );
        assert_eq!(read(r#""\ud800x""#).as_deref(), Some("\u{fffd}x"));
        for other in [
            "null",
            "[]",
            "{}",
            "true",
            "12345678901234567890123",
            "-1",
            "1.0",
            "1e3",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn a_string_ends_at_its_first_special_byte_wherever_that_is() {
        for length in 0..200 {
            for special in [b'"', b'\\', 0, b'\n', 0x1f] {
                let mut bytes = vec![0x7f; length];
                assert_eq!(plain(&bytes), length);
                for place in 0..length {
                    bytes[place] = special;
                    assert_eq!(plain(&bytes), place);
                    bytes[place] = [b' ', b'!', b'#', b'[', b']', 0xff, 0xc3][place % 7];
                }
            }
        }
    }

    proptest! {
        #[test]
        fn it_accepts_what_serde_json_accepts(text in json_like()) {
            let reference = serde_json::from_str::<IgnoredAny>(&text).is_ok();
            prop_assert_eq!(whole(&text).is_ok(), reference, "{}", text);
        }
    }

    /// Texts that are JSON or nearly so.
    fn json_like() -> impl Strategy<Value = String> {
        let atoms = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"a\"",
            "\"\\u00e9\"",
            "\"\\x\"",
            "\"\\u12",
            "\"",
            "0",
            "-1.5e+3",
            "01",
            "1.",
            "-",
            "true",
            "nul",
            "null",
            " ",
            "\n",
            "{\"a\":1}",
            "[1,2]",
            "{\"b\":[{}]}",
            "\u{1F600}",
            "\"\u{1F600}\"",
        ]);
        prop::collection::vec(atoms, 0..9).prop_map(|parts| parts.concat())
    }
}
