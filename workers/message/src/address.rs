//! Where web addresses stand in a text. Nothing in an address is a mark.

use std::ops::Range;

/// Finds the addresses that stand in a text as they are: with a scheme, with `www.`, or a host with a path.
///
/// Those in the brackets of a Markdown link are left out: there they are told by the brackets.
pub fn find(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut from = 0;
    while let Some((start, kind)) = next_start(text, from) {
        let end = end_of(text, start);
        from = end.max(start + 1);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        let before = text.get(..start).unwrap_or_default();
        let is_bracketed = before.ends_with("](") || before.ends_with('<');
        let is_address = match kind {
            Kind::Named => end > start,
            Kind::Host => text.get(start..end).is_some_and(|address| {
                let host = address.split('/').next().unwrap_or_default();
                address.contains('/') && is_host(host)
            }),
        };
        if is_address && !is_bracketed {
            found.push(start..end);
        }
    }
    found
}

enum Kind {
    /// By a scheme or `www.`.
    Named,
    /// By the form of its host alone.
    Host,
}

/// The next place where a word begins that may be an address.
fn next_start(text: &str, from: usize) -> Option<(usize, Kind)> {
    let mut before = text.get(..from).and_then(|text| text.chars().next_back());
    // Up to where it is known that no address begins.
    let mut looked_at = from;
    for (at, c) in text.get(from..)?.char_indices() {
        let begins = c.is_ascii_alphanumeric() && !before.is_some_and(char::is_alphanumeric);
        before = Some(c);
        let start = from + at;
        if !begins || start < looked_at {
            continue;
        }
        let rest = text.get(start..).unwrap_or_default();
        let word = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && !"+.-".contains(c))
            .unwrap_or(rest.len());
        let (head, tail) = rest.split_at_checked(word).unwrap_or((rest, ""));
        if tail.starts_with("://")
            && let Some(scheme) = scheme_in(head)
        {
            return Some((start + scheme, Kind::Named));
        }
        if head.len() > 4
            && head
                .get(..4)
                .is_some_and(|www| www.eq_ignore_ascii_case("www."))
        {
            return Some((start, Kind::Named));
        }
        if head.contains('.') && tail.starts_with(['/', ':']) {
            return Some((start, Kind::Host));
        }
        looked_at = start + word;
    }
    None
}

/// Where the scheme begins that a word ends with: it has a letter first.
fn scheme_in(word: &str) -> Option<usize> {
    let is_inside = |at: usize| {
        let before = at
            .checked_sub(1)
            .and_then(|before| word.as_bytes().get(before));
        before.is_some_and(u8::is_ascii_alphanumeric)
    };
    let mut bytes = word.bytes().enumerate();
    bytes
        .find(|(at, byte)| byte.is_ascii_alphabetic() && !is_inside(*at))
        .map(|(at, _)| at)
}

/// Where an address that begins at `start` ends: before what cannot be in one, and before the marks, brackets and
/// full stops that close what it stands in.
fn end_of(text: &str, start: usize) -> usize {
    let rest = text.get(start..).unwrap_or_default();
    let mut open: Vec<char> = Vec::new();
    let mut end = rest.len();
    for (at, c) in rest.char_indices() {
        let closes = match c {
            '(' | '[' => {
                open.push(c);
                false
            }
            ')' => open.pop() != Some('('),
            ']' => open.pop() != Some('['),
            c => is_outside(c),
        };
        if closes {
            end = at;
            break;
        }
    }
    let address = rest.get(..end).unwrap_or_default();
    start + address.trim_end_matches(is_closing).len()
}

fn is_outside(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(
            c,
            '<' | '>' | '"' | '`' | '|' | '\u{ab}' | '\u{bb}' | '\u{201c}'..='\u{201f}' | '\u{3000}'..='\u{303f}'
                | '\u{ff00}'..='\u{ffef}'
        )
}

fn is_closing(c: char) -> bool {
    ".,:;!?*_~'([\\".contains(c)
}

/// A name with a top level of letters, and perhaps a port.
fn is_host(host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, "0"));
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let top = name.rsplit('.').next().unwrap_or_default();
    name.contains('.')
        && name.split('.').all(is_label)
        && top.len() >= 2
        && top.bytes().all(|b| b.is_ascii_alphabetic())
        && !port.is_empty()
        && port.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn addresses_are_found_without_what_surrounds_them() {
        for (text, wanted) in [
            (
                "https://x.example/__init__.py",
                &["https://x.example/__init__.py"][..],
            ),
            (
                "see (https://x.example/a_(b)), or",
                &["https://x.example/a_(b)"],
            ),
            ("**https://x.example/a**.", &["https://x.example/a"]),
            ("_www.x.example_", &["www.x.example"]),
            ("shop.example/a*b*c and 1.5.2026/x", &["shop.example/a*b*c"]),
            ("shop.example:8080/a", &["shop.example:8080/a"]),
            (
                "[https://a.example](https://b.example)",
                &["https://a.example"],
            ),
            ("<https://a.example>", &[]),
            ("https://a.example/x\u{3002}**b**", &["https://a.example/x"]),
            ("ftp://a https://b", &["ftp://a", "https://b"]),
            ("3-https://b, 4.https://c", &["https://b", "https://c"]),
            ("and/or, a.b: c, e.g. this", &[]),
            ("://x", &[]),
        ] {
            let found: Vec<&str> = find(text).into_iter().map(|range| &text[range]).collect();
            assert_eq!(found, wanted, "{text:?}");
        }
    }

    /// Each word is looked at once: a test that took a look at every letter of each would not end.
    #[test]
    fn a_long_text_of_what_looks_like_an_address_is_read_at_once() {
        for part in ["a.", "a-", "1+", "www-", "a.b/"] {
            let text = part.repeat(2_000_000 / part.len());
            assert!(find(&text).len() < 2, "{part}");
        }
    }
}
