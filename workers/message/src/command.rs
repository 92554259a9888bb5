//! A send command: what OUTBOUND carries from flows, the API and the CRM to the replies pool.
//!
//! The content is ours and neutral; only the replies pool turns it into a Graph API body.

use crate::{Content, Recipient};
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{PhoneNumberId, TenantId, UpdateId};
use ackline_shared::partition;
use ackline_shared::stored::Stored;
use ackline_shared::subjects::Lane;
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
