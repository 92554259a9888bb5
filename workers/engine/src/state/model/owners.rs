//! Who owns which partition: given, read anew, lost, taken over from one that ended.

use super::way::Way;
use super::world::{World, setup, store};
use super::*;
use std::collections::BTreeMap;

impl World {
    pub(super) fn is_owner(&self, process: usize, partition: Partition) -> bool {
        self.owners
            .get(&partition)
            .is_some_and(|(owner, _)| *owner == process)
    }

    /// Reading of a partition begins anew, at the acknowledged floor.
    pub(super) fn give(&mut self, partition: Partition, process: usize) {
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

    pub(super) fn interrupt(&mut self, partition: Partition) {
        let Some((process, _)) = self.owners.get(&partition).copied() else {
            return;
        };
        if let Some(process) = self.processes.get_mut(process) {
            process.machine.interrupted(partition);
        }
        self.give(partition, process);
    }

    /// What the old owner has on its way is cut off; what it stores comes late.
    pub(super) fn lose(&mut self, partition: Partition) {
        let Some((before, _)) = self.owners.get(&partition).copied() else {
            return;
        };
        self.cut(before, partition);
        if let Some(process) = self.processes.get_mut(before) {
            process.machine.lost(partition);
        }
        self.give(partition, 1 - before);
    }

    fn cut(&mut self, process: usize, partition: Partition) {
        let Some(process) = self.processes.get_mut(process) else {
            return;
        };
        for way in &process.ways {
            let started = match way {
                Way::Remember(started) => Some(started),
                Way::Run(started) => Some(started).filter(|started| started.data.has_effect),
                Way::Action(_) => None,
            };
            if let Some(started) = started.filter(|started| started.place.partition == partition) {
                self.forgotten
                    .insert((started.place.sequence, started.target.name.clone()));
            }
        }
        for (sequence, target) in process
            .machine
            .unremembered(partition, |job| job.has_effect)
        {
            self.forgotten.insert((sequence, target));
        }
    }

    pub(super) fn crash(&mut self, index: usize) {
        let rules = self.rules();
        for partition in self.owners.keys().copied().collect::<Vec<_>>() {
            if self.is_owner(index, partition) {
                self.cut(index, partition);
            }
        }
        let Some(process) = self.processes.get_mut(index) else {
            return;
        };
        // Half of a batch that was on its way is stored.
        for way in process.ways.drain(..) {
            if let Way::Action(Action::Store(batch)) = way {
                let half = batch.len().div_ceil(2);
                let half = batch.get(..half).unwrap_or_default();
                store(&mut self.spill, &mut self.spilled, half, self.now);
            }
        }
        process.machine = Machine::new(Setup { rules, ..setup() }, self.now);
        for (partition, (owner, _)) in self.owners.clone() {
            if owner == index {
                self.give(partition, 1 - index);
            }
        }
    }
}
