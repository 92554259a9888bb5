//! What the machine lives in, in memory.

use super::checks::{check_caps, running};
use super::way::Way;
use super::*;
use ackline_shared::ids::TenantId;
use std::collections::BTreeMap;
use std::iter;

const STREAM: &str = ackline_shared::subjects::UPDATES;
const LANE: &str = "msg";
const WINDOW: usize = 10;
const TENANT_CAP: usize = 2;
/// What an operator may set it to.
pub(super) const TENANT_CAP_MAX: usize = 3;
pub(super) const BREAKER_LIMIT: usize = 2;
const PARTITIONS: u16 = 2;
/// Longest that anything waits for a target.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_secs(600);

/// One step of a history.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Publish {
        tenant: u8,
        conversation: u8,
    },
    /// Something that is on its way ends.
    End(usize),
    /// Something that is on its way fails.
    Fail(usize),
    /// A target begins to behave in another way.
    Target {
        target: u8,
        state: u8,
    },
    Pass(u8),
    /// A process ends, and the other one takes its partitions over.
    Crash(usize),
    /// A partition goes to the other process, which the first learns only now.
    Lose(u8),
    /// The connection was lost and found again.
    Interrupt(u8),
    /// The broker goes away or comes back.
    Broker(bool),
    /// An operator lets a tenant go on, pauses it by the rules or as one that is kept, drains or discards it.
    Turn {
        tenant: u8,
        how: u8,
    },
    /// An operator changes how much may run at once, or whether anything may.
    Tune {
        permits: usize,
        tenant_cap: usize,
        paused: bool,
    },
    /// It is looked who is in others' way.
    Sweep,
}

/// What an operator wants of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    /// Nothing of it starts, by the rules.
    Paused,
    /// Nothing of it starts, as it is asked about.
    Kept,
    /// What came after this is kept.
    Drained(u64),
    /// Everything is buried without asking anybody.
    Discarded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Works,
    Refuses,
    Down,
    Hangs,
}

#[derive(Debug, Clone)]
pub(super) struct Update {
    pub(super) place: Place,
    pub(super) tenant: TenantId,
    pub(super) conversation: u64,
    pub(super) targets: Vec<Arc<Target>>,
}

/// The work on a piece: whether it took effect and that is not remembered yet, and what is known of its waits.
#[derive(Debug, Clone, Default)]
pub(super) struct Job {
    pub(super) has_effect: bool,
    pub(super) waits: Waits,
}

impl Job {
    /// It has to wait, from now on if it did not before.
    fn waits_at(&mut self, now: Instant) -> Waits {
        self.waits.first_ms = Some(1);
        self.waits.overdue_at.get_or_insert(now + GIVE_UP_AFTER);
        self.waits
    }
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) machine: Machine<Arc<Update>, Job>,
    pub(super) ways: Vec<Way>,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) sequence: u64,
    pub(super) queue: SpillQueue,
    pub(super) update: Arc<Update>,
    pub(super) only: Option<String>,
    pub(super) waits: Waits,
}

#[derive(Debug, Default)]
pub(super) struct Consumer {
    pub(super) acknowledged: HashSet<u64>,
    /// Delivered in the present reading.
    pub(super) delivered: BTreeMap<u64, ()>,
    pub(super) next: u64,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) began: Instant,
    pub(super) now: Instant,
    pub(super) updates: BTreeMap<u64, Arc<Update>>,
    pub(super) consumers: BTreeMap<Partition, Consumer>,
    pub(super) spill: Vec<Entry>,
    pub(super) spilled: u64,
    pub(super) finished: HashSet<(u64, String)>,
    pub(super) processes: Vec<Process>,
    /// Who owns a partition, under which session.
    pub(super) owners: BTreeMap<Partition, (usize, u64)>,
    pub(super) sessions: u64,
    pub(super) moods: BTreeMap<String, Mood>,
    pub(super) effects: Vec<(u64, String)>,
    /// Effects of which a process ended before it remembered them: they may take place again.
    pub(super) forgotten: HashSet<(u64, String)>,
    pub(super) buried: HashSet<(u64, String)>,
    pub(super) is_broker_up: bool,
    pub(super) rules: Rules,
    pub(super) turned: BTreeMap<TenantId, Turned>,
    /// What happened, when somebody wants to read it.
    pub(super) trace: Option<Vec<String>>,
}

fn tenant(number: u8) -> TenantId {
    TenantId::new(if number == 0 { "acme" } else { "globex" })
        .unwrap_or_else(|_| TenantId::unrouted())
}

/// Two targets for one tenant, one for the other, and a breaker that both tenants share.
fn targets(of: u8) -> Vec<Arc<Target>> {
    let breaker = |name: &str| BreakerSpec {
        name: name.into(),
        limit: BREAKER_LIMIT,
    };
    let target = |name: &str, breakers: Vec<BreakerSpec>| {
        Arc::new(Target {
            name: name.into(),
            downstream: format!("relay.{of}.{name}"),
            breakers,
            timeout: None,
        })
    };
    match of {
        0 => vec![
            target("a", vec![breaker("a")]),
            target("b", vec![breaker("shared"), breaker("b")]),
        ],
        _ => vec![target("c", vec![breaker("shared"), breaker("c")])],
    }
}

pub(super) fn setup() -> Setup {
    Setup {
        lanes: vec![LANE.to_owned()],
        bounds: Bounds {
            window: WINDOW,
            bytes: 1 << 20,
            share: 30,
        },
        park_after: Duration::from_secs(10),
        policy: Policy {
            failures_max: 2,
            ..Policy::default()
        },
        give_up_after: GIVE_UP_AFTER,
        began_ms: 0,
        rules: Rules {
            permits: 5,
            tenant_cap: TENANT_CAP,
            lane_weights: vec![1],
            ..Rules::default()
        },
    }
}

impl World {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let process = || Process {
            machine: Machine::new(setup(), now),
            ways: Vec::new(),
        };
        let mut world = Self {
            began: now,
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
            rules: setup().rules,
            turned: BTreeMap::new(),
            trace: None,
        };
        for partition in (0..PARTITIONS).map(Partition) {
            world.consumers.insert(
                partition,
                Consumer {
                    next: 1,
                    ..Consumer::default()
                },
            );
            world.give(partition, usize::from(partition.0));
        }
        world
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        let seconds = (self.now - self.began).as_secs_f32();
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{seconds:8.1} {}", what()));
        }
    }

    pub(super) fn take(&mut self, step: &Step) -> Result<(), String> {
        self.note(|| format!("{step:?}"));
        match step {
            Step::Publish {
                tenant: number,
                conversation,
            } => self.publish(*number, *conversation),
            Step::End(which) => self.end(*which, true)?,
            Step::Fail(which) => self.end(*which, false)?,
            Step::Target { target, state } => {
                let name = ["a", "b", "c", "shared"]
                    .get(usize::from(*target))
                    .copied()
                    .unwrap_or("a");
                let mood = [Mood::Works, Mood::Down, Mood::Hangs, Mood::Refuses];
                let mood = mood
                    .get(usize::from(*state))
                    .copied()
                    .unwrap_or(Mood::Works);
                self.moods.insert(name.to_owned(), mood);
            }
            Step::Pass(power) => {
                self.pass(Duration::from_millis(200 * 6_u64.pow(u32::from(*power))))
            }
            Step::Crash(process) => self.crash(*process),
            Step::Lose(partition) => self.lose(Partition(u16::from(*partition))),
            Step::Interrupt(partition) => self.interrupt(Partition(u16::from(*partition))),
            Step::Broker(is_up) => self.is_broker_up = *is_up,
            Step::Turn {
                tenant: number,
                how,
            } => {
                let last = u64::try_from(self.updates.len()).unwrap_or_default();
                let turned = match how {
                    1 => Some(Turned::Paused),
                    2 => Some(Turned::Kept),
                    3 => Some(Turned::Drained(last)),
                    4 => Some(Turned::Discarded),
                    _ => None,
                };
                self.turned.remove(&tenant(*number));
                self.turned
                    .extend(turned.map(|turned| (tenant(*number), turned)));
                self.obey();
            }
            Step::Tune {
                permits,
                tenant_cap,
                paused,
            } => {
                let rules = Rules {
                    permits: *permits,
                    tenant_cap: *tenant_cap,
                    paused: *paused,
                    ..setup().rules
                };
                self.rules = rules;
                self.obey();
            }
            Step::Sweep => self.sweep(),
        }
        self.settle()
    }

    /// Tells every process what the operators want now.
    pub(super) fn obey(&mut self) {
        let rules = self.rules();
        for process in &mut self.processes {
            process.machine.set_rules(rules.clone(), self.now);
        }
    }

    /// The rules as they are now, with the tenants that are paused.
    pub(super) fn rules(&self) -> Rules {
        let paused = self
            .turned
            .iter()
            .filter(|(_, turned)| **turned == Turned::Paused);
        let shares = paused.map(|(tenant, _)| {
            (
                tenant.clone(),
                Share {
                    paused: true,
                    ..Share::default()
                },
            )
        });
        Rules {
            tenants: Arc::new(shares.collect()),
            ..self.rules.clone()
        }
    }

    pub(super) fn sweep(&mut self) {
        let now = self.now;
        self.processes
            .iter_mut()
            .for_each(|process| process.machine.sweep(now));
    }

    fn publish(&mut self, number: u8, conversation: u8) {
        let sequence = u64::try_from(self.updates.len()).unwrap_or_default() + 1;
        let partition = Partition(u16::from(conversation % 2));
        let update = Update {
            place: Place {
                partition,
                stream: STREAM,
                sequence,
            },
            tenant: tenant(number),
            conversation: u64::from(number) * 100 + u64::from(conversation),
            targets: targets(number),
        };
        self.updates.insert(sequence, Arc::new(update));
    }

    /// Lets everything happen that needs no step of its own.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        let (turned, rules) = (self.turned.clone(), self.rules());
        loop {
            self.deliver();
            let mut is_quiet = true;
            for index in 0..self.processes.len() {
                let now = self.now;
                let process = self.processes.get_mut(index).ok_or("no process")?;
                if process.machine.next_wake().is_some_and(|due| due <= now) {
                    process.machine.wake(now);
                }
                let may = |update: &Arc<Update>| match turned.get(&update.tenant) {
                    Some(Turned::Kept) => May::Keep,
                    Some(Turned::Drained(last)) if update.place.sequence > *last => May::Keep,
                    Some(Turned::Discarded) => May::Discard("an operator".to_owned()),
                    Some(Turned::Paused | Turned::Drained(_)) | None => May::Run,
                };
                let before = running(process);
                let machine = &mut process.machine;
                let mut begun: Vec<Way> = iter::from_fn(|| machine.start(now, may))
                    .map(Way::Run)
                    .collect();
                begun.extend(iter::from_fn(|| machine.next_action()).map(Way::Action));
                is_quiet &= begun.is_empty();
                let words = self
                    .trace
                    .is_some()
                    .then(|| begun.iter().map(Way::in_words).collect::<Vec<_>>());
                process.ways.extend(begun);
                check_caps(process, &rules, &before)?;
                words
                    .into_iter()
                    .flatten()
                    .for_each(|words| self.note(|| format!("    {index} begins {words}")));
            }
            if is_quiet {
                if self.trace.is_some() && std::env::var("STANDS").is_ok() {
                    let t = self.stuck();
                    self.note(|| t.replace("), ", "\n").replace("\", \"", "\n          "));
                }
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
            let (Some(consumer), Some(process)) = (
                self.consumers.get_mut(&partition),
                self.processes.get_mut(process),
            ) else {
                continue;
            };
            let unread = self
                .updates
                .range(consumer.next..)
                .map(|(_, update)| update.clone());
            let unread: Vec<_> = unread
                .filter(|update| update.place.partition == partition)
                .collect();
            for update in unread {
                let sequence = update.place.sequence;
                let pending = consumer
                    .delivered
                    .keys()
                    .filter(|sequence| !consumer.acknowledged.contains(sequence));
                if pending.count() >= WINDOW {
                    break;
                }
                consumer.next = sequence + 1;
                consumer.delivered.insert(sequence, ());
                process.machine.arrived(
                    session,
                    arrived(&update, None, Waits::default()),
                    self.now,
                );
            }
        }
    }

    pub(super) fn end(&mut self, which: usize, succeeds: bool) -> Result<(), String> {
        let total: usize = self
            .processes
            .iter()
            .map(|process| process.ways.len())
            .sum();
        if total == 0 {
            return Ok(());
        }
        let mut which = which % total;
        for index in 0..self.processes.len() {
            let ways = self
                .processes
                .get(index)
                .map_or(0, |process| process.ways.len());
            if which < ways {
                let way = self
                    .processes
                    .get_mut(index)
                    .map(|process| process.ways.remove(which));
                return way.map_or(Ok(()), |way| self.end_way(index, way, succeeds));
            }
            which -= ways;
        }
        Ok(())
    }

    fn end_way(&mut self, process: usize, way: Way, succeeds: bool) -> Result<(), String> {
        let works = succeeds && self.is_broker_up;
        self.note(|| {
            format!(
                "  {process} {} {}",
                if works { "ends" } else { "fails" },
                way.in_words()
            )
        });
        match way {
            Way::Action(action) => self.act(process, action, works),
            Way::Run(started) => self.run(process, started, works)?,
            Way::Remember(started) => self.remember(process, started, works),
        }
        Ok(())
    }

    fn act(&mut self, process: usize, action: Action<Arc<Update>>, works: bool) {
        let now = self.now;
        let Some(machine) = self
            .processes
            .get_mut(process)
            .map(|process| &mut process.machine)
        else {
            return;
        };
        match action {
            Action::LookUp(partition, session) if works => {
                let mut counts: BTreeMap<SpillQueue, u64> = BTreeMap::new();
                for entry in self
                    .spill
                    .iter()
                    .filter(|entry| entry.queue.partition == partition)
                {
                    *counts.entry(entry.queue.clone()).or_default() += 1;
                }
                machine.counted(partition, session, counts.into_iter().collect(), now);
            }
            Action::Load(queue, session, from, max) if works => {
                let of_queue: Vec<&Entry> = self
                    .spill
                    .iter()
                    .filter(|entry| entry.queue == *queue)
                    .collect();
                let found: Vec<_> = of_queue
                    .iter()
                    .filter(|entry| entry.sequence >= from)
                    .take(max)
                    .map(|entry| {
                        (
                            entry.sequence,
                            arrived(&entry.update, entry.only.clone(), entry.waits),
                        )
                    })
                    .collect();
                match found.is_empty() {
                    true => {
                        let count = u64::try_from(of_queue.len()).unwrap_or_default();
                        machine.recounted(&queue, session, count, now);
                    }
                    false => {
                        let last = found.last().map_or(0, |(sequence, _)| *sequence);
                        let left = of_queue
                            .iter()
                            .filter(|entry| entry.sequence > last)
                            .count();
                        let left = u64::try_from(left).unwrap_or_default();
                        machine.loaded(&queue, session, found, left, now);
                    }
                }
            }
            Action::Load(queue, session, _, _) => machine.not_loaded(&queue, session, now),
            Action::Remove(queue, up_to) => {
                if works {
                    self.spill
                        .retain(|entry| entry.queue != *queue || entry.sequence > up_to);
                }
                machine.removed(&queue, up_to, works, now);
            }
            Action::Store(batch) if works => {
                store(&mut self.spill, &mut self.spilled, &batch, now);
                machine.stored(batch, now);
            }
            Action::Acknowledge(update, is_moved) if works => {
                let is_own = self
                    .owners
                    .get(&update.place.partition)
                    .is_some_and(|(owner, _)| *owner == process);
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
            self.report(process, started.piece, End::Settled, Heard::Nothing);
            return Ok(());
        }
        if started.data.waits.overdue_at.is_none() {
            started.data.waits = started.waits;
        }
        let is_overdue = started
            .data
            .waits
            .overdue_at
            .is_some_and(|at| at <= self.now);
        let asks_nobody = is_overdue || started.discarded_by.is_some();
        for (index, breaker) in started
            .target
            .breakers
            .iter()
            .enumerate()
            .filter(|_| !asks_nobody)
        {
            let mood = self
                .moods
                .get(&*breaker.name)
                .copied()
                .unwrap_or(Mood::Works);
            if matches!(mood, Mood::Down | Mood::Hangs) {
                let timed_out = mood == Mood::Hangs;
                let least = Duration::from_secs(if timed_out { 60 } else { 0 });
                let waits = started.data.waits_at(self.now);
                let end = End::Trouble {
                    data: started.data,
                    waits,
                    breaker: index,
                    signal: Signal::Failed,
                    timed_out,
                    least,
                    pause: Duration::from_secs(1),
                    blames_update: key.0.is_multiple_of(2),
                };
                self.report(process, started.piece, end, Heard::Nothing);
                return Ok(());
            }
            // A wait of its own.
            if mood == Mood::Refuses && key.0.is_multiple_of(3) {
                self.again(process, started, Duration::from_secs(20), true);
                return Ok(());
            }
        }
        self.check_order(&key, &started)?;
        if asks_nobody || self.moods.get(&key.1) == Some(&Mood::Refuses) {
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
            self.report(process, started.piece, End::Settled, Heard::Answer);
            return;
        }
        if !is_owner {
            self.forgotten.insert(key);
        }
        self.again(process, started, Duration::from_millis(500), false);
    }

    fn again(
        &mut self,
        process: usize,
        mut started: Started<Arc<Update>, Job>,
        wait: Duration,
        durable: bool,
    ) {
        let waits = started.data.waits_at(self.now);
        let end = End::Again {
            data: started.data,
            waits,
            wait,
            durable,
        };
        self.report(process, started.piece, end, Heard::Nothing);
    }

    fn report(&mut self, process: usize, piece: usize, end: End<Job>, heard: Heard) {
        let now = self.now;
        if let Some(process) = self.processes.get_mut(process) {
            process.machine.ended(piece, Ended { end, heard }, now);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

fn arrived(update: &Arc<Update>, only: Option<String>, waits: Waits) -> Arrived<Arc<Update>, Job> {
    let targets = update
        .targets
        .iter()
        .filter(|target| only.as_ref().is_none_or(|only| *only == target.name));
    Arrived {
        place: update.place,
        lane: 0,
        tenant: update.tenant.clone(),
        conversation: update.conversation,
        received_ms: 0,
        bytes: 10,
        data: update.clone(),
        pieces: targets
            .map(|target| {
                (
                    target.clone(),
                    Job {
                        has_effect: false,
                        waits,
                    },
                )
            })
            .collect(),
        only,
        waits,
    }
}

pub(super) fn store(
    spill: &mut Vec<Entry>,
    last: &mut u64,
    batch: &[Copy<Arc<Update>>],
    now: Instant,
) {
    for copy in batch {
        let mut waits = copy.waits;
        // What goes behind something that waits, waits itself from now on.
        if copy.target.is_some() {
            waits.first_ms.get_or_insert(1);
            waits.overdue_at.get_or_insert(now + GIVE_UP_AFTER);
        }
        *last += 1;
        spill.push(Entry {
            sequence: *last,
            queue: (*copy.queue).clone(),
            update: copy.data.clone(),
            only: copy.target.as_ref().map(|target| target.name.clone()),
            waits,
        });
    }
}
