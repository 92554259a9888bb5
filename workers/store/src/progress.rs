//! How far a message has come: a status that only moves forward, whatever order its news arrive in.
//!
//! Statuses have one total order and the greatest seen one holds, so any order and any repetition of the
//! same news ends in the same place. A failure outranks `sent`, and proof of delivery outranks a failure.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How far a message has come, in the order that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It came in; nothing follows.
    Received,
    /// It waits to be sent.
    Queued,
    /// Meta's answer was lost; a later status resolves it.
    Unknown,
    /// Meta took it.
    Accepted,
    /// Meta sent it on.
    Sent,
    /// It was given up, by us or by Meta.
    Failed,
    /// It reached a device.
    Delivered,
    /// It was read.
    Read,
    /// It was listened to.
    Played,
}

impl Status {
    /// Reads a status of Meta's; `None` for one that says nothing about progress.
    pub fn of_meta(text: &str) -> Option<Self> {
        match text {
            "sent" => Some(Self::Sent),
            "delivered" => Some(Self::Delivered),
            "read" => Some(Self::Read),
            "played" => Some(Self::Played),
            "failed" => Some(Self::Failed),
            _ => None,
        }
    }

    /// Reads a stored status.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "received" => Some(Self::Received),
            "queued" => Some(Self::Queued),
            "unknown" => Some(Self::Unknown),
            "accepted" => Some(Self::Accepted),
            other => Self::of_meta(other),
        }
    }

    /// The stored form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Queued => "queued",
            Self::Unknown => "unknown",
            Self::Accepted => "accepted",
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Played => "played",
        }
    }
}

/// Why a message failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fault {
    /// When it was said, in unix milliseconds.
    pub at_ms: u64,
    /// Meta's error code, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// In words.
    pub reason: String,
}

/// One piece of news about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it says.
    pub status: Status,
    /// When that was, in unix milliseconds.
    pub at_ms: u64,
    /// Why, for failures.
    pub fault: Option<Fault>,
}

/// All that is known of a message's progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The greatest status seen.
    pub status: Status,
    /// When each status was first true, in unix milliseconds.
    pub times: BTreeMap<Status, u64>,
    /// The first reason given for a failure.
    pub fault: Option<Fault>,
}

impl Progress {
    /// Begins with the first news.
    pub fn begin(step: &Step) -> Self {
        let mut progress = Self {
            status: step.status,
            times: BTreeMap::new(),
            fault: None,
        };
        progress.advance(step);
        progress
    }

    /// Takes in further news; commutative, associative and idempotent. Whether it was any.
    pub fn advance(&mut self, step: &Step) -> bool {
        let known = self.times.get(&step.status).copied();
        let is_fault_news = match (&self.fault, &step.fault) {
            (Some(known), Some(new)) => new < known,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let is_first = known.is_none_or(|known| step.at_ms < known);
        if is_first {
            self.times.insert(step.status, step.at_ms);
        }
        self.status = self.status.max(step.status);
        if is_fault_news {
            self.fault.clone_from(&step.fault);
        }
        is_first || is_fault_news
    }

    /// The reason to show: a failure that was overtaken by a delivery is none.
    pub fn shown_fault(&self) -> Option<&Fault> {
        self.fault
            .as_ref()
            .filter(|_| matches!(self.status, Status::Failed | Status::Unknown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NEWS: [Status; 7] = [
        Status::Queued,
        Status::Unknown,
        Status::Accepted,
        Status::Sent,
        Status::Failed,
        Status::Delivered,
        Status::Read,
    ];

    fn step(status: Status, at_ms: u64) -> Step {
        let fault = (status == Status::Failed).then(|| Fault {
            at_ms,
            code: Some(1),
            reason: "no".into(),
        });
        Step {
            status,
            at_ms,
            fault,
        }
    }

    fn after(statuses: &[Status]) -> Status {
        let mut progress = Progress::begin(&step(Status::Queued, 0));
        for status in statuses {
            progress.advance(&step(*status, 1));
        }
        progress.status
    }

    #[test]
    fn a_status_never_moves_back() {
        assert_eq!(
            after(&[Status::Read, Status::Delivered, Status::Sent]),
            Status::Read
        );
        assert_eq!(after(&[Status::Failed, Status::Sent]), Status::Failed);
        assert_eq!(
            after(&[Status::Failed, Status::Delivered]),
            Status::Delivered
        );
        assert_eq!(after(&[Status::Unknown, Status::Sent]), Status::Sent);
    }

    #[test]
    fn a_failure_overtaken_by_a_delivery_is_not_shown() {
        let mut progress = Progress::begin(&step(Status::Failed, 3));
        assert!(progress.shown_fault().is_some());
        progress.advance(&step(Status::Delivered, 4));
        assert_eq!(progress.shown_fault(), None);
    }

    #[test]
    fn every_status_reads_back() {
        for status in NEWS.into_iter().chain([Status::Received, Status::Played]) {
            assert_eq!(Status::parse(status.as_str()), Some(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }

    proptest! {
        #[test]
        fn any_order_and_repetition_of_the_same_news_ends_in_the_same_place(
            news in proptest::collection::vec((0..NEWS.len(), 0_u64..5), 1..12),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let steps: Vec<_> = news.iter().map(|(at, ms)| step(NEWS[*at], *ms)).collect();
            let mut straight = Progress::begin(&steps[0]);
            for one in &steps {
                straight.advance(one);
            }
            let mut other = Progress::begin(&steps[steps.len() - 1]);
            for index in &order {
                other.advance(index.get(&steps));
            }
            for one in steps.iter().rev() {
                other.advance(one);
            }
            prop_assert_eq!(straight, other);
        }
    }
}
