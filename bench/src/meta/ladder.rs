//! The ladder of statuses that follows an accepted message: sent, delivered, read.

use super::payload::StatusKind;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Which statuses follow a send, and when; delays count from the acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ladder {
    /// Whether any status is sent at all.
    pub enabled: bool,
    /// When `sent` follows, in milliseconds.
    pub sent_ms: u32,
    pub delivered_ms: u32,
    /// When `read` follows; absent means the person never reads.
    pub read_ms: Option<u32>,
    /// Sends the statuses in reverse order.
    pub reversed: bool,
}

impl Default for Ladder {
    fn default() -> Self {
        Self {
            enabled: true,
            sent_ms: 20,
            delivered_ms: 60,
            read_ms: Some(150),
            reversed: false,
        }
    }
}

/// One rung: when it is sent, what it says, and the delay its timestamp shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    /// When it is posted, after the acceptance.
    pub at: Duration,
    pub kind: StatusKind,
    /// When it happened, after the acceptance.
    pub happened: Duration,
}

impl Ladder {
    /// The statuses to send, in the order they are sent; a failing message has just the one.
    pub fn rungs(&self, fails: bool) -> Vec<Rung> {
        if !self.enabled {
            return Vec::new();
        }
        let at = |ms: u32| Duration::from_millis(u64::from(ms));
        if fails {
            return vec![Rung {
                at: at(self.sent_ms),
                kind: StatusKind::Failed,
                happened: at(self.sent_ms),
            }];
        }
        let mut climbed = vec![
            (at(self.sent_ms), StatusKind::Sent),
            (
                at(self.delivered_ms.max(self.sent_ms)),
                StatusKind::Delivered,
            ),
        ];
        climbed.extend(
            self.read_ms
                .map(|ms| (at(ms.max(self.delivered_ms)), StatusKind::Read)),
        );
        let times: Vec<Duration> = climbed.iter().map(|(at, _)| *at).collect();
        if self.reversed {
            climbed.reverse();
        }
        let rung = |(at, (happened, kind))| Rung { at, kind, happened };
        times.into_iter().zip(climbed).map(rung).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StatusKind::{Delivered, Failed, Read, Sent};

    fn kinds(ladder: Ladder, fails: bool) -> Vec<StatusKind> {
        ladder.rungs(fails).iter().map(|rung| rung.kind).collect()
    }

    #[test]
    fn statuses_climb_or_come_reversed_with_their_own_timestamps() {
        assert_eq!(kinds(Ladder::default(), false), [Sent, Delivered, Read]);
        let reversed = Ladder {
            reversed: true,
            ..Ladder::default()
        };
        assert_eq!(kinds(reversed, false), [Read, Delivered, Sent]);
        let last = reversed.rungs(false)[2];
        assert!(
            last.at > last.happened,
            "a late `sent` shows when it really happened"
        );
    }

    #[test]
    fn a_failure_is_the_only_status_and_a_switched_off_ladder_has_none() {
        assert_eq!(kinds(Ladder::default(), true), [Failed]);
        assert_eq!(
            kinds(
                Ladder {
                    enabled: false,
                    ..Ladder::default()
                },
                false
            ),
            []
        );
        assert_eq!(
            kinds(
                Ladder {
                    read_ms: None,
                    ..Ladder::default()
                },
                false
            ),
            [Sent, Delivered]
        );
    }
}
