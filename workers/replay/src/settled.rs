//! Which dead letters are settled, and by which job: runs of sequences, a few KV entries for all of them.
//!
//! One entry holds the runs of [`CHUNK`] sequences and is written under its revision, so of two jobs that want
//! a letter at the same time one gets it. An entry expires with the letters it speaks of.

use super::job::{Action, ReplayJob};
use super::letters::DeadLettersError;
use ackline_shared::stored::{self, Stored};
use async_nats::jetstream::kv::{Operation, Store, UpdateErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Sequences in one entry; at worst, every other letter, it has some 30 KiB.
const CHUNK: u64 = 4096;
const WRITES_MAX: u32 = 16;

/// What was done about a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing yet.
    Open,
    /// A job put it before its pool again.
    Replayed(String),
    /// A job discarded it.
    Discarded(String),
}

impl Standing {
    fn of(holder: Option<&str>) -> Self {
        match holder {
            None => Self::Open,
            Some(job) => match ReplayJob::action_of(job) {
                Action::Replay => Self::Replayed(job.to_owned()),
                Action::Discard => Self::Discarded(job.to_owned()),
            },
        }
    }

    /// The standing in a word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Replayed(_) => "replayed",
            Self::Discarded(_) => "discarded",
        }
    }

    /// The job that settled it.
    pub fn job(&self) -> Option<&str> {
        match self {
            Self::Open => None,
            Self::Replayed(job) | Self::Discarded(job) => Some(job),
        }
    }
}

/// The settled letters as far as they were looked at; what others settle meanwhile is seen at the next claim.
#[derive(Debug)]
pub struct Settled {
    store: Store,
    chunks: HashMap<u64, (u64, Chunk)>,
}

impl Settled {
    /// Opens the books.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            chunks: HashMap::new(),
        }
    }

    /// What was done about a letter.
    pub async fn standing(&mut self, sequence: u64) -> Result<Standing, DeadLettersError> {
        let number = sequence / CHUNK;
        if !self.chunks.contains_key(&number) {
            self.load(number).await?;
        }
        let holder = self
            .chunks
            .get(&number)
            .and_then(|(_, chunk)| chunk.holder(sequence));
        Ok(Standing::of(holder))
    }

    /// The runs of everything settled between two sequences as the books have it now, from and to, both included,
    /// ascending; none overlap.
    pub async fn runs(
        &mut self,
        first: u64,
        last: u64,
    ) -> Result<Vec<(u64, u64)>, DeadLettersError> {
        let mut runs = Vec::new();
        for number in first / CHUNK..=last / CHUNK {
            let (_, chunk) = self.load(number).await?;
            runs.extend(chunk.0.into_values().flatten());
        }
        runs.sort_unstable();
        Ok(runs)
    }

    /// Settles letters in the name of a job; gives those that are its own now.
    pub async fn claim(
        &mut self,
        job: &str,
        sequences: &[u64],
    ) -> Result<BTreeSet<u64>, DeadLettersError> {
        let mut own = BTreeSet::new();
        for group in sequences.chunk_by(|one, two| one / CHUNK == two / CHUNK) {
            own.extend(
                self.write(group, |chunk, sequence| chunk.claim(job, sequence))
                    .await?,
            );
        }
        Ok(own)
    }

    /// Gives letters back that a job had claimed.
    pub async fn release(&mut self, job: &str, sequences: &[u64]) -> Result<(), DeadLettersError> {
        for group in sequences.chunk_by(|one, two| one / CHUNK == two / CHUNK) {
            self.write(group, |chunk, sequence| chunk.release(job, sequence))
                .await?;
        }
        Ok(())
    }

    /// Changes an entry under its revision; gives the sequences for which `change` said yes.
    async fn write(
        &mut self,
        group: &[u64],
        change: impl Fn(&mut Chunk, u64) -> bool,
    ) -> Result<Vec<u64>, DeadLettersError> {
        let Some(number) = group.first().map(|sequence| sequence / CHUNK) else {
            return Ok(Vec::new());
        };
        let mut last = "somebody else keeps writing".to_owned();
        for _ in 0..WRITES_MAX {
            let (revision, before) = match self.chunks.get(&number) {
                Some(known) => known.clone(),
                None => self.load(number).await?,
            };
            let mut after = before.clone();
            let changed: Vec<u64> = group
                .iter()
                .copied()
                .filter(|sequence| change(&mut after, *sequence))
                .collect();
            if after == before {
                return Ok(changed);
            }
            match self
                .store
                .update(key(number), stored::encode(&after).into(), revision)
                .await
            {
                Ok(revision) => {
                    self.chunks.insert(number, (revision, after));
                    return Ok(changed);
                }
                Err(error) => {
                    // Whoever was first wrote something else; or it was this write, and its answer was lost.
                    self.chunks.remove(&number);
                    last = error.to_string();
                    if error.kind() != UpdateErrorKind::WrongLastRevision {
                        break;
                    }
                }
            }
        }
        Err(DeadLettersError::books(last))
    }

    async fn load(&mut self, number: u64) -> Result<(u64, Chunk), DeadLettersError> {
        let entry = self
            .store
            .entry(key(number))
            .await
            .map_err(DeadLettersError::books)?;
        let loaded = match entry {
            Some(entry) if entry.operation == Operation::Put => {
                stored::check::<Chunk>(&entry.value).map_err(DeadLettersError::books)?;
                (
                    entry.revision,
                    stored::decode(&entry.value).map_err(DeadLettersError::books)?,
                )
            }
            Some(entry) => (entry.revision, Chunk::default()),
            None => (0, Chunk::default()),
        };
        self.chunks.insert(number, loaded.clone());
        Ok(loaded)
    }
}

fn key(number: u64) -> String {
    format!("settled.{number}")
}

/// The runs of each job, from and to, both included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, Value>")]
pub struct Chunk(BTreeMap<String, Vec<(u64, u64)>>);

impl Stored for Chunk {}

impl TryFrom<BTreeMap<String, Value>> for Chunk {
    type Error = serde_json::Error;

    /// Whatever else stands there is no job's.
    fn try_from(fields: BTreeMap<String, Value>) -> Result<Self, Self::Error> {
        let runs = fields
            .into_iter()
            .filter(|(name, _)| ReplayJob::is_id(name));
        let runs = runs.map(|(job, runs)| Ok((job, serde_json::from_value(runs)?)));
        runs.collect::<Result<_, _>>().map(Self)
    }
}

impl Chunk {
    fn holder(&self, sequence: u64) -> Option<&str> {
        let holds = |runs: &[(u64, u64)]| {
            let after = runs.partition_point(|(from, _)| *from <= sequence);
            after
                .checked_sub(1)
                .and_then(|at| runs.get(at))
                .is_some_and(|(_, to)| sequence <= *to)
        };
        self.0
            .iter()
            .find(|(_, runs)| holds(runs))
            .map(|(job, _)| job.as_str())
    }

    fn claim(&mut self, job: &str, sequence: u64) -> bool {
        match self.holder(sequence) {
            Some(holder) => holder == job,
            None => {
                let runs = self.0.entry(job.to_owned()).or_default();
                let at = runs.partition_point(|(from, _)| *from <= sequence);
                runs.insert(at, (sequence, sequence));
                join(runs);
                true
            }
        }
    }

    fn release(&mut self, job: &str, sequence: u64) -> bool {
        let Some(runs) = self.0.get_mut(job) else {
            return false;
        };
        let Some(at) = runs
            .iter()
            .position(|(from, to)| (*from..=*to).contains(&sequence))
        else {
            return false;
        };
        let (from, to) = runs.remove(at);
        let rest = [(from, sequence.saturating_sub(1)), (sequence + 1, to)];
        let rest = rest.into_iter().filter(|(from, to)| from <= to && *to > 0);
        let _nothing_removed: Vec<_> = runs.splice(at..at, rest).collect();
        if runs.is_empty() {
            self.0.remove(job);
        }
        true
    }
}

/// Makes one run of those that touch.
fn join(runs: &mut Vec<(u64, u64)>) {
    runs.dedup_by(|next, run| {
        let touches = run.1 + 1 >= next.0;
        if touches {
            run.1 = run.1.max(next.1);
        }
        touches
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_one_job_has_another_does_not_get() {
        let mut chunk = Chunk::default();
        for sequence in [5, 3, 4, 9] {
            assert!(chunk.claim("rp_a", sequence));
        }
        assert_eq!(chunk.0["rp_a"], [(3, 5), (9, 9)]);
        assert!(chunk.claim("rp_a", 4) && !chunk.claim("dc_b", 4) && chunk.claim("dc_b", 6));
        assert_eq!(
            Standing::of(chunk.holder(6)),
            Standing::Discarded("dc_b".into())
        );
        assert!(chunk.release("rp_a", 4) && !chunk.release("rp_a", 4));
        assert_eq!(chunk.0["rp_a"], [(3, 3), (5, 5), (9, 9)]);
        assert_eq!(Standing::of(chunk.holder(4)), Standing::Open);
    }

    proptest! {
        #[test]
        fn runs_say_what_a_set_would(steps in prop::collection::vec((any::<bool>(), 1u64..40), 0..200)) {
            let (mut chunk, mut model) = (Chunk::default(), BTreeSet::new());
            for (claims, sequence) in steps {
                if claims {
                    chunk.claim("rp_a", sequence);
                    model.insert(sequence);
                } else {
                    prop_assert_eq!(chunk.release("rp_a", sequence), model.remove(&sequence));
                }
            }
            let held: BTreeSet<u64> = (1..40).filter(|sequence| chunk.holder(*sequence).is_some()).collect();
            prop_assert_eq!(held, model);
        }
    }
}
