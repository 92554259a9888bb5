//! Turns a text and the values it can see into what is sent, within WhatsApp's limits.
//!
//! Limits are checked at publishing for what is fixed; here they are enforced for what only now is known,
//! by cutting, because a message Meta refuses helps nobody.

use super::limits::cut;
use super::template::Template;
use super::value::Scope;
use ackline_message::Content;
use ackline_message::text;

/// What stands in for a body that rendered to nothing.
pub const BLANK: &str = "\u{2026}";

/// Renders a text message; none when nothing is left to say.
pub fn text(body: &Template, preview_url: bool, scope: &Scope<'_>) -> Option<Content> {
    let body = line(body, text::BODY_CHARS_MAX, scope)?;
    Some(Content::Text { body, preview_url })
}

/// Renders a text of at most so many characters; none when nothing is left of it.
pub fn line(template: &Template, chars_max: usize, scope: &Scope<'_>) -> Option<String> {
    let text = template.render(scope);
    let text = text.trim();
    (!text.is_empty()).then(|| cut(text, chars_max).into_owned())
}
