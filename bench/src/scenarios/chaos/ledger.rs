//! Holds what was done against what was given, pool by pool.

use super::super::statistics::Samples;
use super::super::workers::Held;
use super::super::workers::feed::PARTITIONS;
use super::super::workers::stream::Seen;
use super::Struck;
use crate::faulty::{Ending, Note};
use crate::load::tally::count;
use ackline_shared::subjects::Pool;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;

/// The pools that are held against what was given.
pub const JUDGED: [Pool; 4] = [Pool::Flows, Pool::Replies, Pool::Relay, Pool::Events];
/// How a dead letter begins of an unconfirmed send: it is not made again, by promise.
const UNCONFIRMED: &str = "Meta's answer was lost";

/// What became of one pool's updates.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Ledger {
    pub updates: usize,
    /// Neither done nor dead, and nobody has them.
    pub lost: usize,
    /// Neither done nor dead, and still somewhere.
    pub stuck: usize,
    pub dead: usize,
    /// Dead letters of unconfirmed sends.
    pub unconfirmed: usize,
    pub doubled: usize,
    /// Done again after an answer that was lost, or that a fault kept from being remembered.
    pub doubled_lost_answers: usize,
    /// Done after a later one of the same conversation.
    pub out_of_order: usize,
    /// Sends done after a later one whose answer was lost and that stand among the dead letters for that: a process
    /// that was frozen in the middle of a request finishes it when it goes on.
    pub late_lost_answers: usize,
}

impl Ledger {
    /// Adds another round or pool.
    pub fn add(&mut self, other: &Self) {
        self.updates += other.updates;
        self.lost += other.lost;
        self.stuck += other.stuck;
        self.dead += other.dead;
        self.unconfirmed += other.unconfirmed;
        self.doubled += other.doubled;
        self.doubled_lost_answers += other.doubled_lost_answers;
        self.out_of_order += other.out_of_order;
        self.late_lost_answers += other.late_lost_answers;
    }

    pub fn is_clean(&self) -> bool {
        let Self {
            lost,
            stuck,
            dead,
            doubled,
            out_of_order,
            ..
        } = *self;
        (lost, stuck, dead, doubled, out_of_order) == (0, 0, 0, 0, 0)
    }

    /// The figures, in the order of [`Ledger::HEAD`].
    pub fn row(&self) -> Vec<String> {
        let figures = [
            self.updates,
            self.dead,
            self.unconfirmed,
            self.lost,
            self.stuck,
            self.doubled,
            self.doubled_lost_answers,
            self.out_of_order,
            self.late_lost_answers,
        ];
        figures.map(|figure| figure.to_string()).into()
    }

    pub const HEAD: [&'static str; 9] = [
        "updates",
        "dead",
        "unconfirmed",
        "lost",
        "stuck",
        "doubled",
        "after lost answers",
        "out of order",
        "late after lost answers",
    ];
}

/// Something a pool did, or may have done, with an update.
#[derive(Debug, Clone, Copy)]
struct Deed {
    serial: u32,
    /// When it ended, where a target noted it.
    at: Option<Instant>,
    is_done: bool,
    /// Whether doing it again may be the fault's doing.
    is_excused: bool,
}

/// Something that was done after a later one of its conversation: when, and when that one was.
#[derive(Debug, Clone, Copy)]
struct Late {
    serial: u32,
    at: Option<Instant>,
    after: Option<Instant>,
}

/// What was seen of a round.
#[derive(Debug)]
pub struct Evidence {
    /// The updates, as they stand in the stream.
    pub given: Vec<Seen>,
    /// The commands that flows led to.
    pub commands: Vec<Seen>,
    pub letters: Vec<Seen>,
    /// What the targets of the other pools noted.
    pub notes: Vec<(Pool, Vec<Note>)>,
}

impl Evidence {
    /// Counts each of the judged pools.
    pub fn count(&self, struck: &[Struck], held: &Held) -> BTreeMap<Pool, Ledger> {
        JUDGED
            .into_iter()
            .map(|pool| {
                (
                    pool,
                    self.count_pool(pool, struck, |serial| held.has(pool, serial)),
                )
            })
            .collect()
    }

    fn count_pool(&self, pool: Pool, struck: &[Struck], is_held: impl Fn(u32) -> bool) -> Ledger {
        let mut ledger = Ledger {
            updates: self.given.len(),
            ..Ledger::default()
        };
        let buried = self.buried(pool);
        let deeds = self.deeds(pool, struck);
        for Late { serial, .. } in self.late(&deeds) {
            let is_unconfirmed = buried
                .get(&serial)
                .is_some_and(|reason| reason.starts_with(UNCONFIRMED));
            *(if is_unconfirmed {
                &mut ledger.late_lost_answers
            } else {
                &mut ledger.out_of_order
            }) += 1;
        }
        let mut before: HashMap<u32, (bool, bool)> = HashMap::new();
        for deed in deeds {
            let (was_done, was_excused) = before.entry(deed.serial).or_default();
            match (*was_done, *was_excused) {
                (true, false) => ledger.doubled += 1,
                (_, true) => ledger.doubled_lost_answers += 1,
                (false, false) => {}
            }
            *was_done |= deed.is_done;
            *was_excused |= deed.is_excused;
        }
        for reason in buried.values() {
            let is_unconfirmed = reason.starts_with(UNCONFIRMED);
            *(if is_unconfirmed {
                &mut ledger.unconfirmed
            } else {
                &mut ledger.dead
            }) += 1;
        }
        let before_it = if pool == Pool::Replies {
            self.buried(Pool::Flows)
        } else {
            HashMap::new()
        };
        for seen in &self.given {
            let serial = seen.serial;
            let is_done = before.get(&serial).is_some_and(|(is_done, _)| *is_done);
            if !is_done && !buried.contains_key(&serial) && !before_it.contains_key(&serial) {
                *(if is_held(serial) {
                    &mut ledger.stuck
                } else {
                    &mut ledger.lost
                }) += 1;
            }
        }
        ledger
    }

    /// What was done again without excuse: when it was done, by the fault before, and how much later again.
    pub fn doubles(&self, struck: &[Struck]) -> Vec<String> {
        let mut doubles = Vec::new();
        for pool in [Pool::Replies, Pool::Relay, Pool::Events] {
            let mut before: HashMap<u32, (Instant, bool)> = HashMap::new();
            for deed in self.deeds(pool, struck) {
                let Some(at) = deed.at else { continue };
                match before.get(&deed.serial) {
                    Some((first, false)) => {
                        let fault = struck.iter().rfind(|struck| struck.began <= *first);
                        let since = fault.map_or("before any fault".to_owned(), |struck| {
                            format!(
                                "{:.1} s after {}",
                                (*first - struck.began).as_secs_f64(),
                                struck.fault.words()
                            )
                        });
                        let later = at.saturating_duration_since(*first).as_secs_f64();
                        doubles.push(format!(
                            "{pool}: done {since}, and again {later:.1} s later"
                        ));
                    }
                    Some(_) => {}
                    None if deed.is_done || deed.is_excused => {
                        before.insert(deed.serial, (at, deed.is_excused));
                    }
                    None => {}
                }
            }
        }
        doubles
    }

    /// What was first done after a later one of its conversation.
    fn late(&self, deeds: &[Deed]) -> Vec<Late> {
        let place: HashMap<u32, (usize, &str)> = (0..)
            .zip(&self.given)
            .map(|(place, seen)| (seen.serial, (place, seen.conversation.as_str())))
            .collect();
        let mut done: HashSet<u32> = HashSet::new();
        let mut latest: HashMap<&str, (usize, Option<Instant>)> = HashMap::new();
        let mut late = Vec::new();
        for deed in deeds.iter().filter(|deed| deed.is_done) {
            let Some(&(own, conversation)) = place.get(&deed.serial) else {
                continue;
            };
            if !done.insert(deed.serial) {
                continue;
            }
            let (furthest, at) = latest.entry(conversation).or_insert((own, deed.at));
            if own >= *furthest {
                (*furthest, *at) = (own, deed.at);
            } else {
                late.push(Late {
                    serial: deed.serial,
                    at: deed.at,
                    after: *at,
                });
            }
        }
        late
    }

    /// What was done after a later one of its conversation: by which fault before, how much later, and whether it stands
    /// among the dead letters as an unconfirmed send.
    pub fn disorders(&self, struck: &[Struck]) -> Vec<String> {
        let mut disorders = Vec::new();
        for pool in JUDGED {
            let buried = self.buried(pool);
            for Late { serial, at, after } in self.late(&self.deeds(pool, struck)) {
                let later = at.zip(after).map_or_else(
                    || "at an unknown distance".to_owned(),
                    |(own, other)| {
                        format!(
                            "{:.2} s later",
                            own.saturating_duration_since(other).as_secs_f64()
                        )
                    },
                );
                let fault = at.and_then(|at| {
                    let fault = struck.iter().rfind(|struck| struck.began <= at)?;
                    let since = (at - fault.began).as_secs_f64();
                    Some(format!("{since:.1} s after {}", fault.fault.words()))
                });
                let fault = fault.unwrap_or_else(|| "before any fault".to_owned());
                let letter = buried.get(&serial).copied().unwrap_or("no dead letter");
                disorders.push(format!("{pool}: {serial}, {later}, {fault}; {letter}"));
            }
        }
        disorders
    }

    /// How many updates some pool has neither done nor given up.
    pub fn missing(&self) -> usize {
        JUDGED
            .into_iter()
            .map(|pool| {
                let ledger = self.count_pool(pool, &[], |_| true);
                ledger.stuck
            })
            .sum()
    }

    fn buried(&self, pool: Pool) -> HashMap<u32, &str> {
        let letters = self
            .letters
            .iter()
            .filter(|letter| letter.pool == Some(pool));
        letters
            .map(|letter| (letter.serial, letter.reason.as_deref().unwrap_or_default()))
            .collect()
    }

    /// What a pool did, by time.
    fn deeds(&self, pool: Pool, struck: &[Struck]) -> Vec<Deed> {
        if pool == Pool::Flows {
            let deed = |seen: &Seen| Deed {
                serial: seen.serial,
                at: None,
                is_done: true,
                is_excused: false,
            };
            return self.commands.iter().map(deed).collect();
        }
        let notes = self
            .notes
            .iter()
            .filter(|(own, _)| *own == pool)
            .flat_map(|(_, notes)| notes);
        let mut notes: Vec<&Note> = notes.collect();
        notes.sort_by_key(|note| note.at);
        // A send is never made again; what others ask again because nobody remembered the answer is theirs to tell.
        let may_repeat = pool != Pool::Replies;
        let deeds = notes.into_iter().filter_map(|note| {
            let is_lost = matches!(note.ending, Ending::Lost | Ending::Open);
            let is_done = if may_repeat {
                note.is_accepted()
            } else {
                note.is_done
            };
            let forgotten = is_done && struck.iter().any(|struck| struck.forgets(note.ended));
            (is_done || is_lost).then_some(Deed {
                serial: note.serial?,
                at: Some(note.ended),
                is_done,
                is_excused: may_repeat && (is_lost || forgotten),
            })
        });
        deeds.collect()
    }
}

impl Struck {
    /// Whether an answer that came at this time may not have been remembered.
    fn forgets(&self, at: Instant) -> bool {
        const BEFORE: Duration = Duration::from_secs(2);
        const AFTER: Duration = Duration::from_secs(5);
        self.is_unforeseen() && at + BEFORE > self.began && at < self.acted + AFTER
    }
}

/// The longest pause of any partition that began with a fault and in which something waited, by kind.
pub fn pauses(given: &[Seen], done: &[Seen], struck: &[Struck]) -> BTreeMap<super::Fault, Samples> {
    let came: HashMap<u32, &Seen> = given.iter().map(|seen| (seen.serial, seen)).collect();
    // When each was done, with when it had come.
    let mut times: Vec<Vec<(u64, u64)>> = vec![Vec::new(); usize::from(PARTITIONS)];
    for seen in done {
        let Some(came) = came.get(&seen.serial) else {
            continue;
        };
        let owner = times.get_mut(usize::from(came.partition));
        owner
            .into_iter()
            .for_each(|times| times.push((seen.at_ms, came.at_ms)));
    }
    times.iter_mut().for_each(|times| times.sort_unstable());
    let mut pauses: BTreeMap<super::Fault, Samples> = BTreeMap::new();
    for &Struck {
        at_ms: at, fault, ..
    } in struck
    {
        let gaps = times.iter().flat_map(|times| times.windows(2));
        let of_this_fault = gaps.filter_map(|gap| match gap {
            [(from, _), (to, came)]
                if (at.saturating_sub(1_000)..at + 1_500).contains(from) && *to > at =>
            {
                Some(to.saturating_sub(*from.max(came).max(&at)))
            }
            _ => None,
        });
        if let Some(longest) = of_this_fault.max() {
            pauses
                .entry(fault)
                .or_default()
                .push(count(longest) / 1_000.0);
        }
    }
    pauses
}

#[cfg(test)]
mod tests {
    use super::super::Fault;
    use super::*;

    fn seen(serial: u32, at_ms: u64) -> Seen {
        Seen {
            serial,
            conversation: "a".into(),
            partition: 0,
            at_ms,
            pool: None,
            reason: None,
        }
    }

    fn struck(fault: Fault, began: Instant) -> Struck {
        Struck {
            fault,
            at_ms: 10_000,
            began,
            acted: began,
        }
    }

    fn note(serial: u32, at: Instant) -> Note {
        Note {
            serial: Some(serial),
            part: None,
            at,
            ended: at,
            ending: Ending::Answered(200),
            is_done: true,
        }
    }

    #[test]
    fn what_is_missing_twice_or_swapped_is_counted_and_a_dead_letter_is_not_lost() {
        let letter = Seen {
            pool: Some(Pool::Flows),
            reason: Some("gave up".into()),
            ..seen(3, 0)
        };
        let evidence = Evidence {
            given: (0..5).map(|serial| seen(serial, 0)).collect(),
            commands: [1, 0, 1, 2].map(|serial| seen(serial, 0)).into(),
            letters: vec![letter],
            notes: vec![],
        };
        let ledger = evidence.count_pool(Pool::Flows, &[], |_| false);
        let expected = Ledger {
            updates: 5,
            lost: 1,
            dead: 1,
            doubled: 1,
            out_of_order: 1,
            ..Ledger::default()
        };
        assert_eq!(ledger, expected);
        assert_eq!(evidence.count_pool(Pool::Flows, &[], |_| true).stuck, 1);
        assert_eq!(evidence.count_pool(Pool::Replies, &[], |_| false).lost, 4);
    }

    #[test]
    fn a_repeat_is_excused_by_a_kill_and_never_of_a_send() {
        let at = Instant::now() + Duration::from_secs(60);
        let later = at + Duration::from_secs(20);
        let notes = vec![note(0, at), note(0, later)];
        let evidence = |pool| Evidence {
            given: vec![seen(0, 0)],
            commands: vec![],
            letters: vec![],
            notes: vec![(pool, notes.clone())],
        };
        let doubled = |pool, struck: &[Struck]| {
            let ledger = evidence(pool).count_pool(pool, struck, |_| false);
            (ledger.doubled, ledger.doubled_lost_answers)
        };
        assert_eq!(doubled(Pool::Relay, &[struck(Fault::Kill, at)]), (0, 1));
        assert_eq!(
            doubled(Pool::Relay, &[struck(Fault::Terminate, at)]),
            (1, 0)
        );
        assert_eq!(doubled(Pool::Relay, &[]), (1, 0));
        assert_eq!(doubled(Pool::Replies, &[struck(Fault::Kill, at)]), (1, 0));
    }

    #[test]
    fn a_send_that_came_late_after_its_answer_was_lost_is_told_from_one_out_of_order() {
        let at = Instant::now() + Duration::from_secs(60);
        let letter = |reason: &str| Seen {
            pool: Some(Pool::Replies),
            reason: Some(reason.to_owned()),
            ..seen(0, 0)
        };
        let ledger = |letters: Vec<Seen>| {
            let evidence = Evidence {
                given: vec![seen(0, 0), seen(1, 0)],
                commands: vec![],
                letters,
                notes: vec![(
                    Pool::Replies,
                    vec![note(1, at), note(0, at + Duration::from_secs(4))],
                )],
            };
            let ledger = evidence.count_pool(Pool::Replies, &[], |_| false);
            (ledger.out_of_order, ledger.late_lost_answers)
        };
        assert_eq!(ledger(vec![]), (1, 0));
        assert_eq!(ledger(vec![letter("gave up")]), (1, 0));
        assert_eq!(ledger(vec![letter("Meta's answer was lost: …")]), (0, 1));
    }

    #[test]
    fn a_pause_counts_while_something_waits_and_only_when_it_begins_with_a_fault() {
        let given: Vec<_> = (0..5)
            .map(|serial| seen(serial, if serial == 2 { 11_000 } else { 0 }))
            .collect();
        let at = [1_000, 9_900, 13_000, 13_100, 60_000];
        let done: Vec<_> = (0..5)
            .zip(at)
            .map(|(serial, at)| seen(serial, at))
            .collect();
        let pauses = pauses(&given, &done, &[struck(Fault::Kill, Instant::now())]);
        assert!((pauses[&Fault::Kill].max() - 2.0).abs() < 1e-9);
    }
}
