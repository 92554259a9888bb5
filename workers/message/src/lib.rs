//! What a WhatsApp message may hold, and the shape the Graph API takes it in.
//!
//! One rule set for everybody who makes messages: the REST API, the flow compiler, the CRM connectors and the
//! replies pool, which sends nothing else. A file for each type holds its limits, its check and its JSON; a
//! new type is a file, a line in [`of`], and the variant of [`Content`] that is stored.

mod body;
pub mod buttons;
mod check;
pub mod image;
pub mod interactive;
pub mod list;
mod recipient;
mod template;
#[cfg(test)]
mod tests;
pub mod text;

pub use body::{Unsendable, check_command, check_reply_to, graph_body};
pub use check::{ContentError, is_printable, length};
pub use recipient::{PHONE_DIGITS_MAX, PHONE_DIGITS_MIN, check_recipient, is_phone, is_user_id};

use ackline_shared::command::Content;
use check::Check;
use serde_json::Value;

/// Bytes of a whole message as JSON; every content that Meta accepts has far fewer.
const CONTENT_BYTES_MAX: usize = 64 << 10;

trait Message {
    /// The Graph API's name of the type, and of the field that has what [`Message::graph`] writes.
    fn graph_type(&self) -> &'static str;

    /// Finds everything that WhatsApp would refuse.
    fn check(&self, check: &mut Check);

    /// Writes a message that passed its check.
    fn graph(&self) -> Value;

    /// Writes all that a person reads of it as plain text.
    fn plain(&self) -> String;
}

/// The type of a content.
fn of(content: &Content) -> Box<dyn Message + '_> {
    match content {
        Content::Text { body, preview_url } => Box::new(text::Text {
            body,
            preview_url: *preview_url,
        }),
        Content::Image { link, id, caption } => Box::new(image::Image {
            link: link.as_deref(),
            id: id.as_deref(),
            caption: caption.as_deref(),
        }),
        Content::Buttons {
            body,
            header,
            footer,
            buttons,
        } => Box::new(buttons::Buttons {
            body,
            header: header.as_deref(),
            footer: footer.as_deref(),
            buttons,
        }),
        Content::List {
            body,
            header,
            footer,
            button,
            sections,
        } => Box::new(list::List {
            body,
            header: header.as_deref(),
            footer: footer.as_deref(),
            button,
            sections,
        }),
        Content::Template {
            name,
            language,
            components,
        } => Box::new(template::Template {
            name,
            language,
            components,
        }),
    }
}

/// Says everything that is wrong with a content; places are below `/content`.
pub fn check(content: &Content) -> Vec<ContentError> {
    let mut check = Check::default();
    of(content).check(&mut check);
    let bytes = serde_json::to_vec(content).map_or(usize::MAX, |json| json.len());
    if bytes > CONTENT_BYTES_MAX {
        check.add(
            "",
            format!("has {bytes} bytes as JSON, {CONTENT_BYTES_MAX} are allowed"),
        );
    }
    check.into_errors()
}

/// All that a person reads of a content, as plain text.
pub fn plain(content: &Content) -> String {
    of(content).plain()
}
