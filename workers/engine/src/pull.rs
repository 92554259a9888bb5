//! How a consumer is asked for messages: how many and how long ones at once, and for how long; pure.
//!
//! What was asked for lies in memory before it is counted, so a request is bounded in bytes. A message that is longer
//! than that is asked for alone, on a connection where nobody waits behind it.
//!
//! A request that is open when its process is stopped is given messages that a successor is to read. So a request
//! for many ends before anybody else may take over, and only one for a single message stays open for long, while
//! nothing comes: a stopped process swallows one message by it, and no more. Whoever reads next makes only short
//! requests, and asks the consumer after each of them, until it is known that nobody else's is open.

use std::time::Duration;

/// Messages asked for at once.
const MANY: usize = 128;
/// Bytes asked for at once. A message that is longer is long, and asked for alone.
pub const LONG_BYTES: usize = 256 << 10;
/// How long a request for a single message stays open; a lost one is noticed no sooner.
const QUIET_LIFE: Duration = Duration::from_secs(60);
/// Longest life of a request while somebody else's may be open: what goes there is missed after it.
const DOUBTED_LIFE: Duration = Duration::from_secs(1);
/// How many answers in a row must say that nobody else's request is open. One is not enough: requests are taken in
/// beside such questions, and in a cluster what was delivered is told once it is replicated.
const ANSWERS: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pull {
    pub messages: usize,
    /// Bytes of them at most; `None` when a single message may be as long as it likes.
    pub bytes: Option<usize>,
    /// How long it stays open when fewer come.
    pub life: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Brought,
    /// Nothing came while it was open.
    Empty,
    /// It brought nothing, because the next message is longer than what was asked for.
    TooLong,
}

/// Where reading of one consumer stands between two requests; begins in doubt.
#[derive(Debug, Default)]
pub struct Pace {
    answers: u32,
    is_quiet: bool,
    is_long_next: bool,
}

impl Pace {
    /// The next request, of a process that may be succeeded when `life` is over.
    pub fn next(&self, life: Duration) -> Pull {
        let short = if self.is_doubted() {
            life.min(DOUBTED_LIFE)
        } else {
            life
        };
        if self.is_long_next {
            Pull {
                messages: 1,
                bytes: None,
                life: short,
            }
        } else if self.is_quiet && !self.is_doubted() {
            Pull {
                messages: 1,
                bytes: Some(LONG_BYTES),
                life: QUIET_LIFE.max(life),
            }
        } else {
            Pull {
                messages: MANY,
                bytes: Some(LONG_BYTES),
                life: short,
            }
        }
    }

    pub fn ended(&mut self, end: End) {
        self.is_quiet = end == End::Empty;
        self.is_long_next = end == End::TooLong;
    }

    /// Whether requests of somebody else may be open.
    pub fn is_doubted(&self) -> bool {
        self.answers < ANSWERS
    }

    /// The consumer was asked while none of our own requests was open: so many were.
    pub fn learned(&mut self, open: usize) {
        self.answers = if open == 0 { self.answers + 1 } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(2);

    fn alone() -> Pace {
        Pace {
            answers: ANSWERS,
            ..Pace::default()
        }
    }

    #[test]
    fn requests_stay_short_until_three_answers_in_a_row_say_that_nobody_elses_is_open() {
        let mut pace = Pace::default();
        for open in [0, 0, 1, 0, 0] {
            pace.learned(open);
            pace.ended(End::Empty);
            assert!(pace.is_doubted());
            assert_eq!(
                pace.next(LIFE),
                Pull {
                    messages: MANY,
                    bytes: Some(LONG_BYTES),
                    life: DOUBTED_LIFE
                }
            );
        }
        pace.learned(0);
        assert!(!pace.is_doubted());
        assert_eq!(pace.next(LIFE).life, QUIET_LIFE);
    }

    #[test]
    fn only_a_request_for_a_single_message_outlives_the_right_to_read() {
        for is_quiet in [false, true] {
            for pace in [
                Pace {
                    is_quiet,
                    ..Pace::default()
                },
                Pace {
                    is_quiet,
                    ..alone()
                },
            ] {
                let pull = pace.next(LIFE);
                assert!(pull.messages == 1 || pull.life <= LIFE, "{pull:?}");
            }
        }
    }

    #[test]
    fn a_single_message_is_asked_for_only_after_a_request_that_brought_nothing() {
        let mut pace = alone();
        assert_eq!(
            pace.next(LIFE),
            Pull {
                messages: MANY,
                bytes: Some(LONG_BYTES),
                life: LIFE
            }
        );
        pace.ended(End::Empty);
        assert_eq!(
            pace.next(LIFE),
            Pull {
                messages: 1,
                bytes: Some(LONG_BYTES),
                life: QUIET_LIFE
            }
        );
        pace.ended(End::Brought);
        assert_eq!(
            pace.next(LIFE),
            Pull {
                messages: MANY,
                bytes: Some(LONG_BYTES),
                life: LIFE
            }
        );
    }

    #[test]
    fn a_message_longer_than_what_was_asked_for_is_asked_for_alone_and_only_it() {
        for mut pace in [Pace::default(), alone()] {
            pace.ended(End::TooLong);
            let pull = pace.next(LIFE);
            assert_eq!((pull.messages, pull.bytes), (1, None));
            assert!(pull.life <= LIFE, "{pull:?}");
            pace.ended(End::Brought);
            assert_eq!(pace.next(LIFE).bytes, Some(LONG_BYTES));
        }
    }

    #[test]
    fn a_right_of_less_than_a_second_makes_requests_shorter_still() {
        let life = Duration::from_millis(500);
        assert_eq!(Pace::default().next(life).life, life);
    }
}
