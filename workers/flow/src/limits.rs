//! Every bound of the engine, and the cutting that holds texts to WhatsApp's.
//!
//! What WhatsApp takes, and how it counts, is told by [`ackline_message`]. A cut falls between grapheme
//! clusters, so that no emoji, flag or accent is halved.

use ackline_message::length;
use std::borrow::Cow;
use std::io;
use unicode_segmentation::UnicodeSegmentation;

/// Bytes of a definition as JSON.
pub const DEFINITION_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Nodes of a definition.
pub const NODES_MAX: usize = 1_000;
/// Bytes of one rendered template.
pub const RENDERED_BYTES_MAX: usize = 16 * 1024;

/// Nodes entered in one call of `step`.
pub const STEPS_MAX: usize = 100;
/// Messages sent in one call of `step`.
pub const SENDS_MAX: usize = 50;
/// Bytes of the effects of one call of `step`, as JSON.
pub const EFFECT_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a session as JSON; the bounds below add up to less.
pub const SESSION_BYTES_MAX: usize = 256 * 1024;
/// Bytes of all variables of a session, as JSON.
pub const VARIABLE_BYTES_MAX: usize = 32 * 1024;
/// Levels of nesting in one variable; also what keeps a stored session readable.
pub const VARIABLE_DEPTH_MAX: usize = 16;
/// Bytes of the remembered outbox, as JSON; the newest entry always stays.
pub const OUTBOX_BYTES_MAX: usize = 128 * 1024;
/// Updates whose effects may be published again; far more are known to be processed.
pub const SEEN_MAX: usize = 32;
/// Bytes of an agent's remembered turns, as JSON.
pub const MEMORY_BYTES_MAX: usize = 16 * 1024;
/// Bytes kept of one incoming text.
pub const INCOMING_BYTES_MAX: usize = 4 * 1024;
/// Bytes kept of what an incoming message holds besides text, as JSON.
pub const MORE_BYTES_MAX: usize = 4 * 1024;
/// Messages that wait while a call is under way.
pub const HELD_MAX: usize = 4;

/// Cuts a text to `chars_max` at a grapheme border, marking the cut with an ellipsis.
pub fn cut(text: &str, chars_max: usize) -> Cow<'_, str> {
    // Most texts fit, and a text has at least as many bytes as characters.
    if text.len() <= chars_max || length(text) <= chars_max {
        return Cow::Borrowed(text);
    }
    let (head, _) = split_at(text, chars_max.saturating_sub(1));
    Cow::Owned(format!("{}\u{2026}", head.trim_end()))
}

/// Cuts a text to `bytes_max` at a character border.
pub fn cut_bytes(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default()
}

/// Breaks a long text into at most `parts_max` messages, preferring paragraph, line and word borders.
pub fn split(text: &str, chars_max: usize, parts_max: usize) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() && parts.len() + 1 < parts_max && length(rest) > chars_max {
        let (head, _) = split_at(rest, chars_max);
        let later_half = |at: &usize| *at > head.len() / 2;
        let end = ["\n\n", "\n", " "]
            .iter()
            .find_map(|mark| head.rfind(mark).filter(later_half));
        let (part, tail) = rest
            .split_at_checked(end.unwrap_or(head.len()))
            .unwrap_or((rest, ""));
        parts.push(part.trim_end().to_owned());
        rest = tail.trim_start();
    }
    if !rest.is_empty() {
        parts.push(cut(rest, chars_max).into_owned());
    }
    parts
}

/// The longest head of whole graphemes within `chars_max`; within a grapheme that is larger than that, of
/// whole characters.
fn split_at(text: &str, chars_max: usize) -> (&str, &str) {
    let whole = longest(text.graphemes(true), chars_max);
    let end = if whole > 0 {
        whole
    } else {
        longest(text.split_inclusive(|_| true), chars_max)
    };
    text.split_at_checked(end).unwrap_or((text, ""))
}

fn longest<'a>(pieces: impl Iterator<Item = &'a str>, chars_max: usize) -> usize {
    let (mut bytes, mut used) = (0, 0);
    for piece in pieces {
        used += length(piece);
        if used > chars_max {
            break;
        }
        bytes += piece.len();
    }
    bytes
}

/// Counts the bytes a value takes as JSON without building them.
pub fn json_bytes<T: serde::Serialize + ?Sized>(value: &T) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        Err(_) => usize::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FAMILY: &str = "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}";

    #[test]
    fn a_family_emoji_is_kept_whole_or_left_out() {
        assert_eq!(length(FAMILY), 5);
        assert_eq!(
            cut(&format!("{FAMILY}{FAMILY}"), 6),
            format!("{FAMILY}\u{2026}")
        );
        assert_eq!(cut(&format!("ab{FAMILY}cd"), 7), "ab\u{2026}");
    }

    #[test]
    fn a_flag_and_an_accent_are_not_halved() {
        assert_eq!(
            cut("\u{1f1e9}\u{1f1ea}\u{1f1e7}\u{1f1f7}", 3),
            "\u{1f1e9}\u{1f1ea}\u{2026}"
        );
        assert_eq!(cut("xe\u{301}y", 3), "x\u{2026}");
    }

    #[test]
    fn a_grapheme_larger_than_the_limit_is_cut_between_characters() {
        let zalgo = format!("e{}", "\u{301}".repeat(5_000));
        assert_eq!(length(&cut(&zalgo, 20)), 20);
    }

    #[test]
    fn a_long_answer_becomes_several_messages_at_paragraphs() {
        let text = format!("{}\n\n{}", "a".repeat(60), "b".repeat(60));
        assert_eq!(split(&text, 100, 3), ["a".repeat(60), "b".repeat(60)]);
        assert_eq!(split("  ", 100, 3), Vec::<String>::new());
        assert_eq!(split(&"word ".repeat(100), 100, 2).len(), 2);
    }

    #[test]
    fn json_bytes_counts_what_would_be_written() {
        let value = serde_json::json!({"a": "\u{1}\u{e9}", "b": [1, 2.5, null]});
        assert_eq!(json_bytes(&value), value.to_string().len());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_cut_is_over_its_limit(text in "\\PC{0,60}", limit in 2usize..40) {
            prop_assert!(length(&cut(&text, limit)) <= limit);
            for part in split(&text, limit, 3) {
                prop_assert!(length(&part) <= limit && !part.is_empty());
            }
        }
    }
}
