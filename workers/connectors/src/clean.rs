//! Texts as a CRM's database takes them: without control characters, of which PostgreSQL refuses one with all of the text.

/// A text of several lines without what does not print.
pub fn text(text: &str) -> String {
    let unix = text.replace("\r\n", "\n").replace('\r', "\n");
    unix.chars().filter(|c| !is_refused(*c)).collect()
}

/// A text of one line, such as a name; lines become words.
pub fn line(text: &str) -> String {
    let words: Vec<String> = text.split_whitespace().map(self::text).collect();
    let words = words.iter().filter(|word| !word.is_empty());
    words.map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn is_refused(c: char) -> bool {
    let code = u32::from(c);
    // The last two of each plane and a run in the first are no characters, and some databases say so.
    let is_none = code & 0xfffe == 0xfffe || (0xfdd0..=0xfdef).contains(&code);
    is_none || (c.is_control() && !matches!(c, '\n' | '\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_print_is_left_out() {
        assert_eq!(text("a\u{0}b\u{7}\u{1b}[1m\u{7f}\u{85}c"), "ab[1mc");
        assert_eq!(text("one\r\ntwo\rthree\tfour\n"), "one\ntwo\nthree\tfour\n");
        assert_eq!(
            text("\u{fffe}\u{ffff}\u{1fffe}\u{fdd0}x\u{fffd}"),
            "x\u{fffd}"
        );
        assert_eq!(
            text("\u{1f468}\u{200d}\u{1f469} \u{5e9}\u{202b}"),
            "\u{1f468}\u{200d}\u{1f469} \u{5e9}\u{202b}"
        );
        assert_eq!(line(" Ana\u{0}\n\tMaria \u{0} "), "Ana Maria");
    }
}
