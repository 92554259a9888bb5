//! Where a word begins and ends, in every script.
//!
//! Most scripts have a border where a letter or a digit meets something else. Some are written without spaces: in
//! these a word may begin after any letter.

use unicode_normalization::char::is_combining_mark;

/// Scripts that are written without spaces, as ranges of their letters.
const UNSPACED: [(u32, u32); 17] = [
    (0x0e00, 0x0eff), // Thai, Lao
    (0x0f00, 0x0fff), // Tibetan
    (0x1000, 0x109f), // Myanmar
    (0x1780, 0x17ff), // Khmer
    (0x1950, 0x19ff), // Tai Le, New Tai Lue, Khmer symbols
    (0x1a20, 0x1aaf), // Tai Tham
    (0x1b00, 0x1b7f), // Balinese
    (0x2e80, 0x2fdf), // radicals of Han
    (0x3005, 0x3007), // marks of Han
    (0x3041, 0x312f), // Hiragana, Katakana, Bopomofo
    (0x31a0, 0x31ff), // extensions of these
    (0x3400, 0x4dbf), // Han
    (0x4e00, 0x9fff), // Han
    (0xa000, 0xa4cf), // Yi
    (0xa980, 0xa9ff), // Javanese, more of Myanmar
    (0xaa60, 0xaadf), // more of Myanmar, Tai Viet
    (0xf900, 0xfaff), // Han
];
/// Kana at half width, further Kana, Han beyond the first plane.
const UNSPACED_FAR: [(u32, u32); 4] = [
    (0xff66, 0xff9f),
    (0x1aff0, 0x1b16f),
    (0x20000, 0x2fa1f),
    (0x30000, 0x323af),
];

/// Whether a character belongs to a word: a letter, a digit, or a mark on one.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || is_combining_mark(c)
}

/// Whether a word may begin or end between two characters; none stands for the end of the text.
pub fn is_border(before: Option<char>, after: Option<char>) -> bool {
    let (Some(before), Some(after)) = (before, after) else {
        return true;
    };
    if is_combining_mark(after) {
        return false;
    }
    !(is_word(before) && is_word(after)) || is_unspaced(before) || is_unspaced(after)
}

fn is_unspaced(c: char) -> bool {
    let code = u32::from(c);
    let holds = |(first, last): &(u32, u32)| (*first..=*last).contains(&code);
    c.is_alphanumeric() && !c.is_numeric() && UNSPACED.iter().chain(&UNSPACED_FAR).any(holds)
        || is_combining_mark(c) && UNSPACED.iter().any(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_border_is_where_a_word_of_any_script_meets_something_else() {
        for (before, after, wanted) in [
            (None, Some('a'), true),
            (Some('a'), None, true),
            (Some('a'), Some(' '), true),
            (Some('a'), Some('b'), false),
            (Some('д'), Some('а'), false),
            (Some('ν'), Some('α'), false),
            (Some('س'), Some('ل'), false),
            (Some('א'), Some('ב'), false),
            (Some('क'), Some('\u{93e}'), false),
            (Some('\u{93e}'), Some('म'), false),
            (Some('\u{94d}'), Some('त'), false),
            (Some('주'), Some('문'), false),
            (Some('1'), Some('2'), false),
            (Some('a'), Some('1'), false),
            (Some('\u{1f44d}'), Some('a'), true),
            (Some('注'), Some('文'), true),
            (Some('ま'), Some('す'), true),
            (Some('注'), Some('a'), true),
            (Some('ส'), Some('ว'), true),
            (Some('ส'), Some('\u{e31}'), false),
            (Some('ខ'), Some('ម'), true),
        ] {
            assert_eq!(is_border(before, after), wanted, "{before:?} {after:?}");
        }
    }
}
