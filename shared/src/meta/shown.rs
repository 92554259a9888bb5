//! What people read of a text or a name of somebody's: without what breaks a line, a database or the text beside it.
//!
//! What came stays as it came wherever bytes are passed on; this is for what is shown, said to flows and stored as text.

use std::borrow::Cow;

/// Longest name that is shown.
pub const NAME_CHARS_MAX: usize = 256;
/// Stands where half a character was.
const HALF: char = '\u{fffd}';

/// A text without control characters and without what turns the direction of text outside of it.
pub fn text(text: &str) -> Cow<'_, str> {
    // Most of what is long is plain, and a look at bytes is a fraction of one at characters.
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~' | b'\n' | b'\t' | b'\r');
    if text.bytes().all(is_plain) || text.chars().all(is_shown) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().filter(|c| is_shown(*c)).collect())
}

/// A name on one line and of a length that fits; `None` when nothing of it can be seen.
pub fn name(name: &str) -> Option<String> {
    let mut shown = String::new();
    for c in name.chars().filter(|c| *c != HALF) {
        let c = if c.is_whitespace() { ' ' } else { c };
        if is_shown(c) && !(c == ' ' && shown.ends_with(' ')) {
            shown.push(c);
        }
    }
    let end = shown.char_indices().nth(NAME_CHARS_MAX);
    let is_cut = end.is_some();
    let kept = end.map_or(shown.as_str(), |(end, _)| {
        shown.get(..end).unwrap_or_default()
    });
    let kept = match is_cut {
        true => kept.trim_end_matches(joins),
        false => kept,
    };
    let kept = kept.trim();
    kept.contains(|c| !is_invisible(c)).then(|| kept.to_owned())
}

fn is_shown(c: char) -> bool {
    let is_layout = matches!(c, '\n' | '\t' | '\r');
    let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_nothing = matches!(
        c,
        '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{2028}' | '\u{2029}'
    );
    is_layout || !(c.is_control() || turns || is_nothing)
}

/// What ties the character before it to one that was cut off.
fn joins(c: char) -> bool {
    matches!(c, '\u{200d}' | '\u{fe00}'..='\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}' | '\u{300}'..='\u{36f}')
}

fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '\u{200b}'
                ..='\u{200f}'
                    | '\u{61c}'
                    | '\u{ad}'
                    | '\u{2060}'
                    | '\u{180e}'
                    | '\u{3164}'
                    | '\u{115f}'
                    | '\u{1160}'
        )
        || joins(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_text_keeps_its_lines_and_its_script_and_loses_what_is_not_to_be_seen() {
        for (came, shown) in [
            ("one\ntwo\tthree", "one\ntwo\tthree"),
            ("a\u{0}b\u{7}c\u{1b}[31m\u{7f}\u{85}", "abc[31m"),
            ("\u{202e}gpj.exe\u{202c} \u{2066}x\u{2069}", "gpj.exe x"),
            ("\u{feff}hi\u{2028}", "hi"),
            // Marks that scripts need, joined emoji and digits of every script stay.
            ("\u{200f}שלום \u{200e}abc", "\u{200f}שלום \u{200e}abc"),
            (
                "👩\u{200d}🚀 नमस्\u{200d}ते ١٢٣ १२३ １２３",
                "👩\u{200d}🚀 नमस्\u{200d}ते ١٢٣ १२३ １２３",
            ),
            ("half \u{fffd}", "half \u{fffd}"),
            ("", ""),
        ] {
            assert_eq!(text(came), shown, "{came:?}");
        }
    }

    #[test]
    fn a_name_is_one_line_that_fits_or_none() {
        for (came, shown) in [
            (" Ana\r\n\tMaria\u{0} ", Some("Ana Maria")),
            ("Ana \u{fffd}", Some("Ana")),
            ("\u{202e}anA", Some("anA")),
            ("\u{fffd}", None),
            ("\u{200b}\u{200f} \u{3164}", None),
            ("\u{0}", None),
            ("", None),
            ("٣ محمد", Some("٣ محمد")),
        ] {
            assert_eq!(name(came).as_deref(), shown, "{came:?}");
        }
        let long = name(&"é".repeat(600)).unwrap();
        assert_eq!(long.chars().count(), NAME_CHARS_MAX);
        let families = "👩\u{200d}👩\u{200d}👧".repeat(120);
        assert!(!name(&families).unwrap().ends_with('\u{200d}'));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_shown_the_same_again(came in "\\PC{0,40}|.{0,40}|[\u{0}-\u{20}\u{200b}-\u{202e}\u{fffd}a]{0,40}") {
            let shown = text(&came).into_owned();
            prop_assert_eq!(text(&shown).into_owned(), shown.clone());
            if let Some(shown) = name(&came) {
                prop_assert_eq!(name(&shown), Some(shown.clone()));
                let is_clean = !shown.contains(['\n', '\0', '\u{202e}', '\u{fffd}']);
                prop_assert!(is_clean);
            }
        }
    }
}
