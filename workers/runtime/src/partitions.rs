//! The partitions of one pool that this process holds: taking over, reading, interrupting, giving up.
//!
//! Invariants: nothing of a partition is started but under a current lease; a partition is given up only when nothing
//! of it runs. What to claim and what to leave is decided elsewhere; what the work is, where it stands and when it runs,
//! is not known here.

use super::asked::{Asked, Askers, Audience};
use super::consumer::ConsumerFault;
use super::floors::FloorStore;
use super::intake::{self, Arrival, Reading, Source};
use super::job::LaneSource;
use super::log::Log;
use super::metrics::{Change, Metrics};
use super::platform::Platform;
use super::settings::PoolSettings;
use ackline_ownership::lease::{FencingToken, Lease};
use ackline_ownership::membership::{ClaimError, Participant};
use ackline_ownership::owners::Claimable;
use ackline_ownership::standing::State;
use ackline_shared::subjects::Partition;
use async_nats::jetstream::Context;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};

const OPENING_MAX: usize = 32;
/// Longest time to open a partition.
const OPEN_WAIT: Duration = Duration::from_secs(15);
/// Pause after a partition could not be opened or read, before it is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

/// What of each partition is read.
#[derive(Debug)]
pub struct Reads {
    pub lanes: Vec<LaneSource>,
    /// For whom.
    pub askers: Askers,
}

/// The partitions of one pool in this process.
#[derive(Debug)]
pub struct OwnedPartitions {
    opener: Arc<Opener>,
    /// Whose updates are read.
    asked: Asked,
    changes: watch::Receiver<u64>,
    metrics: Metrics,
    arrivals: mpsc::Sender<Arrival>,
    bytes: Arc<Semaphore>,
    partitions: BTreeMap<Partition, OwnedPartition>,
    tasks: JoinSet<Event>,
    sessions: u64,
    connects: u64,
    is_closing: bool,
    has_changed: bool,
    /// Whether a phase may have changed.
    is_touched: bool,
    said: usize,
}

#[derive(Debug)]
struct Opener {
    participant: Participant,
    log: Log,
    floors: FloorStore,
    settings: Arc<PoolSettings>,
    lanes: Vec<LaneSource>,
    turns: Semaphore,
}

#[derive(Debug)]
struct OwnedPartition {
    phase: Phase,
    /// The right to it, once it was won.
    lease: Option<Lease>,
    /// Rights under which something may still run.
    earlier: Vec<Lease>,
    session: u64,
    /// Whose updates it is read for, and by which version of the configuration that was last looked at.
    audience: Audience,
    asked: Option<u64>,
    /// Since when it is being taken over or given up.
    since: Instant,
    /// Tells one time of owning a partition from the next.
    number: u64,
    /// Attempts that are being made.
    running: usize,
    readers: Vec<AbortHandle>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It is being claimed or its consumers are being opened.
    Opening,
    /// It is read and worked on.
    Working,
    /// Reading was interrupted and begins again.
    Interrupted { until: Instant },
    /// Nothing new is started; what runs may finish until then.
    Leaving { by: Instant },
    /// The record of its release is being written.
    Releasing,
}

/// Something that happened to an owned partition.
#[derive(Debug)]
pub enum Event {
    /// Somebody's membership or a record changed.
    Changed,
    /// An attempt to open a partition ended.
    Opened(Partition, u64, Box<Result<(Lease, Vec<Source>), OpenError>>),
    Ended(Partition, u64, Option<ConsumerFault>),
    /// The release was recorded, or not.
    Released(Partition, bool),
    /// One of our own tasks broke.
    Broken,
}

/// Why a partition is not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Claim(#[from] ClaimError),
    /// It was won, and cannot be read.
    #[error("{1}")]
    Read(Lease, String),
}

/// How a partition is opened.
enum Way {
    Claim(Claimable),
    Again(Lease),
}

impl OwnedPartitions {
    /// Begins without any; what is read goes to `arrivals`, each with its share of `bytes`.
    pub fn new(
        participant: Participant,
        platform: &Platform,
        settings: Arc<PoolSettings>,
        Reads { lanes, askers }: Reads,
        metrics: Metrics,
        arrivals: mpsc::Sender<Arrival>,
    ) -> Self {
        let (log, floors) = (platform.log.clone(), platform.floors.clone());
        let asked = Asked::new(askers, platform.registry.clone(), log.partitions());
        let bytes = Arc::new(Semaphore::new(
            settings.window_bytes_max.min(Semaphore::MAX_PERMITS),
        ));
        let (changes, connects) = (participant.changes(), connects(&log));
        Self {
            opener: Arc::new(Opener {
                participant,
                log,
                floors,
                settings,
                lanes,
                turns: Semaphore::new(OPENING_MAX),
            }),
            asked,
            changes,
            metrics,
            arrivals,
            bytes,
            partitions: BTreeMap::new(),
            tasks: JoinSet::new(),
            sessions: 0,
            connects,
            is_closing: false,
            has_changed: false,
            is_touched: true,
            said: 0,
        }
    }

    /// Waits for the next event; cancelling it loses none.
    pub async fn next(&mut self) -> Event {
        tokio::select! {
            changed = self.changes.changed() => if changed.is_ok() { Event::Changed } else { Event::Broken },
            Some(event) = self.tasks.join_next() => match event {
                Ok(event) => event,
                Err(error) if error.is_cancelled() => Event::Changed,
                Err(_) => Event::Broken,
            },
        }
    }

    /// Takes an event in; false when a task of ours broke and everything should begin anew.
    pub fn take(&mut self, event: Event) -> bool {
        self.is_touched = true;
        match event {
            Event::Changed => {}
            Event::Opened(partition, session, result) => self.opened(partition, session, *result),
            Event::Ended(partition, session, error) => {
                self.reading_ended(partition, session, error)
            }
            Event::Released(partition, true) => self.released(partition),
            Event::Released(partition, false) => {
                if let Some(owned) = self.partitions.get_mut(&partition) {
                    owned.phase = Phase::Leaving { by: Instant::now() };
                }
                return true;
            }
            Event::Broken => return false,
        }
        self.tend();
        true
    }

    /// Gives everything up, now and in the future.
    pub fn close(&mut self) {
        self.is_closing = true;
        self.opener.participant.withdraw();
        self.tend();
    }

    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Does whatever is due: called on every event and every now and then.
    pub fn tend(&mut self) {
        self.is_touched = true;
        let tokens = self.tokens();
        let plan = self.opener.participant.plan(&tokens);
        for partition in plan.lost {
            self.lose(partition);
        }
        self.interrupt_stale();
        self.follow_askers();
        let leaving: Vec<Partition> = if self.is_closing {
            self.partitions.keys().copied().collect()
        } else {
            plan.leave
        };
        for partition in leaving {
            self.leave(partition);
        }
        self.release_quiet();
        self.open_again();
        for claimable in plan.claim {
            if !self.is_closing && !self.partitions.contains_key(&claimable.partition) {
                self.sessions += 1;
                self.partitions
                    .insert(claimable.partition, OwnedPartition::new(self.sessions));
                self.open(claimable.partition, Way::Claim(claimable));
            }
        }
        self.say();
    }

    pub fn readings(&self) -> Vec<Reading> {
        let working = self
            .partitions
            .values()
            .filter(|owned| owned.phase == Phase::Working);
        let reading = |owned: &OwnedPartition| {
            Some(Reading {
                lease: owned.lease.clone()?,
                session: owned.session,
            })
        };
        working.filter_map(reading).collect()
    }

    /// The right to a partition, while it is read under a current one.
    pub fn lease(&self, partition: Partition) -> Option<Lease> {
        let owned = self
            .partitions
            .get(&partition)
            .filter(|owned| owned.phase == Phase::Working)?;
        owned.lease.clone().filter(Lease::is_current)
    }

    /// Which time of owning a partition it is, read or about to be read again.
    pub fn kept(&self, partition: Partition) -> Option<u64> {
        let is_kept = |owned: &&OwnedPartition| {
            matches!(
                owned.phase,
                Phase::Working | Phase::Opening | Phase::Interrupted { .. }
            )
        };
        let owned = self.partitions.get(&partition).filter(is_kept);
        owned.map(|owned| owned.number)
    }

    /// Reads a partition anew from its acknowledged floor.
    pub fn read_anew(&mut self, partition: Partition) {
        if let Some(owned) = self.partitions.get_mut(&partition)
            && owned.phase == Phase::Working
        {
            owned.interrupt(Instant::now());
            (self.has_changed, self.is_touched) = (true, true);
        }
    }

    /// An attempt of a partition began; gives which time of owning it, for [`Self::stopped`].
    pub fn started(&mut self, partition: Partition) -> u64 {
        self.partitions.get_mut(&partition).map_or(0, |owned| {
            owned.running += 1;
            owned.number
        })
    }

    /// An attempt of a partition ended that began while it was owned that time.
    pub fn stopped(&mut self, partition: Partition, number: u64) {
        let owned = self
            .partitions
            .get_mut(&partition)
            .filter(|owned| owned.number == number);
        let Some(owned) = owned else { return };
        owned.running = owned.running.saturating_sub(1);
        if owned.running == 0 {
            owned.earlier.clear();
        }
        if matches!(owned.phase, Phase::Leaving { .. }) {
            self.is_touched = true;
            self.release_quiet();
        }
    }

    /// Whether a look at what is read is due, for something may have changed.
    pub fn take_touched(&mut self) -> bool {
        std::mem::take(&mut self.is_touched)
    }

    /// Whether what is read changed since this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    pub fn state(&self) -> State {
        let mut phases = self.partitions.values().map(|owned| owned.phase);
        if phases.any(|phase| phase == Phase::Working) {
            State::Working
        } else if self
            .partitions
            .values()
            .any(|owned| owned.phase == Phase::Opening)
        {
            State::Opening
        } else if self.partitions.is_empty() && self.opener.participant.is_informed() {
            State::StandingBy
        } else {
            State::Starting
        }
    }

    /// What is held under which fencing token; one that is being opened is about to get another.
    fn tokens(&self) -> BTreeMap<Partition, Option<FencingToken>> {
        let token = |owned: &OwnedPartition| match owned.phase {
            Phase::Opening => None,
            _ => owned.lease.as_ref().map(Lease::token),
        };
        self.partitions
            .iter()
            .map(|(partition, owned)| (*partition, token(owned)))
            .collect()
    }

    fn open(&mut self, partition: Partition, way: Way) {
        let Some(owned) = self.partitions.get_mut(&partition) else {
            return;
        };
        self.sessions += 1;
        (owned.session, owned.phase) = (self.sessions, Phase::Opening);
        let audience = self.asked.audience(partition);
        (owned.audience, owned.asked) = (audience.clone(), self.asked.version());
        let (opener, session) = (self.opener.clone(), self.sessions);
        self.tasks.spawn(async move {
            let opening = opener.open(partition, way, &audience);
            let opened = match timeout(OPEN_WAIT, opening).await {
                Ok(opened) => opened,
                Err(_) => Err(ClaimError::Refused("opening took too long".to_owned()).into()),
            };
            Event::Opened(partition, session, Box::new(opened))
        });
    }

    fn opened(
        &mut self,
        partition: Partition,
        session: u64,
        result: Result<(Lease, Vec<Source>), OpenError>,
    ) {
        let pool = self.opener.participant.pool();
        // It may have been lost while it was opened; should it be ours after all, it is claimed anew.
        let Some(owned) = self.partitions.get_mut(&partition) else {
            return;
        };
        if owned.session != session {
            return;
        }
        let interrupted = Phase::Interrupted {
            until: Instant::now() + REOPEN_PAUSE,
        };
        match result {
            Ok((lease, sources)) => {
                let is_new = owned.lease.is_none();
                owned.adopt(lease.clone());
                owned.phase = Phase::Working;
                let reading = Reading { lease, session };
                for source in sources {
                    let read = intake::read(
                        source,
                        reading.clone(),
                        self.bytes.clone(),
                        self.arrivals.clone(),
                    );
                    let ended = async move { Event::Ended(partition, session, read.await.err()) };
                    owned.readers.push(self.tasks.spawn(ended));
                }
                if is_new {
                    self.metrics
                        .changed_hands(pool, Change::Taken, owned.since.elapsed());
                }
            }
            Err(OpenError::Read(lease, reason)) => {
                tracing::warn!(%pool, %partition, reason, "the partition cannot be read; trying again");
                owned.adopt(lease);
                owned.phase = interrupted;
            }
            Err(OpenError::Claim(error)) => {
                tracing::debug!(%pool, %partition, %error, "the partition was not won");
                if owned.lease.is_some() {
                    owned.phase = interrupted;
                } else {
                    self.partitions.remove(&partition);
                }
            }
        }
    }

    fn reading_ended(&mut self, partition: Partition, session: u64, error: Option<ConsumerFault>) {
        let pool = self.opener.participant.pool();
        if let Some(owned) = self.partitions.get_mut(&partition)
            && owned.phase == Phase::Working
            && owned.session == session
        {
            if let Some(error) = error {
                tracing::warn!(%pool, %partition, %error, "reading is begun again");
            }
            owned.interrupt(Instant::now() + REOPEN_PAUSE);
            self.has_changed = true;
        }
    }

    /// Stops reading where messages may have been lost on the way to us, or where the right to it is in doubt.
    fn interrupt_stale(&mut self) {
        let connects = connects(&self.opener.log);
        let was_reconnected = std::mem::replace(&mut self.connects, connects) != connects;
        let is_over = self.opener.participant.is_over();
        for owned in self.partitions.values_mut() {
            let is_current = owned.lease.as_ref().is_some_and(Lease::is_current);
            if owned.phase == Phase::Working && (was_reconnected || !is_current) {
                owned.interrupt(Instant::now());
                self.has_changed = true;
            }
            if is_over {
                owned.cut();
            }
        }
    }

    /// Opens partitions again whose audience changed.
    fn follow_askers(&mut self) {
        let version = self.asked.version();
        for (partition, owned) in &mut self.partitions {
            if owned.phase != Phase::Working || owned.asked == version {
                continue;
            }
            owned.asked = version;
            if self.asked.audience(*partition) != owned.audience {
                owned.interrupt(Instant::now());
                self.has_changed = true;
            }
        }
    }

    fn open_again(&mut self) {
        if !self.opener.participant.is_fresh() {
            return;
        }
        let now = Instant::now();
        let mut due = Vec::new();
        for (partition, owned) in &self.partitions {
            if let (Phase::Interrupted { until }, Some(lease)) = (owned.phase, &owned.lease)
                && until <= now
            {
                due.push((*partition, lease.clone()));
            }
        }
        for (partition, lease) in due {
            let FencingToken {
                revision, epoch, ..
            } = lease.token();
            // A right that was in doubt is claimed anew: whoever else claimed it meanwhile wins.
            let way = match lease.is_current() {
                true => Way::Again(lease),
                false => Way::Claim(Claimable {
                    partition,
                    revision,
                    epoch,
                }),
            };
            self.open(partition, way);
        }
    }

    fn leave(&mut self, partition: Partition) {
        let by = Instant::now() + self.opener.settings.drain_timeout;
        if let Some(owned) = self.partitions.get_mut(&partition)
            && matches!(owned.phase, Phase::Working | Phase::Interrupted { .. })
        {
            owned.lease.iter().for_each(Lease::leave);
            owned.interrupt(Instant::now());
            owned.phase = Phase::Leaving { by };
            owned.since = Instant::now();
            self.has_changed = true;
        }
    }

    fn release_quiet(&mut self) {
        let now = Instant::now();
        let pool = self.opener.participant.pool();
        for (partition, owned) in &mut self.partitions {
            let Phase::Leaving { by } = owned.phase else {
                continue;
            };
            if owned.running > 0 {
                if by <= now {
                    tracing::warn!(%pool, %partition, "running jobs did not finish in time and will be done again");
                    owned.cut();
                }
                continue;
            }
            owned.phase = Phase::Releasing;
            let (opener, partition, lease) = (self.opener.clone(), *partition, owned.lease.clone());
            self.tasks.spawn(async move {
                let is_released = match lease {
                    Some(lease) => opener.participant.release(&lease).await,
                    None => true,
                };
                Event::Released(partition, is_released)
            });
        }
    }

    fn released(&mut self, partition: Partition) {
        if let Some(owned) = self.partitions.remove(&partition) {
            owned.cut();
            let pool = self.opener.participant.pool();
            self.metrics
                .changed_hands(pool, Change::Given, owned.since.elapsed());
        }
        self.has_changed = true;
    }

    fn lose(&mut self, partition: Partition) {
        if let Some(mut owned) = self.partitions.remove(&partition) {
            owned.interrupt(Instant::now());
            owned.cut();
            let pool = self.opener.participant.pool();
            tracing::warn!(%pool, %partition, "another process took the partition over");
            self.metrics
                .changed_hands(pool, Change::Lost, Duration::ZERO);
        }
        self.has_changed = true;
    }

    /// Says how much is held, once it has settled.
    fn say(&mut self) {
        let is_settled = self
            .partitions
            .values()
            .all(|owned| owned.phase == Phase::Working);
        let settled = self
            .partitions
            .iter()
            .filter(|(_, owned)| owned.lease.is_some());
        let settled: BTreeSet<Partition> = settled.map(|(partition, _)| *partition).collect();
        let (pool, count) = (self.opener.participant.pool(), settled.len());
        self.metrics.owns(pool, settled);
        if is_settled && self.said != count {
            self.said = count;
            tracing::info!(%pool, partitions = count, "this process's share of the pool changed");
        }
    }
}

impl OwnedPartition {
    fn new(number: u64) -> Self {
        Self {
            phase: Phase::Opening,
            lease: None,
            earlier: Vec::new(),
            session: 0,
            since: Instant::now(),
            number,
            audience: None,
            asked: None,
            running: 0,
            readers: Vec::new(),
        }
    }

    fn adopt(&mut self, lease: Lease) {
        self.earlier.extend(self.lease.replace(lease));
        if self.running == 0 {
            self.earlier.clear();
        }
    }

    fn interrupt(&mut self, until: Instant) {
        self.readers.drain(..).for_each(|reader| reader.abort());
        self.phase = Phase::Interrupted { until };
        self.session = 0;
    }

    fn cut(&self) {
        self.earlier.iter().chain(&self.lease).for_each(Lease::cut);
    }
}

impl Opener {
    async fn open(
        &self,
        partition: Partition,
        way: Way,
        audience: &Audience,
    ) -> Result<(Lease, Vec<Source>), OpenError> {
        let _turn = self.turns.acquire().await;
        let lease = match way {
            Way::Claim(claimable) => self.participant.claim(&claimable).await?,
            Way::Again(lease) => lease,
        };
        let pool = self.participant.pool();
        let opened = intake::open(
            &self.log,
            &self.floors,
            &self.settings,
            pool,
            &self.lanes,
            (partition, audience),
        )
        .await;
        match opened {
            Ok(sources) => Ok((lease, sources)),
            Err(error) => Err(OpenError::Read(lease, error.to_string())),
        }
    }
}

/// How often this process has connected to NATS so far.
pub fn connects(log: &Log) -> u64 {
    connects_of(log.context())
}

/// How often one of its connections was made.
pub fn connects_of(context: &Context) -> u64 {
    context
        .client()
        .statistics()
        .connects
        .load(Ordering::Relaxed)
}
