//! What a WhatsApp message may hold, and the shape the Graph API takes it in.
//!
//! One rule set for everybody who makes messages: the REST API, the flow compiler, the CRM connectors and the
//! replies pool, which sends nothing else. A file for each type holds its limits, its check and its JSON; a
//! new type is a file, the variant of [`Content`] that is stored, and its line in [`of`]. What carries a message
//! stands here too: the command to send it, and the record of what became of that.

mod address;
mod audio;
mod body;
pub mod buttons;
mod check;
pub mod command;
pub mod document;
pub mod image;
pub mod interactive;
pub mod list;
pub mod markdown;
pub mod media;
mod recipient;
mod record;
mod template;
#[cfg(test)]
mod tests;
pub mod text;
mod video;
pub mod words;

pub use ackline_shared::recipient::Recipient;
pub use body::{Unsendable, check_command, check_reply_to, graph_body};
pub use buttons::Button;
pub use check::{ContentError, is_printable, length};
pub use command::{Origin, SendCommand};
pub use list::{Row, Section};
pub use recipient::{PHONE_DIGITS_MAX, PHONE_DIGITS_MIN, check_recipient, is_phone, is_user_id};
pub use record::{Brief, FlowFact, Record};

use check::Check;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Bytes of a whole message as JSON; every content that Meta accepts has far fewer.
const CONTENT_BYTES_MAX: usize = 64 << 10;

/// What is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Content {
    /// Plain text.
    Text {
        /// The text, up to 4,096 characters.
        body: String,
        /// Whether WhatsApp shows a preview of the first link.
        #[serde(default)]
        preview_url: bool,
    },
    /// An image by link or media id.
    Image {
        /// Public https address Meta fetches it from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        link: Option<String>,
        /// Id of media uploaded to Meta.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// Text below the image, up to 1,024 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        caption: Option<String>,
    },
    /// A recording by link or media id.
    Audio {
        /// Public https address Meta fetches it from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        link: Option<String>,
        /// Id of media uploaded to Meta.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
    /// A film by link or media id.
    Video {
        /// Public https address Meta fetches it from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        link: Option<String>,
        /// Id of media uploaded to Meta.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// Text below the film, up to 1,024 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        caption: Option<String>,
    },
    /// Any other file by link or media id.
    Document {
        /// Public https address Meta fetches it from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        link: Option<String>,
        /// Id of media uploaded to Meta.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// Text below the file, up to 1,024 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        caption: Option<String>,
        /// The name it is shown under, up to 240 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filename: Option<String>,
    },
    /// Up to three reply buttons.
    Buttons {
        /// Text above the buttons, up to 1,024 characters.
        body: String,
        /// Short line on top, up to 60 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        header: Option<String>,
        /// Small line below, up to 60 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        footer: Option<String>,
        /// One to three buttons.
        buttons: Vec<Button>,
    },
    /// A list of up to ten rows over its sections.
    List {
        /// Text above the list, up to 4,096 characters.
        body: String,
        /// Short line on top, up to 60 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        header: Option<String>,
        /// Small line below, up to 60 characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        footer: Option<String>,
        /// Label of what opens the list, up to 20 characters.
        button: String,
        /// One to ten sections.
        sections: Vec<Section>,
    },
    /// An approved template; the only content that may open a conversation.
    Template {
        /// The template's name.
        name: String,
        /// Its language code, such as `en_US`.
        language: String,
        /// Parameters in the Graph API's own shape.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        components: Vec<Value>,
    },
}

trait Message {
    /// Our name of the type.
    fn kind(&self) -> &'static str;

    /// The Graph API's name of the type, and of the field that has what [`Message::graph`] writes.
    fn graph_type(&self) -> &'static str {
        self.kind()
    }

    /// Finds everything that WhatsApp would refuse.
    fn check(&self, check: &mut Check);

    /// Writes a message that passed its check.
    fn graph(&self) -> Value;

    /// Writes all that a person reads of it as plain text.
    fn plain(&self) -> String;

    /// What a person reads of it in one line of a transcript.
    fn summary(&self) -> String {
        self.plain()
    }
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
        Content::Audio { link, id } => Box::new(audio::Audio {
            link: link.as_deref(),
            id: id.as_deref(),
        }),
        Content::Video { link, id, caption } => Box::new(video::Video(image::Image {
            link: link.as_deref(),
            id: id.as_deref(),
            caption: caption.as_deref(),
        })),
        Content::Document {
            link,
            id,
            caption,
            filename,
        } => Box::new(document::Document {
            file: image::Image {
                link: link.as_deref(),
                id: id.as_deref(),
                caption: caption.as_deref(),
            },
            filename: filename.as_deref(),
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

impl Content {
    /// The type's name.
    pub fn kind(&self) -> &'static str {
        of(self).kind()
    }

    /// What a person reads of it in one line of a transcript.
    pub fn summary(&self) -> String {
        of(self).summary()
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
