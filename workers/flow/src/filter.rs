//! Filters: what may follow a `|` in a template. Each takes a value and gives a value of bounded size.

use super::date;
use super::digits;
use super::limits::{RENDERED_BYTES_MAX, cut_bytes};
use super::value::{join, number_of, text_of};
use ackline_message::PHONE_DIGITS_MAX;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use serde_json::Value;
use unicode_segmentation::UnicodeSegmentation;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// A replacement for what is missing or empty.
    Default(String),
    Upper,
    Lower,
    /// Each word with a capital.
    TitleCase,
    Trim,
    /// At most so many characters as a person counts them, an ellipsis included.
    Truncate(usize),
    /// A number with so many decimals and this decimal mark.
    Number {
        decimals: usize,
        /// The mark: a point or a comma.
        mark: char,
    },
    /// The first element of a list, or character of a text.
    First,
    /// The last element of a list, or character of a text.
    Last,
    /// The elements of a list with this between them.
    Join(String),
    Json,
    UrlEncode,
    /// A phone number as `+` and digits.
    Phone,
    /// A moment in the given pattern, at the given offset from UTC.
    Date {
        /// A pattern of `%Y %y %m %d %H %M %S %%` and plain text.
        pattern: String,
        offset: i32,
    },
}

impl Filter {
    /// Compiles a filter by name; an error says what to write instead.
    pub fn compile(name: &str, arguments: &[&str]) -> Result<Self, String> {
        let text =
            |at: usize, otherwise: &str| (*arguments.get(at).unwrap_or(&otherwise)).to_owned();
        let (filter, most) = match name {
            "default" => (Self::Default(required(name, arguments)?.to_owned()), 1),
            "upper" => (Self::Upper, 0),
            "lower" => (Self::Lower, 0),
            "title" => (Self::TitleCase, 0),
            "trim" => (Self::Trim, 0),
            "truncate" => (
                Self::Truncate(count(required(name, arguments)?, 1, 4_096)?),
                1,
            ),
            "number" => {
                let mark = text(1, ".");
                let mark = match mark.as_str() {
                    "." => '.',
                    "," => ',',
                    _ => return Err("the decimal mark of `number` is \".\" or \",\"".to_owned()),
                };
                (
                    Self::Number {
                        decimals: count(&text(0, "0"), 0, 9)?,
                        mark,
                    },
                    2,
                )
            }
            "first" => (Self::First, 0),
            "last" => (Self::Last, 0),
            "join" => (Self::Join(text(0, ", ")), 1),
            "json" => (Self::Json, 0),
            "urlencode" => (Self::UrlEncode, 0),
            "phone" => (Self::Phone, 0),
            "date" => {
                let pattern = text(0, "%Y-%m-%d");
                check_pattern(&pattern)?;
                (
                    Self::Date {
                        pattern,
                        offset: offset(&text(1, "+00:00"))?,
                    },
                    2,
                )
            }
            _ => {
                return Err(format!(
                    "`{}` is not a filter; there are default, upper, lower, title, trim, truncate, number, \
                     first, last, join, json, urlencode, phone and date",
                    cut_bytes(name, 40)
                ));
            }
        };
        if arguments.len() > most {
            return Err(format!("`{name}` takes at most {most} arguments"));
        }
        Ok(filter)
    }

    /// Applies the filter; what it cannot read it leaves as it is.
    pub fn apply(&self, value: &Value) -> Value {
        let text = text_of(value);
        let text = cut_bytes(&text, RENDERED_BYTES_MAX);
        let out = match self {
            Self::Default(other) => match value {
                Value::Null => other.clone(),
                Value::String(text) if text.trim().is_empty() => other.clone(),
                value => return value.clone(),
            },
            Self::Upper => text.to_uppercase(),
            Self::Lower => text.to_lowercase(),
            Self::TitleCase => title(text),
            Self::Trim => text.trim().to_owned(),
            Self::Truncate(most) => truncate(text, *most),
            Self::Number { decimals, mark } => match number_of(value) {
                Some(number) => format!("{number:.decimals$}").replace('.', &mark.to_string()),
                None => text.to_owned(),
            },
            Self::First => match value {
                Value::Array(list) => return list.first().cloned().unwrap_or_default(),
                _ => text.graphemes(true).next().unwrap_or_default().to_owned(),
            },
            Self::Last => match value {
                Value::Array(list) => return list.last().cloned().unwrap_or_default(),
                _ => text
                    .graphemes(true)
                    .next_back()
                    .unwrap_or_default()
                    .to_owned(),
            },
            Self::Join(separator) => match value {
                Value::Array(list) => join(list, separator),
                _ => text.to_owned(),
            },
            Self::Json => value.to_string(),
            Self::UrlEncode => encode_url(text),
            Self::Phone => phone(text),
            Self::Date { pattern, offset } => match date_time(value, *offset) {
                Some(at) => write_date(at, pattern),
                None => text.to_owned(),
            },
        };
        Value::String(cut_bytes(&out, RENDERED_BYTES_MAX).to_owned())
    }

    /// Whether its output has a length known beforehand.
    pub fn bounds_length(&self) -> bool {
        matches!(
            self,
            Self::Truncate(_) | Self::Number { .. } | Self::Date { .. } | Self::Phone
        )
    }

    /// Whether its output is JSON already.
    pub fn encodes_json(&self) -> bool {
        matches!(self, Self::Json)
    }

    /// Whether its output is already percent-encoded.
    pub fn encodes_url(&self) -> bool {
        matches!(self, Self::UrlEncode)
    }
}

/// Percent-encodes everything but letters, digits and `-_.~`.
pub fn encode_url(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte))
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn required<'a>(name: &str, arguments: &[&'a str]) -> Result<&'a str, String> {
    arguments
        .first()
        .copied()
        .ok_or_else(|| format!("`{name}` needs an argument, as in `{name}:\"…\"`"))
}

fn count(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (least..=most).contains(n));
    number.ok_or_else(|| {
        format!(
            "`{}` is not a number from {least} to {most}",
            cut_bytes(text, 40)
        )
    })
}

fn title(text: &str) -> String {
    let mut starts = true;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if starts {
            out.extend(c.to_uppercase());
        } else {
            out.extend(c.to_lowercase());
        }
        starts = c.is_whitespace() || c == '-';
    }
    out
}

fn truncate(text: &str, most: usize) -> String {
    if text.graphemes(true).nth(most).is_none() {
        return text.to_owned();
    }
    let head: String = text.graphemes(true).take(most.saturating_sub(1)).collect();
    format!("{}\u{2026}", head.trim_end())
}

fn phone(text: &str) -> String {
    let digits = text.chars().map(digits::plain);
    let digits = digits.filter(char::is_ascii_digit);
    let digits: String = digits.take(PHONE_DIGITS_MAX).collect();
    if digits.is_empty() {
        digits
    } else {
        format!("+{digits}")
    }
}

/// A day as it is, wherever it is; a moment as the clock shows it at an offset from UTC.
fn date_time(value: &Value, offset: i32) -> Option<DateTime> {
    if let Some(day) = value.as_str().and_then(date::iso) {
        return Some(day.at(0, 0, 0, 0));
    }
    let offset = Offset::from_seconds(offset).unwrap_or(Offset::UTC);
    moment(value).map(|moment| offset.to_datetime(moment))
}

/// Reads unix milliseconds or an RFC 3339 text.
fn moment(value: &Value) -> Option<Timestamp> {
    match value {
        Value::String(text) if text.len() <= 64 => text.trim().parse().ok(),
        Value::Number(number) => Timestamp::from_millisecond(number.as_i64()?).ok(),
        _ => None,
    }
}

fn check_pattern(pattern: &str) -> Result<(), String> {
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c == '%'
            && !matches!(
                chars.next(),
                Some('Y' | 'y' | 'm' | 'd' | 'H' | 'M' | 'S' | '%')
            )
        {
            return Err(
                "a date pattern is made of %Y %y %m %d %H %M %S %% and plain text".to_owned(),
            );
        }
    }
    Ok(())
}

fn write_date(at: DateTime, pattern: &str) -> String {
    let mut out = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => out.push_str(&format!("{:04}", at.year())),
            Some('y') => out.push_str(&format!("{:02}", at.year().rem_euclid(100))),
            Some('m') => out.push_str(&format!("{:02}", at.month())),
            Some('d') => out.push_str(&format!("{:02}", at.day())),
            Some('H') => out.push_str(&format!("{:02}", at.hour())),
            Some('M') => out.push_str(&format!("{:02}", at.minute())),
            Some('S') => out.push_str(&format!("{:02}", at.second())),
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

/// Reads `+hh:mm` or `-hh:mm` as seconds east of UTC.
fn offset(text: &str) -> Result<i32, String> {
    let wrong = || {
        format!(
            "`{}` is not an offset from UTC; write it like \"+02:00\"",
            cut_bytes(text, 40)
        )
    };
    let (sign, rest) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(rest), _) => (1, rest),
        (_, Some(rest)) => (-1, rest),
        _ => return Err(wrong()),
    };
    let (hours, minutes) = rest.split_once(':').ok_or_else(wrong)?;
    let hours = hours
        .parse::<i32>()
        .ok()
        .filter(|h| (0..=14).contains(h))
        .ok_or_else(wrong)?;
    let minutes = minutes
        .parse::<i32>()
        .ok()
        .filter(|m| (0..=59).contains(m))
        .ok_or_else(wrong)?;
    Ok(sign * (hours * 3_600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn apply(name: &str, arguments: &[&str], value: Value) -> Value {
        Filter::compile(name, arguments).unwrap().apply(&value)
    }

    #[test]
    fn each_filter_does_what_its_name_says() {
        let cases = [
            ("default", &["x"][..], json!("  "), json!("x")),
            ("default", &["x"], json!(0), json!(0)),
            ("upper", &[], json!("stra\u{df}e"), json!("STRASSE")),
            ("title", &[], json!("ana maria"), json!("Ana Maria")),
            ("trim", &[], json!(" a "), json!("a")),
            ("truncate", &["3"], json!("abcdef"), json!("ab\u{2026}")),
            ("truncate", &["3"], json!("abc"), json!("abc")),
            ("number", &["2", ","], json!(2.71529), json!("2,72")),
            ("number", &["2"], json!("7"), json!("7.00")),
            ("first", &[], json!([1, 2]), json!(1)),
            (
                "last",
                &[],
                json!("ab\u{1f1e9}\u{1f1ea}"),
                json!("\u{1f1e9}\u{1f1ea}"),
            ),
            ("join", &[" / "], json!(["a", 1]), json!("a / 1")),
            ("json", &[], json!("a\"b"), json!("\"a\\\"b\"")),
            (
                "urlencode",
                &[],
                json!("a b&c\u{e9}"),
                json!("a%20b%26c%C3%A9"),
            ),
            ("phone", &[], json!("+49 (30) 123-45"), json!("+493012345")),
            (
                "date",
                &["%d.%m.%Y %H:%M", "+02:00"],
                json!(1_700_000_000_000_i64),
                json!("15.11.2023 00:13"),
            ),
            (
                "date",
                &[],
                json!("2026-02-03T04:05:06Z"),
                json!("2026-02-03"),
            ),
            ("date", &[], json!("soon"), json!("soon")),
            (
                "date",
                &["%d.%m.%Y", "-05:00"],
                json!("2026-12-24"),
                json!("24.12.2026"),
            ),
            (
                "date",
                &["%d.%m."],
                json!("2026-02-31"),
                json!("2026-02-31"),
            ),
        ];
        for (name, arguments, value, wanted) in cases {
            assert_eq!(
                apply(name, arguments, value.clone()),
                wanted,
                "{value} | {name}:{arguments:?}"
            );
        }
    }

    #[test]
    fn a_wrong_filter_says_what_to_write() {
        for (name, arguments) in [
            ("nope", &[][..]),
            ("truncate", &[]),
            ("truncate", &["0"]),
            ("upper", &["x"]),
            ("number", &["99999999999"]),
            ("date", &["%Q"]),
            ("date", &["%"]),
            ("date", &["%Y", "Berlin"]),
        ] {
            assert!(
                Filter::compile(name, arguments).is_err(),
                "{name}:{arguments:?}"
            );
        }
    }
}
