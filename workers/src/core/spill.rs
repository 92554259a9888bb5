//! Waiting out of others' way: a tenant larger than its share of a window, and conversations that wait for long,
//! move to lines in SPILL, in order, and back.
//!
//! Invariants: what is moved is stored before it is acknowledged, with everything a dead letter or a memory needs
//! to know where it came from; while a line holds something unread, whoever comes later goes behind it; a
//! partition's lines are looked up before anything of it is scheduled, so that a successor finds what its
//! predecessor moved. A full or failing SPILL moves nobody: the window holds what it holds, as without it.
//!
//! A conversation's line is woken by its owner's timer, not by scheduled messages of the server: the owner has to
//! know the line anyway to send later updates behind it, its due time is durable in the conversation's record,
//! and one fact kept in two places could differ.

#![expect(clippy::vec_box, reason = "arrivals are boxed once, where they are read")]

mod copy;
mod crowding;
mod event;
mod line;
mod pace;
mod shelf;
mod store;
#[cfg(test)]
mod tests;
mod told;

use super::intake::{self, Arrival, Place, Reading};
use super::job::LaneSource;
use super::settings::PoolSettings;
use ackline_shared::ids::{PhoneNumberId, TenantId, short_hash};
use ackline_shared::subjects::{self, Partition, Pool, SpillLine};
use async_nats::jetstream::Context;
use async_nats::jetstream::message::StreamMessage;
use crowding::{Bounds, Crowding};
pub use crowding::{Seat, Window};
pub use event::{Event, Item, Loaded, Turnout};
use line::{Line, Reach};
use pace::Unwritten;
use shelf::{Shelf, entries_of, lines_of};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::Store;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// How far a tenant's line is read ahead.
const TENANT_REACH: Reach = Reach { entries: 64, together: 32, removals: 64 };
/// A conversation's line is worked off one by one.
const CONVERSATION_REACH: Reach = Reach { entries: 1, together: 1, removals: 1 };
/// Conversations of one tenant in one lane and partition that may wait in lines; further ones wait in the process.
const PARKED_MAX: usize = 64;
/// Lines read at once.
const LOADS_MAX: usize = 8;
/// Pause after SPILL could not be read or written.
const STORE_RETRY: Duration = Duration::from_millis(500);
/// How often all lines are counted again.
const RECOUNT: Duration = Duration::from_secs(30);
/// Share of the pool's bytes that lines may be read ahead with.
const BYTES_FRACTION: usize = 4;

/// Where an arrival read from a line stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    line: Arc<SpillLine>,
    sequence: u64,
}

/// The lines of one pool in this process.
#[derive(Debug)]
pub struct Spill {
    pool: Pool,
    lane_names: Vec<&'static str>,
    streams: Vec<&'static str>,
    shelf: Shelf,
    bounds: Bounds,
    park_after: Duration,
    crowding: Arc<Mutex<Crowding>>,
    known: BTreeMap<Partition, Known>,
    /// When all lines are counted again.
    recount: Instant,
    lines: HashMap<Arc<SpillLine>, Line>,
    /// How many conversations' lines there are, by tenant's line.
    parked: HashMap<SpillLine, usize>,
    wakes: BTreeSet<(Instant, Arc<SpillLine>)>,
    /// Copies whose originals are still at work; one stored again after the duplicate window is there twice.
    twins: HashMap<Place, Vec<Origin>>,
    /// What is at work and has a copy in a line, or will have.
    twinned: HashSet<Place>,
    /// What was read from a line and is not finished: its copy stays there until it is.
    copied: HashSet<Place>,
    unwritten: Unwritten,
    /// Where updates stood that go on in a line.
    let_go: Vec<Place>,
    /// Where those stand that are not stored in their line yet: one offered again meanwhile is not put there twice.
    moving: HashSet<Place>,
    tasks: JoinSet<Event>,
}

/// What is known of a partition's lines.
#[derive(Debug)]
struct Known {
    reading: Reading,
    /// What waits until its lines are looked up; none once they are.
    waiting: Option<VecDeque<Box<Arrival>>>,
}

impl Spill {
    /// Begins without lines.
    pub fn new(pool: Pool, lanes: &[LaneSource], context: Context, settings: &PoolSettings) -> Self {
        let bytes = (settings.window_bytes_max / BYTES_FRACTION).min(Semaphore::MAX_PERMITS);
        Self {
            pool,
            lane_names: lanes.iter().map(|lane| lane.name).collect(),
            streams: lanes.iter().map(|lane| lane.stream).collect(),
            shelf: Shelf {
                pool,
                store: Store::new(context),
                turns: Arc::new(Semaphore::new(LOADS_MAX)),
                bytes: Arc::new(Semaphore::new(bytes)),
            },
            bounds: Bounds {
                window: settings.window,
                bytes: settings.window_bytes_max,
                share: settings.spill_share,
            },
            park_after: settings.park_after,
            crowding: Arc::default(),
            known: BTreeMap::new(),
            recount: Instant::now() + RECOUNT,
            lines: HashMap::new(),
            parked: HashMap::new(),
            wakes: BTreeSet::new(),
            twins: HashMap::new(),
            twinned: HashSet::new(),
            copied: HashSet::new(),
            unwritten: Unwritten::new(Instant::now()),
            let_go: Vec::new(),
            moving: HashSet::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Where updates stood that go on in a line since this was last asked: what is read of them now is a copy, or
    /// comes again, and is not held here any more.
    pub fn take_let_go(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.let_go)
    }

    /// Follows what is being read: forgets the lines of the rest, and looks up those of what is new.
    pub fn follow(&mut self, readings: Vec<Reading>) {
        let is_read = |partition: &Partition, session: u64| {
            readings.iter().any(|now| now.tenure.partition() == *partition && now.session == session)
        };
        self.known.retain(|partition, known| is_read(partition, known.reading.session));
        let known = &self.known;
        self.lines.retain(|line, _| known.contains_key(&line.partition));
        self.parked.retain(|line, _| known.contains_key(&line.partition));
        self.wakes.retain(|(_, line)| known.contains_key(&line.partition));
        self.twins.retain(|place, _| known.contains_key(&place.partition));
        self.twinned.retain(|place| known.contains_key(&place.partition));
        self.copied.retain(|place| known.contains_key(&place.partition));
        let moving = &mut self.moving;
        self.unwritten.retain(|(line, item)| {
            let is_read =
                known.get(&line.partition).is_some_and(|known| known.reading.session == item.session());
            if let (Item::Moved(arrival), false) = (item, is_read) {
                moving.remove(&arrival.place());
            }
            is_read
        });
        for reading in readings {
            self.look_up(reading);
        }
    }

    /// Counts all lines again when it is time: what a predecessor moved in its last moments may have come late.
    pub fn look_again(&mut self) {
        if self.recount > Instant::now() || self.known.is_empty() {
            return;
        }
        self.recount = Instant::now() + RECOUNT;
        let (store, pool) = (self.shelf.store.clone(), self.shelf.pool);
        self.tasks.spawn(async move {
            let counts = store.count(&subjects::spill_filter(pool, None)).await.unwrap_or_default();
            Event::Recounted(lines_of(counts))
        });
    }

    fn look_up(&mut self, reading: Reading) {
        let (partition, session) = (reading.tenure.partition(), reading.session);
        if self.known.contains_key(&partition) {
            return;
        }
        self.known.insert(partition, Known { reading, waiting: Some(VecDeque::new()) });
        let (store, pool) = (self.shelf.store.clone(), self.shelf.pool);
        self.tasks.spawn(async move {
            loop {
                match store.count(&subjects::spill_filter(pool, Some(partition))).await {
                    Ok(counts) => return Event::Counted(partition, session, lines_of(counts)),
                    Err(error) => {
                        tracing::warn!(%pool, %partition, %error, "a partition waits for its lines");
                        sleep(STORE_RETRY).await;
                    }
                }
            }
        });
    }

    /// Takes in what was read from a window; gives it back when it is to be scheduled.
    pub fn admit(&mut self, mut arrival: Box<Arrival>) -> Option<Box<Arrival>> {
        if arrival.defect.is_some() {
            return Some(arrival);
        }
        self.look_up(arrival.reading.clone());
        let place = arrival.place();
        if self.moving.contains(&place) {
            self.let_go.push(place);
            return None;
        }
        let (partition, lane) = (place.partition, arrival.lane);
        if let Some(Known { waiting: Some(waiting), .. }) = self.known.get_mut(&partition) {
            waiting.push_back(arrival);
            return None;
        }
        if !self.lines.is_empty() {
            let line = self.line_of(&arrival, None);
            if self.lines.get(&line).is_some_and(Line::has_unread) {
                self.append(Arc::new(line), Item::Moved(arrival));
                return None;
            }
        }
        let (window, bytes) = ((partition, lane), arrival.work.payload.len());
        let tenant = arrival.work.head.tenant.clone();
        let sequence = arrival.work.sequence;
        arrival.seat = Some(Seat::take(&self.crowding, window, tenant, sequence, bytes));
        Some(arrival)
    }

    /// Looks which tenants are in others' way; what they have queued in a window is then to be [`Self::move_out`]
    /// of it. `is_stuck` tells whether a tenant cannot use what it holds.
    pub fn sweep(&mut self, is_stuck: impl Fn(&TenantId) -> bool) -> Vec<(Window, TenantId)> {
        let bounds = self.bounds;
        self.lock().sweep(&bounds, is_stuck)
    }

    /// Moves everything that a tenant has queued of one window, and all that comes later, to the tenant's line.
    ///
    /// What of it has started stays, and leaves a copy before the rest: should the process end, the original would
    /// be read again behind what was moved.
    pub fn move_out(&mut self, window: Window, tenant: &TenantId, mut queued: Vec<Box<Arrival>>) {
        queued.sort_by_key(|arrival| arrival.work.sequence);
        let Some(first) = queued.first() else { return };
        let (line, stream, session) =
            (Arc::new(self.line_of(first, None)), first.stream, first.reading.session);
        tracing::info!(
            pool = %self.shelf.pool, %tenant, partition = %line.partition, updates = queued.len(),
            "a tenant larger than its share moves out of the others' way"
        );
        let moved: BTreeSet<u64> = queued.iter().map(|arrival| arrival.work.sequence).collect();
        let held = self.lock().held(window, tenant);
        for sequence in held.into_iter().filter(|sequence| !moved.contains(sequence)) {
            if self.twinned.insert(Place { partition: line.partition, stream, sequence }) {
                self.append(line.clone(), Item::Twin { stream, sequence, session });
            }
        }
        for mut arrival in queued {
            arrival.seat = None;
            self.append(line.clone(), Item::Moved(arrival));
        }
    }

    /// Sends an update that is about to run behind those of its conversation that wait in a line; gives it back
    /// when there are none.
    pub fn divert(&mut self, arrival: Box<Arrival>) -> Option<Box<Arrival>> {
        if self.parked.is_empty()
            || arrival.trail.is_begun()
            || !self.parked.contains_key(&self.line_of(&arrival, None))
        {
            return Some(arrival);
        }
        let line = self.line_of(&arrival, Some(conversation_of(&arrival)));
        let is_its_own = arrival.origin.as_ref().is_some_and(|origin| *origin.line == line);
        if is_its_own || !self.lines.get(&line).is_some_and(Line::has_unfinished) {
            return Some(arrival);
        }
        self.append(Arc::new(line), Item::Moved(arrival));
        None
    }

    /// Lets an update wait in a line of its conversation; gives it back when it should wait in the process.
    pub fn park(&mut self, arrival: Box<Arrival>, wait: Duration) -> Option<Box<Arrival>> {
        if wait < self.park_after || !arrival.trail.is_durable() || !self.is_known(&arrival) {
            return Some(arrival);
        }
        let due = Instant::now() + wait;
        let line = self.line_of(&arrival, Some(conversation_of(&arrival)));
        if let Some(origin) = &arrival.origin
            && *origin.line == line
        {
            let origin = origin.clone();
            if let Some(line) = self.lines.get_mut(&origin.line) {
                line.put_back(origin.sequence, due);
            }
            self.tend(&origin.line);
            return None;
        }
        let of_tenant = self.line_of(&arrival, None);
        if self.parked.get(&of_tenant).is_some_and(|count| *count >= PARKED_MAX) {
            return Some(arrival);
        }
        let line = Arc::new(line);
        self.append(line.clone(), Item::Moved(arrival));
        if let Some(line) = self.lines.get_mut(&line) {
            line.wait_until(due);
        }
        None
    }

    /// Whether an update has a copy that stays in its line until it is finished; a predecessor that ended before it
    /// acknowledged what it had moved leaves the original to be read as well.
    pub fn has_copy(&self, place: &Place) -> bool {
        self.copied.contains(place)
    }

    /// The original of an update read from a line is still at work; the copy is finished with it.
    pub fn not_taken(&mut self, place: Place, origin: Origin) {
        self.twins.entry(place).or_default().push(origin);
    }

    /// Notes that an update is finished, wherever it was read.
    pub fn finished_at(&mut self, place: &Place) {
        self.twinned.remove(place);
        self.copied.remove(place);
        for origin in self.twins.remove(place).into_iter().flatten() {
            self.finished(&origin);
        }
    }

    /// Notes that an update read from a line is finished.
    pub fn finished(&mut self, origin: &Origin) {
        if let Some(line) = self.lines.get_mut(&origin.line) {
            line.finished(origin.sequence);
        }
        self.tend(&origin.line);
    }

    /// Waits for the next event; cancelling it loses none.
    pub async fn next(&mut self) -> Event {
        let due = self.wakes.first().map(|(due, _)| *due).into_iter().chain(self.unwritten.due()).min();
        tokio::select! {
            Some(event) = self.tasks.join_next() => event.unwrap_or(Event::Broken),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Event::Due,
            else => std::future::pending().await,
        }
    }

    /// Takes an event in.
    pub fn take(&mut self, event: Event) -> Turnout {
        let mut turnout = Turnout::default();
        match event {
            Event::Due => {
                self.wake();
                self.write();
            }
            Event::Counted(partition, session, counts) => {
                turnout.ready = self.counted(partition, session, counts);
            }
            Event::Recounted(counts) => counts.into_iter().for_each(|(line, count)| self.found(line, count)),
            Event::Written(batch) => self.written(batch),
            // What was read for an earlier reading of the partition is read again.
            Event::Loaded(line, session, _) if !self.is_read(line.partition, session) => {}
            Event::Loaded(line, _, Ok(Loaded::Messages(messages))) => {
                turnout.ready = self.loaded(&line, messages);
            }
            Event::Loaded(line, _, Ok(Loaded::Nothing(count))) => {
                self.change(&line, |line| line.recounted(count, Instant::now() + STORE_RETRY));
            }
            Event::Loaded(line, _, Err(error)) => {
                tracing::warn!(pool = %self.shelf.pool, tenant = %line.tenant, %error, "a line waits");
                self.change(&line, |line| line.not_loaded(Instant::now() + STORE_RETRY));
            }
            Event::Removed(line, up_to, done) => self.change(&line, |line| line.removed(up_to, done)),
            Event::Broken => turnout.broken = true,
        }
        turnout
    }

    fn wake(&mut self) {
        let now = Instant::now();
        while let Some((due, _)) = self.wakes.first()
            && *due <= now
        {
            if let Some((_, line)) = self.wakes.pop_first() {
                self.tend(&line);
            }
        }
    }

    fn counted(
        &mut self,
        partition: Partition,
        session: u64,
        counts: Vec<(SpillLine, u64)>,
    ) -> Vec<Box<Arrival>> {
        if !self.is_read(partition, session) {
            return Vec::new();
        }
        let waited = self.known.get_mut(&partition).and_then(|known| known.waiting.take());
        for (line, count) in counts {
            // A batch that was on its way may have told of the line already, but not of all of it.
            let line = Arc::new(line);
            self.enter(&line).count(count);
            self.tend(&line);
        }
        waited.into_iter().flatten().filter_map(|arrival| self.admit(arrival)).collect()
    }

    /// Takes a line up that is not known, in a partition that is read.
    fn found(&mut self, line: SpillLine, count: u64) {
        let is_told = self.known.get(&line.partition).is_some_and(|known| known.waiting.is_none());
        if !is_told || self.lines.contains_key(&line) {
            return;
        }
        let line = Arc::new(line);
        self.enter(&line).count(count);
        self.tend(&line);
    }

    /// The state of a line, which begins empty.
    fn enter(&mut self, line: &Arc<SpillLine>) -> &mut Line {
        if !self.lines.contains_key(line) && line.conversation.is_some() {
            *self.parked.entry(SpillLine { conversation: None, ..(**line).clone() }).or_default() += 1;
        }
        self.lines.entry(line.clone()).or_default()
    }

    fn written(&mut self, batch: Vec<(Arc<SpillLine>, Item)>) {
        self.unwritten.stored(Instant::now());
        for (line, item) in batch {
            if let Item::Moved(arrival) = &item {
                self.moving.remove(&arrival.place());
                if let Some(origin) = &arrival.origin {
                    self.finished(origin);
                }
            }
            // The partition may have been interrupted meanwhile, and the line be counted without this one.
            if self.known.contains_key(&line.partition) {
                self.enter(&line).stored();
                self.tend(&line);
            }
        }
        self.write();
    }

    fn loaded(
        &mut self,
        line: &Arc<SpillLine>,
        messages: Vec<(StreamMessage, OwnedSemaphorePermit)>,
    ) -> Vec<Box<Arrival>> {
        let Some(lane) = self.lane_names.iter().position(|name| *name == line.lane) else {
            return Vec::new();
        };
        let Some(stream) = self.streams.get(lane).copied() else { return Vec::new() };
        let Some(known) = self.known.get(&line.partition) else { return Vec::new() };
        let reading = known.reading.clone();
        self.change(line, |known| known.loaded(messages.iter().map(|(message, _)| message.sequence)));
        let arrive = |(message, permit): (StreamMessage, OwnedSemaphorePermit)| {
            let sequence = message.sequence;
            let original = copy::read(message);
            let mut arrival = intake::arrive(lane, stream, original, Some(permit), reading.clone());
            arrival.again = true;
            arrival.origin = Some(Origin { line: line.clone(), sequence });
            Box::new(arrival)
        };
        let ready: Vec<Box<Arrival>> = messages.into_iter().map(arrive).collect();
        self.copied.extend(ready.iter().map(|arrival| arrival.place()));
        if let (Some(last), Some(line)) = (ready.last(), self.lines.get_mut(line)) {
            line.read_until(last.work.head.received_ms);
        }
        ready
    }

    fn append(&mut self, line: Arc<SpillLine>, item: Item) {
        if let Item::Moved(arrival) = &item {
            self.moving.insert(arrival.place());
            self.let_go.push(arrival.place());
        }
        self.enter(&line).append();
        self.unwritten.push(line, item);
        self.write();
    }

    /// Stores the next batch, unless one is on its way; acknowledges what it is made of only then.
    fn write(&mut self) {
        let Some(batch) = self.unwritten.next(Instant::now()) else { return };
        let (store, pool) = (self.shelf.store.clone(), self.pool);
        self.tasks.spawn(async move {
            let entries = entries_of(&store, pool, &batch).await;
            while let Err(error) = store.append(&entries).await {
                tracing::warn!(%pool, %error, "what should move out of the others' way stays in it");
                sleep(STORE_RETRY).await;
            }
            for (_, item) in &batch {
                let Item::Moved(arrival) = item else { continue };
                // A successor reads the original again, and the copy finds it done.
                if arrival.reading.tenure.may_let_go() {
                    intake::acknowledge(&arrival.message).await;
                }
            }
            Event::Written(batch)
        });
    }

    fn change(&mut self, line: &Arc<SpillLine>, adjust: impl FnOnce(&mut Line)) {
        if let Some(known) = self.lines.get_mut(line) {
            adjust(known);
            self.tend(line);
        }
    }

    /// Does what there is to do for a line: read on, take out, wake it later, or forget it.
    fn tend(&mut self, name: &Arc<SpillLine>) {
        let reach = if name.conversation.is_some() { CONVERSATION_REACH } else { TENANT_REACH };
        let Some(line) = self.lines.get_mut(name) else { return };
        if let Some((from, max)) = line.load(reach, Instant::now()) {
            let session = self.known.get(&name.partition).map_or(0, |known| known.reading.session);
            self.tasks.spawn(self.shelf.clone().load(name.clone(), session, from, max));
        }
        if let Some(up_to) = line.remove(reach) {
            let (store, pool, name) = (self.shelf.store.clone(), self.pool, name.clone());
            self.tasks.spawn(async move {
                let removed = store.remove(&name.subject(pool), up_to).await;
                if let Err(error) = &removed {
                    tracing::warn!(%pool, tenant = %name.tenant, %error, "finished updates stay in a line for now");
                    sleep(STORE_RETRY).await;
                }
                Event::Removed(name, up_to, removed.is_ok())
            });
        }
        if let Some(due) = line.due()
            && due > Instant::now()
        {
            self.wakes.insert((due, name.clone()));
        }
        if line.is_over() {
            self.lines.remove(name);
            self.forget(name);
        }
    }

    fn forget(&mut self, name: &SpillLine) {
        if name.conversation.is_none() {
            tracing::info!(pool = %self.pool, tenant = %name.tenant, partition = %name.partition, "a tenant is back from its line");
            return;
        }
        let of_tenant = SpillLine { conversation: None, ..name.clone() };
        if let Some(count) = self.parked.get_mut(&of_tenant) {
            *count -= 1;
            if *count == 0 {
                self.parked.remove(&of_tenant);
            }
        }
    }

    fn is_read(&self, partition: Partition, session: u64) -> bool {
        self.known.get(&partition).is_some_and(|known| known.reading.session == session)
    }

    /// Whether the lines of its partition are known for its present reading.
    fn is_known(&self, arrival: &Arrival) -> bool {
        let known = self.known.get(&arrival.place().partition);
        known.is_some_and(|known| known.reading.session == arrival.reading.session && known.waiting.is_none())
    }

    fn lock(&self) -> MutexGuard<'_, Crowding> {
        self.crowding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line_of(&self, arrival: &Arrival, conversation: Option<String>) -> SpillLine {
        let lane = self.lane_names.get(arrival.lane).copied().unwrap_or_default().to_owned();
        let (partition, tenant) = (arrival.place().partition, arrival.work.head.tenant.clone());
        SpillLine { partition, lane, tenant, conversation }
    }
}

fn conversation_of(arrival: &Arrival) -> String {
    let head = &arrival.work.head;
    let phone = head.phone.as_ref().map_or("", PhoneNumberId::as_str);
    short_hash(format!("{phone}/{}", head.conversation).as_bytes())
}
