//! Who a message is for.

use crate::ids::ConversationKey;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Who receives; at least one of the fields is needed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Recipient {
    /// Business-scoped user id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Phone number in digits with or without `+`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
}

/// Shows which ids are known and none of them: who people are does not belong into logs.
impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recipient")
            .field("user_id", &self.user_id.is_some())
            .field("phone", &self.phone.is_some())
            .finish()
    }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> Recipient {
        Recipient {
            user_id: Some("BR.1".to_owned()),
            phone: Some("+5521987654321".to_owned()),
        }
    }

    #[test]
    fn nobody_is_printed_by_accident() {
        let printed = format!("{:?}", both());
        assert!(
            !printed.contains("987654321") && !printed.contains("BR.1"),
            "{printed}"
        );
    }

    #[test]
    fn every_key_leads_to_the_person_and_the_one_that_orders_is_first() {
        let keys: Vec<String> = both()
            .keys()
            .iter()
            .map(|key| key.as_str().to_owned())
            .collect();
        assert_eq!(keys, ["u:BR.1", "p:552187654321", "p:5521987654321"]);
        assert_eq!(keys[0], both().conversation().as_str());
        assert!(Recipient::default().keys().is_empty());
    }
}
