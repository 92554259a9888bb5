//! Where an event happened: the conversation, by its key and by the id that the API knows it by, and the number.

use ackline_shared::envelope::Head;
use ackline_shared::ids::{ConversationKey, conversation_id};
use serde::Serialize;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventSource {
    /// Identifies the conversation at its number: `u:` and a user id, `p:` and a phone number, or `g:` and a group.
    pub conversation: String,
    /// Its id in our API, which may call it by another one; absent when Meta names no business number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone_number_id: Option<String>,
}

impl EventSource {
    /// The place of an update or a record; `phone_number_id` is what its own content says.
    pub fn of(head: &Head, phone_number_id: Option<String>) -> Self {
        let phone_number_id =
            phone_number_id.or_else(|| head.phone.as_ref().map(ToString::to_string));
        let is_one = head.conversation != ConversationKey::none();
        let id = phone_number_id.as_deref().filter(|_| is_one);
        Self {
            conversation: head.conversation.as_str().to_owned(),
            conversation_id: id
                .map(|number| conversation_id(head.tenant.as_str(), number, &head.conversation)),
            phone_number_id,
        }
    }
}
