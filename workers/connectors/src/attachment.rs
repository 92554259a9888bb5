//! The files of an agent's message, and the messages they become: WhatsApp has one file a message.

use ackline_message::media::{MediaKind, MediaParts};
use ackline_message::{Content, document, image, length};
use serde_json::Value;

/// Files of one message, as many as Chatwoot takes.
const FILES_MAX: usize = 15;

/// A file of an agent's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// `None` for what is no file, such as a place or a contact.
    pub kind: Option<MediaKind>,
    /// Where the CRM has it.
    pub url: String,
    pub name: String,
}

impl Attachment {
    /// Reads the files of a webhook.
    pub fn all_of(event: &Value) -> Vec<Self> {
        let all = event.get("attachments").and_then(Value::as_array);
        all.into_iter()
            .flatten()
            .take(FILES_MAX)
            .map(Self::read)
            .collect()
    }

    fn read(value: &Value) -> Self {
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        let kind = match text("file_type") {
            "image" => Some(MediaKind::Image),
            "audio" => Some(MediaKind::Audio),
            "video" => Some(MediaKind::Video),
            "file" => Some(MediaKind::Document),
            _ => None,
        };
        let url = text("data_url").to_owned();
        Self {
            kind: kind.filter(|_| !url.is_empty()),
            name: name_in(&url),
            url,
        }
    }
}

/// The messages of a text with files; the text stands below the first file that can have one.
pub fn messages(text: &str, files: &[Attachment]) -> Vec<Content> {
    let first = files.first().and_then(|file| file.kind);
    let has_caption = first.is_some_and(|kind| kind != MediaKind::Audio)
        && !text.trim().is_empty()
        && length(text) <= image::CAPTION_CHARS_MAX;
    let mut messages = Vec::with_capacity(files.len() + 1);
    if files.is_empty() || (!has_caption && !text.trim().is_empty()) {
        messages.push(Content::Text {
            body: text.to_owned(),
            preview_url: true,
        });
    }
    for (at, file) in files.iter().enumerate() {
        let caption = (at == 0 && has_caption).then(|| text.to_owned());
        let parts = MediaParts {
            link: Some(file.url.clone()),
            id: None,
            caption,
            filename: Some(file.name.clone()).filter(|name| !name.is_empty()),
        };
        messages.push(Content::file(
            file.kind.unwrap_or(MediaKind::Document),
            parts,
        ));
    }
    messages
}

/// The name of a file by the end of its address.
fn name_in(address: &str) -> String {
    let path = address.split(['?', '#']).next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let name = super::clean::line(&decoded(last));
    name.chars().take(document::FILENAME_CHARS_MAX).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(escaped) if *byte == b'%' => {
                bytes.push(escaped);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn files(types: &[&str]) -> Vec<Attachment> {
        let file = |kind: &&str| json!({"file_type": kind, "data_url": "https://c.example/a/My%20b%C3%A4r.x?y=1"});
        Attachment::all_of(&json!({"attachments": types.iter().map(file).collect::<Vec<_>>()}))
    }

    fn kinds(text: &str, types: &[&str]) -> Vec<(&'static str, Option<String>)> {
        let told = |content: &Content| {
            let caption = content.as_file().and_then(|(_, parts)| parts.caption);
            (content.kind(), caption)
        };
        messages(text, &files(types)).iter().map(told).collect()
    }

    #[test]
    fn each_file_is_a_message_and_the_text_stands_below_the_first() {
        let look = || Some("Look".to_owned());
        assert_eq!(kinds("Look", &[]), [("text", None)]);
        assert_eq!(
            kinds("Look", &["image", "file"]),
            [("image", look()), ("document", None)]
        );
        assert_eq!(kinds("Look", &["audio"]), [("text", None), ("audio", None)]);
        assert_eq!(kinds("", &["video"]), [("video", None)]);
        let long = "x".repeat(1025);
        assert_eq!(kinds(&long, &["image"]), [("text", None), ("image", None)]);
        assert_eq!(files(&["file"])[0].name, "My b\u{e4}r.x");
        assert_eq!(files(&["location"])[0].kind, None);
        assert_eq!(files(&["image"; 20]).len(), FILES_MAX);
        assert_eq!(name_in("https://c.example/%"), "%");
    }
}
