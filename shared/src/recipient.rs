//! Who a message is for.

use crate::ids::ConversationKey;
use serde::{Deserialize, Serialize};

/// Who receives; at least one of the fields is needed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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

    /// Every key that may lead to the person, the one that orders first; what an earlier version spelled otherwise comes last.
    pub fn keys(&self) -> Vec<ConversationKey> {
        let user = self.user_id.as_deref().map(ConversationKey::user);
        let phone = self.phone.as_deref().map(ConversationKey::phone);
        let earlier = phone.iter().flat_map(ConversationKey::earlier);
        let earlier: Vec<_> = earlier.collect();
        user.into_iter().chain(phone).chain(earlier).collect()
    }

    /// The same person with the ids that are known besides.
    pub fn with(self, besides: &Self) -> Self {
        Self {
            user_id: self.user_id.or_else(|| besides.user_id.clone()),
            phone: self.phone.or_else(|| besides.phone.clone()),
        }
    }
}
