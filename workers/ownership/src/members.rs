//! Who is alive, told from what the bucket of memberships says over time: pure, with the time passed in.
//!
//! A member is dead when a renewal of our own came back to us and the member's last one is older than its
//! life by then: our own echo proves that nothing older is still on its way. After a gap in our echoes
//! everybody is given a whole life again, so that an outage of the broker moves nothing.

use ackline_shared::stored::Stored;
use ackline_shared::subjects::Pool;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What a process says of itself, stored under its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The pools it takes part in, by name.
    pub pools: BTreeSet<String>,
    /// How long it lives without renewal, in milliseconds.
    pub ttl_ms: u64,
}

impl Stored for Member {}

impl Member {
    /// Whether it takes part in a pool.
    pub fn runs(&self, pool: Pool) -> bool {
        self.pools.contains(pool.as_str())
    }
}

/// Everybody who is alive, as far as we were told.
#[derive(Debug)]
pub struct Members {
    me: String,
    gap: Duration,
    echoed: Option<Instant>,
    seen: BTreeMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    member: Member,
    at: Instant,
}

impl Members {
    /// Starts empty; echoes of `me` further apart than `gap` mean that we were cut off.
    pub fn new(me: &str, gap: Duration) -> Self {
        Self {
            me: me.to_owned(),
            gap,
            echoed: None,
            seen: BTreeMap::new(),
        }
    }

    /// Takes in what the bucket says of a name; tells whether anything but times changed.
    pub fn hear(&mut self, name: &str, member: Option<Member>, now: Instant) -> bool {
        let Some(member) = member else {
            return self.seen.remove(name).is_some();
        };
        let is_new = self.seen.get(name).is_none_or(|seen| seen.member != member);
        self.seen.insert(name.to_owned(), Seen { member, at: now });
        if name == self.me {
            self.echo(now) || is_new
        } else {
            is_new
        }
    }

    fn echo(&mut self, now: Instant) -> bool {
        let was_cut_off = self
            .echoed
            .is_none_or(|echoed| now.duration_since(echoed) > self.gap);
        self.echoed = Some(now);
        if was_cut_off {
            self.seen.values_mut().for_each(|seen| seen.at = now);
            return false;
        }
        let before = self.seen.len();
        let me = &self.me;
        self.seen
            .retain(|name, seen| name == me || now.duration_since(seen.at) <= seen.life());
        self.seen.len() != before
    }

    /// When the first of the others is dead unless it is heard of before.
    pub fn next_expiry(&self) -> Option<Instant> {
        let others = self.seen.iter().filter(|(name, _)| **name != self.me);
        others.map(|(_, seen)| seen.at + seen.life()).min()
    }

    /// Whether a name is alive.
    pub fn is_alive(&self, name: &str) -> bool {
        self.seen.contains_key(name)
    }

    /// Those who take part in a pool.
    pub fn runners(&self, pool: Pool) -> BTreeSet<&str> {
        let running = self.seen.iter().filter(|(_, seen)| seen.member.runs(pool));
        running.map(|(name, _)| name.as_str()).collect()
    }
}

impl Seen {
    fn life(&self) -> Duration {
        Duration::from_millis(self.member.ttl_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member() -> Member {
        Member {
            pools: BTreeSet::from(["relay".to_owned()]),
            ttl_ms: 4000,
        }
    }

    struct Story {
        members: Members,
        start: Instant,
    }

    impl Story {
        fn begin() -> Self {
            Self {
                members: Members::new("me", Duration::from_secs(3)),
                start: Instant::now(),
            }
        }

        fn renew(&mut self, name: &str, second: u64) -> bool {
            self.members.hear(
                name,
                Some(member()),
                self.start + Duration::from_secs(second),
            )
        }
    }

    #[test]
    fn who_is_silent_for_its_life_is_dead_by_our_next_echo() {
        let mut story = Story::begin();
        assert!(story.renew("me", 0));
        assert!(story.renew("you", 0));
        assert!(!story.renew("you", 1));
        assert_eq!(
            story.members.next_expiry(),
            Some(story.start + Duration::from_secs(5))
        );
        for second in 1..=5 {
            assert!(!story.renew("me", second));
        }
        assert!(story.members.is_alive("you"));
        assert!(story.renew("me", 6));
        assert_eq!(story.members.runners(Pool::Relay), BTreeSet::from(["me"]));
        assert!(story.members.runners(Pool::Flows).is_empty());
    }

    #[test]
    fn silence_of_which_we_heard_nothing_kills_nobody() {
        let mut story = Story::begin();
        story.renew("me", 0);
        story.renew("you", 0);
        story.renew("me", 60);
        assert!(story.members.is_alive("you"));
        (61..64).for_each(|second| assert!(!story.renew("me", second)));
        assert!(!story.renew("me", 64));
        assert!(story.renew("me", 65));
    }

    #[test]
    fn who_leaves_is_gone_at_once() {
        let mut story = Story::begin();
        story.renew("me", 0);
        story.renew("you", 0);
        assert!(story.members.hear("you", None, story.start));
        assert!(!story.members.hear("you", None, story.start));
        assert!(story.members.is_alive("me") && !story.members.is_alive("you"));
    }
}
