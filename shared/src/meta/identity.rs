//! Who wrote a message, and who they were before, where the message tells that their ids changed.
//!
//! `system` messages name the person as they were beside them and as they are inside. Meta has told it in three ways: a new
//! number as `new_wa_id` or `wa_id`, and a new user id as `user_id` with the `previous_user_id`.

use super::SYSTEM;
use super::text::id_at;
use crate::recipient::Recipient;
use crate::spelling;
use serde_json::Value;

/// The author of a message, and the ids they no longer have.
pub(super) fn read(raw: &Value) -> (Recipient, Option<Recipient>) {
    let named = Recipient {
        user_id: id_at(raw, "/from_user_id"),
        phone: id_at(raw, "/from"),
    };
    if id_at(raw, "/type").as_deref() != Some(SYSTEM) {
        return (named, None);
    }
    let now = Recipient {
        user_id: id_at(raw, "/system/user_id").or_else(|| named.user_id.clone()),
        phone: id_at(raw, "/system/new_wa_id")
            .or_else(|| id_at(raw, "/system/wa_id"))
            .or_else(|| named.phone.clone()),
    };
    let user_id = id_at(raw, "/system/previous_user_id").or(named.user_id);
    let user_id = user_id.filter(|user_id| now.user_id.as_ref() != Some(user_id));
    let phone = named.phone.filter(|phone| {
        now.phone
            .as_ref()
            .is_none_or(|now| !spelling::is_same(phone, now))
    });
    let is_changed = user_id.is_some() || phone.is_some();
    (now, is_changed.then_some(Recipient { user_id, phone }))
}

/// Whom a message went to that was sent from the Business app.
pub(super) fn receiver(raw: &Value) -> Recipient {
    Recipient {
        user_id: id_at(raw, "/to_user_id").or_else(|| id_at(raw, "/recipient_user_id")),
        phone: id_at(raw, "/to"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn person(user_id: Option<&str>, phone: Option<&str>) -> Recipient {
        Recipient {
            user_id: user_id.map(str::to_owned),
            phone: phone.map(str::to_owned),
        }
    }

    #[test]
    fn whose_ids_changed_is_named_by_both() {
        let system = |system: Value| {
            read(&json!({"type": "system", "from": "49", "from_user_id": "US.1", "system": system}))
        };
        assert_eq!(
            system(json!({"type": "user_changed_number", "wa_id": "50", "user_id": "US.2"})),
            (
                person(Some("US.2"), Some("50")),
                Some(person(Some("US.1"), Some("49")))
            )
        );
        assert_eq!(
            system(
                json!({"type": "user_changed_user_id", "user_id": "US.2", "previous_user_id": "US.0"})
            ),
            (
                person(Some("US.2"), Some("49")),
                Some(person(Some("US.0"), None))
            )
        );
        assert_eq!(
            system(json!({"wa_id": "49", "new_wa_id": "50"})),
            (
                person(Some("US.1"), Some("50")),
                Some(person(None, Some("49")))
            )
        );
        for nothing in [
            json!({"body": "hello"}),
            json!({"wa_id": "49", "user_id": "US.1"}),
            json!(null),
            json!([7]),
        ] {
            assert_eq!(system(nothing).1, None);
        }
        let spelled =
            json!({"type": "system", "from": "552187654321", "system": {"wa_id": "5521987654321"}});
        assert_eq!(read(&spelled).1, None);
        let text = json!({"type": "text", "from": "49", "system": {"wa_id": "50"}});
        assert_eq!(read(&text), (person(None, Some("49")), None));
    }
}
