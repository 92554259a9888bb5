//! Whether an update goes straight to JetStream or into the spool: `DIRECT → SPOOLING → DRAINING → DIRECT`.
//!
//! While anything is spooled, everything new goes behind it, so that what was acknowledged first is stored
//! first. The whole edge changes over at once: NATS is away for all partitions or for none, and while the
//! spool drains an update behind it costs one more sync, not a wait.

/// Where an update goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WritePath {
    /// To JetStream; [`ModeSwitch::leave`] must follow.
    Direct,
    /// Into the spool.
    Spool,
}

/// What the spool is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is spooled.
    Direct,
    /// NATS does not take what is spooled.
    Spooling,
    /// NATS takes what is spooled, oldest first.
    Draining,
}

impl Mode {
    /// The name in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Spooling => "spooling",
            Self::Draining => "draining",
        }
    }
}

/// The mode, and what leads to the next one.
#[derive(Debug)]
pub struct ModeSwitch {
    always: bool,
    mode: Mode,
    direct: usize,
}

impl ModeSwitch {
    /// Begins; `always` spools every update, and `left` is whether an earlier run left some.
    pub fn new(always: bool, left: bool) -> Self {
        Self {
            always,
            mode: if left { Mode::Spooling } else { Mode::Direct },
            direct: 0,
        }
    }

    /// What the spool is doing.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Chooses the path of a delivery that has come.
    pub fn enter(&mut self) -> WritePath {
        if self.always || self.mode != Mode::Direct {
            return WritePath::Spool;
        }
        self.direct += 1;
        WritePath::Direct
    }

    /// A direct delivery is over, one way or the other.
    pub fn leave(&mut self) {
        self.direct = self.direct.saturating_sub(1);
    }

    /// Something is put into the spool; nothing says that NATS does not take it when all goes this way.
    pub fn spooled(&mut self) {
        if self.mode == Mode::Direct {
            self.mode = if self.always {
                Mode::Draining
            } else {
                Mode::Spooling
            };
        }
    }

    /// Whether the spool may be drained: not beside deliveries that went before it and are still tried.
    pub fn may_drain(&self) -> bool {
        self.direct == 0
    }

    /// NATS took something of the spool.
    pub fn drained(&mut self) {
        if self.mode == Mode::Spooling {
            self.mode = Mode::Draining;
        }
    }

    /// NATS did not take it.
    pub fn failed(&mut self) {
        if self.mode == Mode::Draining {
            self.mode = Mode::Spooling;
        }
    }

    /// Nothing is spooled, and nothing is on its way into the spool.
    pub fn emptied(&mut self) {
        self.mode = Mode::Direct;
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
            let mut mode = ModeSwitch::new(always, false);
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
                        match mode.enter() {
                            WritePath::Direct => places.push(Place::OnItsWay),
                            WritePath::Spool => {
                                mode.spooled();
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
                            mode.spooled();
                            places[number] = Place::Spooled;
                            spool.push_back(number);
                        }
                        acknowledged.push(number);
                        mode.leave();
                    }
                    3 if mode.may_drain() && !spool.is_empty() => {
                        if pick.index(3) == 0 {
                            mode.failed();
                            prop_assert_eq!(mode.mode(), Mode::Spooling);
                            continue;
                        }
                        let number = spool.pop_front().unwrap();
                        places[number] = Place::Stored;
                        stream.push(number);
                        mode.drained();
                        prop_assert_eq!(mode.mode(), Mode::Draining);
                        if spool.is_empty() {
                            mode.emptied();
                        }
                    }
                    _ => {}
                }
                prop_assert!(always || spool.is_empty() == (mode.mode() == Mode::Direct));
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
