//! Who a message is for.

use crate::ids::ConversationKey;
use serde::{Deserialize, Serialize};

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
