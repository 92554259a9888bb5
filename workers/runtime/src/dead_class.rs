//! Why something was given up, in one of few words: what metrics count by, and what lists and the doctor show.
//!
//! The class of a letter follows from its reason, so whoever reads a stored letter says what its pool counted. The
//! words that the engine begins a reason with stand here, beside the class they mean.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How the reason begins of what used up its attempts.
pub const GAVE_UP: &str = "gave up after";
/// How the reason begins of what waited as long as it may.
pub const OVERDUE: &str = "gave up, for it waited longer than";
/// How the reason begins of what an operator discarded.
pub const DISCARDED: &str = "discarded by";
/// How the reason begins of what made its job panic.
pub const PANICKED: &str = "the job panicked on this update";
/// What the reason holds of an update that several processes ended with.
pub const TAKEN_OVER: &str = "processes took this update over and ended";
/// What the reason holds of an effect that may have taken place.
const LOST: &str = "answer was lost";

/// What reasons hold of something that no pool can read.
const UNREADABLE: [&str; 8] = [
    "the subject `",
    "is missing or unreadable",
    "cannot be read:",
    "this is not a send command",
    "not a record:",
    "not the outcome of a call",
    "the payload is not JSON",
    "the payload has no entry",
];
/// What reasons hold of something that a target refused for good.
const REFUSED: [&str; 4] = [
    "answered 4",
    "refused",
    "is gone (410)",
    "not allowed to this destination",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadClass {
    /// A target, or Meta, will never take it.
    Refused,
    /// It waited as long as it may.
    Overdue,
    /// Its attempts are used up.
    GaveUp,
    Panicked,
    /// Processes that took it over ended with it.
    TakenOver,
    /// No pool can read it.
    Unreadable,
    Discarded,
    /// Its effect may have taken place.
    Ambiguous,
    /// Something else: a mistake in the configuration, most likely.
    Other,
}

impl DeadClass {
    pub const ALL: [Self; 9] = [
        Self::Refused,
        Self::Overdue,
        Self::GaveUp,
        Self::Panicked,
        Self::TakenOver,
        Self::Unreadable,
        Self::Discarded,
        Self::Ambiguous,
        Self::Other,
    ];

    /// The class of a reason.
    pub fn of(reason: &str) -> Self {
        let holds = |parts: &[&str]| parts.iter().any(|part| reason.contains(part));
        match reason {
            reason if reason.starts_with(GAVE_UP) => Self::GaveUp,
            reason if reason.starts_with(OVERDUE) => Self::Overdue,
            reason if reason.starts_with(DISCARDED) => Self::Discarded,
            reason if reason.starts_with(PANICKED) => Self::Panicked,
            reason if reason.contains(TAKEN_OVER) => Self::TakenOver,
            reason if reason.contains(LOST) => Self::Ambiguous,
            _ if holds(&UNREADABLE) => Self::Unreadable,
            _ if holds(&REFUSED) => Self::Refused,
            _ => Self::Other,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Overdue => "overdue",
            Self::GaveUp => "gave_up",
            Self::Panicked => "panicked",
            Self::TakenOver => "taken_over",
            Self::Unreadable => "unreadable",
            Self::Discarded => "discarded",
            Self::Ambiguous => "ambiguous",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for DeadClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::envelope::EnvelopeError;
    use ackline_shared::subjects::header;
    use ackline_whatsapp::verdict::Failure;

    #[test]
    fn every_reason_that_is_stored_has_its_class() {
        for (reason, class) in [
            (
                "gave up after 6 attempts: relay a: answered 404",
                DeadClass::GaveUp,
            ),
            (
                "gave up, for it waited longer than 72.0 h: relay a: the destination cannot be reached",
                DeadClass::Overdue,
            ),
            ("discarded by cli:jo", DeadClass::Discarded),
            (
                "the job panicked on this update; the log of the worker has the place",
                DeadClass::Panicked,
            ),
            (
                "3 processes took this update over and ended while they worked on it",
                DeadClass::TakenOver,
            ),
            (
                &Failure::lost("it took too long").reason,
                DeadClass::Ambiguous,
            ),
            (
                &EnvelopeError::Header(header::KIND).to_string(),
                DeadClass::Unreadable,
            ),
            (
                &EnvelopeError::Subject("in.x".into()).to_string(),
                DeadClass::Unreadable,
            ),
            (
                "this is not a send command: expected value",
                DeadClass::Unreadable,
            ),
            (
                "the payload is not JSON: expected value",
                DeadClass::Unreadable,
            ),
            (
                "the update cannot be read: no message",
                DeadClass::Unreadable,
            ),
            (
                "relay a: answered 400; relay b: answered 422",
                DeadClass::Refused,
            ),
            (
                "Meta refused it (131047, HTTP 400): the window is closed",
                DeadClass::Refused,
            ),
            ("endpoint a: endpoint is gone (410)", DeadClass::Refused),
            (
                "crm link a: Chatwoot answered 422 to a message",
                DeadClass::Refused,
            ),
            (
                "the phone number 1 has no access token; set its access_token",
                DeadClass::Other,
            ),
            ("", DeadClass::Other),
        ] {
            assert_eq!(DeadClass::of(reason), class, "{reason}");
        }
    }

    #[test]
    fn names_are_those_that_travel() {
        for class in DeadClass::ALL {
            let name = serde_json::to_value(class).unwrap();
            assert_eq!(name, class.as_str());
        }
    }
}
