//! One downstream's circuit: closed, open or probing. Pure; the time is passed in.

use crate::verdict::{Trouble, TroubleKind};
use std::time::Duration;
use tokio::time::Instant;

/// When a circuit opens and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Failures in a row that open it.
    pub failures_max: u32,
    /// The first pause; each probe that fails doubles it.
    pub pause_initial: Duration,
    /// The longest pause while the trouble is young.
    pub pause_brisk: Duration,
    /// How long it is young.
    pub brisk_for: Duration,
    /// The longest pause after that.
    pub pause_max: Duration,
    /// Time after which a probe that said nothing is replaced.
    pub probe_timeout: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            failures_max: 5,
            pause_initial: Duration::from_secs(1),
            pause_brisk: Duration::from_secs(3),
            brisk_for: Duration::from_secs(330),
            pause_max: Duration::from_secs(20),
            probe_timeout: Duration::from_secs(300),
        }
    }
}

impl Policy {
    /// The longest pause of a trouble of this age.
    fn longest(&self, age: Duration) -> Duration {
        if age < self.brisk_for {
            self.pause_brisk.min(self.pause_max)
        } else {
            self.pause_max
        }
    }
}

/// What a request says about its downstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// It answered, whatever it said about the request.
    Alive,
    /// It could not be reached, did not answer, or broke.
    Failed,
    /// It asked everybody to stay away for a time.
    Busy(Duration),
    /// The request was not made or not awaited.
    Unknown,
}

impl From<&Trouble> for Signal {
    fn from(trouble: &Trouble) -> Self {
        match (trouble.kind, trouble.after) {
            (TroubleKind::Busy, after) => Self::Busy(after.unwrap_or_default()),
            (TroubleKind::Down | TroubleKind::TimedOut, _) => Self::Failed,
        }
    }
}

/// What a signal changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The circuit breaker opens, for this long to begin with.
    Opened(Duration),
    /// It is asked freely again.
    Closed,
}

/// Which state of the circuit a request was let through in; what comes later than a change counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ticket(u64);

#[derive(Debug, Clone, Default)]
pub(super) struct Circuit {
    state: State,
    generation: u64,
    /// Since when it has not been closed.
    open_since: Option<Instant>,
}

#[derive(Debug, Clone)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    Probing { until: Instant, pause: Duration },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Circuit {
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Since when it has not been closed, if it is not.
    pub(super) fn open_since(&self) -> Option<Instant> {
        self.open_since
    }

    /// Whether a new circuit would behave the same.
    pub(super) fn is_forgettable(&self) -> bool {
        matches!(self.state, State::Closed { failures: 0 })
    }

    /// Lets a request through, or says how long to wait.
    pub(super) fn ask(&mut self, policy: &Policy, now: Instant) -> Result<Ticket, Duration> {
        if let Some(wait) = self.held(now) {
            return Err(wait);
        }
        if let State::Open { pause, .. } | State::Probing { pause, .. } = self.state {
            self.enter(State::Probing {
                until: now + policy.probe_timeout,
                pause,
            });
        }
        Ok(Ticket(self.generation))
    }

    /// How long nothing is let through from now on.
    pub(super) fn held(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Open { until, .. } if now < until => Some(until - now),
            State::Probing { until, .. } if now < until => Some(until - now),
            State::Closed { .. } | State::Open { .. } | State::Probing { .. } => None,
        }
    }

    /// Takes in what a request said.
    pub(super) fn report(
        &mut self,
        policy: &Policy,
        ticket: Ticket,
        signal: Signal,
        now: Instant,
    ) -> Option<Change> {
        if ticket != Ticket(self.generation) {
            return None;
        }
        match (&mut self.state, signal) {
            (State::Open { .. }, _) | (State::Closed { .. }, Signal::Unknown) => None,
            (State::Closed { failures }, Signal::Alive) => {
                *failures = 0;
                None
            }
            (State::Closed { failures }, Signal::Failed) => {
                *failures += 1;
                (*failures >= policy.failures_max)
                    .then(|| self.open(policy.pause_initial, policy.pause_initial, now))
            }
            (State::Closed { .. }, Signal::Busy(wait)) => {
                Some(self.open(wait.max(policy.pause_initial), policy.pause_initial, now))
            }
            (State::Probing { .. }, Signal::Alive) => {
                self.enter(State::default());
                self.open_since = None;
                Some(Change::Closed)
            }
            (State::Probing { pause, .. }, signal) => {
                let (wait, pause) = match signal {
                    Signal::Failed => {
                        let age = self
                            .open_since
                            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
                        let doubled = (*pause * 2).min(policy.longest(age));
                        (doubled, doubled)
                    }
                    Signal::Busy(wait) => (wait.max(policy.pause_initial), *pause),
                    Signal::Unknown | Signal::Alive => (Duration::ZERO, *pause),
                };
                self.open(wait, pause, now);
                None
            }
        }
    }

    fn open(&mut self, wait: Duration, pause: Duration, now: Instant) -> Change {
        self.enter(State::Open {
            until: now + wait,
            pause,
        });
        self.open_since.get_or_insert(now);
        Change::Opened(wait)
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: Policy = Policy {
        failures_max: 3,
        pause_initial: Duration::from_secs(1),
        pause_brisk: Duration::from_secs(8),
        brisk_for: Duration::from_secs(16),
        pause_max: Duration::from_secs(10),
        probe_timeout: Duration::from_secs(5),
    };

    fn opened(now: Instant) -> Circuit {
        let mut circuit = Circuit::default();
        let changes: Vec<_> = (0..3)
            .map(|_| {
                let ticket = circuit.ask(&POLICY, now).unwrap();
                circuit.report(&POLICY, ticket, Signal::Failed, now)
            })
            .collect();
        assert_eq!(
            changes,
            [None, None, Some(Change::Opened(POLICY.pause_initial))]
        );
        circuit
    }

    #[test]
    fn an_answer_in_between_starts_the_count_anew() {
        let (mut circuit, now) = (Circuit::default(), Instant::now());
        for signal in [
            Signal::Failed,
            Signal::Failed,
            Signal::Alive,
            Signal::Failed,
            Signal::Failed,
        ] {
            let ticket = circuit.ask(&POLICY, now).unwrap();
            assert_eq!(circuit.report(&POLICY, ticket, signal, now), None);
        }
        assert!(circuit.is_closed());
    }

    #[test]
    fn pauses_double_while_probes_fail_until_the_cap() {
        let mut now = Instant::now();
        let mut circuit = opened(now);
        let mut waits = Vec::new();
        for _ in 0..7 {
            let wait = circuit.ask(&POLICY, now).unwrap_err();
            waits.push(wait.as_secs());
            now += wait;
            let probe = circuit.ask(&POLICY, now).unwrap();
            assert_eq!(circuit.report(&POLICY, probe, Signal::Failed, now), None);
        }
        assert_eq!(waits, [1, 2, 4, 8, 8, 10, 10]);
    }

    #[test]
    fn an_answer_of_a_request_from_before_changes_nothing() {
        let now = Instant::now();
        let mut circuit = Circuit::default();
        let early = circuit.ask(&POLICY, now).unwrap();
        let ticket = circuit.ask(&POLICY, now).unwrap();
        circuit.report(&POLICY, ticket, Signal::Busy(Duration::from_secs(30)), now);
        assert_eq!(circuit.report(&POLICY, early, Signal::Alive, now), None);
        assert_eq!(
            circuit.ask(&POLICY, now),
            Err(Duration::from_secs(30)),
            "the wait it asked for is kept"
        );
    }

    proptest! {
        /// Whatever happens: no request passes while it is open, one probe at a time, no wait beyond what the
        /// policy or the downstream names, and a downstream that answers is soon asked freely again.
        #[test]
        fn it_never_asks_a_dead_downstream_twice_and_never_forgets_a_live_one(
            steps in proptest::collection::vec((0..4_u8, 0..4_000_u64), 1..200),
        ) {
            let longest = Duration::from_secs(10);
            let mut now = Instant::now();
            let (mut circuit, mut out) = (Circuit::default(), Vec::new());
            for (what, passed_ms) in steps {
                now += Duration::from_millis(passed_ms);
                let was_closed = circuit.is_closed();
                match circuit.ask(&POLICY, now) {
                    Ok(ticket) => {
                        if !was_closed {
                            prop_assert!(circuit.ask(&POLICY, now).is_err(), "a second probe");
                            out.clear();
                        }
                        out.push(ticket);
                    }
                    Err(wait) => prop_assert!(!was_closed && wait <= longest && !wait.is_zero()),
                }
                let signal = match what {
                    0 => Signal::Alive,
                    1 => Signal::Failed,
                    2 => Signal::Busy(longest),
                    _ => Signal::Unknown,
                };
                if let Some(ticket) = out.pop() {
                    circuit.report(&POLICY, ticket, signal, now);
                }
            }
            now += longest.max(POLICY.probe_timeout);
            let probe = circuit.ask(&POLICY, now);
            prop_assert!(probe.is_ok());
            circuit.report(&POLICY, probe.unwrap(), Signal::Alive, now);
            prop_assert!(circuit.is_closed() && circuit.ask(&POLICY, now).is_ok());
        }
    }
}
