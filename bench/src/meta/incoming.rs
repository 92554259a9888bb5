//! What a person sends to a business, as a test describes it, and its content in Meta's shape.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

/// One message from a person; in JSON the content's fields lie beside the others.
#[derive(Debug, Clone, PartialEq)]
pub struct IncomingMessage {
    pub sender: Sender,
    pub content: Content,
}

/// Who sends a message and which of the envelope's fields are set by hand.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sender {
    /// Phone number; without it the message carries only the user id.
    pub from: Option<String>,
    /// Business-scoped user id; derived from the phone number when absent.
    pub user_id: Option<String>,
    pub name: Option<String>,
    /// Leaves the phone number out of this person's webhooks from now on, although `from` names it.
    pub hide_phone: Option<bool>,
    /// The number written to; the simulator's first one when absent.
    pub phone_number_id: Option<String>,
    /// The message's id; a fresh one when absent.
    pub wamid: Option<String>,
    /// Unix seconds; now when absent.
    pub timestamp: Option<u64>,
    /// The id of the message this one answers.
    pub context: Option<String>,
}

const SENDER_FIELDS: [&str; 8] = [
    "from",
    "user_id",
    "name",
    "hide_phone",
    "phone_number_id",
    "wamid",
    "timestamp",
    "context",
];

/// The content of a message.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Content {
    Text {
        text: String,
    },
    /// An image that can be downloaded from the simulator.
    Image {
        caption: Option<String>,
        /// Media uploaded before; a built-in picture when absent.
        media_id: Option<String>,
    },
    ButtonReply {
        reply_id: String,
        title: String,
    },
    /// A picked row of a list.
    ListReply {
        reply_id: String,
        title: String,
        description: Option<String>,
    },
    /// A pressed quick-reply button of a template.
    Button {
        payload: String,
        text: String,
    },
    Location {
        latitude: f64,
        longitude: f64,
        /// What the place is called.
        place: Option<String>,
        address: Option<String>,
    },
    /// A reaction to a message; without an emoji it takes the reaction back.
    Reaction {
        message_id: String,
        emoji: Option<String>,
    },
    /// Any other type, with the content as it shall appear under the type's name.
    #[serde(skip)]
    Other {
        kind: String,
        /// The content, absent for types that have none.
        content: Option<Value>,
    },
}

/// The picture an image message shows, as Meta describes it.
#[derive(Debug, Clone)]
pub struct Picture {
    pub id: String,
    pub mime_type: String,
    pub sha256: String,
    /// Where it can be fetched.
    pub url: String,
}

impl IncomingMessage {
    /// A text from a phone number.
    pub fn text(from: &str, text: &str) -> Self {
        Self::new(
            from,
            Content::Text {
                text: text.to_owned(),
            },
        )
    }

    /// Any content from a phone number.
    pub fn new(from: &str, content: Content) -> Self {
        Self {
            sender: Sender {
                from: Some(from.to_owned()),
                ..Sender::default()
            },
            content,
        }
    }

    /// A text from a person known only by business-scoped user id.
    pub fn text_without_phone(user_id: &str, text: &str) -> Self {
        let sender = Sender {
            user_id: Some(user_id.to_owned()),
            ..Sender::default()
        };
        Self {
            sender,
            content: Content::Text {
                text: text.to_owned(),
            },
        }
    }

    /// The same message written to another number.
    #[must_use]
    pub fn to_number(mut self, phone_number_id: &str) -> Self {
        self.sender.phone_number_id = Some(phone_number_id.to_owned());
        self
    }
}

impl<'de> Deserialize<'de> for IncomingMessage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        let sender = take(&mut fields, &SENDER_FIELDS).map_err(D::Error::custom)?;
        let content = Content::from_fields(fields).map_err(D::Error::custom)?;
        Ok(Self { sender, content })
    }
}

/// Moves the named fields out of an object and reads them as one value.
pub fn take<T: DeserializeOwned>(
    fields: &mut Map<String, Value>,
    names: &[&str],
) -> Result<T, serde_json::Error> {
    let taken = names
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), fields.shift_remove(*name)?)));
    serde_json::from_value(Value::Object(taken.collect()))
}

impl Content {
    fn from_fields(mut fields: Map<String, Value>) -> Result<Self, serde_json::Error> {
        const OWN: [&str; 7] = [
            "text",
            "image",
            "button_reply",
            "list_reply",
            "button",
            "location",
            "reaction",
        ];
        let kind = fields
            .entry("type")
            .or_insert_with(|| json!("text"))
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if OWN.contains(&kind.as_str()) && !fields.contains_key("content") {
            return serde_json::from_value(Value::Object(fields));
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            #[serde(rename = "type")]
            kind: String,
            content: Option<Value>,
        }
        let Raw { kind, content } = serde_json::from_value(Value::Object(fields))?;
        Ok(Self::Other { kind, content })
    }

    /// The type's name in Meta's payload.
    pub fn kind(&self) -> &str {
        match self {
            Self::Text { .. } => "text",
            Self::Image { .. } => "image",
            Self::ButtonReply { .. } | Self::ListReply { .. } => "interactive",
            Self::Button { .. } => "button",
            Self::Location { .. } => "location",
            Self::Reaction { .. } => "reaction",
            Self::Other { kind, .. } => kind,
        }
    }

    /// The media id an image refers to, when it names one.
    pub fn media_id(&self) -> Option<&str> {
        match self {
            Self::Image { media_id, .. } => media_id.as_deref(),
            _ => None,
        }
    }

    /// What a reader of a transcript sees of it in one line.
    pub fn summary(&self) -> String {
        match self {
            Self::Text { text } | Self::Button { text, .. } => text.clone(),
            Self::ButtonReply { title, .. } | Self::ListReply { title, .. } => title.clone(),
            Self::Image { caption, .. } => caption.clone().unwrap_or_else(|| "[image]".to_owned()),
            Self::Reaction { emoji, .. } => emoji
                .clone()
                .unwrap_or_else(|| "[reaction removed]".to_owned()),
            Self::Location { .. } | Self::Other { .. } => format!("[{}]", self.kind()),
        }
    }

    /// The object under the type's name in Meta's payload.
    pub fn payload(&self, picture: &Picture) -> Option<Value> {
        Some(match self {
            Self::Text { text } => json!({"body": text}),
            Self::Image { caption, .. } => without_nulls(json!({
                "caption": caption, "mime_type": picture.mime_type, "sha256": picture.sha256,
                "id": picture.id, "url": picture.url,
            })),
            Self::ButtonReply { reply_id, title } => {
                json!({"type": "button_reply", "button_reply": {"id": reply_id, "title": title}})
            }
            Self::ListReply {
                reply_id,
                title,
                description,
            } => json!({
                "type": "list_reply",
                "list_reply": without_nulls(json!({"id": reply_id, "title": title, "description": description})),
            }),
            Self::Button { payload, text } => json!({"payload": payload, "text": text}),
            Self::Location {
                latitude,
                longitude,
                place,
                address,
            } => without_nulls(json!({
                "latitude": latitude, "longitude": longitude, "name": place, "address": address,
            })),
            Self::Reaction { message_id, emoji } => {
                without_nulls(json!({"message_id": message_id, "emoji": emoji}))
            }
            Self::Other { content, .. } => return content.clone(),
        })
    }
}

/// Drops the null members of an object: Meta omits what is absent.
pub fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, member| !member.is_null());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: Value) -> Result<IncomingMessage, serde_json::Error> {
        serde_json::from_value(json)
    }

    #[test]
    fn a_message_is_described_flat_and_text_is_the_default() {
        let message = read(json!({"from": "15551", "name": "Ada", "text": "hi"})).unwrap();
        assert_eq!(message.sender.name.as_deref(), Some("Ada"));
        assert_eq!(message.content, Content::Text { text: "hi".into() });
    }

    #[test]
    fn an_unknown_type_keeps_its_content() {
        let message =
            read(json!({"from": "1", "type": "order", "content": {"catalog_id": "7"}})).unwrap();
        assert_eq!(message.content.kind(), "order");
        let bare = read(json!({"from": "1", "type": "hologram"})).unwrap();
        assert_eq!(
            bare.content,
            Content::Other {
                kind: "hologram".into(),
                content: None
            }
        );
    }

    #[test]
    fn each_type_has_metas_shape() {
        let picture = Picture {
            id: "7".into(),
            mime_type: "image/png".into(),
            sha256: "s".into(),
            url: "http://u".into(),
        };
        let cases = [
            (
                json!({"type": "text", "text": "hi"}),
                "text",
                json!({"body": "hi"}),
            ),
            (
                json!({"type": "image", "caption": "c"}),
                "image",
                json!({"caption": "c", "mime_type": "image/png", "sha256": "s", "id": "7", "url": "http://u"}),
            ),
            (
                json!({"type": "button_reply", "reply_id": "y", "title": "Yes"}),
                "interactive",
                json!({"type": "button_reply", "button_reply": {"id": "y", "title": "Yes"}}),
            ),
            (
                json!({"type": "list_reply", "reply_id": "r", "title": "Row"}),
                "interactive",
                json!({"type": "list_reply", "list_reply": {"id": "r", "title": "Row"}}),
            ),
            (
                json!({"type": "button", "payload": "p", "text": "t"}),
                "button",
                json!({"payload": "p", "text": "t"}),
            ),
            (
                json!({"type": "location", "latitude": 1.5, "longitude": -2.0, "place": "Here"}),
                "location",
                json!({"latitude": 1.5, "longitude": -2.0, "name": "Here"}),
            ),
            (
                json!({"type": "reaction", "message_id": "wamid.1"}),
                "reaction",
                json!({"message_id": "wamid.1"}),
            ),
        ];
        for (mut described, kind, payload) in cases {
            described["user_id"] = json!("US.1");
            let content = read(described).unwrap().content;
            assert_eq!(
                (content.kind(), content.payload(&picture)),
                (kind, Some(payload))
            );
        }
    }

    #[test]
    fn a_misspelled_field_is_refused() {
        assert!(read(json!({"from": "1", "txt": "hi"})).is_err());
        assert!(
            read(json!({"from": "1", "type": "button_reply", "id": "a", "title": "A"})).is_err()
        );
    }
}
