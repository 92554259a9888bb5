//! What came of an attempt, as whoever made it says; pure.

use std::time::Duration;

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The effect took place; it is remembered and never repeated.
    Done,
    /// There was nothing to do here for this update.
    Idle,
    /// Not now, for reasons that are the update's own; uses up an attempt.
    Retry {
        /// In words, without personal data.
        reason: String,
        /// The least to wait, when the other side said so.
        after: Option<Duration>,
    },
    /// Not now, for the target is in trouble; uses up no attempt.
    Trouble(Trouble),
    /// Nothing was tried; uses up no attempt.
    Wait {
        /// In words, without personal data.
        reason: String,
        after: Duration,
    },
    /// Never; goes to the dead letters with the reason.
    Dead {
        /// In words, without personal data.
        reason: String,
    },
}

/// Why a target could not take an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// In words, without personal data and without the target's name.
    pub reason: String,
    /// Which of the target's breakers is to blame.
    pub breaker: usize,
    pub kind: TroubleKind,
    /// The least to wait, when the other side said so.
    pub after: Option<Duration>,
    /// Whether the request had been sent.
    pub after_sending: bool,
    /// Whether no answer came, or half of one.
    pub is_unanswered: bool,
}

/// What kind of trouble a target is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TroubleKind {
    /// It could not be reached, broke, or answered that it does not work.
    Down,
    /// It did not answer in time: it may have taken the update.
    TimedOut,
    /// It asked everybody to stay away for a while.
    Busy,
}

impl Trouble {
    /// A target that does not work.
    pub fn down(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            breaker: 0,
            kind: TroubleKind::Down,
            after: None,
            after_sending: false,
            is_unanswered: true,
        }
    }

    /// A target that did not answer in time.
    pub fn timed_out(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            breaker: 0,
            kind: TroubleKind::TimedOut,
            after: None,
            after_sending: true,
            is_unanswered: true,
        }
    }

    /// Whether the connection broke, or the answer did, after the request had been sent.
    pub fn is_broken(&self) -> bool {
        self.is_unanswered && self.after_sending
    }

    /// Whether the target had the update before the trouble, so that the update may be its cause.
    pub fn had_it(&self) -> bool {
        self.after_sending && self.kind != TroubleKind::Busy
    }
}

/// A verdict without its words, as it is counted and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VerdictKind {
    Done,
    /// There was nothing to do.
    Idle,
    Retry,
    /// It waits, for a target or its turn.
    Wait,
    Dead,
    /// An operator had it discarded.
    Discarded,
}

impl VerdictKind {
    /// Its name in metrics, traces and `tail`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Idle => "idle",
            Self::Retry => "retry",
            Self::Wait => "wait",
            Self::Dead => "dead",
            Self::Discarded => "discarded",
        }
    }
}

impl Verdict {
    /// The verdict without its words.
    pub fn kind(&self) -> VerdictKind {
        match self {
            Self::Done => VerdictKind::Done,
            Self::Idle => VerdictKind::Idle,
            Self::Retry { .. } => VerdictKind::Retry,
            Self::Wait { .. } | Self::Trouble(_) => VerdictKind::Wait,
            Self::Dead { .. } => VerdictKind::Dead,
        }
    }

    /// Why it was not done, where there is a reason.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Done | Self::Idle => None,
            Self::Retry { reason, .. } | Self::Wait { reason, .. } | Self::Dead { reason } => {
                Some(reason)
            }
            Self::Trouble(trouble) => Some(&trouble.reason),
        }
    }

    /// A retry at the pool's own pace.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry {
            reason: reason.into(),
            after: None,
        }
    }

    pub fn dead(reason: impl Into<String>) -> Self {
        Self::Dead {
            reason: reason.into(),
        }
    }
}
