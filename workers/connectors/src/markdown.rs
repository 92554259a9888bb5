//! Markdown, as agents write it in a CRM, to WhatsApp's own marks: `*bold*`, `_italic_`, `~struck~`, code as it is.
//!
//! Line by line, and total: what is not understood stays as it was typed.

/// Longer texts than WhatsApp takes are not worth reading; they are refused later for their length.
const CHARS_MAX: usize = 8192;
const DEPTH_MAX: u8 = 6;
const FENCE: &str = "```";

/// Converts a text.
pub fn to_whatsapp(markdown: &str) -> String {
    if markdown.chars().count() > CHARS_MAX {
        return markdown.to_owned();
    }
    let mut lines = Vec::new();
    let mut in_code = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with(FENCE)
            && !line.trim().get(FENCE.len()..).unwrap_or("").contains('`')
        {
            in_code = !in_code;
            lines.push(FENCE.to_owned());
        } else if in_code {
            lines.push(line.to_owned());
        } else {
            lines.push(convert_line(line));
        }
    }
    lines.join("\n").trim_end().to_owned()
}

fn convert_line(line: &str) -> String {
    let line = line.trim_end();
    let line = match line.strip_suffix('\\') {
        Some(rest) if !rest.ends_with('\\') => rest,
        _ => line,
    };
    let text = line.trim_start();
    let indent = line.get(..line.len() - text.len()).unwrap_or_default();
    let hashes = text.len() - text.trim_start_matches('#').len();
    if let Some(heading) = text.get(hashes..).and_then(|rest| rest.strip_prefix(' '))
        && (1..=6).contains(&hashes)
        && !heading.trim().is_empty()
    {
        return format!("*{}*", inline(heading.trim(), 0).replace('*', ""));
    }
    for bullet in ["* ", "+ ", "- "] {
        if let Some(item) = text.strip_prefix(bullet) {
            return format!("{indent}- {}", inline(item, 0));
        }
    }
    format!("{indent}{}", inline(text, 0))
}

fn inline(text: &str, depth: u8) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let found = if depth < DEPTH_MAX {
            span(&chars, at, depth)
        } else {
            None
        };
        if let Some((converted, next)) = found {
            out.push_str(&converted);
            at = next;
        } else {
            out.push(c);
            at += 1;
        }
    }
    out
}

/// The construct that starts at a place, converted, and where it ends.
fn span(chars: &[char], at: usize, depth: u8) -> Option<(String, usize)> {
    match chars.get(at)? {
        '\\' => {
            let escaped = chars.get(at + 1).filter(|c| c.is_ascii_punctuation())?;
            Some((escaped.to_string(), at + 2))
        }
        '`' => {
            let end = find(chars, at + 1, &['`'])?;
            Some((text(chars, at, end + 1)?, end + 1))
        }
        '[' => link(chars, at, depth),
        '<' => {
            let end = find(chars, at + 1, &['>'])?;
            let address = text(chars, at + 1, end)?;
            let web = address.starts_with("http://") || address.starts_with("https://");
            (web && !address.contains(char::is_whitespace)).then_some((address, end + 1))
        }
        '*' => emphasis(chars, at, &['*', '*'], '*', depth)
            .or_else(|| emphasis(chars, at, &['*'], '_', depth)),
        '_' => emphasis(chars, at, &['_', '_'], '*', depth)
            .or_else(|| emphasis(chars, at, &['_'], '_', depth)),
        '~' => emphasis(chars, at, &['~', '~'], '~', depth),
        _ => None,
    }
}

fn emphasis(
    chars: &[char],
    at: usize,
    mark: &[char],
    ours: char,
    depth: u8,
) -> Option<(String, usize)> {
    let start = at + mark.len();
    if chars.get(at..start)? != mark || chars.get(start)?.is_whitespace() {
        return None;
    }
    let before = at.checked_sub(1).and_then(|before| chars.get(before));
    let underscore = mark.contains(&'_');
    // Underscores inside words are part of them.
    if underscore && before.is_some_and(|c| c.is_alphanumeric()) {
        return None;
    }
    let mut from = start + 1;
    loop {
        let mut end = find(chars, from, mark)?;
        // The closing mark of a run is its last one, so that `***x***` nests.
        while chars
            .get(end + 1..end + 1 + mark.len())
            .is_some_and(|next| next == mark)
        {
            end += 1;
        }
        let closes = chars.get(end - 1).is_some_and(|c| !c.is_whitespace());
        let inside = underscore
            && chars
                .get(end + mark.len())
                .is_some_and(|c| c.is_alphanumeric());
        if closes && !inside {
            let inner = inline(&text(chars, start, end)?, depth + 1);
            return Some((format!("{ours}{inner}{ours}"), end + mark.len()));
        }
        from = end + mark.len();
    }
}

fn link(chars: &[char], at: usize, depth: u8) -> Option<(String, usize)> {
    let middle = find(chars, at + 1, &[']', '('])?;
    let end = find(chars, middle + 2, &[')'])?;
    let (label, address) = (text(chars, at + 1, middle)?, text(chars, middle + 2, end)?);
    if address.is_empty() || address.contains(char::is_whitespace) {
        return None;
    }
    let bare = address.strip_prefix("mailto:").unwrap_or(&address);
    let converted = if label == bare || label.is_empty() {
        bare.to_owned()
    } else {
        format!("{} ({bare})", inline(&label, depth + 1))
    };
    Some((converted, end + 1))
}

fn find(chars: &[char], from: usize, mark: &[char]) -> Option<usize> {
    let rest = chars.get(from..)?;
    rest.windows(mark.len())
        .position(|window| window == mark)
        .map(|offset| from + offset)
}

fn text(chars: &[char], from: usize, to: usize) -> Option<String> {
    chars.get(from..to).map(|part| part.iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_agents_write_reads_the_same_in_whatsapp() {
        let table = [
            ("plain text, 2 * 3 * 4 = 24", "plain text, 2 * 3 * 4 = 24"),
            (
                "**bold** and *italic* and _italic_",
                "*bold* and _italic_ and _italic_",
            ),
            ("__bold__ ~~gone~~", "*bold* ~gone~"),
            ("***both***", "*_both_*"),
            (
                "**bold with *italic* inside**",
                "*bold with _italic_ inside*",
            ),
            ("one\\\ntwo", "one\ntwo"),
            (r"5 \* 3 and snake\_case", "5 * 3 and snake_case"),
            ("snake_case_name", "snake_case_name"),
            ("`**code**`", "`**code**`"),
            ("```rust\nlet **x**;\n```", "```\nlet **x**;\n```"),
            (
                "[our site](https://a.example/x_y_z)",
                "our site (https://a.example/x_y_z)",
            ),
            (
                "[https://a.example](https://a.example)",
                "https://a.example",
            ),
            ("<https://a.example>", "https://a.example"),
            ("# Opening hours", "*Opening hours*"),
            ("* one\n* two", "- one\n- two"),
            ("**open", "**open"),
            ("a [b", "a [b"),
        ];
        for (markdown, whatsapp) in table {
            assert_eq!(to_whatsapp(markdown), whatsapp, "{markdown:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a _*~`\\\\\\[\\]()<>#\n\u{e9}-]{0,300}") {
            let _converted = to_whatsapp(&text);
        }

        #[test]
        fn a_text_without_marks_stays_as_it_is(text in "[A-Za-z0-9 ,.!?\u{e9}]{0,200}") {
            prop_assert_eq!(to_whatsapp(&text), text.trim_end());
        }
    }
}
