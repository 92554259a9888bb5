//! What the typed asks accept, and the value they keep of it.

use super::date::{self, Days};
use super::digits;
use super::number::{self, DecimalMark, Reading};
use super::value;
use jiff::civil::Date;
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
        /// What stands before decimals, where that is known.
        mark: Option<DecimalMark>,
    },
    /// An email address, kept in lower-case domain form.
    Email,
    /// A phone number, kept as `+` and digits.
    Phone,
    /// A day of the calendar, kept as `2026-12-24`.
    Date {
        earliest: Option<Day>,
        latest: Option<Day>,
        /// Whether `3/4` is the fourth of March.
        month_first: bool,
    },
}

/// A bound of dates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Day {
    Today,
    At(Date),
}

impl Day {
    /// Reads `today` or `2026-12-24`.
    pub fn read(text: &str) -> Option<Self> {
        match text {
            "today" => Some(Self::Today),
            text => date::iso(text).map(Self::At),
        }
    }

    fn on(self, today: Date) -> Date {
        match self {
            Self::Today => today,
            Self::At(date) => date,
        }
    }
}

impl Accept {
    /// Reads an answer given on a day; none when it is not accepted.
    pub fn read(&self, answer: &str, today: Date) -> Option<Value> {
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
            Self::Number {
                min,
                max,
                whole,
                mark,
            } => {
                let reading = Reading {
                    mark: *mark,
                    whole: *whole,
                };
                let number = number::read(answer, reading)?;
                let fits = number >= *min && number <= *max && (!whole || number.fract() == 0.0);
                fits.then(|| value::number(number))
            }
            Self::Email => email(answer).map(Value::String),
            Self::Phone => phone(&digits::read(answer)).map(Value::String),
            Self::Date {
                earliest,
                latest,
                month_first,
            } => {
                let days = Days {
                    earliest: earliest.map_or(Date::MIN, |day| day.on(today)),
                    latest: latest.map_or(Date::MAX, |day| day.on(today)),
                };
                date::read(answer, *month_first, today, days)
                    .map(|date| Value::String(date.to_string()))
            }
        }
    }
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

    const TODAY: Date = jiff::civil::date(2026, 12, 1);

    #[test]
    fn numbers_are_read_as_people_write_them() {
        let accept = Accept::Number {
            min: -10_000.0,
            max: 10_000.0,
            whole: false,
            mark: None,
        };
        for (text, wanted) in [
            ("12", Some(json!(12))),
            (" 12,5 ", Some(json!(12.5))),
            ("1.234,5", Some(json!(1234.5))),
            ("1,234.5", Some(json!(1234.5))),
            ("-3", Some(json!(-3))),
            ("1 234", Some(json!(1234))),
            ("1.234", Some(json!(1234))),
            ("\u{661}\u{662}", Some(json!(12))),
            ("2\u{fe0f}\u{20e3}", Some(json!(2))),
            ("20000", None),
            ("12 apples", None),
            ("31.02.", None),
            ("", None),
        ] {
            assert_eq!(accept.read(text, TODAY), wanted, "{text:?}");
        }
        let whole = Accept::Number {
            min: 0.0,
            max: 9.0,
            whole: true,
            mark: None,
        };
        assert_eq!(whole.read("2.5", TODAY), None);
    }

    #[test]
    fn addresses_and_phones_are_kept_in_one_form() {
        let email = |text: &str| Accept::Email.read(text, TODAY);
        assert_eq!(
            email(" Ana.B+x@Shop.Example "),
            Some(json!("Ana.B+x@shop.example"))
        );
        for bad in [
            "a", "a@b", "@b.c", "a b@c.d", "a@b..c", "a@-b.c", "a..b@c.d", "a@b.c@",
        ] {
            assert_eq!(email(bad), None, "{bad:?}");
        }
        let phone = |text: &str| Accept::Phone.read(text, TODAY);
        assert_eq!(phone("+49 (30) 123-4567"), Some(json!("+49301234567")));
        assert_eq!(phone("0049 30 1234567"), Some(json!("+49301234567")));
        assert_eq!(
            phone("+\u{664}\u{669} \u{663}\u{660} 1234567"),
            Some(json!("+49301234567"))
        );
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
            accept.read("\u{1f1e9}\u{1f1ea}e\u{301}", TODAY),
            Some(json!("\u{1f1e9}\u{1f1ea}e\u{301}"))
        );
        assert_eq!(accept.read("abc", TODAY), None);
    }

    #[test]
    fn a_date_is_kept_as_a_day_of_the_calendar() {
        let accept = Accept::Date {
            earliest: Some(Day::Today),
            latest: Day::read("2027-12-31"),
            month_first: false,
        };
        for (text, wanted) in [
            ("24.12.", Some(json!("2026-12-24"))),
            ("1.12.2026", Some(json!("2026-12-01"))),
            ("30.11.2026", None),
            ("1.1.2028", None),
            ("31.02.", None),
        ] {
            assert_eq!(accept.read(text, TODAY), wanted, "{text:?}");
        }
        assert_eq!(Day::read("31.12.2027"), None);
    }
}
