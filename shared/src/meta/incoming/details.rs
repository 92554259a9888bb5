//! What a message holds besides text and media, by its kind.

use super::super::text::{id_at, shown_at, text_at};
use super::{Card, OrderItem, card, form, order};
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt;

/// Errors that are told of a message.
const PROBLEMS_MAX: usize = 10;

/// What a message holds; text and media stand beside it.
#[derive(Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = MessageDetails))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Details {
    /// A button of a template was pressed.
    Button {
        /// What it says.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// What it carries.
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<String>,
    },
    /// A reply button was pressed.
    ButtonReply {
        /// Its id.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// What it says.
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<String>,
    },
    /// A row of a list was picked.
    ListReply {
        /// Its id.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// What it says.
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<String>,
        /// What it says below.
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<String>,
    },
    /// A form (WhatsApp Flow) or an address was filled in.
    Form {
        /// What it was: `flow` or `address_message`.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// What WhatsApp shows of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        body: Option<String>,
        /// The fields as they were filled in, by name.
        fields: Map<String, Value>,
        /// What Meta sent in their place, where that is no object.
        #[serde(skip_serializing_if = "Option::is_none")]
        response: Option<String>,
    },
    /// Whether the business may call.
    CallPermission {
        /// `accept` or `reject`.
        #[serde(skip_serializing_if = "Option::is_none")]
        response: Option<String>,
        /// `user_action` or `automatic`.
        #[serde(skip_serializing_if = "Option::is_none")]
        response_source: Option<String>,
        /// Until when, in unix seconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        expires: Option<String>,
    },
    /// A place.
    Location {
        /// Degrees north.
        #[serde(skip_serializing_if = "Option::is_none")]
        latitude: Option<f64>,
        /// Degrees east.
        #[serde(skip_serializing_if = "Option::is_none")]
        longitude: Option<f64>,
        /// What it is called.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Where it is, in words.
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<String>,
        /// Its page.
        #[serde(skip_serializing_if = "Option::is_none")]
        url: Option<String>,
    },
    /// Contact cards.
    Contacts {
        /// Each of them.
        contacts: Vec<Card>,
    },
    /// Products of a catalog were ordered.
    Order {
        /// The catalog.
        #[serde(skip_serializing_if = "Option::is_none")]
        catalog_id: Option<String>,
        /// What the person wrote along with it.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// What was ordered.
        items: Vec<OrderItem>,
    },
    /// A reaction to a message, or its removal.
    Reaction {
        /// Meta's id of that message.
        #[serde(skip_serializing_if = "Option::is_none")]
        message_id: Option<String>,
        /// The emoji; absent when the reaction was taken back.
        #[serde(skip_serializing_if = "Option::is_none")]
        emoji: Option<String>,
        /// Whether the reaction was taken back.
        removed: bool,
    },
    /// A message was edited; what it says now is the text.
    Edit {
        /// Meta's id of that message.
        #[serde(skip_serializing_if = "Option::is_none")]
        message_id: Option<String>,
    },
    /// A message was deleted for everybody.
    Revoke {
        /// Meta's id of that message.
        #[serde(skip_serializing_if = "Option::is_none")]
        message_id: Option<String>,
    },
    /// Meta tells something of the person, such as another number.
    System {
        /// What: `user_changed_number`, `user_changed_user_id`, or something new.
        #[serde(skip_serializing_if = "Option::is_none")]
        event: Option<String>,
        /// In words.
        #[serde(skip_serializing_if = "Option::is_none")]
        body: Option<String>,
        /// The person's user id from now on.
        #[serde(skip_serializing_if = "Option::is_none")]
        user_id: Option<String>,
        /// The person's user id until now.
        #[serde(skip_serializing_if = "Option::is_none")]
        previous_user_id: Option<String>,
        /// The person's phone number from now on.
        #[serde(skip_serializing_if = "Option::is_none")]
        phone: Option<String>,
    },
    /// The person opened the chat for the first time.
    RequestWelcome {},
    /// WhatsApp has it and passes on no more than that.
    Unsupported {
        /// What it is, such as `poll`.
        #[serde(skip_serializing_if = "Option::is_none")]
        what: Option<String>,
        /// Why it is not passed on.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        errors: Vec<MessageFault>,
    },
    /// A kind that is not known here; what Meta sent is the API's `content`.
    Unknown,
}

/// An error of Meta's about a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MessageFault {
    /// Meta's code.
    pub code: i64,
    /// In words.
    pub message: String,
}

/// Shows nothing: what people say does not belong into logs.
impl fmt::Debug for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Details").finish_non_exhaustive()
    }
}

impl Details {
    /// Reads them out of a message and of what is its kind's.
    pub(super) fn read(kind: &str, raw: &Value, own: &Value) -> Option<Self> {
        let shown = |pointer| shown_at(own, pointer);
        let degrees = |name: &str| own.get(name).and_then(Value::as_f64);
        Some(match kind {
            "text" | "image" | "audio" | "video" | "document" | "sticker" => return None,
            "button" => Self::Button {
                text: shown("/text"),
                payload: text_at(own, "/payload"),
            },
            "interactive" => return Some(Self::reply(own)),
            "location" => Self::Location {
                latitude: degrees("latitude"),
                longitude: degrees("longitude"),
                name: shown("/name"),
                address: shown("/address"),
                url: shown("/url"),
            },
            "contacts" => Self::Contacts {
                contacts: card::read(own),
            },
            "order" => Self::Order {
                catalog_id: id_at(own, "/catalog_id"),
                text: shown("/text"),
                items: order::items(own),
            },
            "reaction" => {
                let emoji = shown("/emoji");
                Self::Reaction {
                    message_id: id_at(own, "/message_id"),
                    removed: emoji.is_none(),
                    emoji,
                }
            }
            "edit" => Self::Edit {
                message_id: original(own),
            },
            "revoke" => Self::Revoke {
                message_id: original(own),
            },
            super::super::SYSTEM => Self::System {
                event: text_at(own, "/type"),
                body: shown("/body"),
                user_id: id_at(own, "/user_id"),
                previous_user_id: id_at(own, "/previous_user_id"),
                phone: id_at(own, "/new_wa_id").or_else(|| id_at(own, "/wa_id")),
            },
            "request_welcome" => Self::RequestWelcome {},
            "unsupported" | "unknown" => Self::Unsupported {
                what: id_at(raw, "/unsupported/type"),
                errors: problems(raw),
            },
            _ => Self::Unknown,
        })
    }

    /// What was pressed, picked or filled in: by the member that is there, for what names it may be missing.
    fn reply(own: &Value) -> Self {
        let shown = |pointer| shown_at(own, pointer);
        if own.get("button_reply").is_some() {
            Self::ButtonReply {
                id: text_at(own, "/button_reply/id"),
                title: shown("/button_reply/title"),
            }
        } else if own.get("list_reply").is_some() {
            Self::ListReply {
                id: text_at(own, "/list_reply/id"),
                title: shown("/list_reply/title"),
                description: shown("/list_reply/description"),
            }
        } else if let Some(reply) = own.get("nfm_reply") {
            form::read(reply)
        } else if own.get("call_permission_reply").is_some() {
            Self::CallPermission {
                response: text_at(own, "/call_permission_reply/response"),
                response_source: text_at(own, "/call_permission_reply/response_source"),
                expires: id_at(own, "/call_permission_reply/expiration_timestamp"),
            }
        } else {
            Self::Unknown
        }
    }
}

fn original(own: &Value) -> Option<String> {
    id_at(own, "/original_message_id").or_else(|| id_at(own, "/message_id"))
}

fn problems(raw: &Value) -> Vec<MessageFault> {
    let errors = raw.get("errors").and_then(Value::as_array);
    let read = errors
        .into_iter()
        .flatten()
        .filter_map(super::super::MetaError::read);
    read.take(PROBLEMS_MAX)
        .map(|error| MessageFault {
            code: error.code,
            message: error.text,
        })
        .collect()
}
