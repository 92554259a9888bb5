//! What a locale says about numbers and dates, as far as answers need it.

use super::number::DecimalMark;

/// Longest name of a locale.
const NAME_BYTES_MAX: usize = 35;
/// Languages that write a comma before decimals.
const COMMA: [&str; 45] = [
    "af", "az", "be", "bg", "bs", "ca", "cs", "da", "de", "el", "es", "et", "eu", "fi", "fr", "gl",
    "hr", "hu", "hy", "id", "is", "it", "ka", "kk", "ky", "lt", "lv", "mk", "nb", "nl", "nn", "no",
    "pl", "pt", "ro", "ru", "sk", "sl", "sq", "sr", "sv", "tr", "uk", "uz", "vi",
];
/// Locales that write a point although their language writes a comma.
const POINT: [&str; 16] = [
    "de-ch", "de-li", "it-ch", "es-419", "es-bz", "es-cu", "es-do", "es-gt", "es-hn", "es-mx",
    "es-ni", "es-pa", "es-pe", "es-pr", "es-sv", "es-us",
];
/// Locales whose short dates have the month first.
const MONTH_FIRST: [&str; 5] = ["en", "en-us", "en-ph", "es-pa", "es-pr"];

/// A locale, such as `de` or `en-IN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locale {
    pub mark: DecimalMark,
    /// Whether `3/4` is the fourth of March.
    pub month_first: bool,
}

impl Locale {
    /// Reads the name of a locale; none when it is no name of one.
    pub fn read(name: &str) -> Option<Self> {
        let name = name.replace('_', "-").to_lowercase();
        let mut parts = name.split('-');
        let language = parts.next().unwrap_or_default();
        let is_part = |part: &str| {
            (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
        };
        let is_language =
            (2..=3).contains(&language.len()) && language.bytes().all(|b| b.is_ascii_lowercase());
        if !is_language || name.len() > NAME_BYTES_MAX || !parts.clone().all(is_part) {
            return None;
        }
        // A script may stand between the language and the region.
        let is_region = |part: &&str| {
            part.len() == 2 || (part.len() == 3 && part.bytes().all(|b| b.is_ascii_digit()))
        };
        let region = parts.find(is_region);
        let name = region.map_or_else(
            || language.to_owned(),
            |region| format!("{language}-{region}"),
        );
        let is_comma = COMMA.contains(&language) && !POINT.contains(&name.as_str());
        Some(Self {
            mark: if is_comma {
                DecimalMark::Comma
            } else {
                DecimalMark::Point
            },
            month_first: MONTH_FIRST.contains(&name.as_str()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_is_read_by_language_and_region() {
        for (name, mark, month_first) in [
            ("de", DecimalMark::Comma, false),
            ("de-CH", DecimalMark::Point, false),
            ("pt_BR", DecimalMark::Comma, false),
            ("es-MX", DecimalMark::Point, false),
            ("es-PE", DecimalMark::Point, false),
            ("es-419", DecimalMark::Point, false),
            ("es-PA", DecimalMark::Point, true),
            ("es-AR", DecimalMark::Comma, false),
            ("en", DecimalMark::Point, true),
            ("en-US", DecimalMark::Point, true),
            ("en-IN", DecimalMark::Point, false),
            ("zh-Hant-TW", DecimalMark::Point, false),
            ("sr-Latn-RS", DecimalMark::Comma, false),
        ] {
            let read = Locale::read(name).unwrap();
            assert_eq!((read.mark, read.month_first), (mark, month_first), "{name}");
        }
        for bad in [
            "",
            "d",
            "german",
            "de--CH",
            "de-",
            "12",
            "de CH",
            &"a-".repeat(40),
        ] {
            assert_eq!(Locale::read(bad), None, "{bad:?}");
        }
    }
}
