//! One piece of work for several targets: each takes it once, whatever the others do.
//!
//! What a target said for good is kept in the work's marks: `<target>` when it took the work, and
//! `<target>!<reason>` when it refused it. A retry asks only the targets without a mark.

use super::request::EgressError;
use crate::core::job::{Marks, Verdict};
use futures_util::future::join_all;
use std::future::Future;
use std::time::Duration;

/// Wait for a turn at a target whose turns are all taken.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// What came of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It took the work.
    Done,
    /// Not now.
    Retry {
        /// In words, without the target's name.
        reason: String,
        /// The least to wait, when the target said so.
        after: Option<Duration>,
    },
    /// It was not asked, for it is left alone for now or has no turn to give.
    Held {
        /// In words, without the target's name.
        reason: String,
        /// How long to wait.
        after: Duration,
    },
    /// Never.
    Final {
        /// In words, without the target's name.
        reason: String,
    },
}

impl Outcome {
    /// A retry at the pool's own pace.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { reason: reason.into(), after: None }
    }

    /// The target takes no more requests at once; one is made when a turn comes up.
    pub fn busy() -> Self {
        let reason = "busy: its requests at once are used up".to_owned();
        Self::Held { reason, after: BUSY_WAIT }
    }

    /// The target does not work and is left alone.
    pub fn held(after: Duration) -> Self {
        EgressError::Held { wait: after }.into()
    }
}

impl From<EgressError> for Outcome {
    fn from(error: EgressError) -> Self {
        let reason = error.to_string();
        match error {
            EgressError::Held { wait: after } => Self::Held { reason, after },
            error if error.is_permanent() => Self::Final { reason },
            _ => Self::Retry { reason, after: None },
        }
    }
}

/// Brings the work to all targets at once and sums up: a retry while any target needs one, a wait while the rest
/// was not asked, then a dead letter if any refused it, naming which.
pub async fn fan_out<T: Future<Output = Outcome>>(
    marks: &Marks,
    noun: &str,
    targets: impl IntoIterator<Item = (String, T)>,
) -> Verdict {
    let finished = marks.all();
    let is_finished = |target: &str| {
        finished.iter().any(|mark| mark.split_once('!').map_or(mark.as_str(), |(name, _)| name) == target)
    };
    let open = targets.into_iter().filter(|(target, _)| !is_finished(target));
    // Each mark is set as its answer comes, so that an attempt that is cancelled loses only what is unanswered.
    let attempts = open.map(async |(target, attempt)| match attempt.await {
        Outcome::Done => {
            marks.set(&target);
            None
        }
        Outcome::Final { reason } => {
            marks.set(&format!("{target}!{reason}"));
            None
        }
        Outcome::Retry { reason, after } => {
            Some(Unfinished { reason: format!("{noun} {target}: {reason}"), after, asked: true })
        }
        Outcome::Held { reason, after } => Some(Unfinished {
            reason: format!("{noun} {target}: {reason}"),
            after: Some(after),
            asked: false,
        }),
    });
    let unfinished: Vec<_> = join_all(attempts).await.into_iter().flatten().collect();
    sum_up(marks, noun, &unfinished)
}

/// A target that has not answered for good.
struct Unfinished {
    reason: String,
    after: Option<Duration>,
    asked: bool,
}

fn sum_up(marks: &Marks, noun: &str, unfinished: &[Unfinished]) -> Verdict {
    let all = marks.all();
    let finals = all.iter().filter_map(|mark| mark.split_once('!'));
    let finals = finals.map(|(target, reason)| format!("{noun} {target}: {reason}"));
    let reasons: Vec<_> = unfinished.iter().map(|open| open.reason.clone()).chain(finals).collect();
    let reason = reasons.join("; ");
    let asked = || unfinished.iter().filter(|open| open.asked);
    if asked().next().is_some() {
        return Verdict::Retry { reason, after: asked().filter_map(|open| open.after).max() };
    }
    if let Some(after) = unfinished.iter().filter_map(|open| open.after).min() {
        return Verdict::Wait { reason, after };
    }
    match (reasons.is_empty(), all.is_empty()) {
        (false, _) => Verdict::Dead { reason },
        (true, true) => Verdict::Idle,
        (true, false) => Verdict::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use std::future::ready;

    fn target(name: &str, outcome: Outcome) -> (String, std::future::Ready<Outcome>) {
        (name.to_owned(), ready(outcome))
    }

    fn refused(reason: &str) -> Outcome {
        Outcome::Final { reason: reason.to_owned() }
    }

    #[tokio::test]
    async fn no_target_is_nothing_to_do() {
        let none: Vec<(String, std::future::Ready<Outcome>)> = vec![];
        assert_eq!(fan_out(&Marks::default(), "relay", none).await, Verdict::Idle);
    }

    #[tokio::test]
    async fn a_retry_asks_only_targets_that_have_not_answered_for_good() {
        let marks = Marks::default();
        let wait = Some(Duration::from_secs(3));
        let first = [
            target("a", Outcome::Done),
            target("b", refused("answered 400")),
            target("c", Outcome::Retry { reason: "answered 503".into(), after: wait }),
            target("d", Outcome::retry("no answer in time")),
        ];
        let verdict = fan_out(&marks, "relay", first).await;
        let reason = "relay c: answered 503; relay d: no answer in time; relay b: answered 400".to_owned();
        assert_eq!(verdict, Verdict::Retry { reason, after: wait });

        let second = [
            target("a", refused("a was asked again")),
            target("b", Outcome::retry("b was asked again")),
            target("c", Outcome::Done),
            target("d", Outcome::Done),
        ];
        assert_eq!(fan_out(&marks, "relay", second).await, Verdict::dead("relay b: answered 400"));
    }

    #[tokio::test]
    async fn a_cancelled_attempt_keeps_what_was_answered() {
        let marks = Marks::default();
        let never: (String, BoxFuture<'_, Outcome>) = ("b".to_owned(), Box::pin(std::future::pending()));
        let done: (String, BoxFuture<'_, Outcome>) = ("a".to_owned(), Box::pin(ready(Outcome::Done)));
        assert!(fan_out(&marks, "relay", [done, never]).now_or_never().is_none());
        assert!(marks.has("a") && !marks.has("b"));
    }

    #[tokio::test]
    async fn work_that_every_target_took_is_done_even_when_a_target_is_gone_since() {
        let marks = Marks::default();
        assert_eq!(fan_out(&marks, "relay", [target("a", Outcome::Done)]).await, Verdict::Done);
        let none: Vec<(String, std::future::Ready<Outcome>)> = vec![];
        assert_eq!(fan_out(&marks, "relay", none).await, Verdict::Done);
    }
}
