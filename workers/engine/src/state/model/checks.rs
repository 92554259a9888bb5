//! What must be true of every history: order, caps, and that everything comes to its end once the world is well again.

use super::way::Way;
use super::world::{BREAKER_LIMIT, GIVE_UP_AFTER, Job, Process, Update, World, setup};
use super::*;
use ackline_shared::ids::TenantId;
use std::collections::BTreeMap;

/// Looks that everything may take to settle once the world is well again.
const SETTLING_MAX: usize = 5_000;
/// How often the spill queues are counted again.
const RECOUNT: Duration = Duration::from_secs(30);

impl World {
    /// An effect takes place once, and after those of its conversation before it.
    pub(super) fn check_order(
        &self,
        key: &(u64, String),
        started: &Started<Arc<Update>, Job>,
    ) -> Result<(), String> {
        let is_repeat = self.effects.contains(key);
        if is_repeat && !self.forgotten.contains(key) {
            return Err(format!("{} took effect at {} twice", key.0, key.1));
        }
        if is_repeat {
            return Ok(());
        }
        let of_conversation = |sequence: &u64| {
            self.updates.get(sequence).is_some_and(|update| {
                update.conversation == started.update.conversation
                    && update.tenant == started.update.tenant
            })
        };
        let later = self.effects.iter().find(|(sequence, target)| {
            *target == key.1 && *sequence > key.0 && of_conversation(sequence)
        });
        match later {
            Some((later, target)) => Err(format!("{} came after {later} at {target}", key.0)),
            None => Ok(()),
        }
    }

    /// Everything works again, or but for the targets: whatever is left takes effect or is given up within a bounded
    /// number of looks.
    pub(super) fn finish(&mut self, targets_work: bool) -> Result<(), String> {
        self.is_broker_up = true;
        if targets_work {
            self.moods.clear();
        }
        self.turned.clear();
        self.rules = setup().rules;
        self.obey();
        self.settle()?;
        let (healed, mut recount) = (self.now, self.now);
        for _ in 0..SETTLING_MAX {
            if self.is_done() {
                return self.check_late(healed, targets_work);
            }
            self.end(0, true)?;
            self.settle()?;
            let is_quiet = self.processes.iter().all(|process| process.ways.is_empty());
            if is_quiet && !self.is_done() {
                self.sweep();
                if self.now >= recount {
                    self.recount();
                    recount = self.now + RECOUNT;
                }
                let wakes = self
                    .processes
                    .iter()
                    .filter_map(|process| process.machine.next_wake());
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
        let mut counts: BTreeMap<SpillQueue, u64> = BTreeMap::new();
        for entry in &self.spill {
            *counts.entry(entry.queue.clone()).or_default() += 1;
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
                && update.targets.iter().all(|target| {
                    self.finished
                        .contains(&(update.place.sequence, target.name.clone()))
                })
        });
        all && self.spill.is_empty()
    }

    /// What waited came soon after everything worked: no wait was longer than a time-out's. What could not come was given
    /// up in time, which is counted from when it is in hand, and so may begin when others were given up.
    fn check_late(&self, healed: Instant, targets_work: bool) -> Result<(), String> {
        let took = self.now - healed;
        let longest = if targets_work {
            Duration::ZERO
        } else {
            GIVE_UP_AFTER * 2
        };
        match took <= longest + Duration::from_secs(180) {
            true => Ok(()),
            false => Err(format!("what waited took {took:?} after everything worked")),
        }
    }

    pub(super) fn stuck(&self) -> String {
        let open: Vec<_> = self
            .updates
            .values()
            .flat_map(|update| update.targets.iter().map(move |target| (update, target)))
            .filter(|(update, target)| {
                !self
                    .finished
                    .contains(&(update.place.sequence, target.name.clone()))
            })
            .map(|(update, target)| format!("{}→{}", update.place.sequence, target.name))
            .collect();
        let spill: Vec<_> = self
            .spill
            .iter()
            .map(|entry| {
                format!(
                    "{}:{} {:?}",
                    entry.sequence, entry.update.place.sequence, entry.queue.conversation
                )
            })
            .collect();
        let stands = self.processes.iter().map(|process| {
            let pieces = process.machine.pieces.iter().map(|(id, piece)| {
                let place = process
                    .machine
                    .place_of(piece.held)
                    .map(|place| place.sequence);
                format!("{id}: {place:?}→{} {:?}", piece.target.name, piece.stand)
            });
            let queues = process
                .machine
                .queues
                .iter()
                .map(|(name, queue)| format!("{:?} {queue:?}", name.conversation));
            let wakes = format!(
                "{:?} {:?}",
                process.machine.wakes,
                process.machine.unwritten.due()
            );
            (
                pieces.collect::<Vec<_>>(),
                queues.collect::<Vec<_>>(),
                wakes,
                process.ways.len(),
            )
        });
        let stands: Vec<_> = stands.collect();
        format!(
            "it stands still at {:?}: open {open:?}, spilled {spill:?}, {stands:?}",
            self.now
        )
    }
}

/// How many pieces of each tenant are being worked on.
pub(super) fn running(process: &Process) -> BTreeMap<TenantId, usize> {
    let mut of_tenant: BTreeMap<TenantId, usize> = BTreeMap::new();
    for (_, piece) in &process.machine.pieces {
        if piece.stand == Stand::Running
            && let Some(held) = process.machine.held.get(piece.held)
        {
            *of_tenant.entry(held.tenant.clone()).or_default() += 1;
        }
    }
    of_tenant
}

/// Nothing was started beyond what is allowed now; what runs since more was allowed may end.
pub(super) fn check_caps(
    process: &Process,
    rules: &Rules,
    before: &BTreeMap<TenantId, usize>,
) -> Result<(), String> {
    for name in ["a", "b", "c", "shared"] {
        let running = process.machine.breakers.running(name);
        if running > BREAKER_LIMIT {
            return Err(format!("{running} requests to {name} at once"));
        }
    }
    let now = running(process);
    let over = now.iter().find(|(tenant, running)| {
        let is_paused = rules.paused || rules.tenants.get(tenant).is_some_and(|share| share.paused);
        let cap = if is_paused { 0 } else { rules.tenant_cap };
        **running > cap.max(before.get(tenant).copied().unwrap_or_default())
    });
    if let Some((tenant, running)) = over {
        return Err(format!("{running} of {tenant} at once"));
    }
    let (all, were): (usize, usize) = (now.values().sum(), before.values().sum());
    match all > rules.permits.max(were) {
        true => Err(format!("{all} at once")),
        false => Ok(()),
    }
}
