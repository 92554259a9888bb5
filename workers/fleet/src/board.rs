//! Where everything that is to be seen of a process comes together; cheap to clone.

use super::fleet::{Fleet, PoolSum};
use ackline_engine::state::BreakerReport;
use ackline_ownership::standing::{Standing, State};
use ackline_runtime::activity::Activity;
use ackline_runtime::metrics::Metrics;
use ackline_runtime::open_breakers::OpenBreakers;
use ackline_runtime::status::dead::OpenDead;
use ackline_runtime::status::held::{BREAKERS_MAX, OpenBreaker};
use ackline_runtime::status::{PoolStatus, Snapshot, UnownedLag};
use ackline_shared::clock::now_ms;
use ackline_shared::subjects::Pool;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What this process does, and what it heard of the others.
#[derive(Debug, Clone)]
pub struct Board(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    instance: String,
    started_ms: u64,
    metrics: Metrics,
    standing: Standing,
    fleet: Mutex<Fleet>,
    unowned: Mutex<Vec<UnownedLag>>,
    dead: Mutex<Option<Vec<OpenDead>>>,
    breakers: OnceLock<OpenBreakers>,
    fault: OnceLock<(Pool, Fault)>,
}

/// Tells what is wrong with what a pool writes to.
struct Fault(Box<dyn Fn() -> Option<String> + Send + Sync>);

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fault")
    }
}

impl Board {
    /// Makes the board of a process.
    pub fn new(instance: &str, metrics: Metrics, standing: Standing) -> Self {
        Self(Arc::new(Inner {
            instance: instance.to_owned(),
            started_ms: now_ms(),
            metrics,
            standing,
            fleet: Mutex::default(),
            unowned: Mutex::default(),
            dead: Mutex::default(),
            breakers: OnceLock::new(),
            fault: OnceLock::new(),
        }))
    }

    /// Shows the process's breakers from now on; the first ones told stay.
    pub fn watch(&self, breakers: OpenBreakers) {
        let _shown_before = self.0.breakers.set(breakers);
    }

    /// Shows what is wrong with what a pool writes to from now on; the first one told stays.
    pub fn watch_fault(
        &self,
        pool: Pool,
        fault: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) {
        let _shown_before = self.0.fault.set((pool, Fault(Box::new(fault))));
    }

    pub fn instance(&self) -> &str {
        &self.0.instance
    }

    /// What a pool of this process does.
    pub fn activity(&self, pool: Pool) -> &Activity {
        self.0.metrics.activity(pool)
    }

    /// Ends a second and says what there is to say about this process.
    pub fn tick(&self) -> Snapshot {
        self.0
            .standing
            .all()
            .keys()
            .for_each(|pool| self.activity(*pool).tick());
        Snapshot {
            instance: self.0.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_ms: self.0.started_ms,
            at_ms: now_ms(),
            pools: self.own_pools(),
            unowned: self.own_unowned(),
            dead: lock(&self.0.dead).clone(),
        }
    }

    /// The pools of this process.
    pub fn own_pools(&self) -> Vec<PoolStatus> {
        let states = self.0.standing.all();
        let status = |(pool, state): (&Pool, &State)| {
            let reported = self.0.breakers.get();
            let reported = reported.map_or_else(Vec::new, |breakers| breakers.of(*pool));
            let mut breakers: Vec<OpenBreaker> = reported.iter().filter_map(open_breaker).collect();
            breakers.sort_by_key(|breaker| std::cmp::Reverse(breaker.open_ms));
            let breakers_open = u64::try_from(breakers.len()).unwrap_or(u64::MAX);
            breakers.truncate(BREAKERS_MAX);
            let slow = reported.into_iter().filter(|breaker| breaker.is_slow);
            let slow = slow
                .map(|breaker| breaker.name)
                .take(BREAKERS_MAX)
                .collect();
            let fault = self
                .0
                .fault
                .get()
                .filter(|(of, _)| of == pool)
                .and_then(|(_, fault)| (fault.0)());
            PoolStatus {
                breakers,
                breakers_open,
                slow,
                fault,
                ..self.activity(*pool).status(state.as_str())
            }
        };
        states.iter().map(status).collect()
    }

    /// Takes what a process says, also this one.
    pub fn hear(&self, snapshot: Snapshot) {
        lock(&self.0.fleet).hear(snapshot, Instant::now());
    }

    /// Notes what waits where nobody works.
    pub fn report_unowned(&self, unowned: Vec<UnownedLag>) {
        *lock(&self.0.unowned) = unowned;
    }

    /// What this process last saw waiting where nobody works.
    pub fn own_unowned(&self) -> Vec<UnownedLag> {
        lock(&self.0.unowned).clone()
    }

    /// Notes the open dead letters; none when somebody else looks.
    pub fn report_dead(&self, dead: Option<Vec<OpenDead>>) {
        *lock(&self.0.dead) = dead;
    }

    /// Whether this process is the first by name of those that speak: what one of all should do falls to it.
    pub fn is_first(&self) -> bool {
        self.look()
            .instances()
            .next()
            .is_some_and(|first| first.instance == self.0.instance)
    }

    /// The partitions of a pool that somebody owns.
    pub fn owned(&self, pool: Pool) -> BTreeSet<u16> {
        lock(&self.0.fleet).owned(pool)
    }

    /// Every pool over all processes.
    pub fn pools(&self) -> Vec<PoolSum> {
        self.look().pools()
    }

    /// One pool over all processes.
    pub fn pool(&self, pool: Pool) -> Option<PoolSum> {
        self.look().pool(pool)
    }

    fn look(&self) -> MutexGuard<'_, Fleet> {
        let mut fleet = lock(&self.0.fleet);
        fleet.forget(Instant::now());
        fleet
    }
}

fn open_breaker(breaker: &BreakerReport) -> Option<OpenBreaker> {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Some(OpenBreaker {
        downstream: breaker.name.clone(),
        open_ms: ms(breaker.since?),
        next_ms: ms(breaker.next),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
