//! Folding: the form of a text in which a person's typing and a designer's keyword are compared.
//!
//! Case, accents, variation selectors and runs of whitespace do not matter; scripts whose marks carry
//! meaning (Devanagari, Thai) keep them, because only the Latin combining diacritics are dropped.

use unicode_normalization::UnicodeNormalization;

/// Characters of a text that take part in a comparison; the rest is ignored.
const CHARS_MAX: usize = 2_048;

/// Folds case, accents and whitespace.
pub fn fold(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(CHARS_MAX));
    let plain = text
        .chars()
        .take(CHARS_MAX)
        .nfd()
        .filter(|c| !is_dropped(*c));
    for c in plain
        .flat_map(char::to_lowercase)
        .filter(|c| !is_dropped(*c))
        .nfc()
    {
        if !c.is_whitespace() {
            out.push(c);
        } else if !out.is_empty() && !out.ends_with(' ') {
            out.push(' ');
        }
    }
    if out.ends_with(' ') {
        out.pop();
    }
    out
}

fn is_dropped(c: char) -> bool {
    matches!(
        c,
        '\u{300}'..='\u{36f}' | '\u{fe0e}' | '\u{fe0f}' | '\u{200e}' | '\u{200f}' | '\u{feff}'
    )
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
    }

    #[test]
    fn a_hostile_run_of_marks_is_bounded() {
        assert!(fold(&"a\u{301}".repeat(100_000)).len() <= 2_048);
    }
}
