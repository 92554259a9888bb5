//! An image, by link or by the id of media uploaded to Meta.

use crate::Message;
use crate::check::{Check, is_printable};
use serde_json::{Map, Value, json};
use url::Url;

/// Characters of the text below an image.
pub const CAPTION_CHARS_MAX: usize = 1024;
const MEDIA_ID_CHARS_MAX: usize = 128;

pub(crate) struct Image<'a> {
    pub link: Option<&'a str>,
    pub id: Option<&'a str>,
    pub caption: Option<&'a str>,
}

/// Tells whether Meta would fetch from this address.
pub fn is_link(text: &str) -> bool {
    // What a URL parser passes over would still be in what Meta gets.
    let is_plain = !text.contains(|c: char| c.is_whitespace() || c.is_control());
    is_plain && Url::parse(text).is_ok_and(|url| url.scheme() == "https")
}

impl Message for Image<'_> {
    fn kind(&self) -> &'static str {
        "image"
    }

    fn check(&self, check: &mut Check) {
        match (self.link, self.id) {
            (Some(link), None) if !is_link(link) => check.add("link", "must be an https address"),
            (None, Some(id)) if !is_printable(id, MEDIA_ID_CHARS_MAX) => {
                check.add("id", "must be the id of media uploaded to Meta");
            }
            (Some(_), None) | (None, Some(_)) => {}
            _ => check.add("", "needs either `link` or `id`"),
        }
        check.optional("caption", self.caption, CAPTION_CHARS_MAX);
    }

    fn plain(&self) -> String {
        match self.caption {
            Some(caption) => format!("[image] {caption}"),
            None => "[image]".to_owned(),
        }
    }

    fn summary(&self) -> String {
        self.caption.unwrap_or("[image]").to_owned()
    }

    fn graph(&self) -> Value {
        let fields = [
            ("link", self.link),
            ("id", self.id),
            ("caption", self.caption),
        ];
        let image: Map<String, Value> = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), json!(value?))))
            .collect();
        Value::Object(image)
    }
}
