//! What becomes of a piece of work after a verdict; pure.

use super::job::{Trouble, Verdict, Work};
use ackline_engine::verdict::VerdictKind;
use std::time::Duration;

/// What becomes of a piece after a verdict.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing took effect, so nothing is remembered.
    Settle,
    Remember,
    /// It is tried again after a pause.
    PutOff {
        reason: String,
        /// After how long at least, when somebody said so.
        after: Option<Duration>,
    },
    /// It was not tried and waits.
    Hold {
        reason: String,
        after: Duration,
    },
    /// Its target is in trouble.
    Leave(Trouble),
    /// The job said that it is over.
    GiveUp {
        reason: String,
    },
    /// It is over for it was tried or waited long enough.
    Abandon {
        reason: String,
    },
}

impl Fate {
    /// What a verdict means for the work it was given on.
    pub fn of(verdict: Verdict, work: &Work, give_up_after: Duration) -> Self {
        let hours = give_up_after.as_secs_f64() / 3600.0;
        let too_long =
            |reason: &str| format!("gave up, for it waited longer than {hours:.1} h: {reason}");
        match verdict {
            Verdict::Idle => Self::Settle,
            Verdict::Done => Self::Remember,
            Verdict::Retry { reason, .. } if work.overdue => Self::Abandon {
                reason: too_long(&reason),
            },
            Verdict::Retry { reason, .. } if work.last_attempt => Self::Abandon {
                reason: format!("gave up after {} attempts: {reason}", work.attempt),
            },
            Verdict::Retry { reason, after } => Self::PutOff { reason, after },
            Verdict::Trouble(trouble) if work.overdue => Self::Abandon {
                reason: too_long(&trouble.reason),
            },
            Verdict::Trouble(trouble) => Self::Leave(trouble),
            Verdict::Wait { reason, .. } if work.overdue => Self::Abandon {
                reason: too_long(&reason),
            },
            Verdict::Wait { reason, after } => Self::Hold { reason, after },
            Verdict::Dead { reason } => Self::GiveUp { reason },
        }
    }

    pub fn kind(&self) -> VerdictKind {
        match self {
            Self::Settle => VerdictKind::Idle,
            Self::Remember => VerdictKind::Done,
            Self::PutOff { .. } => VerdictKind::Retry,
            Self::Hold { .. } | Self::Leave(_) => VerdictKind::Wait,
            Self::GiveUp { .. } | Self::Abandon { .. } => VerdictKind::Dead,
        }
    }
}
