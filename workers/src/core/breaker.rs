//! Circuit breakers: a downstream that keeps failing is left alone for a while, then asked by one request.
//!
//! Only downstreams that failed lately are tracked, a bounded number of them. Who is told to wait has made no
//! request, so a dead target costs nothing but the wait of those who need it.

mod circuit;

pub use circuit::{Policy, Signal};

use ackline_shared::config::Reader;
use circuit::{Change, Circuit, Ticket};
use lru::LruCache;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Failing downstreams tracked; the one unused longest is forgotten first.
const TRACKED_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

impl Policy {
    /// Reads the shared keys.
    pub fn read(reader: &mut Reader) -> Self {
        let failures = reader.count("pools.breaker_failures", 1..=1000);
        Self {
            failures_max: u32::try_from(failures).unwrap_or(1),
            pause_max: reader.duration("pools.breaker_pause_max"),
            ..Self::default()
        }
    }
}

/// The breakers of one process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Breakers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    policy: Policy,
    circuits: Mutex<LruCache<String, Circuit>>,
    open: Family<KindLabels, Gauge>,
    opened: Family<KindLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: String,
}

/// Leave to make one request, whose end is to be told; dropped untold, it says nothing about the downstream.
#[derive(Debug)]
pub struct Leave {
    breakers: Breakers,
    downstream: String,
    ticket: Ticket,
    told: bool,
}

impl Breakers {
    /// Makes breakers that are all closed.
    pub fn new(policy: Policy) -> Self {
        Self(Arc::new(Inner {
            policy,
            circuits: Mutex::new(LruCache::new(TRACKED_MAX)),
            open: Family::default(),
            opened: Family::default(),
        }))
    }

    /// Registers what they count, by the kind that a downstream's name begins with.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("ackline_breaker");
        registry.register("open", "Downstreams left alone for now", self.0.open.clone());
        registry.register("opened", "Downstreams that were left alone", self.0.opened.clone());
    }

    /// Asks for leave to make a request; the error is how long to wait instead.
    pub fn ask(&self, downstream: &str) -> Result<Leave, Duration> {
        let ticket = match self.lock().get_mut(downstream) {
            Some(circuit) => circuit.ask(&self.0.policy, Instant::now())?,
            None => Ticket::default(),
        };
        Ok(Leave { breakers: self.clone(), downstream: downstream.to_owned(), ticket, told: false })
    }

    /// How long a downstream is left alone from now on; `None` when it may be asked.
    pub fn held(&self, downstream: &str) -> Option<Duration> {
        self.lock().peek(downstream)?.held(&self.0.policy, Instant::now())
    }

    /// The downstreams that are left alone: for how long each has not worked, and until one request finds out.
    pub fn open_now(&self) -> Vec<(String, Duration, Duration)> {
        let now = Instant::now();
        let circuits = self.lock();
        let open = circuits.iter().filter_map(|(name, circuit)| {
            let (since, next) = (circuit.open_since()?, circuit.held(&self.0.policy, now));
            Some((name.clone(), now.saturating_duration_since(since), next.unwrap_or_default()))
        });
        open.collect()
    }

    fn tell(&self, downstream: &str, ticket: Ticket, signal: Signal) {
        let mut circuits = self.lock();
        if circuits.peek(downstream).is_none() {
            if matches!(signal, Signal::Alive | Signal::Unknown) {
                return;
            }
            if let Some((name, forgotten)) = circuits.push(downstream.to_owned(), Circuit::default())
                && !forgotten.is_closed()
            {
                self.0.open.get_or_create(&kind_of(&name)).dec();
            }
        }
        let Some(circuit) = circuits.get_mut(downstream) else { return };
        let change = circuit.tell(&self.0.policy, ticket, signal, Instant::now());
        if circuit.is_forgettable() {
            circuits.pop(downstream);
        }
        drop(circuits);
        match change {
            Some(Change::Opened(pause)) => {
                self.0.open.get_or_create(&kind_of(downstream)).inc();
                self.0.opened.get_or_create(&kind_of(downstream)).inc();
                let pause_ms = pause.as_millis();
                tracing::warn!(downstream, pause_ms, "a downstream does not work and is left alone for now");
            }
            Some(Change::Closed) => {
                self.0.open.get_or_create(&kind_of(downstream)).dec();
                tracing::info!(downstream, "a downstream works again");
            }
            None => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<String, Circuit>> {
        self.0.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Breakers {
    fn default() -> Self {
        Self::new(Policy::default())
    }
}

impl Leave {
    /// Tells what came of the request.
    pub fn tell(mut self, signal: Signal) {
        self.told = true;
        self.breakers.tell(&self.downstream, self.ticket, signal);
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        if !self.told {
            self.breakers.tell(&self.downstream, self.ticket, Signal::Unknown);
        }
    }
}

fn kind_of(downstream: &str) -> KindLabels {
    KindLabels { kind: downstream.split('.').next().unwrap_or_default().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_dead_downstream_is_asked_once_a_pause_and_no_other_is_affected() {
        let breakers = Breakers::default();
        for _ in 0..5 {
            breakers.ask("relay.acme.dead").unwrap().tell(Signal::Failed);
        }
        let wait = breakers.ask("relay.acme.dead").unwrap_err();
        assert_eq!(wait, Policy::default().pause_initial);
        assert!(breakers.ask("relay.acme.alive").is_ok());
        assert_eq!(breakers.open_now(), [("relay.acme.dead".to_owned(), Duration::ZERO, wait)]);
        tokio::time::advance(wait).await;
        assert_eq!(breakers.open_now(), [("relay.acme.dead".to_owned(), wait, Duration::ZERO)]);
        let probe = breakers.ask("relay.acme.dead").unwrap();
        assert!(breakers.ask("relay.acme.dead").is_err(), "one request finds out");
        probe.tell(Signal::Alive);
        assert!(breakers.ask("relay.acme.dead").is_ok());
        assert_eq!(breakers.open_now(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_probe_lets_another_find_out() {
        let breakers = Breakers::default();
        for _ in 0..5 {
            breakers.ask("graph.1").unwrap().tell(Signal::Failed);
        }
        tokio::time::advance(Policy::default().pause_initial).await;
        drop(breakers.ask("graph.1").unwrap());
        assert!(breakers.ask("graph.1").is_ok());
    }

    #[test]
    fn only_failing_downstreams_are_tracked_and_not_too_many() {
        let breakers = Breakers::default();
        breakers.ask("relay.a").unwrap().tell(Signal::Alive);
        assert_eq!(breakers.lock().len(), 0);
        for n in 0..TRACKED_MAX.get() + 10 {
            for _ in 0..5 {
                breakers.ask(&format!("relay.{n}")).unwrap().tell(Signal::Failed);
            }
        }
        assert_eq!(breakers.lock().len(), TRACKED_MAX.get());
        let open = breakers.0.open.get_or_create(&kind_of("relay.x")).get();
        assert_eq!(
            usize::try_from(open).unwrap(),
            TRACKED_MAX.get(),
            "what is forgotten is not counted as open"
        );
    }
}
