//! What may be sent: WhatsApp's limits on content, checked before anything is stored, and its shape for the document.

use ackline_shared::command::{Content, Recipient};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const BODY_CHARS_MAX: usize = 4096;
const CAPTION_CHARS_MAX: usize = 1024;
const LINE_CHARS_MAX: usize = 60;
const ID_CHARS_MAX: usize = 128;
/// Bytes of a whole message as JSON; every content that Meta accepts has far fewer.
const CONTENT_BYTES_MAX: usize = 64 << 10;

/// What is wrong with a message, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentError {
    /// Where, as a JSON pointer.
    pub at: String,
    /// What is wrong and what would be right.
    pub detail: String,
}

impl ContentError {
    fn new(at: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            at: at.into(),
            detail: detail.into(),
        }
    }
}

/// Says everything that is wrong with a content; places are below `/content`.
pub fn mistakes(content: &Content) -> Vec<ContentError> {
    let mut check = Check::default();
    match content {
        Content::Text { body, .. } => check.text("body", body, BODY_CHARS_MAX),
        Content::Image { link, id, caption } => {
            match (link, id) {
                (Some(link), None) if !link.starts_with("https://") => {
                    check.add("link", "must be an https address")
                }
                (Some(_), None) | (None, Some(_)) => {}
                _ => check.add("", "an image needs either `link` or `id`"),
            }
            check.optional("caption", caption.as_deref(), CAPTION_CHARS_MAX);
        }
        Content::Buttons {
            body,
            header,
            footer,
            buttons,
        } => {
            check.text("body", body, CAPTION_CHARS_MAX);
            check.optional("header", header.as_deref(), LINE_CHARS_MAX);
            check.optional("footer", footer.as_deref(), LINE_CHARS_MAX);
            check.count("buttons", buttons.len(), 1, 3);
            for (at, button) in buttons.iter().enumerate() {
                check.text(&format!("buttons/{at}/id"), &button.id, 256);
                check.text(&format!("buttons/{at}/title"), &button.title, 20);
            }
            check.distinct(
                "buttons",
                "id",
                buttons.iter().map(|button| button.id.as_str()),
            );
            check.distinct(
                "buttons",
                "title",
                buttons.iter().map(|button| button.title.as_str()),
            );
        }
        Content::List {
            body,
            header,
            footer,
            button,
            sections,
        } => {
            check.text("body", body, BODY_CHARS_MAX);
            check.optional("header", header.as_deref(), LINE_CHARS_MAX);
            check.optional("footer", footer.as_deref(), LINE_CHARS_MAX);
            check.text("button", button, 20);
            check.count("sections", sections.len(), 1, 10);
            check.count(
                "sections",
                sections.iter().map(|section| section.rows.len()).sum(),
                1,
                10,
            );
            for (at, section) in sections.iter().enumerate() {
                match &section.title {
                    Some(title) => check.text(&format!("sections/{at}/title"), title, 24),
                    None if sections.len() > 1 => {
                        check.add(
                            &format!("sections/{at}/title"),
                            "is needed when there is more than one section",
                        );
                    }
                    None => {}
                }
                for (row_at, row) in section.rows.iter().enumerate() {
                    let place = format!("sections/{at}/rows/{row_at}");
                    check.text(&format!("{place}/id"), &row.id, 200);
                    check.text(&format!("{place}/title"), &row.title, 24);
                    check.optional(
                        &format!("{place}/description"),
                        row.description.as_deref(),
                        72,
                    );
                }
            }
            let rows = sections.iter().flat_map(|section| &section.rows);
            check.distinct("sections", "id", rows.map(|row| row.id.as_str()));
        }
        Content::Template { name, language, .. } => {
            check.text("name", name, 512);
            check.text("language", language, 20);
        }
    }
    let bytes = serde_json::to_vec(content).map_or(usize::MAX, |json| json.len());
    if bytes > CONTENT_BYTES_MAX {
        check.add(
            "",
            &format!("has {bytes} bytes as JSON; {CONTENT_BYTES_MAX} are allowed"),
        );
    }
    check.0
}

/// Says what is wrong with a recipient; places are below `/to`.
pub fn recipient_mistakes(to: &Recipient) -> Vec<ContentError> {
    let mut mistakes = Vec::new();
    if to.user_id.is_none() && to.phone.is_none() {
        mistakes.push(ContentError::new("/to", "needs `user_id` or `phone`"));
    }
    if to
        .user_id
        .as_deref()
        .is_some_and(|id| !is_printable(id, ID_CHARS_MAX))
    {
        mistakes.push(ContentError::new(
            "/to/user_id",
            format!("needs 1 to {ID_CHARS_MAX} printable characters without spaces"),
        ));
    }
    if to.phone.as_deref().is_some_and(|phone| !is_phone(phone)) {
        mistakes.push(ContentError::new(
            "/to/phone",
            "needs the country code and number in 5 to 15 digits, with or without `+`",
        ));
    }
    mistakes
}

/// Tells whether a text is 1 to `max` printable ASCII characters.
pub fn is_printable(text: &str, max: usize) -> bool {
    !text.is_empty() && text.len() <= max && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_phone(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or(text);
    (5..=15).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0')
}

#[derive(Default)]
struct Check(Vec<ContentError>);

impl Check {
    fn add(&mut self, place: &str, detail: &str) {
        let at = if place.is_empty() {
            "/content".to_owned()
        } else {
            format!("/content/{place}")
        };
        self.0.push(ContentError::new(at, detail));
    }

    fn text(&mut self, place: &str, text: &str, max: usize) {
        if text.trim().is_empty() {
            self.add(place, "must not be empty");
        }
        self.optional(place, Some(text), max);
    }

    fn optional(&mut self, place: &str, text: Option<&str>, max: usize) {
        let Some(length) = text.map(|text| text.chars().count()) else {
            return;
        };
        if length == 0 {
            self.add(place, "is empty; leave it out");
        } else if length > max {
            self.add(
                place,
                &format!("has {length} characters, {max} are allowed"),
            );
        }
    }

    fn count(&mut self, place: &str, count: usize, min: usize, max: usize) {
        if !(min..=max).contains(&count) {
            self.add(
                place,
                &format!("has {count} entries in all, {min} to {max} are allowed"),
            );
        }
    }

    fn distinct<'a>(&mut self, place: &str, what: &str, texts: impl Iterator<Item = &'a str>) {
        let mut seen = std::collections::BTreeSet::new();
        for text in texts.filter(|text| !text.is_empty()) {
            if !seen.insert(text) {
                self.add(
                    place,
                    &format!("the {what} `{text}` is there more than once"),
                );
            }
        }
    }
}

/// What is sent.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Content)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ContentShape {
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
        buttons: Vec<ButtonShape>,
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
        sections: Vec<SectionShape>,
    },
    /// An approved template; the only content that may open a conversation.
    Template {
        /// The template's name.
        name: String,
        /// Its language code, such as `en_US`.
        language: String,
        /// Parameters in the Graph API's own shape.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        components: Vec<serde_json::Value>,
    },
}

/// A reply button.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Button)]
pub struct ButtonShape {
    /// What comes back when it is pressed, up to 256 characters.
    id: String,
    /// What it says, up to 20 characters.
    title: String,
}

/// A section of a list.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Section)]
pub struct SectionShape {
    /// Heading, up to 24 characters; needed when there is more than one section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    /// Its rows.
    rows: Vec<RowShape>,
}

/// A row of a list.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Row)]
pub struct RowShape {
    /// What comes back when it is picked, up to 200 characters.
    id: String,
    /// What it says, up to 24 characters.
    title: String,
    /// More about it, up to 72 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
}

/// Who receives; at least one of the fields is needed.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Recipient)]
pub struct RecipientShape {
    /// Business-scoped user id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    /// Phone number in digits with or without `+`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    phone: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn samples() -> Vec<Value> {
        let row = json!({"id": "r", "title": "R", "description": "D"});
        vec![
            json!({"type": "text", "body": "hi", "preview_url": true}),
            json!({"type": "image", "link": "https://example.com/a.png", "caption": "c"}),
            json!({"type": "image", "id": "17"}),
            json!({"type": "buttons", "body": "b", "header": "h", "footer": "f", "buttons": [{"id": "1", "title": "One"}]}),
            json!({"type": "list", "body": "b", "button": "Open", "sections": [{"title": "S", "rows": [row]}]}),
            json!({"type": "template", "name": "hello", "language": "en_US", "components": [{"type": "body"}]}),
        ]
    }

    fn places(content: Value) -> Vec<String> {
        mistakes(&serde_json::from_value(content).unwrap())
            .into_iter()
            .map(|mistake| mistake.at)
            .collect()
    }

    #[test]
    fn the_documented_shape_is_the_shape_that_is_read() {
        for sample in samples() {
            let content: Content = serde_json::from_value(sample.clone()).unwrap();
            let shape: ContentShape = serde_json::from_value(sample).unwrap();
            assert_eq!(
                serde_json::to_value(&content).unwrap(),
                serde_json::to_value(&shape).unwrap()
            );
            assert_eq!(mistakes(&content), []);
        }
    }

    #[test]
    fn every_limit_is_named_by_its_place() {
        let long = "x".repeat(5000);
        assert_eq!(
            places(json!({"type": "text", "body": long})),
            ["/content/body"]
        );
        assert_eq!(
            places(json!({"type": "text", "body": " "})),
            ["/content/body"]
        );
        assert_eq!(places(json!({"type": "image"})), ["/content"]);
        assert_eq!(
            places(json!({"type": "image", "link": "http://x"})),
            ["/content/link"]
        );
        assert_eq!(
            places(json!({"type": "buttons", "body": "b", "buttons": []})),
            ["/content/buttons"]
        );
        let button = json!({"id": "1", "title": "a title of too many characters"});
        let twice = json!({"type": "buttons", "body": "b", "buttons": [button, button]});
        let buttons = "/content/buttons";
        let expected = [
            "/content/buttons/0/title",
            "/content/buttons/1/title",
            buttons,
            buttons,
        ];
        assert_eq!(places(twice), expected);
        let rows: Vec<_> = (0..11)
            .map(|n| json!({"id": n.to_string(), "title": "t"}))
            .collect();
        let list = json!({"type": "list", "body": "b", "button": "o", "sections": [{"rows": rows}, {"rows": []}]});
        assert_eq!(
            places(list),
            [
                "/content/sections",
                "/content/sections/0/title",
                "/content/sections/1/title"
            ]
        );
    }

    #[test]
    fn no_content_is_larger_than_any_that_meta_takes() {
        let template = |bytes: usize| {
            json!({"type": "template", "name": "t", "language": "en",
                "components": [{"type": "body", "parameters": [{"type": "text", "text": "x".repeat(bytes)}]}]})
        };
        assert!(places(template(50_000)).is_empty());
        assert_eq!(places(template(70_000)), ["/content"]);
    }

    #[test]
    fn a_recipient_needs_one_usable_id() {
        let of = |user_id: Option<&str>, phone: Option<&str>| {
            let to = Recipient {
                user_id: user_id.map(Into::into),
                phone: phone.map(Into::into),
            };
            recipient_mistakes(&to).len()
        };
        assert_eq!(
            (
                of(None, None),
                of(Some("US.1"), None),
                of(None, Some("+4917012345"))
            ),
            (1, 0, 0)
        );
        assert_eq!(
            (of(Some("a b"), Some("0049x")), of(Some(""), Some(""))),
            (2, 2)
        );
    }
}
