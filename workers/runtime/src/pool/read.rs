//! How what was read becomes work: an update's targets, and a piece for each of them.

use super::PoolRunner;
use crate::attempt::{Piece, Trail, waits};
use crate::intake::{self, Arrival};
use crate::job::Job;
use crate::spill::{Loaded, Loading};
use crate::tuning::Handling;
use ackline_engine::state::{Arrived, Target, Waits};
use ackline_shared::envelope::Head;
use ackline_shared::ids::PhoneNumberId;
use ackline_shared::subjects::SpillQueue;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tokio::time::Instant;

impl<J: Job> PoolRunner<J> {
    /// Takes in what was read from a window.
    pub(super) fn admit(&mut self, arrival: Arrival) {
        let (partition, session) = (arrival.place().partition, arrival.reading.session);
        if self.read.get(&partition) != Some(&session) {
            return;
        }
        self.advance(&arrival);
        let targets = self.targets(&arrival);
        let arrival = Arc::new(arrival);
        if targets.is_empty() && self.may_pass(&arrival.head) {
            self.attempts.metrics.passed(J::POOL, &arrival.head.tenant);
            self.unsent.push_back(arrival);
            return;
        }
        let targets = if targets.is_empty() {
            vec![Arc::default()]
        } else {
            targets
        };
        let arrived = self.arrived(&arrival, targets, None, &Trail::default(), Waits::default());
        self.machine.arrived(session, arrived, Instant::now());
    }

    /// Takes in what was read from a spill queue.
    pub(super) fn loaded(&mut self, queue: &Arc<SpillQueue>, session: u64, loaded: Loaded) {
        let now = Instant::now();
        let (entries, left) = match loaded {
            Loaded::Entries(entries, left) => (entries, left),
            Loaded::Nothing(count) => return self.machine.recounted(queue, session, count, now),
            Loaded::Failed => return self.machine.not_loaded(queue, session, now),
        };
        let lane = self.lane_names.iter().position(|name| *name == queue.lane);
        let reading = self.partitions.readings().into_iter().find(|reading| {
            reading.lease.partition() == queue.partition && reading.session == session
        });
        // What was read for an earlier reading of the partition is read again.
        let (Some(lane), Some(reading)) = (lane, reading) else {
            return;
        };
        let Some(stream) = self.streams.get(lane).copied() else {
            return;
        };
        let mut read = Vec::with_capacity(entries.len());
        for Loading {
            sequence,
            original,
            note,
            defect,
            permit,
        } in entries
        {
            let mut arrival = intake::arrive(lane, stream, original, Some(permit), reading.clone());
            arrival.defect = defect.or(arrival.defect);
            arrival.again = note.epoch != reading.lease.epoch();
            let targets = self.targets(&arrival);
            let targets = match &note.target {
                Some(name) => vec![self.named(targets, name)],
                None => targets,
            };
            let arrival = Arc::new(arrival);
            let trail = Trail::since(note.first_ms);
            let waits = waits(
                note.first_ms,
                note.attempts,
                self.attempts.settings.give_up_after,
            );
            read.push((
                sequence,
                self.arrived(&arrival, targets, note.target, &trail, waits),
            ));
        }
        self.machine.loaded(queue, session, read, left, now);
    }

    fn targets(&self, arrival: &Arrival) -> Vec<Arc<Target>> {
        match arrival.defect {
            Some(_) => vec![Arc::default()],
            None => self.attempts.job.targets(&arrival.head),
        }
    }

    /// The target of a name; one that is not there any more stands for itself, and the job says so.
    fn named(&self, targets: Vec<Arc<Target>>, name: &str) -> Arc<Target> {
        let found = targets.into_iter().find(|target| target.name == name);
        found.unwrap_or_else(|| {
            Arc::new(Target {
                name: name.to_owned(),
                ..Target::default()
            })
        })
    }

    fn arrived(
        &self,
        arrival: &Arc<Arrival>,
        targets: Vec<Arc<Target>>,
        only: Option<String>,
        trail: &Trail,
        waits: Waits,
    ) -> Arrived<Arc<Arrival>, Box<Piece>> {
        let piece = |target: Arc<Target>| {
            let mut work = arrival.work(target.clone());
            work.attempt = waits.attempts.saturating_add(1);
            let presence = self.attempts.metrics.entered(J::POOL, &arrival.head.tenant);
            (
                target,
                Box::new(Piece {
                    arrival: arrival.clone(),
                    work,
                    trail: trail.clone(),
                    presence,
                }),
            )
        };
        Arrived {
            place: arrival.place(),
            lane: arrival.lane,
            tenant: arrival.head.tenant.clone(),
            conversation: conversation(&arrival.head),
            received_ms: arrival.head.received_ms,
            bytes: arrival.payload.len(),
            data: arrival.clone(),
            only,
            pieces: targets.into_iter().map(piece).collect(),
            waits,
        }
    }

    /// Whether what asks nothing of this pool is let pass now.
    fn may_pass(&self, head: &Head) -> bool {
        let table = self.tuning.table();
        !table.is_paused(J::POOL, &head.tenant)
            && table.handling(J::POOL, &head.tenant, head.received_ms) == Handling::Work
    }
}

/// Names a conversation the same in every process, in 64 bits; two that share a name wait for each other.
fn conversation(head: &Head) -> u64 {
    let mut hash = Sha256::new();
    hash.update(head.phone.as_ref().map_or("", PhoneNumberId::as_str));
    hash.update("/");
    hash.update(head.conversation.as_str());
    hash.finalize()
        .first_chunk()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
