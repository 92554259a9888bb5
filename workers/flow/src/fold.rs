//! Folding: the form of a text in which a person's typing and a designer's keyword are compared.
//!
//! Case, accents, digits of other scripts, compatibility forms, what does not show, and runs of whitespace do not
//! matter. Marks that make another letter stay: in Devanagari, Thai and Arabic, and in Cyrillic but for stress and
//! the two dots of io.

use super::digits;
use unicode_normalization::UnicodeNormalization;

/// Characters of a text that take part in a comparison; the rest is ignored.
const CHARS_MAX: usize = 2_048;
const CYRILLIC: std::ops::RangeInclusive<char> = '\u{400}'..='\u{52f}';

/// Folds case, accents, digits and whitespace.
pub fn fold(text: &str) -> String {
    let plain = digits::expand(text.chars().take(CHARS_MAX)).nfkd();
    let lower = plain.flat_map(char::to_lowercase).nfd();
    let mut base = ' ';
    let bare = lower.filter(|c| {
        let is_kept = !is_dropped(*c, base);
        if !is_accent(*c) {
            base = *c;
        }
        is_kept
    });
    let mut out = String::with_capacity(text.len().min(CHARS_MAX));
    // One sign may stand for a phrase of eighteen characters, so what comes out is held to the bound as well.
    for c in bare.nfc().take(CHARS_MAX) {
        if c == '\u{df}' {
            out.push_str("ss");
        } else if !c.is_whitespace() {
            out.push(one_of_its_letter(digits::plain(c)));
        } else if !out.is_empty() && !out.ends_with(' ') {
            out.push(' ');
        }
    }
    if out.ends_with(' ') {
        out.pop();
    }
    out
}

/// Letters that lower case leaves apart although they are one: the sigma at the end of a word, the dotless i.
fn one_of_its_letter(c: char) -> char {
    match c {
        '\u{3c2}' => '\u{3c3}',
        '\u{131}' => 'i',
        c => c,
    }
}

fn is_accent(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}')
}

fn is_dropped(c: char, base: char) -> bool {
    if is_accent(c) {
        let is_stress = matches!(c, '\u{300}' | '\u{301}');
        let is_io = base == '\u{435}' && c == '\u{308}';
        return !CYRILLIC.contains(&base) || is_stress || is_io;
    }
    // The tatweel only stretches a word, and a tone of skin says nothing a keyword could mean.
    digits::is_unseen(c) || matches!(c, '\u{640}' | '\u{1f3fb}'..='\u{1f3ff}')
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn case_accents_and_spaces_do_not_matter() {
        assert_eq!(
            fold("  \u{c9}tat\tDE  la\ncommande "),
            "etat de la commande"
        );
        assert_eq!(
            fold("Informac\u{327}a\u{303}o"),
            fold("INFORMA\u{c7}\u{c3}O")
        );
        assert_eq!(fold("\u{2764}\u{fe0f}"), fold("\u{2764}"));
    }

    #[test]
    fn marks_that_carry_meaning_stay() {
        assert_ne!(fold("\u{915}\u{93f}"), fold("\u{915}\u{93e}"));
        assert_ne!(fold("мой"), fold("мои"));
        assert_eq!(fold("Ёж"), fold("еж"));
    }

    #[test]
    fn one_letter_in_other_clothes_is_the_same() {
        for (typed, keyword) in [
            ("\u{ff21}\u{ff22}\u{ff13}", "ab3"),
            ("\u{2460}", "1"),
            ("2\u{fe0f}\u{20e3}", "2"),
            ("\u{661}\u{662}", "12"),
            ("\u{967}\u{968}", "12"),
            ("STRASSE", "stra\u{df}e"),
            ("ΛΟΓΟΣ", "λόγος"),
            ("ILIK", "\u{131}l\u{131}k"),
            (
                "\u{645}\u{631}\u{640}\u{640}\u{62d}\u{628}\u{627}",
                "\u{645}\u{631}\u{62d}\u{628}\u{627}",
            ),
            ("\u{202b}\u{62a}\u{202c}", "\u{62a}"),
            ("\u{1f44d}\u{1f3fd}", "\u{1f44d}"),
        ] {
            assert_eq!(fold(typed), fold(keyword), "{typed:?}");
        }
    }

    #[test]
    fn a_hostile_run_of_marks_is_bounded() {
        assert!(fold(&"a\u{301}".repeat(100_000)).len() <= 2_048);
        assert!(fold(&"\u{fdfa}".repeat(100_000)).chars().count() <= 2_048);
    }
}
