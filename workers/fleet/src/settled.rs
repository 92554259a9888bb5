//! Which consumers need no look: everything was finished when their stream ended where it still ends.

use super::lag::Watched;
use ackline_shared::subjects::{Partition, Pool};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// A consumer is looked at after this time all the same: somebody may have set it back.
const BELIEVED_FOR: Duration = Duration::from_secs(300);

/// What is known from earlier looks.
#[derive(Debug, Default)]
pub struct Settled {
    connects: u64,
    ends: BTreeMap<&'static str, u64>,
    known: BTreeMap<(Pool, &'static str, Partition), Known>,
}

#[derive(Debug)]
struct Known {
    /// Where the stream ended before the look.
    end: u64,
    at: Instant,
}

impl Settled {
    /// Begins a round of looks, with the last sequence of each stream as it was asked before it. A server that went
    /// away may have forgotten what was acknowledged.
    pub fn begin(&mut self, connects: u64, ends: BTreeMap<&'static str, u64>) {
        if self.connects != connects {
            self.known.clear();
        }
        (self.connects, self.ends) = (connects, ends);
    }

    /// Notes how many messages of a consumer a look found unfinished.
    pub fn note(&mut self, lane: &Watched, partition: Partition, unfinished: u64) {
        let key = (lane.pool, lane.lane.name, partition);
        match self.ends.get(lane.lane.stream) {
            Some(end) if unfinished == 0 => {
                self.known.insert(
                    key,
                    Known {
                        end: *end,
                        at: Instant::now(),
                    },
                );
            }
            _ => {
                self.known.remove(&key);
            }
        }
    }

    /// Whether a consumer still has nothing to finish.
    pub fn holds(&self, lane: &Watched, partition: Partition) -> bool {
        let known = self.known.get(&(lane.pool, lane.lane.name, partition));
        known.is_some_and(|known| {
            self.ends.get(lane.lane.stream) == Some(&known.end) && known.at.elapsed() < BELIEVED_FOR
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_runtime::job::LaneSource;
    use ackline_shared::subjects::UPDATES;

    const PARTITION: Partition = Partition(3);

    fn lane() -> Watched {
        let lane = LaneSource {
            name: "msg",
            stream: UPDATES,
            filters: |_| vec![],
            weight: 1,
        };
        Watched {
            pool: Pool::Relay,
            lane,
            partitions: 4,
        }
    }

    fn settled() -> Settled {
        let mut settled = Settled::default();
        settled.begin(1, BTreeMap::from([(UPDATES, 7)]));
        settled.note(&lane(), PARTITION, 0);
        settled
    }

    #[tokio::test(start_paused = true)]
    async fn a_finished_consumer_is_let_be_until_its_stream_grows_or_time_passes() {
        let mut settled = settled();
        assert!(settled.holds(&lane(), PARTITION) && !settled.holds(&lane(), Partition(4)));
        settled.begin(1, BTreeMap::from([(UPDATES, 7)]));
        assert!(settled.holds(&lane(), PARTITION));
        tokio::time::advance(BELIEVED_FOR).await;
        assert!(!settled.holds(&lane(), PARTITION));
        settled.note(&lane(), PARTITION, 0);
        assert!(settled.holds(&lane(), PARTITION));
        settled.begin(1, BTreeMap::from([(UPDATES, 8)]));
        assert!(!settled.holds(&lane(), PARTITION));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_known_of_what_is_unfinished_or_after_the_server_was_away() {
        let mut unfinished = settled();
        unfinished.note(&lane(), PARTITION, 1);
        assert!(!unfinished.holds(&lane(), PARTITION));
        let mut away = settled();
        away.begin(2, BTreeMap::from([(UPDATES, 7)]));
        assert!(!away.holds(&lane(), PARTITION));
        let mut silent = settled();
        silent.begin(1, BTreeMap::new());
        assert!(!silent.holds(&lane(), PARTITION));
        silent.note(&lane(), PARTITION, 0);
        assert!(!silent.holds(&lane(), PARTITION));
    }
}
