//! Markdown, as agents write it in a CRM and models answer in it, to WhatsApp's own marks: `*bold*`, `_italic_`,
//! `~struck~`, code as it is.
//!
//! The parser says what stands where. Only the marks that WhatsApp writes otherwise are replaced; everything between
//! them, and what WhatsApp has no mark for, is copied as it was typed. Addresses are hidden from the parser, so that
//! nothing in them is a mark.

use super::address;
use super::words::is_border;
use pulldown_cmark::{CodeBlockKind, Event, LinkType, Options, Parser, Tag, TagEnd};
use std::ops::Range;

/// Longer texts than WhatsApp takes are not worth reading; they are refused later for their length.
const CHARS_MAX: usize = 16 << 10;
const FENCE: &str = "```";

/// Converts a text.
pub fn to_whatsapp(markdown: &str) -> String {
    if markdown.chars().count() > CHARS_MAX {
        return markdown.to_owned();
    }
    let typed = markdown.replace("\r\n", "\n");
    let hidden = without_addresses(&typed);
    let mut writer = Writer::new(&typed);
    for (event, range) in Parser::new_ext(&hidden, Options::ENABLE_STRIKETHROUGH).into_offset_iter()
    {
        writer.event(event, &range);
    }
    writer.copy_to(typed.len());
    writer.out.trim_end().to_owned()
}

/// The text with letters in the place of addresses, byte for byte; escapes within them stay escapes.
fn without_addresses(typed: &str) -> String {
    let mut out = String::with_capacity(typed.len());
    let mut at = 0;
    for range in address::find(typed) {
        out.push_str(typed.get(at..range.start).unwrap_or_default());
        let mut address = typed.get(range.clone()).unwrap_or_default().chars();
        while let Some(c) = address.next() {
            let escaped = address.clone().next().filter(char::is_ascii_punctuation);
            match escaped {
                Some(escaped) if c == '\\' => {
                    address.next();
                    out.extend([c, escaped]);
                }
                _ => out.extend(std::iter::repeat_n('x', c.len_utf8())),
            }
        }
        at = range.end;
    }
    out.push_str(typed.get(at..).unwrap_or_default());
    out
}

struct Writer<'a> {
    typed: &'a str,
    /// Up to where the typed text is written.
    at: usize,
    out: String,
    /// Where the open heading begins in what is written.
    heading: Option<usize>,
    /// Where the open links begin in what is written, and their addresses; `None` for one that stays as typed.
    links: Vec<Option<(usize, String)>>,
    is_fenced: bool,
}

impl<'a> Writer<'a> {
    fn new(typed: &'a str) -> Self {
        Self {
            typed,
            at: 0,
            out: String::with_capacity(typed.len()),
            heading: None,
            links: Vec::new(),
            is_fenced: false,
        }
    }

    fn event(&mut self, event: Event<'_>, range: &Range<usize>) {
        match event {
            Event::Text(_) => {
                let between = self.typed.get(self.at..range.start).unwrap_or_default();
                // The parser leaves out the backslash of what it escapes.
                self.copy_to(range.start - usize::from(between.ends_with('\\')));
                self.verbatim(range);
            }
            Event::InlineHtml(tag) if is_break(&tag) => self.replace(range.clone(), "\n"),
            Event::Code(_) | Event::Html(_) | Event::InlineHtml(_) => {
                self.copy_to(range.start);
                self.verbatim(range);
            }
            Event::HardBreak => self.replace(range.clone(), "\n"),
            Event::Start(tag) => self.start(tag, range),
            Event::End(tag) => self.end(tag, range),
            _ => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>, range: &Range<usize>) {
        let text = self.typed.get(range.clone()).unwrap_or_default();
        match tag {
            Tag::Strong | Tag::Emphasis | Tag::Strikethrough => {
                if let Some((typed, ours)) = self.marks(&tag.to_end(), range) {
                    self.replace(range.start..range.start + typed, ours);
                }
            }
            Tag::Heading { .. } if text.starts_with('#') => {
                self.copy_to(range.start);
                self.at += text.len() - text.trim_start_matches('#').trim_start_matches(' ').len();
                self.heading = Some(self.out.len());
            }
            Tag::Item if text.starts_with(['*', '+', '-']) && text.get(1..2) == Some(" ") => {
                self.replace(range.start..range.start + 1, "-");
            }
            Tag::CodeBlock(CodeBlockKind::Fenced(_)) => {
                let opening = text.lines().next().unwrap_or_default();
                self.replace(range.start..range.start + opening.len(), FENCE);
                self.is_fenced = true;
            }
            Tag::Link {
                link_type,
                dest_url,
                ..
            } => self.open(link_type, &dest_url, range.start, 1),
            Tag::Image {
                link_type,
                dest_url,
                ..
            } => self.open(link_type, &dest_url, range.start, 2),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd, range: &Range<usize>) {
        let text = self.typed.get(range.clone()).unwrap_or_default();
        match tag {
            TagEnd::Strong | TagEnd::Emphasis | TagEnd::Strikethrough => {
                if let Some((typed, ours)) = self.marks(&tag, range) {
                    self.replace(range.end - typed..range.end, ours);
                }
            }
            TagEnd::Heading(_) => {
                if let Some(begin) = self.heading.take() {
                    let heading = self.out.split_off(begin).replace('*', "");
                    if heading.is_empty() {
                        self.out.push_str(text);
                    } else {
                        self.out.push_str(&format!("*{}*", heading.trim()));
                    }
                    self.at = range.start + text.trim_end().len();
                }
            }
            // A break by a backslash that no line follows.
            TagEnd::Paragraph | TagEnd::Item => {
                let written = self.typed.get(..self.at).unwrap_or_default();
                if written.ends_with('\\') && !written.ends_with("\\\\") && self.out.ends_with('\\')
                {
                    self.out.pop();
                }
            }
            TagEnd::CodeBlock if self.is_fenced => {
                self.is_fenced = false;
                let rest = self.typed.get(self.at..range.end).unwrap_or_default();
                let rest = rest.trim_end();
                let before = rest.trim_end_matches(['`', '~']);
                if before.len() < rest.len() {
                    self.replace(self.at + before.len()..self.at + rest.len(), FENCE);
                }
            }
            TagEnd::Link | TagEnd::Image => self.close(range.end),
            _ => {}
        }
    }

    fn open(&mut self, kind: LinkType, address: &str, begin: usize, mark: usize) {
        let web = address.starts_with("http://") || address.starts_with("https://");
        let is_ours = match kind {
            LinkType::Inline => !address.is_empty(),
            LinkType::Autolink => web,
            _ => false,
        };
        let link = is_ours.then(|| {
            self.replace(begin..begin + mark, "");
            let bare = address.strip_prefix("mailto:").unwrap_or(address);
            (self.out.len(), bare.to_owned())
        });
        self.links.push(link);
    }

    fn close(&mut self, end: usize) {
        let Some(Some((begin, address))) = self.links.pop() else {
            return;
        };
        let label = self.out.get(begin..).unwrap_or_default();
        if label.is_empty() {
            self.out.push_str(&address);
        } else if label != address {
            self.out.push_str(&format!(" ({address})"));
        }
        self.at = end;
    }

    /// How long a mark is, and what WhatsApp writes for it.
    ///
    /// It knows none over several lines and none inside of a word: those stay as typed.
    fn marks(&self, tag: &TagEnd, range: &Range<usize>) -> Option<(usize, &'static str)> {
        let text = self.typed.get(range.clone()).unwrap_or_default();
        let marks = match tag {
            TagEnd::Strong => (2, "*"),
            TagEnd::Emphasis => (1, "_"),
            _ if text.starts_with("~~") => (2, "~"),
            _ => (1, "~"),
        };
        let inside = text.get(marks.0..text.len().checked_sub(marks.0)?)?;
        let before = self.typed.get(..range.start)?.chars().next_back();
        let after = self.typed.get(range.end..)?.chars().next();
        let stands_alone = is_border(before, inside.chars().next())
            && is_border(inside.chars().next_back(), after);
        (stands_alone && !text.contains('\n')).then_some(marks)
    }

    fn replace(&mut self, range: Range<usize>, ours: &str) {
        self.copy_to(range.start);
        self.out.push_str(ours);
        self.at = range.end;
    }

    fn verbatim(&mut self, range: &Range<usize>) {
        self.out
            .push_str(self.typed.get(range.clone()).unwrap_or_default());
        self.at = range.end;
    }

    /// Copies what stands between two places, without blanks at the end of lines.
    fn copy_to(&mut self, end: usize) {
        let between = self.typed.get(self.at..end).unwrap_or_default();
        let mut lines = between.split('\n').peekable();
        while let Some(line) = lines.next() {
            if lines.peek().is_some() {
                self.out.push_str(line.trim_end());
                self.out.push('\n');
            } else {
                self.out.push_str(line);
            }
        }
        self.at = self.at.max(end);
    }
}

/// Whether an HTML tag breaks the line, the one that models write.
fn is_break(tag: &str) -> bool {
    let name = tag.trim_matches(['<', '>', '/', ' ']);
    name.eq_ignore_ascii_case("br")
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
            ("***both***", "_*both*_"),
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
            ("a &amp; b", "a &amp; b"),
            ("3. one\n7. two\n   more", "3. one\n7. two\n   more"),
            ("Bye\n---\nMaria", "Bye\n---\nMaria"),
            ("> **said**\n> so", "> *said*\n> so"),
            ("> ~~~\n> **x**\n> ~~~", "> ```\n> **x**\n> ```"),
            ("- a\n  ```\n  x\n  ```\n- b", "- a\n  ```\n  x\n  ```\n- b"),
            ("**one\ntwo**", "**one\ntwo**"),
            ("# **All** the *hours*", "*All the _hours_*"),
            ("[a@b.example](mailto:a@b.example)", "a@b.example"),
            ("one  \r\ntwo\\", "one\ntwo"),
            (
                "https://x.example/__init__.py",
                "https://x.example/__init__.py",
            ),
            ("https://x.example/a*b*c", "https://x.example/a*b*c"),
            (
                "**see** x.example/__a__/~~b~~ *now*",
                "*see* x.example/__a__/~~b~~ _now_",
            ),
            ("**https://x.example/a_b**", "*https://x.example/a_b*"),
            (
                r"https://x.example/\_\_init\_\_.py",
                "https://x.example/__init__.py",
            ),
            (
                "[*a*](https://x.example/a*b*c_d_e)",
                "_a_ (https://x.example/a*b*c_d_e)",
            ),
            (
                "[https://a.example/_x_](https://a.example/_x_)",
                "https://a.example/_x_",
            ),
            ("**bold **text", "**bold **text"),
            ("** not bold **", "** not bold **"),
            ("10*20*30 cm", "10*20*30 cm"),
            (
                "**half**baked and pre**fix**",
                "**half**baked and pre**fix**",
            ),
            ("10~~20~~30", "10~~20~~30"),
            (
                "\u{8fd9}\u{662f}**\u{91cd}\u{70b9}**\u{3002}",
                "\u{8fd9}\u{662f}*\u{91cd}\u{70b9}*\u{3002}",
            ),
            ("one<br>two<br/>three", "one\ntwo\nthree"),
        ];
        for (markdown, whatsapp) in table {
            assert_eq!(to_whatsapp(markdown), whatsapp, "{markdown:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a1. _*~`\\\\\\[\\]()<>!&;#\n\r\t\u{e9}-]{0,300}") {
            let _converted = to_whatsapp(&text);
        }

        #[test]
        fn a_text_without_marks_stays_as_it_is(text in "[A-Za-z0-9 ,.:!?()=|>&;\n\u{e9}-]{0,200}") {
            let trimmed = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
            let converted = to_whatsapp(&text);
            prop_assert_eq!(trimmed(&converted), trimmed(text.trim_end()));
        }

        #[test]
        fn no_letter_is_lost(text in "[abc _*`\\\\\\[\\]<>#\n\u{e9}-]{0,200}") {
            prop_assume!(!text.contains(FENCE));
            let letters = |text: &str| text.chars().filter(|c| c.is_alphabetic()).collect::<String>();
            prop_assert_eq!(letters(&to_whatsapp(&text)), letters(&text));
        }
    }
}
