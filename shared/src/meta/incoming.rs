//! What a message holds that a person sent, or that somebody sent from the Business app: decided here, once for all.
//!
//! Events, API, flows and CRM say the same of it. What Meta sent stays beside it, with all that is not read here. Shapes:
//! Meta's webhook reference for the `messages` field, 2026.

mod card;
mod details;
mod form;
mod line;
mod order;
mod origin;

pub use card::{Card, CardPhone};
pub use details::{Details, MessageFault};
pub use order::OrderItem;
pub use origin::{Context, Product, Referral};

use super::text::{id_at, shown_at, text_at};
use serde::Serialize;
use serde_json::Value;
use std::fmt;

/// The kinds with which a person says something. Whatever is none of them, and what may come to be, answers nothing.
const SPEECH: [&str; 11] = [
    "text",
    "image",
    "audio",
    "video",
    "document",
    "sticker",
    "location",
    "contacts",
    "interactive",
    "button",
    "order",
];

/// The kinds that are a file.
const MEDIA: [&str; 5] = ["image", "audio", "video", "document", "sticker"];

/// What a message holds.
#[derive(Clone, PartialEq, Serialize)]
pub struct Incoming {
    /// Meta's type, such as `text` or `interactive`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What a person would read: the body, a caption, the title of what was pressed, an emoji.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The id of a pressed button or picked row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_id: Option<String>,
    /// Media it carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media: Option<Media>,
    /// What it holds besides text and media.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
    /// What it answers, and whether it was forwarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Context>,
    /// The ad or post it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referral: Option<Referral>,
}

/// Shows nothing: what people say does not belong into logs.
impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").finish_non_exhaustive()
    }
}

/// Media of a message.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Media {
    /// Meta's media id, good for 7 days.
    pub id: String,
    /// Its declared type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    /// The file's name, for documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// The SHA-256 of the file in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Whether audio was spoken into WhatsApp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voice: Option<bool>,
    /// Whether a sticker moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub animated: Option<bool>,
}

/// Shows nothing: a file's name is its sender's own.
impl fmt::Debug for Media {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Media").finish_non_exhaustive()
    }
}

impl Incoming {
    /// Reads a message as Meta sent it.
    pub fn read(raw: &Value) -> Self {
        let kind = id_at(raw, "/type").unwrap_or_else(|| "unknown".to_owned());
        let own = raw.get(&kind).unwrap_or(&Value::Null);
        Self {
            text: TEXTS.iter().find_map(|pointer| shown_at(own, pointer)),
            payload_id: PAYLOADS.iter().find_map(|pointer| text_at(own, pointer)),
            media: Media::read(&kind, own),
            details: Details::read(&kind, raw, own),
            context: Context::read(raw),
            referral: Referral::read(raw),
            kind,
        }
    }

    /// Whether a person says something with it: nothing else answers a question or starts a flow.
    pub fn is_speech(&self) -> bool {
        is_speech(&self.kind)
            && !matches!(
                self.details,
                Some(Details::CallPermission { .. } | Details::Unknown)
            )
    }

    /// Meta's id of the message that it answers or quotes.
    pub fn context_id(&self) -> Option<&str> {
        self.context.as_ref()?.id.as_deref()
    }

    /// It in one line of a transcript, or in a few where it has fields.
    pub fn line(&self) -> String {
        line::of(self)
    }
}

/// Whether a person may say something with a kind of message.
pub fn is_speech(kind: &str) -> bool {
    SPEECH.contains(&kind)
}

/// Where the text of a message may stand within what is its kind's.
const TEXTS: [&str; 10] = [
    "/body",
    "/caption",
    "/text",
    "/button_reply/title",
    "/list_reply/title",
    "/emoji",
    // Of an edited message, the new text.
    "/message/text/body",
    "/message/image/caption",
    "/message/video/caption",
    "/message/document/caption",
];
const PAYLOADS: [&str; 3] = ["/button_reply/id", "/list_reply/id", "/payload"];

impl Media {
    /// A kind that is not known here is one of media if it says so of itself.
    fn read(kind: &str, own: &Value) -> Option<Self> {
        let mime_type = text_at(own, "/mime_type");
        let id = id_at(own, "/id")?;
        (mime_type.is_some() || MEDIA.contains(&kind)).then(|| Self {
            id,
            mime_type,
            filename: shown_at(own, "/filename"),
            sha256: text_at(own, "/sha256"),
            voice: own.get("voice").and_then(Value::as_bool),
            animated: own.get("animated").and_then(Value::as_bool),
        })
    }
}

#[cfg(test)]
mod tests;
