//! What the typed asks accept, and the value they keep of it.

use super::value;
use regex::Regex;
use serde_json::Value;
use unicode_segmentation::UnicodeSegmentation;

/// Digits of a phone number that a person gives; the shortest that are dialled abroad.
const ANSWERED_DIGITS_MIN: usize = 7;

#[derive(Debug, Clone)]
pub enum Accept {
    /// A text of so many characters that matches the pattern.
    Text {
        min: usize,
        max: usize,
        /// What the whole text must match.
        pattern: Option<Regex>,
    },
    /// A number in a range.
    Number {
        min: f64,
        max: f64,
        /// Whether it must be whole.
        whole: bool,
    },
    /// An email address, kept in lower-case domain form.
    Email,
    /// A phone number, kept as `+` and digits.
    Phone,
}

impl Accept {
    /// Reads an answer; none when it is not accepted.
    pub fn read(&self, answer: &str) -> Option<Value> {
        let answer = answer.trim();
        if answer.is_empty() {
            return None;
        }
        match self {
            Self::Text { min, max, pattern } => {
                let length = answer.graphemes(true).count();
                let matches = pattern
                    .as_ref()
                    .is_none_or(|pattern| pattern.is_match(answer));
                (length >= *min && length <= *max && matches)
                    .then(|| Value::String(answer.to_owned()))
            }
            Self::Number { min, max, whole } => {
                let number = number(answer)?;
                let fits = number >= *min && number <= *max && (!whole || number.fract() == 0.0);
                fits.then(|| value::number(number))
            }
            Self::Email => email(answer).map(Value::String),
            Self::Phone => phone(answer).map(Value::String),
        }
    }
}

/// Reads `1234.5`, `1.234,5`, `1,234.5`, `12,5` and `1 234`.
fn number(text: &str) -> Option<f64> {
    let text: String = text
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '\'')
        .collect();
    if text.len() > 32 {
        return None;
    }
    let plain = match (text.rfind('.'), text.rfind(',')) {
        (Some(point), Some(comma)) if point > comma => text.replace(',', ""),
        (Some(_), Some(_)) => text.replace('.', "").replace(',', "."),
        (None, Some(_)) if text.matches(',').count() > 1 => text.replace(',', ""),
        (None, Some(_)) => text.replace(',', "."),
        (Some(_), None) if text.matches('.').count() > 1 => text.replace('.', ""),
        _ => text,
    };
    let digits = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
    let is_plain = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    is_plain
        .then(|| plain.parse().ok())
        .flatten()
        .filter(|number: &f64| number.is_finite())
}

fn email(text: &str) -> Option<String> {
    let (name, domain) = text.rsplit_once('@')?;
    let is_name = !name.is_empty()
        && name.len() <= 64
        && !name.starts_with('.')
        && !name.ends_with('.')
        && !name.contains("..")
        && name
            .chars()
            .all(|c| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c));
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    let is_domain = domain.len() <= 253 && domain.contains('.') && domain.split('.').all(is_label);
    (is_name && is_domain).then(|| format!("{name}@{}", domain.to_lowercase()))
}

/// Accepts a number with its country code and the usual punctuation; `00` counts as `+`.
fn phone(text: &str) -> Option<String> {
    let is_phone = text
        .chars()
        .all(|c| c.is_ascii_digit() || c.is_whitespace() || "+-().\u{a0}/".contains(c));
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let international = digits.strip_prefix("00").unwrap_or(&digits);
    let is_long = international.len() >= ANSWERED_DIGITS_MIN;
    let plus_elsewhere = text.rfind('+').is_some_and(|at| at > 0);
    (is_phone && !plus_elsewhere && is_long && ackline_message::is_phone(international))
        .then(|| format!("+{international}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        let accept = Accept::Number {
            min: -10_000.0,
            max: 10_000.0,
            whole: false,
        };
        for (text, wanted) in [
            ("12", Some(json!(12))),
            (" 12,5 ", Some(json!(12.5))),
            ("1.234,5", Some(json!(1234.5))),
            ("1,234.5", Some(json!(1234.5))),
            ("-3", Some(json!(-3))),
            ("1 234", Some(json!(1234))),
            ("20000", None),
            ("1e3", None),
            ("inf", None),
            ("12 apples", None),
            ("", None),
            (".", None),
        ] {
            assert_eq!(accept.read(text), wanted, "{text:?}");
        }
        let whole = Accept::Number {
            min: 0.0,
            max: 9.0,
            whole: true,
        };
        assert_eq!(whole.read("2.5"), None);
    }

    #[test]
    fn addresses_and_phones_are_kept_in_one_form() {
        let email = |text: &str| Accept::Email.read(text);
        assert_eq!(
            email(" Ana.B+x@Shop.Example "),
            Some(json!("Ana.B+x@shop.example"))
        );
        for bad in [
            "a", "a@b", "@b.c", "a b@c.d", "a@b..c", "a@-b.c", "a..b@c.d", "a@b.c@",
        ] {
            assert_eq!(email(bad), None, "{bad:?}");
        }
        let phone = |text: &str| Accept::Phone.read(text);
        assert_eq!(phone("+49 (30) 123-4567"), Some(json!("+49301234567")));
        assert_eq!(phone("0049 30 1234567"), Some(json!("+49301234567")));
        for bad in [
            "12345",
            "1234567890123456",
            "030 1234567",
            "call me",
            "12+3456789",
        ] {
            assert_eq!(phone(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn texts_are_measured_as_people_count() {
        let accept = Accept::Text {
            min: 1,
            max: 2,
            pattern: None,
        };
        assert_eq!(
            accept.read("\u{1f1e9}\u{1f1ea}e\u{301}"),
            Some(json!("\u{1f1e9}\u{1f1ea}e\u{301}"))
        );
        assert_eq!(accept.read("abc"), None);
    }
}
