//! How a consumer is asked for messages: how many at once, and for how long; pure.
//!
//! A request that is open when its process is stopped is given messages that a successor is to read. So a request
//! for many ends before anybody else may take over, and only one for a single message stays open for long, while
//! nothing comes: a stopped process swallows one message by it, and no more. Whoever reads next makes only short
//! requests, and asks the consumer after each of them, until it is known that nobody else's is open.

use std::time::Duration;

/// Messages asked for at once.
const MANY: usize = 128;
/// How long a request for a single message stays open; a lost one is noticed no sooner.
const QUIET_LIFE: Duration = Duration::from_secs(60);
/// Longest life of a request while somebody else's may be open: what goes there is missed after it.
const DOUBTED_LIFE: Duration = Duration::from_secs(1);
/// How many answers in a row must say that nobody else's request is open. One is not enough: requests are taken in
/// beside such questions, and in a cluster what was delivered is told once it is replicated.
const ANSWERS: u32 = 3;

/// A request for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pull {
    /// Messages at most.
    pub messages: usize,
    /// How long it stays open when fewer come.
    pub life: Duration,
}

/// Where reading of one consumer stands between two requests; begins in doubt.
#[derive(Debug, Default)]
pub struct Pace {
    answers: u32,
    is_quiet: bool,
}

impl Pace {
    /// The next request, of a process that may be succeeded when `life` is over.
    pub fn next(&self, life: Duration) -> Pull {
        if self.is_doubted() {
            Pull { messages: MANY, life: life.min(DOUBTED_LIFE) }
        } else if self.is_quiet {
            Pull { messages: 1, life: QUIET_LIFE.max(life) }
        } else {
            Pull { messages: MANY, life }
        }
    }

    /// The request is over, and brought something or nothing.
    pub fn ended(&mut self, brought_something: bool) {
        self.is_quiet = !brought_something;
    }

    /// Whether requests of somebody else may be open.
    pub fn is_doubted(&self) -> bool {
        self.answers < ANSWERS
    }

    /// The consumer was asked while none of our own requests was open: so many were.
    pub fn told(&mut self, open: usize) {
        self.answers = if open == 0 { self.answers + 1 } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(2);

    fn alone() -> Pace {
        Pace { answers: ANSWERS, ..Pace::default() }
    }

    #[test]
    fn requests_stay_short_until_three_answers_in_a_row_say_that_nobody_elses_is_open() {
        let mut pace = Pace::default();
        for open in [0, 0, 1, 0, 0] {
            pace.told(open);
            pace.ended(false);
            assert!(pace.is_doubted());
            assert_eq!(pace.next(LIFE), Pull { messages: MANY, life: DOUBTED_LIFE });
        }
        pace.told(0);
        assert!(!pace.is_doubted());
        assert_eq!(pace.next(LIFE).life, QUIET_LIFE);
    }

    #[test]
    fn only_a_request_for_a_single_message_outlives_the_right_to_read() {
        for is_quiet in [false, true] {
            for pace in [Pace { is_quiet, ..Pace::default() }, Pace { is_quiet, ..alone() }] {
                let pull = pace.next(LIFE);
                assert!(pull.messages == 1 || pull.life <= LIFE, "{pull:?}");
            }
        }
    }

    #[test]
    fn a_single_message_is_asked_for_only_after_a_request_that_brought_nothing() {
        let mut pace = alone();
        assert_eq!(pace.next(LIFE), Pull { messages: MANY, life: LIFE });
        pace.ended(false);
        assert_eq!(pace.next(LIFE), Pull { messages: 1, life: QUIET_LIFE });
        pace.ended(true);
        assert_eq!(pace.next(LIFE), Pull { messages: MANY, life: LIFE });
    }

    #[test]
    fn a_right_of_less_than_a_second_makes_requests_shorter_still() {
        let life = Duration::from_millis(500);
        assert_eq!(Pace::default().next(life).life, life);
    }
}
