//! Who does most, in bounded memory: the space-saving algorithm, with counts that fade.
//!
//! Whoever has more than one part in `capacity` of everything is on the list for certain. A newcomer takes
//! the place of the smallest and starts with its count as possible error, so what is reported is what the
//! entry certainly had.

use std::collections::HashMap;
use std::hash::Hash;

/// A list of at most `capacity` keys with their fading counts.
#[derive(Debug)]
pub struct TopList<K> {
    capacity: usize,
    entries: HashMap<K, Counted>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    count: f64,
    error: f64,
}

/// What of a count is left after one [`TopList::fade`].
const LEFT: f64 = 0.9;

impl<K: Clone + Eq + Hash + Ord> TopList<K> {
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            entries: HashMap::new(),
        }
    }

    /// Counts one for the key.
    pub fn hit(&mut self, key: &K) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.count += 1.0;
            return;
        }
        let mut error = 0.0;
        if self.entries.len() >= self.capacity {
            let smallest = self
                .entries
                .iter()
                .min_by(|(_, one), (_, two)| one.count.total_cmp(&two.count));
            if let Some((key, count)) = smallest.map(|(key, entry)| (key.clone(), entry.count)) {
                error = count;
                self.entries.remove(&key);
            }
        }
        self.entries.insert(
            key.clone(),
            Counted {
                count: error + 1.0,
                error,
            },
        );
    }

    /// Lets a tenth of every count fade; called at equal times, the counts are rates.
    pub fn fade(&mut self) {
        self.entries.retain(|_, entry| {
            entry.count *= LEFT;
            entry.error *= LEFT;
            entry.count > 0.01
        });
    }

    /// The `n` first with their hits per time between two fades, most first.
    pub fn first(&self, n: usize) -> Vec<(K, f64)> {
        let certain = |entry: &Counted| (entry.count - entry.error).max(0.0);
        let mut all: Vec<_> = self
            .entries
            .iter()
            .map(|(key, entry)| (key.clone(), certain(entry) * (1.0 - LEFT)))
            .collect();
        all.sort_by(|(key_one, one), (key_two, two)| {
            two.total_cmp(one).then_with(|| key_one.cmp(key_two))
        });
        all.truncate(n);
        all
    }

    /// A key's hits per time between two fades, as far as it is on the list.
    pub fn rate(&self, key: &K) -> f64 {
        self.entries.get(key).map_or(0.0, |entry| {
            (entry.count - entry.error).max(0.0) * (1.0 - LEFT)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_is_found_among_thousands_in_bounded_memory() {
        let mut list = TopList::new(64);
        for round in 0..20_000_u32 {
            list.hit(&format!("t{}", round % 5_000));
            if round % 10 == 0 {
                list.hit(&"noisy".to_owned());
            }
        }
        assert_eq!(list.entries.len(), 64);
        assert_eq!(list.first(1)[0].0, "noisy");
    }

    #[test]
    fn counts_at_a_steady_pace_become_the_rate() {
        let mut list = TopList::new(4);
        for _ in 0..200 {
            list.fade();
            for _ in 0..50 {
                list.hit(&"a");
            }
        }
        assert!((list.rate(&"a") - 50.0).abs() < 1.0, "{}", list.rate(&"a"));
        for _ in 0..200 {
            list.fade();
        }
        assert!(list.first(1).is_empty());
    }
}
