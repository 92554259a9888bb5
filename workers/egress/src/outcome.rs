//! What came of asking a target, and what follows from it for the update.

use super::request::{EgressAnswer, EgressError};
use ackline_engine::verdict::{Trouble, TroubleKind, Verdict};
use std::time::SystemTime;

/// What came of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Not now, and not because of the target.
    Retry {
        /// In words, without the target's name.
        reason: String,
    },
    /// The target is in trouble.
    Trouble(Trouble),
    Final {
        /// In words, without the target's name.
        reason: String,
    },
}

impl Outcome {
    /// A retry at the pool's own pace.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry {
            reason: reason.into(),
        }
    }

    /// Trouble that the answer speaks of.
    pub fn trouble(answer: &EgressAnswer) -> Self {
        let reason = format!("answered {}", answer.status.as_u16());
        let after = answer.retry_after(SystemTime::now());
        let kind = match answer.status.as_u16() {
            429 | 503 if after.is_some() => TroubleKind::Busy,
            _ => TroubleKind::Down,
        };
        let (breaker, after_sending, is_unanswered) = (0, true, false);
        Self::Trouble(Trouble {
            reason,
            breaker,
            kind,
            after,
            after_sending,
            is_unanswered,
        })
    }

    /// An answer that broke off: the target may not have taken the work.
    pub fn broke_off(answer: &EgressAnswer) -> Self {
        let reason = format!("answered {} and broke off", answer.status.as_u16());
        let (breaker, kind, after, after_sending, is_unanswered) =
            (0, TroubleKind::Down, None, true, true);
        Self::Trouble(Trouble {
            reason,
            breaker,
            kind,
            after,
            after_sending,
            is_unanswered,
        })
    }

    /// The verdict on the update, with the target named.
    pub fn verdict(self, noun: &str, name: &str) -> Verdict {
        let named = |reason: String| format!("{noun} {name}: {reason}");
        match self {
            Self::Done => Verdict::Done,
            Self::Retry { reason } => Verdict::Retry {
                reason: named(reason),
                after: None,
            },
            Self::Trouble(trouble) => Verdict::Trouble(Trouble {
                reason: named(trouble.reason.clone()),
                ..trouble
            }),
            Self::Final { reason } => Verdict::Dead {
                reason: named(reason),
            },
        }
    }
}

impl From<EgressError> for Outcome {
    fn from(error: EgressError) -> Self {
        let reason = error.to_string();
        let (kind, after_sending) = match error {
            EgressError::Timeout => (TroubleKind::TimedOut, true),
            EgressError::Broken => (TroubleKind::Down, true),
            // An address that may not be reached is the target's trouble, too: names change.
            EgressError::Refused(_) | EgressError::Connect { .. } => (TroubleKind::Down, false),
        };
        let (breaker, after, is_unanswered) = (0, None, true);
        Self::Trouble(Trouble {
            reason,
            breaker,
            kind,
            after,
            after_sending,
            is_unanswered,
        })
    }
}
