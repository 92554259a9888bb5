//! A change of `messaging_handovers`: which responder has a conversation from now on.
//!
//! Meta tells the new owner that control was passed to it, and the previous one that it was taken; a release is told
//! nobody. Shape: Meta's webhook reference for the field, September 2026.

use super::text::{id_at, seconds_at, text_at};
use crate::recipient::Recipient;
use serde_json::Value;

/// Longest name of a role that is kept.
const ROLE_CHARS_MAX: usize = 64;

/// One handover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    /// Whether the conversation is ours from now on.
    pub is_gained: bool,
    /// The role that had it.
    pub previous_role: Option<String>,
    /// The role that has it.
    pub new_role: Option<String>,
    /// Whose conversation it is.
    pub person: Recipient,
    /// Unix seconds.
    pub timestamp: Option<u64>,
}

impl Handover {
    pub(super) fn read(value: &Value) -> Option<Self> {
        let (is_gained, control) = match (value.get("control_passed"), value.get("control_taken")) {
            (Some(control), None) => (true, control),
            (None, Some(control)) => (false, control),
            // Neither, or both: nobody can tell who has it.
            _ => return None,
        };
        let role = |pointer| {
            text_at(control, pointer).map(|role| role.chars().take(ROLE_CHARS_MAX).collect())
        };
        Some(Self {
            is_gained,
            previous_role: role("/previous_owner_role"),
            new_role: role("/new_owner_role"),
            person: Recipient {
                user_id: id_at(value, "/sender/user_id"),
                phone: id_at(value, "/sender/phone_number"),
            },
            timestamp: seconds_at(value, "/timestamp"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;
    use serde_json::json;

    fn handover(control: &Value) -> Option<Handover> {
        let mut value = json!({"messaging_product": "whatsapp", "timestamp": "1795000000",
            "sender": {"phone_number": "4915100000001"}, "recipient": {"phone_number_id": "106"}});
        value
            .as_object_mut()
            .unwrap()
            .extend(control.as_object().unwrap().clone());
        let change = json!({"field": "messaging_handovers", "value": value});
        let update = read(
            json!({"entry": [{"id": "W", "changes": [change]}]})
                .to_string()
                .as_bytes(),
        )
        .unwrap();
        assert_eq!(update.phone_number_id.as_deref(), Some("106"));
        assert!(!update.is_ours() && !update.is_standby());
        update.handover()
    }

    #[test]
    fn what_was_passed_is_ours_and_what_was_taken_is_another_responders() {
        let roles = json!({"previous_owner_role": "SUPPORT", "new_owner_role": "SALES"});
        let passed = handover(&json!({"control_passed": roles})).unwrap();
        assert!(passed.is_gained);
        assert_eq!(passed.person.phone.as_deref(), Some("4915100000001"));
        assert_eq!(
            (passed.new_role.as_deref(), passed.timestamp),
            (Some("SALES"), Some(1_795_000_000))
        );
        assert!(
            !handover(&json!({"control_taken": roles}))
                .unwrap()
                .is_gained
        );
        assert_eq!(
            handover(&json!({"control_taken": roles, "control_passed": roles})),
            None
        );
        assert_eq!(handover(&json!({"control_hidden": roles})), None);
    }
}
