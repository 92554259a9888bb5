//! Holds what nodes send to WhatsApp's rules, as far as it stands in the definition.
//!
//! The rules are those of [`ackline_message`]. They are asked about the least that will be sent: of a text with
//! slots, what is written around them. What slots add is cut when the message is rendered.

use super::builder::Builder;
use super::render::BLANK;
use super::report;
use super::template::Template;
use ackline_message::Content;
use ackline_message::{ContentError, check};

impl Builder {
    /// Compiles a text that is sent as a message of its own.
    pub(crate) fn sent_text(&mut self, field: &str, source: &str) -> Template {
        let content = Content::Text {
            body: least(source),
            preview_url: false,
        };
        self.refused(&content, |_| Some(field.to_owned()));
        self.template(field, source).unwrap_or_default()
    }

    pub(crate) fn optional_sent_text(
        &mut self,
        field: &str,
        source: Option<&str>,
    ) -> Option<Template> {
        source.map(|source| self.sent_text(field, source))
    }

    /// Reports what WhatsApp would refuse of a content, under the names that the definition has for its places.
    pub(crate) fn refused(&mut self, content: &Content, name: impl Fn(&str) -> Option<String>) {
        for ContentError { at, detail } in check(content) {
            let place = at.trim_start_matches("/content").trim_start_matches('/');
            if let Some(name) = name(place) {
                let at = format!("/{name}");
                self.problem(report::LIMIT, ContentError { at, detail }.words());
            }
        }
    }
}

/// The least that a text renders to. One that does not compile is reported as such, and for nothing else.
pub(crate) fn least(source: &str) -> String {
    let Ok(template) = Template::compile(source) else {
        return BLANK.to_owned();
    };
    let fixed = template.fixed_text();
    match fixed.trim() {
        "" if template.as_static().is_none() => BLANK.to_owned(),
        fixed => fixed.to_owned(),
    }
}
