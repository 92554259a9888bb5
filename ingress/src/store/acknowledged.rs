//! Remembers which updates were acknowledged, so that their repeats are answered without a publish.
//!
//! An update is remembered after its PubAck and never otherwise; forgetting one costs a publish that JetStream
//! takes for a duplicate, or that the pools do. Kept are 128-bit hashes under random keys, in a fixed table:
//! sixteen bytes an entry, in sets of which each forgets its oldest first.

use ackline_shared::envelope::Head;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Entries of a set: enough that sets fill evenly.
const WAYS: usize = 16;
/// Sets under one lock; neighbours of different locks are touched by different threads.
const LOCKS: usize = 64;

/// A bounded memory, shared by all threads.
#[derive(Debug)]
pub struct Acknowledged {
    keys: RandomState,
    shards: Vec<Mutex<Vec<Set>>>,
}

/// What is remembered of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    high: u64,
    low: u64,
}

#[derive(Debug, Clone, Copy)]
struct Set {
    prints: [Fingerprint; WAYS],
    oldest: usize,
}

/// Stands for an empty place; no update has it but by a chance of 2^-128.
const EMPTY: Fingerprint = Fingerprint { high: 0, low: 0 };

impl Acknowledged {
    /// Makes a memory of about `entries_max` entries; none remembers nothing.
    pub fn new(entries_max: usize) -> Self {
        Self::with_keys(entries_max, RandomState::new())
    }

    fn with_keys(entries_max: usize, keys: RandomState) -> Self {
        let sets = entries_max.div_ceil(WAYS);
        let locks = sets.min(LOCKS);
        let set = Set {
            prints: [EMPTY; WAYS],
            oldest: 0,
        };
        let shards = (0..locks)
            .map(|_| Mutex::new(vec![set; sets / locks]))
            .collect();
        Self { keys, shards }
    }

    /// The fingerprint of an update: its id, and whose it is, as what nobody owned may have an owner by now.
    pub fn fingerprint(&self, head: &Head) -> Fingerprint {
        self.print(head.tenant.as_str(), head.id.as_str())
    }

    /// The fingerprint of what has no head yet.
    pub fn print(&self, tenant: &str, id: &str) -> Fingerprint {
        let mut hasher = self.keys.build_hasher();
        (tenant, id).hash(&mut hasher);
        let high = hasher.finish();
        // One more byte gives another 64 bits of the same keyed function, for less than a second pass.
        hasher.write_u8(0);
        Fingerprint {
            high,
            low: hasher.finish(),
        }
    }

    /// Whether the update was acknowledged and is not forgotten.
    pub fn knows(&self, print: Fingerprint) -> bool {
        self.set(print, |set| set.prints.contains(&print))
            .unwrap_or(false)
    }

    /// Remembers an update whose PubAck was seen.
    pub fn remember(&self, print: Fingerprint) {
        self.set(print, |set| {
            if !set.prints.contains(&print)
                && let Some(place) = set.prints.get_mut(set.oldest)
            {
                *place = print;
                set.oldest = (set.oldest + 1) % WAYS;
            }
        });
    }

    fn set<T>(&self, print: Fingerprint, act: impl FnOnce(&mut Set) -> T) -> Option<T> {
        let mut shard = lock(self.shards.get(place(print.high, self.shards.len())?)?);
        let sets = shard.len();
        shard.get_mut(place(print.low, sets)?).map(act)
    }
}

fn place(hash: u64, places: usize) -> Option<usize> {
    usize::try_from(hash.checked_rem(u64::try_from(places).ok()?)?).ok()
}

fn lock(shard: &Mutex<Vec<Set>>) -> MutexGuard<'_, Vec<Set>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn print(number: u64) -> Fingerprint {
        Fingerprint {
            high: number % 3,
            low: number + 1,
        }
    }

    #[test]
    fn nothing_is_remembered_without_room() {
        let memory = Acknowledged::new(0);
        memory.remember(print(1));
        assert!(!memory.knows(print(1)));
    }

    #[test]
    fn a_memory_of_the_default_size_takes_about_a_mebibyte() {
        let memory = Acknowledged::new(65_536);
        let sets: usize = memory.shards.iter().map(|shard| lock(shard).len()).sum();
        assert_eq!(sets * WAYS, 65_536);
        assert!(
            sets * size_of::<Set>() <= 17 << 16,
            "{}",
            sets * size_of::<Set>()
        );
    }

    #[test]
    fn recent_updates_are_known_when_the_memory_is_full() {
        let memory = Acknowledged::new(1024);
        let prints: Vec<_> = (0..5000_u64)
            .map(|number| {
                let mixed =
                    u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
                Fingerprint {
                    high: (mixed >> 64) as u64,
                    low: (mixed >> 7) as u64,
                }
            })
            .collect();
        prints.iter().for_each(|print| memory.remember(*print));
        let known = prints
            .iter()
            .rev()
            .take(512)
            .filter(|print| memory.knows(**print))
            .count();
        assert!(known > 480, "only {known} of the last 512");
        assert!(prints.iter().filter(|print| memory.knows(**print)).count() <= 1024);
    }

    proptest! {
        /// Against lists that keep the last sixteen of each place.
        #[test]
        fn it_knows_what_was_remembered_last_and_nothing_else(
            steps in prop::collection::vec((0..200_u64, any::<bool>()), 0..800), entries in 0..200_usize,
        ) {
            let memory = Acknowledged::new(entries);
            let sets = memory.shards.first().map_or(0, |shard| lock(shard).len()) as u64;
            let shards = memory.shards.len() as u64;
            let mut model: HashMap<(u64, u64), Vec<u64>> = HashMap::new();
            for (number, remembers) in steps {
                let Fingerprint { high, low } = print(number);
                if shards == 0 {
                    memory.remember(print(number));
                    prop_assert!(!memory.knows(print(number)));
                    continue;
                }
                let list = model.entry((high % shards, low % sets)).or_default();
                prop_assert_eq!(memory.knows(print(number)), list.contains(&number));
                if remembers && !list.contains(&number) {
                    memory.remember(print(number));
                    list.push(number);
                    if list.len() > WAYS {
                        list.remove(0);
                    }
                }
            }
        }
    }
}
