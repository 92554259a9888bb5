//! The partitions of one pool that this process holds: taking over, reading, interrupting, giving up.
//!
//! Invariants: nothing of a partition is started but under a current tenure; a partition is given up only when nothing
//! of it runs. What to claim and what to leave is decided elsewhere; what the work is, where it stands and when it runs,
//! is not known here.

use super::intake::{self, Arrival, IntakeError, Reading, Source};
use super::job::LaneSource;
use super::log::Log;
use super::membership::{ClaimError, Seat};
use super::metrics::{Change, Metrics};
use super::owners::Vacancy;
use super::settings::PoolSettings;
use super::standing::State;
use super::tenure::{Tenure, Title};
use ackline_shared::subjects::Partition;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};

/// Partitions opened at once.
const OPENING_MAX: usize = 32;
/// Longest time to open a partition.
const OPEN_WAIT: Duration = Duration::from_secs(15);
/// Pause after a partition could not be opened or read, before it is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

/// The partitions of one pool in this process.
#[derive(Debug)]
pub struct Holdings {
    opener: Arc<Opener>,
    changes: watch::Receiver<u64>,
    metrics: Metrics,
    arrivals: mpsc::Sender<Arrival>,
    bytes: Arc<Semaphore>,
    holdings: BTreeMap<Partition, Holding>,
    tasks: JoinSet<Event>,
    sessions: u64,
    connects: u64,
    is_closing: bool,
    has_changed: bool,
    said: usize,
}

#[derive(Debug)]
struct Opener {
    seat: Seat,
    log: Log,
    settings: Arc<PoolSettings>,
    lanes: Vec<LaneSource>,
    turns: Semaphore,
}

#[derive(Debug)]
struct Holding {
    phase: Phase,
    /// The right to it, once it was won.
    tenure: Option<Tenure>,
    /// Rights under which something may still run.
    earlier: Vec<Tenure>,
    session: u64,
    /// Since when it is being taken over or given up.
    since: Instant,
    /// Tells one holding of a partition from the next.
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

/// Something that happened to a holding.
#[derive(Debug)]
pub enum Event {
    /// Somebody's membership or a record changed.
    Changed,
    /// An attempt to open a partition ended.
    Opened(
        Partition,
        u64,
        Box<Result<(Tenure, Vec<Source>), OpenError>>,
    ),
    /// Reading ended.
    Ended(Partition, u64, Option<IntakeError>),
    /// The release was recorded, or not.
    Released(Partition, bool),
    /// One of our own tasks broke.
    Broken,
}

/// Why a partition is not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It was not won.
    #[error("{0}")]
    Claim(#[from] ClaimError),
    /// It was won, and cannot be read.
    #[error("{1}")]
    Read(Tenure, String),
}

/// How a partition is opened.
enum Way {
    Claim(Vacancy),
    Again(Tenure),
}

impl Holdings {
    /// Begins without any; what is read goes to `arrivals`, each with its share of `bytes`.
    pub fn new(
        seat: Seat,
        log: Log,
        settings: Arc<PoolSettings>,
        lanes: Vec<LaneSource>,
        metrics: Metrics,
        arrivals: mpsc::Sender<Arrival>,
    ) -> Self {
        let bytes = Arc::new(Semaphore::new(
            settings.window_bytes_max.min(Semaphore::MAX_PERMITS),
        ));
        let (changes, connects) = (seat.changes(), connects(&log));
        Self {
            opener: Arc::new(Opener {
                seat,
                log,
                settings,
                lanes,
                turns: Semaphore::new(OPENING_MAX),
            }),
            changes,
            metrics,
            arrivals,
            bytes,
            holdings: BTreeMap::new(),
            tasks: JoinSet::new(),
            sessions: 0,
            connects,
            is_closing: false,
            has_changed: false,
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
        match event {
            Event::Changed => {}
            Event::Opened(partition, session, result) => self.opened(partition, session, *result),
            Event::Ended(partition, session, error) => {
                self.reading_ended(partition, session, error)
            }
            Event::Released(partition, true) => self.released(partition),
            Event::Released(partition, false) => {
                if let Some(holding) = self.holdings.get_mut(&partition) {
                    holding.phase = Phase::Leaving { by: Instant::now() };
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
        self.opener.seat.withdraw();
        self.tend();
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.holdings.is_empty()
    }

    /// Does whatever is due: called on every event and every now and then.
    pub fn tend(&mut self) {
        let titles = self.titles();
        let plan = self.opener.seat.plan(&titles);
        for partition in plan.lost {
            self.lose(partition);
        }
        self.interrupt_stale();
        let leaving: Vec<Partition> = if self.is_closing {
            self.holdings.keys().copied().collect()
        } else {
            plan.leave
        };
        for partition in leaving {
            self.leave(partition);
        }
        self.release_quiet();
        self.open_again();
        for vacancy in plan.claim {
            if !self.is_closing && !self.holdings.contains_key(&vacancy.partition) {
                self.sessions += 1;
                self.holdings
                    .insert(vacancy.partition, Holding::new(self.sessions));
                self.open(vacancy.partition, Way::Claim(vacancy));
            }
        }
        self.say();
    }

    /// What is being read.
    pub fn readings(&self) -> Vec<Reading> {
        let working = self
            .holdings
            .values()
            .filter(|holding| holding.phase == Phase::Working);
        let reading = |holding: &Holding| {
            Some(Reading {
                tenure: holding.tenure.clone()?,
                session: holding.session,
            })
        };
        working.filter_map(reading).collect()
    }

    /// The right to a partition, while it is read under a current one.
    pub fn tenure(&self, partition: Partition) -> Option<Tenure> {
        let holding = self
            .holdings
            .get(&partition)
            .filter(|holding| holding.phase == Phase::Working)?;
        holding.tenure.clone().filter(Tenure::is_current)
    }

    /// Which holding of a partition there is, read or about to be read again.
    pub fn kept(&self, partition: Partition) -> Option<u64> {
        let is_kept = |holding: &&Holding| {
            matches!(
                holding.phase,
                Phase::Working | Phase::Opening | Phase::Interrupted { .. }
            )
        };
        let holding = self.holdings.get(&partition).filter(is_kept);
        holding.map(|holding| holding.number)
    }

    /// Reads a partition anew from its acknowledged floor.
    pub fn read_anew(&mut self, partition: Partition) {
        if let Some(holding) = self.holdings.get_mut(&partition)
            && holding.phase == Phase::Working
        {
            holding.interrupt(Instant::now());
            self.has_changed = true;
        }
    }

    /// An attempt of a partition began; gives which holding of it, for [`Self::stopped`].
    pub fn started(&mut self, partition: Partition) -> u64 {
        self.holdings.get_mut(&partition).map_or(0, |holding| {
            holding.running += 1;
            holding.number
        })
    }

    /// An attempt of a partition ended that began under this holding of it.
    pub fn stopped(&mut self, partition: Partition, number: u64) {
        let holding = self
            .holdings
            .get_mut(&partition)
            .filter(|holding| holding.number == number);
        let Some(holding) = holding else { return };
        holding.running = holding.running.saturating_sub(1);
        if holding.running == 0 {
            holding.earlier.clear();
        }
        if matches!(holding.phase, Phase::Leaving { .. }) {
            self.release_quiet();
        }
    }

    /// Whether what is read changed since this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    /// Where the pool stands.
    pub fn state(&self) -> State {
        let mut phases = self.holdings.values().map(|holding| holding.phase);
        if phases.any(|phase| phase == Phase::Working) {
            State::Working
        } else if self
            .holdings
            .values()
            .any(|holding| holding.phase == Phase::Opening)
        {
            State::Opening
        } else if self.holdings.is_empty() && self.opener.seat.is_informed() {
            State::StandingBy
        } else {
            State::Starting
        }
    }

    /// What is held by which title; one that is being opened is about to get another.
    fn titles(&self) -> BTreeMap<Partition, Option<Title>> {
        let title = |holding: &Holding| match holding.phase {
            Phase::Opening => None,
            _ => holding.tenure.as_ref().map(Tenure::title),
        };
        self.holdings
            .iter()
            .map(|(partition, holding)| (*partition, title(holding)))
            .collect()
    }

    fn open(&mut self, partition: Partition, way: Way) {
        let Some(holding) = self.holdings.get_mut(&partition) else {
            return;
        };
        self.sessions += 1;
        (holding.session, holding.phase) = (self.sessions, Phase::Opening);
        let (opener, session) = (self.opener.clone(), self.sessions);
        self.tasks.spawn(async move {
            let opened = match timeout(OPEN_WAIT, opener.open(partition, way)).await {
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
        result: Result<(Tenure, Vec<Source>), OpenError>,
    ) {
        let pool = self.opener.seat.pool();
        // It may have been lost while it was opened; should it be ours after all, it is claimed anew.
        let Some(holding) = self.holdings.get_mut(&partition) else {
            return;
        };
        if holding.session != session {
            return;
        }
        let interrupted = Phase::Interrupted {
            until: Instant::now() + REOPEN_PAUSE,
        };
        match result {
            Ok((tenure, sources)) => {
                let is_new = holding.tenure.is_none();
                holding.adopt(tenure.clone());
                holding.phase = Phase::Working;
                let reading = Reading { tenure, session };
                for source in sources {
                    let read = intake::read(
                        source,
                        reading.clone(),
                        self.bytes.clone(),
                        self.arrivals.clone(),
                    );
                    let ended = async move { Event::Ended(partition, session, read.await.err()) };
                    holding.readers.push(self.tasks.spawn(ended));
                }
                if is_new {
                    self.metrics
                        .changed_hands(pool, Change::Taken, holding.since.elapsed());
                }
            }
            Err(OpenError::Read(tenure, reason)) => {
                tracing::warn!(%pool, %partition, reason, "the partition cannot be read; trying again");
                holding.adopt(tenure);
                holding.phase = interrupted;
            }
            Err(OpenError::Claim(error)) => {
                tracing::debug!(%pool, %partition, %error, "the partition was not won");
                if holding.tenure.is_some() {
                    holding.phase = interrupted;
                } else {
                    self.holdings.remove(&partition);
                }
            }
        }
    }

    fn reading_ended(&mut self, partition: Partition, session: u64, error: Option<IntakeError>) {
        let pool = self.opener.seat.pool();
        if let Some(holding) = self.holdings.get_mut(&partition)
            && holding.phase == Phase::Working
            && holding.session == session
        {
            if let Some(error) = error {
                tracing::warn!(%pool, %partition, %error, "reading is begun again");
            }
            holding.interrupt(Instant::now() + REOPEN_PAUSE);
            self.has_changed = true;
        }
    }

    /// Stops reading where messages may have been lost on the way to us, or where the right to it is in doubt.
    fn interrupt_stale(&mut self) {
        let connects = connects(&self.opener.log);
        let was_reconnected = std::mem::replace(&mut self.connects, connects) != connects;
        let is_over = self.opener.seat.is_over();
        for holding in self.holdings.values_mut() {
            let is_current = holding.tenure.as_ref().is_some_and(Tenure::is_current);
            if holding.phase == Phase::Working && (was_reconnected || !is_current) {
                holding.interrupt(Instant::now());
                self.has_changed = true;
            }
            if is_over {
                holding.cut();
            }
        }
    }

    fn open_again(&mut self) {
        if !self.opener.seat.is_fresh() {
            return;
        }
        let now = Instant::now();
        let mut due = Vec::new();
        for (partition, holding) in &self.holdings {
            if let (Phase::Interrupted { until }, Some(tenure)) = (holding.phase, &holding.tenure)
                && until <= now
            {
                due.push((*partition, tenure.clone()));
            }
        }
        for (partition, tenure) in due {
            let Title {
                revision, epoch, ..
            } = tenure.title();
            // A right that was in doubt is claimed anew: whoever else claimed it meanwhile wins.
            let way = match tenure.is_current() {
                true => Way::Again(tenure),
                false => Way::Claim(Vacancy {
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
        if let Some(holding) = self.holdings.get_mut(&partition)
            && matches!(holding.phase, Phase::Working | Phase::Interrupted { .. })
        {
            holding.tenure.iter().for_each(Tenure::leave);
            holding.interrupt(Instant::now());
            holding.phase = Phase::Leaving { by };
            holding.since = Instant::now();
            self.has_changed = true;
        }
    }

    fn release_quiet(&mut self) {
        let now = Instant::now();
        let pool = self.opener.seat.pool();
        for (partition, holding) in &mut self.holdings {
            let Phase::Leaving { by } = holding.phase else {
                continue;
            };
            if holding.running > 0 {
                if by <= now {
                    tracing::warn!(%pool, %partition, "running jobs did not finish in time and will be done again");
                    holding.cut();
                }
                continue;
            }
            holding.phase = Phase::Releasing;
            let (opener, partition, tenure) =
                (self.opener.clone(), *partition, holding.tenure.clone());
            self.tasks.spawn(async move {
                let is_released = match tenure {
                    Some(tenure) => opener.seat.release(&tenure).await,
                    None => true,
                };
                Event::Released(partition, is_released)
            });
        }
    }

    fn released(&mut self, partition: Partition) {
        if let Some(holding) = self.holdings.remove(&partition) {
            holding.cut();
            let pool = self.opener.seat.pool();
            self.metrics
                .changed_hands(pool, Change::Given, holding.since.elapsed());
        }
        self.has_changed = true;
    }

    fn lose(&mut self, partition: Partition) {
        if let Some(mut holding) = self.holdings.remove(&partition) {
            holding.interrupt(Instant::now());
            holding.cut();
            let pool = self.opener.seat.pool();
            tracing::warn!(%pool, %partition, "another process took the partition over");
            self.metrics
                .changed_hands(pool, Change::Lost, Duration::ZERO);
        }
        self.has_changed = true;
    }

    /// Says how much is held, once it has settled.
    fn say(&mut self) {
        let is_settled = self
            .holdings
            .values()
            .all(|holding| holding.phase == Phase::Working);
        let owned = self
            .holdings
            .iter()
            .filter(|(_, holding)| holding.tenure.is_some());
        let owned: BTreeSet<Partition> = owned.map(|(partition, _)| *partition).collect();
        let (pool, count) = (self.opener.seat.pool(), owned.len());
        self.metrics.owns(pool, owned);
        if is_settled && self.said != count {
            self.said = count;
            tracing::info!(%pool, partitions = count, "this process's share of the pool changed");
        }
    }
}

impl Holding {
    fn new(number: u64) -> Self {
        Self {
            phase: Phase::Opening,
            tenure: None,
            earlier: Vec::new(),
            session: 0,
            since: Instant::now(),
            number,
            running: 0,
            readers: Vec::new(),
        }
    }

    fn adopt(&mut self, tenure: Tenure) {
        self.earlier.extend(self.tenure.replace(tenure));
        if self.running == 0 {
            self.earlier.clear();
        }
    }

    /// Stops reading.
    fn interrupt(&mut self, until: Instant) {
        self.readers.drain(..).for_each(|reader| reader.abort());
        self.phase = Phase::Interrupted { until };
        self.session = 0;
    }

    /// Ends what runs.
    fn cut(&self) {
        self.earlier
            .iter()
            .chain(&self.tenure)
            .for_each(Tenure::cut);
    }
}

impl Opener {
    async fn open(
        &self,
        partition: Partition,
        way: Way,
    ) -> Result<(Tenure, Vec<Source>), OpenError> {
        let _turn = self.turns.acquire().await;
        let tenure = match way {
            Way::Claim(vacancy) => self.seat.claim(&vacancy).await?,
            Way::Again(tenure) => tenure,
        };
        let pool = self.seat.pool();
        let opened = intake::open(
            self.log.context(),
            &self.settings,
            pool,
            &self.lanes,
            partition,
        )
        .await;
        match opened {
            Ok(sources) => Ok((tenure, sources)),
            Err(error) => Err(OpenError::Read(tenure, error.to_string())),
        }
    }
}

/// How often this process has connected to NATS so far.
pub fn connects(log: &Log) -> u64 {
    log.context()
        .client()
        .statistics()
        .connects
        .load(Ordering::Relaxed)
}
