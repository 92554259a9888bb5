//! Numbers as people write them: digits of any script, groups of thousands, a point or a comma before the decimals.
//!
//! What a mark means is plain in most numbers (`1.234,5`, `1,00,000`). A single one with three digits behind it could
//! be either; then the locale decides, and where none is set it separates thousands.

use super::digits;

/// Longest text that is read.
const CHARS_MAX: usize = 32;
/// Stands for a mark that is certainly before decimals.
const DECIMAL: char = 'd';
/// Stands for a mark that certainly separates thousands.
const GROUP: char = '\'';

/// What a locale writes before the decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecimalMark {
    Point,
    Comma,
}

/// How a number may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// The mark of the locale, if one is set.
    pub mark: Option<DecimalMark>,
    /// Whether only whole numbers are meant, so that three digits behind a mark are thousands.
    pub whole: bool,
}

/// Reads a number; none when it is something else.
pub fn read(text: &str, reading: Reading) -> Option<f64> {
    let text: String = digits::read(text).trim().chars().map(plain_mark).collect();
    if text.chars().count() > CHARS_MAX {
        return None;
    }
    let (sign, unsigned) = match text.strip_prefix(['+', '-']) {
        Some(rest) if text.starts_with('-') => ("-", rest.trim_start()),
        Some(rest) => ("", rest.trim_start()),
        None => ("", text.as_str()),
    };
    let (whole, decimals) = match decimal_at(unsigned, reading)? {
        Some(at) => unsigned
            .split_at_checked(at)
            .map(|(whole, rest)| (whole, rest.get(1..).unwrap_or_default()))?,
        None => (unsigned, ""),
    };
    let whole = ungrouped(whole)?;
    let is_number =
        decimals.bytes().all(|b| b.is_ascii_digit()) && !(whole.is_empty() && decimals.is_empty());
    let number = is_number.then(|| format!("{sign}{whole}.{decimals}0"))?;
    number
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite())
}

fn plain_mark(c: char) -> char {
    match c {
        '\u{66b}' => DECIMAL,
        '\u{66c}' | '\u{2019}' | '\u{2018}' | '\u{2bc}' => GROUP,
        c if c.is_whitespace() => ' ',
        // No text may spell what stands for a mark.
        DECIMAL => '?',
        c => c,
    }
}

/// Where the decimals begin, if there are any; none when no reading is possible.
fn decimal_at(text: &str, reading: Reading) -> Option<Option<usize>> {
    if let Some(at) = text.find(DECIMAL) {
        return (text.matches(DECIMAL).count() == 1).then_some(Some(at));
    }
    let (point, comma) = (text.rfind('.'), text.rfind(','));
    let (at, mark) = match (point, comma) {
        (None, None) => return Some(None),
        (Some(point), Some(comma)) => {
            let (at, mark) = if point > comma {
                (point, '.')
            } else {
                (comma, ',')
            };
            return (text.matches(mark).count() == 1).then_some(Some(at));
        }
        (Some(at), None) => (at, '.'),
        (None, Some(at)) => (at, ','),
    };
    if text.matches(mark).count() > 1 {
        return Some(None);
    }
    let (whole, rest) = text.split_at_checked(at)?;
    let could_be_thousands = rest.len() == 4
        && (1..=3).contains(&whole.len())
        && whole.bytes().all(|b| b.is_ascii_digit())
        && !whole.starts_with('0');
    let is_mark = match reading.mark {
        _ if reading.whole => false,
        Some(DecimalMark::Point) => mark == '.',
        Some(DecimalMark::Comma) => mark == ',',
        None => false,
    };
    Some((!could_be_thousands || is_mark).then_some(at))
}

/// Takes the marks out of thousands, which have groups of three, in India of two before the last.
fn ungrouped(text: &str) -> Option<String> {
    let Some(mark) = text.chars().find(|c| !c.is_ascii_digit()) else {
        return Some(text.to_owned());
    };
    if !['.', ',', ' ', GROUP].contains(&mark) {
        return None;
    }
    let groups: Vec<&str> = text.split(mark).collect();
    let are_digits = groups
        .iter()
        .all(|group| group.bytes().all(|b| b.is_ascii_digit()));
    let (first, rest) = groups.split_first()?;
    let (last, middle) = rest.split_last()?;
    let is_grouped = (1..=3).contains(&first.len())
        && last.len() == 3
        && (middle.iter().all(|group| group.len() == 3)
            || middle.iter().all(|group| group.len() == 2));
    (are_digits && is_grouped).then(|| groups.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Option<f64> {
        read(text, Reading::default())
    }

    #[test]
    fn numbers_are_read_in_every_script_and_grouping() {
        for (text, wanted) in [
            ("12", 12.0),
            (" 12,5 ", 12.5),
            ("12.50", 12.5),
            ("0.125", 0.125),
            (".5", 0.5),
            ("12.", 12.0),
            ("1.234,5", 1234.5),
            ("1,234.5", 1234.5),
            ("1,234", 1234.0),
            ("1.234", 1234.0),
            ("1.234.567", 1_234_567.0),
            ("1,234,567.89", 1_234_567.89),
            ("1,00,000", 100_000.0),
            ("12,34,567.5", 1_234_567.5),
            ("1 234", 1234.0),
            ("1\u{a0}234,50", 1234.5),
            ("1\u{202f}234\u{202f}567", 1_234_567.0),
            ("1'234.50", 1234.5),
            ("1\u{2019}234", 1234.0),
            ("-3", -3.0),
            ("\u{2212} 3,5", -3.5),
            ("\u{661}\u{662}", 12.0),
            ("\u{661}\u{66c}\u{662}\u{663}\u{664}\u{66b}\u{665}", 1234.5),
            ("\u{967}\u{968}", 12.0),
            ("\u{ff11}\u{ff12}", 12.0),
            ("\u{ff11}\u{ff0c}\u{ff12}\u{ff13}\u{ff14}", 1234.0),
            ("2\u{fe0f}\u{20e3}", 2.0),
            ("\u{1f51f}", 10.0),
            ("1234.5678", 1234.5678),
        ] {
            assert_eq!(number(text), Some(wanted), "{text:?}");
        }
    }

    #[test]
    fn what_is_grouped_wrongly_is_no_number() {
        for text in [
            "",
            ".",
            ",",
            "-",
            "1e3",
            "inf",
            "12 apples",
            "31.02.",
            "31.12.2026",
            "1,23,4",
            "1.23.456,7.8",
            "12 34",
            "1,,234",
            "1.234,567,8",
            "1d5",
            "0x10",
            "1-2",
        ] {
            assert_eq!(number(text), None, "{text:?}");
        }
        assert_eq!(number(&"9".repeat(33)), None);
    }

    #[test]
    fn the_locale_says_what_a_lone_mark_means() {
        let with = |text, mark| {
            read(
                text,
                Reading {
                    mark: Some(mark),
                    whole: false,
                },
            )
        };
        assert_eq!(with("1.234", DecimalMark::Comma), Some(1234.0));
        assert_eq!(with("1,234", DecimalMark::Comma), Some(1.234));
        assert_eq!(with("1.234", DecimalMark::Point), Some(1.234));
        assert_eq!(with("1,234", DecimalMark::Point), Some(1234.0));
        // Not thousands, whatever the locale.
        assert_eq!(with("12.5", DecimalMark::Comma), Some(12.5));
        assert_eq!(with("12,5", DecimalMark::Point), Some(12.5));
        let whole = Reading {
            mark: Some(DecimalMark::Point),
            whole: true,
        };
        assert_eq!(read("1.234", whole), Some(1234.0));
        assert_eq!(
            read("2.5", whole),
            Some(2.5),
            "and is refused for its decimals"
        );
    }
}
