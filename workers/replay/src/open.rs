//! How many dead letters are open, by pool, and since when: each letter is looked at once, then what is new.
//!
//! A letter's pool, time and reason never change, so they are kept in a few bytes a letter; what is settled is read
//! again only when the books changed. While nothing happens a look costs two small requests. One process looks, the
//! first by name of those that speak, and its status tells all others.

use super::letter::Letter;
use super::letters::{DeadLettersError, HEADERS_PULL};
use super::scan::{Scan, Stretch};
use super::settled::Settled;
use ackline_fleet::board::Board;
use ackline_runtime::dead_class::DeadClass;
use ackline_runtime::status::dead::OpenDead;
use ackline_shared::clock::now_ms;
use ackline_shared::shutdown::{Shutdown, ended};
use ackline_shared::subjects::{DEAD, Pool, dead_filter};
use async_nats::jetstream::kv::Store;
use async_nats::jetstream::{Context, Message};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How often the letters are looked at.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// Longest look; the next one goes on where it ended.
const LOOK_WAIT: Duration = Duration::from_secs(60);
/// Letters that are kept in mind, the newest; older ones are not counted.
const LETTERS_MAX: u64 = 500_000;
const HOUR_MS: u64 = 3_600_000;

/// Looks until the signal, and tells the board, while this process is the first of those that speak.
pub async fn follow(
    context: Context,
    replays: Store,
    board: Board,
    interval: Duration,
    mut shutdown: Shutdown,
) {
    let rounds = async {
        let mut letters = OpenLetters::new(context.clone(), replays.clone());
        loop {
            sleep(interval).await;
            if !board.is_first() {
                letters = OpenLetters::new(context.clone(), replays.clone());
                board.report_dead(None);
                continue;
            }
            match timeout(LOOK_WAIT, letters.look()).await {
                Ok(Ok(())) => board.report_dead(Some(letters.open(now_ms()))),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "the open dead letters cannot be counted")
                }
                Err(_) => tracing::debug!("the open dead letters are not counted yet"),
            }
        }
    };
    tokio::select! {
        () = ended(&mut shutdown) => {}
        () = rounds => {}
    }
}

/// The letters that are kept, and which of them are settled.
#[derive(Debug)]
pub struct OpenLetters {
    context: Context,
    replays: Store,
    known: Known,
    /// The books' last change that was read.
    books: Option<u64>,
}

impl OpenLetters {
    /// Knows of nothing yet.
    pub fn new(context: Context, replays: Store) -> Self {
        Self {
            context,
            replays,
            known: Known::default(),
            books: None,
        }
    }

    /// Takes in what changed since the last look.
    pub async fn look(&mut self) -> Result<(), DeadLettersError> {
        let stream = self
            .context
            .get_stream(DEAD)
            .await
            .map_err(DeadLettersError::books)?;
        let state = &stream.cached_info().state;
        let (first, last) = (state.first_sequence.max(1), state.last_sequence);
        self.known.forget_before(first);
        self.read_until(first, last).await?;
        // Letters that somebody took out of the middle are found by their number.
        if !self.known.misses && self.known.present() > state.messages {
            self.known = Known::default();
            self.read_until(first, last).await?;
        }
        let books = self
            .replays
            .stream
            .get_info()
            .await
            .map_err(DeadLettersError::books)?
            .state
            .last_sequence;
        if self.books != Some(books) {
            let mut settled = Settled::new(self.replays.clone());
            self.known.settled = settled.runs(self.known.first, last).await?;
            self.books = Some(books);
        }
        Ok(())
    }

    /// The open ones of every pool.
    pub fn open(&self, now_ms: u64) -> Vec<OpenDead> {
        self.known.open(now_ms)
    }

    async fn read_until(&mut self, first: u64, last: u64) -> Result<(), DeadLettersError> {
        let oldest = (last + 1).saturating_sub(LETTERS_MAX);
        if oldest > first {
            self.known.forget_before(oldest);
            self.known.misses = true;
        }
        let from = self.known.next().max(first).max(oldest);
        if from > last {
            return Ok(());
        }
        let stretch = Stretch {
            stream: DEAD,
            filters: vec![dead_filter(None, None)],
            from,
            from_ms: None,
            until: last,
            headers_only: true,
        };
        let mut scan = Scan::open(&self.context, stretch).await?;
        loop {
            let messages = scan.next(HEADERS_PULL).await?;
            if messages.is_empty() {
                self.known.reach(last);
                return Ok(());
            }
            for (sequence, message) in &messages {
                let letter = message
                    .headers
                    .as_ref()
                    .and_then(|headers| Letter::read(*sequence, &message.subject, headers));
                self.known.add(
                    *sequence,
                    letter.map(|letter| OpenLetter::of(&letter, message)),
                );
            }
        }
    }
}

/// What is kept in mind of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OpenLetter {
    pool: Pool,
    class: DeadClass,
    /// When it was given up, in unix seconds.
    at_s: u32,
}

impl OpenLetter {
    fn of(letter: &Letter, message: &Message) -> Self {
        let stored = || {
            message
                .info()
                .map_or(0, |info| info.published.unix_timestamp())
        };
        let at_s = letter.at_ms.map_or_else(
            || u64::try_from(stored()).unwrap_or_default(),
            |ms| ms / 1000,
        );
        let at_s = u32::try_from(at_s).unwrap_or(u32::MAX);
        Self {
            pool: letter.pool,
            class: DeadClass::of(&letter.reason),
            at_s,
        }
    }

    fn at_ms(self) -> u64 {
        u64::from(self.at_s) * 1000
    }
}

/// A place in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreamSlot {
    /// There is no message, or none any more.
    Empty,
    /// There is one that is no letter.
    Foreign,
    Letter(OpenLetter),
}

/// The letters by their places, without gaps; pure.
#[derive(Debug, Default)]
struct Known {
    /// The sequence of the first place.
    first: u64,
    places: VecDeque<StreamSlot>,
    /// The settled sequences, from and to, both included, ascending.
    settled: Vec<(u64, u64)>,
    /// Whether there may be letters before the first place.
    misses: bool,
}

impl Known {
    fn next(&self) -> u64 {
        self.first + u64::try_from(self.places.len()).unwrap_or(u64::MAX)
    }

    fn add(&mut self, sequence: u64, entry: Option<OpenLetter>) {
        if self.places.is_empty() {
            self.first = sequence;
        }
        self.reach(sequence.saturating_sub(1));
        if sequence == self.next() {
            self.places
                .push_back(entry.map_or(StreamSlot::Foreign, StreamSlot::Letter));
        }
    }

    /// Nothing more comes up to and including a sequence.
    fn reach(&mut self, last: u64) {
        if self.places.is_empty() {
            self.first = last + 1;
            return;
        }
        // Not more at once than can be there: what is older has been forgotten before.
        let missing = (last + 1).saturating_sub(self.next()).min(LETTERS_MAX);
        (0..missing).for_each(|_| self.places.push_back(StreamSlot::Empty));
    }

    fn forget_before(&mut self, first: u64) {
        while self.first < first && self.places.pop_front().is_some() {
            self.first += 1;
        }
        self.first = self.first.max(first);
    }

    fn present(&self) -> u64 {
        let present = self
            .places
            .iter()
            .filter(|place| **place != StreamSlot::Empty)
            .count();
        u64::try_from(present).unwrap_or(u64::MAX)
    }

    fn open(&self, now_ms: u64) -> Vec<OpenDead> {
        let mut sums = Pool::ALL.map(|pool| {
            let dead = OpenDead {
                pool: pool.as_str().to_owned(),
                more: self.misses,
                ..OpenDead::default()
            };
            (pool, dead)
        });
        let mut settled = self.settled.iter().peekable();
        for (sequence, place) in (self.first..).zip(&self.places) {
            while settled.next_if(|(_, to)| *to < sequence).is_some() {}
            let is_settled = settled.peek().is_some_and(|(from, _)| *from <= sequence);
            let (StreamSlot::Letter(entry), false) = (place, is_settled) else {
                continue;
            };
            let Some((_, sum)) = sums.iter_mut().find(|(pool, _)| *pool == entry.pool) else {
                continue;
            };
            let age = now_ms.saturating_sub(entry.at_ms());
            sum.open += 1;
            sum.last_hour += u64::from(age < HOUR_MS);
            sum.oldest_ms = sum.oldest_ms.max(Some(age));
            *sum.reasons.entry(entry.class).or_default() += 1;
        }
        sums.into_iter().map(|(_, sum)| sum).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(pool: Pool, at_s: u32) -> Option<OpenLetter> {
        Some(OpenLetter {
            pool,
            class: DeadClass::Refused,
            at_s,
        })
    }

    fn of(known: &Known, pool: Pool, now_s: u64) -> OpenDead {
        let open = known.open(now_s * 1000);
        open.into_iter()
            .find(|dead| dead.pool == pool.as_str())
            .unwrap()
    }

    #[test]
    fn only_what_is_not_settled_counts_with_its_age() {
        let mut known = Known::default();
        for (sequence, pool, at_s) in [
            (5, Pool::Relay, 100),
            (6, Pool::Crm, 200),
            (7, Pool::Relay, 5_000),
            (9, Pool::Relay, 5_900),
        ] {
            known.add(sequence, entry(pool, at_s));
        }
        known.add(10, None);
        let relay = of(&known, Pool::Relay, 6_000);
        assert_eq!(
            (relay.open, relay.last_hour, relay.oldest_ms),
            (3, 2, Some(5_900_000))
        );
        assert_eq!(
            (relay.reasons_in_words().as_str(), relay.more),
            ("3 refused", false)
        );
        assert_eq!(of(&known, Pool::Flows, 6_000).open, 0);
        known.settled = vec![(1, 5), (7, 8)];
        let relay = of(&known, Pool::Relay, 6_000);
        assert_eq!(
            (relay.open, relay.last_hour, relay.oldest_ms),
            (1, 1, Some(100_000))
        );
        assert_eq!((of(&known, Pool::Crm, 6_000).open, known.present()), (1, 5));
        known.forget_before(9);
        assert_eq!(
            (
                known.present(),
                known.next(),
                of(&known, Pool::Crm, 6_000).open
            ),
            (2, 11, 0)
        );
    }

    proptest! {
        #[test]
        fn places_stay_in_step_with_sequences(steps in prop::collection::vec((0_u8..3, 1_u64..6), 0..80)) {
            let (mut known, mut model, mut last) = (Known::default(), std::collections::BTreeSet::new(), 0);
            for (step, by) in steps {
                match step {
                    0 => {
                        last += by;
                        known.add(last, entry(Pool::Relay, 1));
                        model.insert(last);
                    }
                    1 => {
                        last += by;
                        known.reach(last);
                    }
                    _ => {
                        let first = (known.first + by).min(last + 1);
                        known.forget_before(first);
                        model = model.split_off(&first);
                    }
                }
                prop_assert!(known.next() == last + 1 || last == 0);
                known.settled = model.iter().step_by(2).map(|sequence| (*sequence, *sequence)).collect();
                let expected = u64::try_from(model.len() / 2).unwrap();
                prop_assert_eq!(of(&known, Pool::Relay, 2).open, expected);
            }
        }
    }
}
