//! Whether an update goes straight to JetStream or into the spool: `DIRECT → SPOOLING → DRAINING → DIRECT`.
//!
//! While anything is spooled, everything new goes behind it, so that what was acknowledged first is stored
//! first. The whole edge changes over at once: NATS is away for all partitions or for none, and while the
//! spool drains an update behind it costs one more sync, not a wait.

/// Where an update goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To JetStream; [`Course::leave`] must follow.
    Direct,
    /// Into the spool.
    Spool,
}

/// What the spool is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing is spooled.
    Direct,
    /// NATS does not take what is spooled.
    Spooling,
    /// NATS takes what is spooled, oldest first.
    Draining,
}

impl State {
    /// The state's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Spooling => "spooling",
            Self::Draining => "draining",
        }
    }
}

/// The state, and what leads to the next one.
#[derive(Debug)]
pub struct Course {
    always: bool,
    state: State,
    direct: usize,
}

impl Course {
    /// Begins; `always` spools every update, and `left` is whether an earlier run left some.
    pub fn new(always: bool, left: bool) -> Self {
        Self {
            always,
            state: if left { State::Spooling } else { State::Direct },
            direct: 0,
        }
    }

    /// What the spool is doing.
    pub fn state(&self) -> State {
        self.state
    }

    /// Chooses the way of a delivery that has come.
    pub fn enter(&mut self) -> Way {
        if self.always || self.state != State::Direct {
            return Way::Spool;
        }
        self.direct += 1;
        Way::Direct
    }

    /// A direct delivery is over, one way or the other.
    pub fn leave(&mut self) {
        self.direct = self.direct.saturating_sub(1);
    }

    /// Something is put into the spool; nothing says that NATS does not take it when all goes this way.
    pub fn spooled(&mut self) {
        if self.state == State::Direct {
            self.state = if self.always {
                State::Draining
            } else {
                State::Spooling
            };
        }
    }

    /// Whether the spool may be drained: not beside deliveries that went before it and are still tried.
    pub fn may_drain(&self) -> bool {
        self.direct == 0
    }

    /// NATS took something of the spool.
    pub fn drained(&mut self) {
        if self.state == State::Spooling {
            self.state = State::Draining;
        }
    }

    /// NATS did not take it.
    pub fn failed(&mut self) {
        if self.state == State::Draining {
            self.state = State::Spooling;
        }
    }

    /// Nothing is spooled, and nothing is on its way into the spool.
    pub fn emptied(&mut self) {
        self.state = State::Direct;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// A delivery of one conversation: how many were acknowledged when it came, and where it is.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Place {
        OnItsWay,
        Spooled,
        Stored,
    }

    proptest! {
        /// Steps in any order: deliveries come, direct ones succeed or fail over, the spool drains or does not.
        #[test]
        fn what_was_acknowledged_before_a_delivery_came_is_stored_before_it(
            always in any::<bool>(), steps in prop::collection::vec((0..4_u8, any::<prop::sample::Index>()), 0..200),
        ) {
            let mut course = Course::new(always, false);
            let (mut places, mut before) = (Vec::new(), Vec::new());
            let (mut acknowledged, mut stream) = (Vec::new(), Vec::new());
            let mut spool: VecDeque<usize> = VecDeque::new();
            for (step, pick) in steps {
                let on_its_way: Vec<usize> =
                    (0..places.len()).filter(|place| places[*place] == Place::OnItsWay).collect();
                match step {
                    0 => {
                        let number = places.len();
                        before.push(acknowledged.clone());
                        match course.enter() {
                            Way::Direct => places.push(Place::OnItsWay),
                            Way::Spool => {
                                course.spooled();
                                places.push(Place::Spooled);
                                spool.push_back(number);
                                acknowledged.push(number);
                            }
                        }
                    }
                    1 | 2 if !on_its_way.is_empty() => {
                        let number = on_its_way[pick.index(on_its_way.len())];
                        if step == 1 {
                            places[number] = Place::Stored;
                            stream.push(number);
                        } else {
                            course.spooled();
                            places[number] = Place::Spooled;
                            spool.push_back(number);
                        }
                        acknowledged.push(number);
                        course.leave();
                    }
                    3 if course.may_drain() && !spool.is_empty() => {
                        if pick.index(3) == 0 {
                            course.failed();
                            prop_assert_eq!(course.state(), State::Spooling);
                            continue;
                        }
                        let number = spool.pop_front().unwrap();
                        places[number] = Place::Stored;
                        stream.push(number);
                        course.drained();
                        prop_assert_eq!(course.state(), State::Draining);
                        if spool.is_empty() {
                            course.emptied();
                        }
                    }
                    _ => {}
                }
                prop_assert!(always || spool.is_empty() == (course.state() == State::Direct));
            }
            for (place, number) in stream.iter().enumerate() {
                let stored: Vec<_> = stream[..place].to_vec();
                for earlier in &before[*number] {
                    prop_assert!(stored.contains(earlier), "{number} overtook {earlier}: {stream:?}");
                }
            }
        }
    }
}
