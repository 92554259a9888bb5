//! A send command: what OUTBOUND carries from flows, the API and the CRM to the replies pool.
//!
//! The content is ours and neutral; only the replies pool turns it into a Graph API body.

use crate::envelope::{Family, Head};
use crate::ids::{ConversationKey, PhoneNumberId, TenantId, UpdateId};
use crate::partition;
use crate::stored::Stored;
use crate::subjects::Lane;
use serde::{Deserialize, Serialize};

/// One message to send to one recipient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SendCommand {
    /// Our id of the message: dedupe id, `biz_opaque_callback_data` and API id in one; at most 128 ASCII characters.
    pub id: String,
    /// Whose message it is.
    pub tenant: TenantId,
    /// The business number that sends.
    pub phone_number_id: PhoneNumberId,
    /// Who receives.
    pub to: Recipient,
    /// What is sent.
    pub content: Content,
    /// The wamid of the message this one answers, shown as a quote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// Who asked for it.
    pub origin: Origin,
    /// When it was asked for, in unix milliseconds.
    pub created_ms: u64,
}

impl Stored for SendCommand {}

impl SendCommand {
    /// The head the command is published with; the sending number decides the partition.
    pub fn head(&self, lane: Lane, partitions: u16) -> Head {
        Head {
            id: UpdateId::new(&self.id),
            tenant: self.tenant.clone(),
            partition: partition::of_phone(self.phone_number_id.as_str(), partitions),
            family: Family::Command(lane),
            kind: format!("send.{}", self.content.kind()),
            app: None,
            phone: Some(self.phone_number_id.clone()),
            conversation: self.to.conversation(),
            received_ms: self.created_ms,
            signature: None,
            traceparent: None,
            field: None,
            replay: None,
        }
    }
}

/// What the ids of our messages begin with: from the API, from flows, from the CRM.
const ID_TAGS: [&str; 3] = ["api_", "msg_", "crm-"];

/// Whether a text may be an id of ours; what other programs send along with their messages is none.
pub fn is_id(text: &str) -> bool {
    ID_TAGS.iter().any(|tag| text.starts_with(tag))
}

/// Who receives; at least one of the fields is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Recipient {
    /// Business-scoped user id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Phone number in digits with or without `+`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
}

impl Recipient {
    /// The ordering key: BSUID first, phone second.
    pub fn conversation(&self) -> ConversationKey {
        match (&self.user_id, &self.phone) {
            (Some(user), _) => ConversationKey::user(user),
            (None, Some(phone)) => ConversationKey::phone(phone),
            (None, None) => ConversationKey::none(),
        }
    }
}

/// Who asked for a send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Origin {
    /// A flow, in answer to an update.
    Flow {
        /// The flow's id.
        flow: String,
        /// The update that led to it.
        update: String,
    },
    /// A developer, by the REST API.
    Api {
        /// The key's id.
        key: String,
        /// A hash of the request, by which its repeat is told from another with the same Idempotency-Key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<String>,
    },
    /// A person, in the CRM.
    Agent {
        /// The CRM link's id.
        link: String,
        /// The CRM's message id.
        message: String,
    },
}

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
        components: Vec<serde_json::Value>,
    },
}

impl Content {
    /// The type's name, as in the Graph API's documentation.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text { .. } => "text",
            Self::Image { .. } => "image",
            Self::Buttons { .. } => "buttons",
            Self::List { .. } => "list",
            Self::Template { .. } => "template",
        }
    }

    /// What a person reads of it in one line of a transcript.
    pub fn summary(&self) -> &str {
        match self {
            Self::Text { body, .. } | Self::Buttons { body, .. } | Self::List { body, .. } => body,
            Self::Image { caption, .. } => caption.as_deref().unwrap_or("[image]"),
            Self::Template { name, .. } => name,
        }
    }
}

/// A reply button.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Button {
    /// What comes back when it is pressed, up to 256 characters.
    pub id: String,
    /// What it says, up to 20 characters.
    pub title: String,
}

/// A section of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Section {
    /// Heading, up to 24 characters; needed when there is more than one section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Its rows.
    pub rows: Vec<Row>,
}

/// A row of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Row {
    /// What comes back when it is picked, up to 200 characters.
    pub id: String,
    /// What it says, up to 24 characters.
    pub title: String,
    /// More about it, up to 72 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}
