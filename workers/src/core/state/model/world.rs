//! What the machine lives in, in memory.

use super::*;
use ackline_shared::ids::TenantId;
use std::collections::BTreeMap;

const STREAM: &str = "UPDATES";
const LANE: &str = "msg";
const WINDOW: usize = 10;
const TENANT_CAP: usize = 2;
const GATE_LIMIT: usize = 2;
const PARTITIONS: u16 = 2;
/// Looks that everything may take to settle once the world is well again.
const SETTLING_MAX: usize = 5_000;

/// How often the spill queues are counted again.
const RECOUNT: Duration = Duration::from_secs(30);

/// One step of a history.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Somebody writes.
    Publish { tenant: u8, conversation: u8 },
    /// Something that is on its way ends.
    End(usize),
    /// Something that is on its way fails.
    Fail(usize),
    /// A target begins to behave in another way.
    Target { target: u8, state: u8 },
    /// Time passes.
    Pass(u8),
    /// A process ends, and the other one takes its partitions over.
    Crash(usize),
    /// A partition goes to the other process, which the first learns only now.
    Lose(u8),
    /// The connection was lost and found again.
    Interrupt(u8),
    /// The broker goes away or comes back.
    Broker(bool),
    /// An operator pauses a tenant, or lets it go on.
    Pause { tenant: u8, paused: bool },
    /// It is looked who is in others' way.
    Sweep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Works,
    Refuses,
    Down,
    Hangs,
}

#[derive(Debug, Clone)]
struct Update {
    place: Place,
    tenant: TenantId,
    conversation: u64,
    targets: Vec<Arc<Target>>,
}

/// The work on a piece: whether it took effect and that is not remembered yet, and how often it had to wait.
#[derive(Debug, Clone, Default)]
struct Job {
    has_effect: bool,
}

#[derive(Debug)]
enum Way {
    Action(Action<Arc<Update>>),
    /// An attempt that was started and asked nobody yet.
    Run(Started<Arc<Update>, Job>),
    /// One whose effect took place.
    Remember(Started<Arc<Update>, Job>),
}

#[derive(Debug)]
struct Process {
    machine: Machine<Arc<Update>, Job>,
    ways: Vec<Way>,
}

#[derive(Debug, Clone)]
struct Entry {
    sequence: u64,
    line: SpillLine,
    update: Arc<Update>,
    only: Option<String>,
    waits: Waits,
}

#[derive(Debug, Default)]
struct Consumer {
    acknowledged: HashSet<u64>,
    /// Delivered in the present reading.
    delivered: BTreeMap<u64, ()>,
    next: u64,
}

#[derive(Debug)]
pub(super) struct World {
    now: Instant,
    updates: BTreeMap<u64, Arc<Update>>,
    consumers: BTreeMap<Partition, Consumer>,
    spill: Vec<Entry>,
    spilled: u64,
    finished: HashSet<(u64, String)>,
    processes: Vec<Process>,
    /// Who owns a partition, under which session.
    owners: BTreeMap<Partition, (usize, u64)>,
    sessions: u64,
    moods: BTreeMap<String, Mood>,
    effects: Vec<(u64, String)>,
    /// Effects of which a process ended before it remembered them: they may take place again.
    forgotten: HashSet<(u64, String)>,
    buried: HashSet<(u64, String)>,
    is_broker_up: bool,
    paused: HashSet<TenantId>,
}

fn tenant(number: u8) -> TenantId {
    TenantId::new(if number == 0 { "acme" } else { "globex" }).unwrap_or_else(|_| TenantId::unrouted())
}

/// Two targets for one tenant, one for the other, and a gate that both tenants share.
fn targets(of: u8) -> Vec<Arc<Target>> {
    let gate = |name: &str| GateSpec { name: name.into(), limit: GATE_LIMIT };
    let target = |name: &str, gates: Vec<GateSpec>| {
        Arc::new(Target { name: name.into(), downstream: format!("relay.{of}.{name}"), gates, timeout: None })
    };
    match of {
        0 => vec![target("a", vec![gate("a")]), target("b", vec![gate("shared"), gate("b")])],
        _ => vec![target("c", vec![gate("shared"), gate("c")])],
    }
}

fn setup() -> Setup {
    Setup {
        lanes: vec![LANE.to_owned()],
        bounds: Bounds { window: WINDOW, bytes: 1 << 20, share: 30 },
        park_after: Duration::from_secs(10),
        policy: Policy { failures_max: 2, ..Policy::default() },
        rules: Rules { permits: 5, tenant_cap: TENANT_CAP, lane_weights: vec![1], ..Rules::default() },
    }
}

impl World {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let process = || Process { machine: Machine::new(setup(), now), ways: Vec::new() };
        let mut world = Self {
            now,
            updates: BTreeMap::new(),
            consumers: BTreeMap::new(),
            spill: Vec::new(),
            spilled: 0,
            finished: HashSet::new(),
            processes: vec![process(), process()],
            owners: BTreeMap::new(),
            sessions: 0,
            moods: BTreeMap::new(),
            effects: Vec::new(),
            forgotten: HashSet::new(),
            buried: HashSet::new(),
            is_broker_up: true,
            paused: HashSet::new(),
        };
        for partition in (0..PARTITIONS).map(Partition) {
            world.consumers.insert(partition, Consumer { next: 1, ..Consumer::default() });
            world.give(partition, usize::from(partition.0));
        }
        world
    }

    pub(super) fn take(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Publish { tenant: number, conversation } => self.publish(*number, *conversation),
            Step::End(which) => self.end(*which, true)?,
            Step::Fail(which) => self.end(*which, false)?,
            Step::Target { target, state } => {
                let name = ["a", "b", "c", "shared"].get(usize::from(*target)).copied().unwrap_or("a");
                let mood = [Mood::Works, Mood::Down, Mood::Hangs, Mood::Refuses];
                let mood = mood.get(usize::from(*state)).copied().unwrap_or(Mood::Works);
                self.moods.insert(name.to_owned(), mood);
            }
            Step::Pass(power) => self.pass(Duration::from_millis(200 * 6_u64.pow(u32::from(*power)))),
            Step::Crash(process) => self.crash(*process),
            Step::Lose(partition) => self.lose(Partition(u16::from(*partition))),
            Step::Interrupt(partition) => self.interrupt(Partition(u16::from(*partition))),
            Step::Broker(is_up) => self.is_broker_up = *is_up,
            Step::Pause { tenant: number, paused } => {
                match paused {
                    true => self.paused.insert(tenant(*number)),
                    false => self.paused.remove(&tenant(*number)),
                };
                for process in &mut self.processes {
                    process.machine.set_rules(setup().rules);
                }
            }
            Step::Sweep => {
                let now = self.now;
                self.processes.iter_mut().for_each(|process| process.machine.sweep(now));
            }
        }
        self.settle()
    }

    fn publish(&mut self, number: u8, conversation: u8) {
        let sequence = u64::try_from(self.updates.len()).unwrap_or_default() + 1;
        let partition = Partition(u16::from(conversation % 2));
        let update = Update {
            place: Place { partition, stream: STREAM, sequence },
            tenant: tenant(number),
            conversation: u64::from(number) * 100 + u64::from(conversation),
            targets: targets(number),
        };
        self.updates.insert(sequence, Arc::new(update));
    }

    /// Lets everything happen that needs no step of its own.
    fn settle(&mut self) -> Result<(), String> {
        loop {
            self.deliver();
            let mut is_quiet = true;
            for index in 0..self.processes.len() {
                let (now, paused) = (self.now, self.paused.clone());
                let process = self.processes.get_mut(index).ok_or("no process")?;
                if process.machine.next_wake().is_some_and(|due| due <= now) {
                    process.machine.wake(now);
                }
                let may = |update: &Arc<Update>| match paused.contains(&update.tenant) {
                    true => May::Keep,
                    false => May::Run,
                };
                while let Some(started) = process.machine.start(now, may) {
                    process.ways.push(Way::Run(started));
                    is_quiet = false;
                }
                while let Some(action) = process.machine.next_action() {
                    process.ways.push(Way::Action(action));
                    is_quiet = false;
                }
                check_caps(process)?;
            }
            if is_quiet {
                return Ok(());
            }
        }
    }

    /// What the consumers have for whoever owns their partitions.
    fn deliver(&mut self) {
        if !self.is_broker_up {
            return;
        }
        for (partition, (process, session)) in self.owners.clone() {
            let (Some(consumer), Some(process)) =
                (self.consumers.get_mut(&partition), self.processes.get_mut(process))
            else {
                continue;
            };
            let unread = self.updates.range(consumer.next..).map(|(_, update)| update.clone());
            let unread: Vec<_> = unread.filter(|update| update.place.partition == partition).collect();
            for update in unread {
                let sequence = update.place.sequence;
                let pending =
                    consumer.delivered.keys().filter(|sequence| !consumer.acknowledged.contains(sequence));
                if pending.count() >= WINDOW {
                    break;
                }
                consumer.next = sequence + 1;
                consumer.delivered.insert(sequence, ());
                process.machine.arrived(session, arrived(&update, None, Waits::default()), self.now);
            }
        }
    }

    fn end(&mut self, which: usize, succeeds: bool) -> Result<(), String> {
        let total: usize = self.processes.iter().map(|process| process.ways.len()).sum();
        if total == 0 {
            return Ok(());
        }
        let mut which = which % total;
        for index in 0..self.processes.len() {
            let ways = self.processes.get(index).map_or(0, |process| process.ways.len());
            if which < ways {
                let way = self.processes.get_mut(index).map(|process| process.ways.remove(which));
                return way.map_or(Ok(()), |way| self.end_way(index, way, succeeds));
            }
            which -= ways;
        }
        Ok(())
    }

    fn end_way(&mut self, process: usize, way: Way, succeeds: bool) -> Result<(), String> {
        let works = succeeds && self.is_broker_up;
        match way {
            Way::Action(action) => self.act(process, action, works),
            Way::Run(started) => self.run(process, started, works)?,
            Way::Remember(started) => self.remember(process, started, works),
        }
        Ok(())
    }

    fn act(&mut self, process: usize, action: Action<Arc<Update>>, works: bool) {
        let now = self.now;
        let Some(machine) = self.processes.get_mut(process).map(|process| &mut process.machine) else {
            return;
        };
        match action {
            Action::LookUp(partition, session) if works => {
                let mut counts: BTreeMap<SpillLine, u64> = BTreeMap::new();
                for entry in self.spill.iter().filter(|entry| entry.line.partition == partition) {
                    *counts.entry(entry.line.clone()).or_default() += 1;
                }
                machine.counted(partition, session, counts.into_iter().collect(), now);
            }
            Action::Load(line, session, from, max) if works => {
                let of_line: Vec<&Entry> = self.spill.iter().filter(|entry| entry.line == *line).collect();
                let found: Vec<_> = of_line
                    .iter()
                    .filter(|entry| entry.sequence >= from)
                    .take(max)
                    .map(|entry| (entry.sequence, arrived(&entry.update, entry.only.clone(), entry.waits)))
                    .collect();
                match found.is_empty() {
                    true => {
                        let count = u64::try_from(of_line.len()).unwrap_or_default();
                        machine.recounted(&line, session, count, now);
                    }
                    false => machine.loaded(&line, session, found, now),
                }
            }
            Action::Load(line, session, _, _) => machine.not_loaded(&line, session, now),
            Action::Remove(line, up_to) => {
                if works {
                    self.spill.retain(|entry| entry.line != *line || entry.sequence > up_to);
                }
                machine.removed(&line, up_to, works, now);
            }
            Action::Store(batch) if works => {
                store(&mut self.spill, &mut self.spilled, &batch);
                machine.stored(batch, now);
            }
            Action::Acknowledge(update, is_moved) if works => {
                let is_own =
                    self.owners.get(&update.place.partition).is_some_and(|(owner, _)| *owner == process);
                if let Some(consumer) = self.consumers.get_mut(&update.place.partition)
                    && (is_own || !is_moved)
                {
                    consumer.acknowledged.insert(update.place.sequence);
                }
            }
            // A lost acknowledgement brings the message again only after an interruption.
            Action::Acknowledge(..) => {
                if let Some(process) = self.processes.get_mut(process) {
                    process.ways.push(Way::Action(action));
                }
            }
            Action::LookUp(..) | Action::Store(_) => {
                if let Some(process) = self.processes.get_mut(process) {
                    process.ways.push(Way::Action(action));
                }
            }
        }
    }

    fn run(
        &mut self,
        process: usize,
        mut started: Started<Arc<Update>, Job>,
        works: bool,
    ) -> Result<(), String> {
        let key = (started.place.sequence, started.target.name.clone());
        if !self.is_owner(process, started.place.partition) {
            self.again(process, started, Duration::from_millis(500), false);
            return Ok(());
        }
        if started.data.has_effect {
            self.remember(process, started, works);
            return Ok(());
        }
        if !works {
            self.again(process, started, Duration::from_millis(500), true);
            return Ok(());
        }
        if self.finished.contains(&key) {
            self.tell(process, started.piece, End::Settled, Heard::Nothing);
            return Ok(());
        }
        for (index, gate) in started.target.gates.iter().enumerate() {
            let mood = self.moods.get(&*gate.name).copied().unwrap_or(Mood::Works);
            if matches!(mood, Mood::Down | Mood::Hangs) {
                let timed_out = mood == Mood::Hangs;
                let least = Duration::from_secs(if timed_out { 60 } else { 0 });
                let end = End::Trouble {
                    data: started.data,
                    waits: started_waits(),
                    gate: index,
                    signal: Signal::Failed,
                    timed_out,
                    least,
                    pause: Duration::from_secs(1),
                    blames_update: key.0 % 2 == 0,
                };
                self.tell(process, started.piece, end, Heard::Nothing);
                return Ok(());
            }
            // A wait of its own.
            if mood == Mood::Refuses && key.0 % 3 == 0 {
                self.again(process, started, Duration::from_secs(20), true);
                return Ok(());
            }
        }
        self.check_order(&key, &started)?;
        let is_refused = self.moods.get(&key.1) == Some(&Mood::Refuses);
        if is_refused {
            self.buried.insert(key.clone());
        }
        self.effects.push(key);
        started.data.has_effect = true;
        if let Some(process) = self.processes.get_mut(process) {
            process.ways.push(Way::Remember(started));
        }
        Ok(())
    }

    fn remember(&mut self, process: usize, started: Started<Arc<Update>, Job>, works: bool) {
        let key = (started.place.sequence, started.target.name.clone());
        let is_owner = self.is_owner(process, started.place.partition);
        if works && is_owner {
            self.finished.insert(key);
            self.tell(process, started.piece, End::Settled, Heard::Answer);
            return;
        }
        if !is_owner {
            self.forgotten.insert(key);
        }
        self.again(process, started, Duration::from_millis(500), false);
    }

    fn again(&mut self, process: usize, started: Started<Arc<Update>, Job>, wait: Duration, durable: bool) {
        let end = End::Again { data: started.data, waits: started_waits(), wait, durable };
        self.tell(process, started.piece, end, Heard::Nothing);
    }

    fn tell(&mut self, process: usize, piece: usize, end: End<Job>, heard: Heard) {
        let now = self.now;
        if let Some(process) = self.processes.get_mut(process) {
            process.machine.ended(piece, Ended { end, heard }, now);
        }
    }

    /// An effect takes place once, and after those of its conversation before it.
    fn check_order(&self, key: &(u64, String), started: &Started<Arc<Update>, Job>) -> Result<(), String> {
        let is_repeat = self.effects.contains(key);
        if is_repeat && !self.forgotten.contains(key) {
            return Err(format!("{} took effect at {} twice", key.0, key.1));
        }
        if is_repeat {
            return Ok(());
        }
        let of_conversation = |sequence: &u64| {
            self.updates.get(sequence).is_some_and(|update| {
                update.conversation == started.update.conversation && update.tenant == started.update.tenant
            })
        };
        let later = self
            .effects
            .iter()
            .find(|(sequence, target)| *target == key.1 && *sequence > key.0 && of_conversation(sequence));
        match later {
            Some((later, target)) => Err(format!("{} came after {later} at {target}", key.0)),
            None => Ok(()),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn is_owner(&self, process: usize, partition: Partition) -> bool {
        self.owners.get(&partition).is_some_and(|(owner, _)| *owner == process)
    }

    /// Reading of a partition begins anew, at the acknowledged floor.
    fn give(&mut self, partition: Partition, process: usize) {
        self.sessions += 1;
        self.owners.insert(partition, (process, self.sessions));
        if let Some(consumer) = self.consumers.get_mut(&partition) {
            let mut floor = 0;
            for (sequence, update) in &self.updates {
                let is_open = !consumer.acknowledged.contains(sequence);
                if update.place.partition == partition && is_open {
                    break;
                }
                floor = *sequence;
            }
            (consumer.next, consumer.delivered) = (floor + 1, BTreeMap::new());
        }
        if let Some(process) = self.processes.get_mut(process) {
            process.machine.opened(partition, self.sessions);
        }
    }

    fn interrupt(&mut self, partition: Partition) {
        let Some((process, _)) = self.owners.get(&partition).copied() else { return };
        if let Some(process) = self.processes.get_mut(process) {
            process.machine.interrupted(partition);
        }
        self.give(partition, process);
    }

    /// What the old owner has on its way is cut off; what it stores comes late.
    fn lose(&mut self, partition: Partition) {
        let Some((before, _)) = self.owners.get(&partition).copied() else { return };
        self.cut(before, partition);
        if let Some(process) = self.processes.get_mut(before) {
            process.machine.lost(partition);
        }
        self.give(partition, 1 - before);
    }

    fn cut(&mut self, process: usize, partition: Partition) {
        let Some(process) = self.processes.get_mut(process) else { return };
        for way in &process.ways {
            let started = match way {
                Way::Remember(started) => Some(started),
                Way::Run(started) => Some(started).filter(|started| started.data.has_effect),
                Way::Action(_) => None,
            };
            if let Some(started) = started.filter(|started| started.place.partition == partition) {
                self.forgotten.insert((started.place.sequence, started.target.name.clone()));
            }
        }
        for (sequence, target) in process.machine.unremembered(partition, |job| job.has_effect) {
            self.forgotten.insert((sequence, target));
        }
    }

    fn crash(&mut self, index: usize) {
        for partition in self.owners.keys().copied().collect::<Vec<_>>() {
            if self.is_owner(index, partition) {
                self.cut(index, partition);
            }
        }
        let Some(process) = self.processes.get_mut(index) else { return };
        // Half of a batch that was on its way is stored.
        for way in process.ways.drain(..) {
            if let Way::Action(Action::Store(batch)) = way {
                let half = batch.len().div_ceil(2);
                store(&mut self.spill, &mut self.spilled, batch.get(..half).unwrap_or_default());
            }
        }
        process.machine = Machine::new(setup(), self.now);
        for (partition, (owner, _)) in self.owners.clone() {
            if owner == index {
                self.give(partition, 1 - index);
            }
        }
    }

    /// Everything works again: whatever is left takes effect within a bounded number of looks.
    pub(super) fn heal_and_finish(&mut self) -> Result<(), String> {
        self.is_broker_up = true;
        self.moods.clear();
        self.paused.clear();
        for process in &mut self.processes {
            process.machine.set_rules(setup().rules);
        }
        self.settle()?;
        let (healed, mut recount) = (self.now, self.now);
        for _ in 0..SETTLING_MAX {
            if self.is_done() {
                return self.check_late(healed);
            }
            self.end(0, true)?;
            self.settle()?;
            let is_quiet = self.processes.iter().all(|process| process.ways.is_empty());
            if is_quiet && !self.is_done() {
                if self.now >= recount {
                    self.recount();
                    recount = self.now + RECOUNT;
                }
                let wakes = self.processes.iter().filter_map(|process| process.machine.next_wake());
                let wakes = wakes.chain((!self.spill.is_empty()).then_some(recount));
                match wakes.min() {
                    Some(next) => self.now = self.now.max(next),
                    None if self.processes.iter().all(|process| process.ways.is_empty()) => {
                        return Err(self.stuck());
                    }
                    None => {}
                }
                self.settle()?;
            }
        }
        Err(self.stuck())
    }

    /// What a predecessor moved in its last moments may have come late.
    fn recount(&mut self) {
        let mut counts: BTreeMap<SpillLine, u64> = BTreeMap::new();
        for entry in &self.spill {
            *counts.entry(entry.line.clone()).or_default() += 1;
        }
        let (counts, now): (Vec<_>, _) = (counts.into_iter().collect(), self.now);
        for process in &mut self.processes {
            process.machine.recounted_all(counts.clone(), now);
            while let Some(action) = process.machine.next_action() {
                process.ways.push(Way::Action(action));
            }
        }
    }

    fn is_done(&self) -> bool {
        let all = self.updates.values().all(|update| {
            let consumer = self.consumers.get(&update.place.partition);
            consumer.is_some_and(|consumer| consumer.acknowledged.contains(&update.place.sequence))
                && update
                    .targets
                    .iter()
                    .all(|target| self.finished.contains(&(update.place.sequence, target.name.clone())))
        });
        all && self.spill.is_empty()
    }

    /// What waited came soon after everything worked: no wait was longer than a time-out's.
    fn check_late(&self, healed: Instant) -> Result<(), String> {
        let took = self.now - healed;
        match took <= Duration::from_secs(180) {
            true => Ok(()),
            false => Err(format!("what waited took {took:?} after everything worked")),
        }
    }

    fn stuck(&self) -> String {
        let open: Vec<_> = self
            .updates
            .values()
            .flat_map(|update| update.targets.iter().map(move |target| (update, target)))
            .filter(|(update, target)| !self.finished.contains(&(update.place.sequence, target.name.clone())))
            .map(|(update, target)| format!("{}→{}", update.place.sequence, target.name))
            .collect();
        let spill: Vec<_> = self
            .spill
            .iter()
            .map(|entry| {
                format!("{}:{} {:?}", entry.sequence, entry.update.place.sequence, entry.line.conversation)
            })
            .collect();
        let stands = self.processes.iter().map(|process| {
            let pieces = process.machine.pieces.iter().map(|(id, piece)| {
                let place = process.machine.place_of(piece.held).map(|place| place.sequence);
                format!("{id}: {place:?}→{} {:?}", piece.target.name, piece.stand)
            });
            let lines =
                process.machine.lines.iter().map(|(name, line)| format!("{:?} {line:?}", name.conversation));
            let wakes = format!("{:?} {:?}", process.machine.wakes, process.machine.unwritten.due());
            (pieces.collect::<Vec<_>>(), lines.collect::<Vec<_>>(), wakes, process.ways.len())
        });
        let stands: Vec<_> = stands.collect();
        format!("it stands still at {:?}: open {open:?}, spilled {spill:?}, {stands:?}", self.now)
    }
}

fn started_waits() -> Waits {
    Waits { first_ms: Some(1), attempts: 1, overdue_at: None }
}

fn arrived(update: &Arc<Update>, only: Option<String>, waits: Waits) -> Arrived<Arc<Update>, Job> {
    let targets =
        update.targets.iter().filter(|target| only.as_ref().is_none_or(|only| *only == target.name));
    Arrived {
        place: update.place,
        lane: 0,
        tenant: update.tenant.clone(),
        conversation: update.conversation,
        received_ms: 0,
        bytes: 10,
        data: update.clone(),
        pieces: targets.map(|target| (target.clone(), Job::default())).collect(),
        only,
        waits,
    }
}

fn store(spill: &mut Vec<Entry>, last: &mut u64, batch: &[Copy<Arc<Update>>]) {
    for copy in batch {
        *last += 1;
        spill.push(Entry {
            sequence: *last,
            line: (*copy.line).clone(),
            update: copy.data.clone(),
            only: copy.target.as_ref().map(|target| target.name.clone()),
            waits: copy.waits,
        });
    }
}

fn check_caps(process: &Process) -> Result<(), String> {
    for name in ["a", "b", "c", "shared"] {
        let running = process.machine.gates.running(name);
        if running > GATE_LIMIT {
            return Err(format!("{running} requests to {name} at once"));
        }
    }
    let mut of_tenant: BTreeMap<TenantId, usize> = BTreeMap::new();
    for (_, piece) in &process.machine.pieces {
        if piece.stand == Stand::Running
            && let Some(held) = process.machine.held.get(piece.held)
        {
            *of_tenant.entry(held.tenant.clone()).or_default() += 1;
        }
    }
    match of_tenant.iter().find(|(_, running)| **running > TENANT_CAP) {
        Some((tenant, running)) => Err(format!("{running} of {tenant} at once")),
        None => Ok(()),
    }
}
