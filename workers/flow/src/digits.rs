//! Digits of every script as `0` to `9`.
//!
//! Compatibility forms (full width, circled, keycaps, bold) become plain ones by their decomposition; the digits of
//! other scripts are runs of ten.

use unicode_normalization::UnicodeNormalization;

/// The zero of each run of decimal digits in Unicode.
const ZEROS: [u32; 60] = [
    0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6,
    0xe50, 0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50,
    0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
    0x104a0, 0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650,
    0x116c0, 0x11730, 0x118e0, 0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50,
    0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];
/// What encloses a digit to a key: it says nothing.
const KEYCAP: char = '\u{20e3}';
/// The one sign for a number of two digits that phones offer.
const KEYCAP_TEN: char = '\u{1f51f}';

/// Writes a digit of any script as `0` to `9`, and leaves everything else as it is.
pub fn plain(c: char) -> char {
    if c.is_ascii() {
        return c;
    }
    let code = u32::from(c);
    let value = |zero: &u32| code.checked_sub(*zero).filter(|value| *value < 10);
    ZEROS
        .iter()
        .find_map(value)
        .and_then(|value| char::from_digit(value, 10))
        .unwrap_or(c)
}

/// A text in compatibility form with plain digits and dashes, for reading a number, a phone or a date from it.
pub fn read(text: &str) -> String {
    expand(text.chars())
        .nfkc()
        .filter(|c| !is_unseen(*c))
        .map(|c| match c {
            // Phones write them for a hyphen, and a minus is one.
            '\u{2010}'..='\u{2013}' | '\u{2212}' => '-',
            c => plain(c),
        })
        .collect()
}

/// Keycaps as the digits they show.
pub fn expand(text: impl Iterator<Item = char>) -> impl Iterator<Item = char> {
    text.filter(|c| *c != KEYCAP).flat_map(|c| {
        let (first, second) = match c {
            KEYCAP_TEN => ('1', Some('0')),
            c => (c, None),
        };
        std::iter::once(first).chain(second)
    })
}

/// Whether nothing shows where a character stands: selectors, marks of direction, joins and breaks.
pub fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'
            | '\u{2066}'..='\u{2069}'
            | '\u{fe0e}'
            | '\u{fe0f}'
            | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_every_script_read_the_same() {
        for text in [
            "12",
            "\u{661}\u{662}",
            "\u{6f1}\u{6f2}",
            "\u{967}\u{968}",
            "\u{9e7}\u{9e8}",
            "\u{e51}\u{e52}",
            "\u{1041}\u{1042}",
            "\u{17e1}\u{17e2}",
            "\u{ff11}\u{ff12}",
            "\u{1d7cf}\u{1d7d0}",
            "\u{1e951}\u{1e952}",
            "1\u{fe0f}\u{20e3}2\u{fe0f}\u{20e3}",
            "\u{2460}\u{2461}",
            "\u{200f}12\u{200e}",
        ] {
            assert_eq!(read(text), "12", "{text:?}");
        }
        assert_eq!(read("\u{1f51f}"), "10");
        assert_eq!(read("no digit: \u{4e8c}"), "no digit: \u{4e8c}");
    }

    #[test]
    fn the_runs_are_in_order_and_apart() {
        assert!(ZEROS.is_sorted_by(|a, b| a + 10 <= *b));
        for zero in ZEROS {
            let zero = char::from_u32(zero).unwrap();
            assert!(zero.is_numeric(), "{zero:?}");
            assert_eq!(plain(zero), '0');
        }
    }
}
