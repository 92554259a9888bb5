//! Holds what the targets noted against what was sent, cell by cell.

use super::super::workers::Update;
use super::super::workers::stream::Seen;
use super::cell::{Cell, Kind};
use super::stage::Side;
use super::timetable::{Entry, Phase};
use crate::faulty::{Ending, Note};
use ackline_shared::subjects::Pool;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;

/// What timed out may not be sent again for so long.
const NOT_AGAIN: Duration = Duration::from_secs(60);
/// A request whose answer was lost sooner did not time out.
const TIMED_OUT: Duration = Duration::from_secs(1);
/// A delivery at a healthy target that took longer than this is late.
const LATE: Duration = Duration::from_secs(1);
/// What stands for the wait of what never arrived.
const NEVER: Duration = Duration::from_secs(3_600);
/// How a send begins whose answer was lost: it is not made again, by promise, and stands in the dead letters.
const UNCONFIRMED: &str = "Meta's answer was lost";

/// What became of one cell.
#[derive(Debug, Default, Clone)]
pub struct Account {
    pub updates: usize,
    pub dead: usize,
    /// Dead letters of unconfirmed sends.
    pub unconfirmed: usize,
    /// Neither delivered nor dead, and nobody has them.
    pub lost: usize,
    /// Neither delivered nor dead, and still somewhere.
    pub stuck: usize,
    /// Deliveries after one that was answered.
    pub doubled: usize,
    /// Deliveries after one whose answer was lost.
    pub doubled_lost_answers: usize,
    /// Deliveries before an earlier one of the same conversation.
    pub out_of_order: usize,
    /// Deliveries that waited for the end of the outage.
    pub waited: usize,
    /// From when the target could be asked again to the last of them.
    pub recovery: Option<Duration>,
    /// Waits of the healthy target while everything worked.
    pub calm: Vec<Duration>,
    /// Waits of the healthy target during the outage.
    pub beside: Vec<Duration>,
    /// Why dead letters were given up.
    pub reasons: BTreeMap<String, usize>,
}

impl Account {
    /// Deliveries at the healthy target during the outage that were late or never came.
    pub fn late(&self) -> usize {
        self.beside.iter().filter(|wait| **wait > LATE).count()
    }
}

/// What was seen of a run.
#[derive(Debug)]
pub struct Evidence<'e> {
    pub cells: &'e [Cell],
    pub entries: &'e [Entry],
    /// When the first phase began.
    pub start: Instant,
    /// When the targets worked again.
    pub mended: Instant,
    pub retry_after: Duration,
    /// What the failing targets noted, by cell.
    pub failing: Vec<Vec<Note>>,
    /// What the healthy targets noted.
    pub healthy: Vec<Note>,
    pub letters: Vec<Seen>,
}

/// Every target's deliveries by serial number, each by time.
type Deliveries = HashMap<(Side, u32), Vec<Note>>;

impl Evidence<'_> {
    /// Counts every cell; `is_held` tells whether something undelivered is still in the installation.
    pub fn count(&self, is_held: impl Fn(&Entry) -> bool) -> Vec<Account> {
        let deliveries = self.deliveries();
        let dead: HashSet<u32> = self.letters.iter().map(|letter| letter.serial).collect();
        let mut accounts = vec![Account::default(); self.cells.len()];
        for entry in self.entries {
            let (Some(cell), Some(account)) =
                (self.cells.get(entry.cell), accounts.get_mut(entry.cell))
            else {
                continue;
            };
            account.updates += 1;
            for &side in entry.sides {
                let serial = entry.update.serial;
                let notes = deliveries
                    .get(&(side, serial))
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                repeats(*cell, side, notes, account);
                let arrived = first(*cell, side, notes);
                if arrived.is_none() && !dead.contains(&serial) {
                    if is_held(entry) {
                        account.stuck += 1
                    } else {
                        account.lost += 1
                    }
                }
                if side == Side::Healthy {
                    let due = self.start + entry.due;
                    let wait = arrived.map_or(NEVER, |note| note.at.saturating_duration_since(due));
                    match entry.phase {
                        Phase::WarmUp => {}
                        Phase::Calm => account.calm.push(wait),
                        Phase::Outage => account.beside.push(wait),
                    }
                }
            }
        }
        self.count_letters(&mut accounts);
        self.count_order(&deliveries, &mut accounts);
        self.measure_recoveries(&deliveries, &mut accounts);
        accounts
    }

    /// The entries with a target that got nothing yet, dead letters left out.
    pub fn missing(&self) -> Vec<&Entry> {
        let deliveries = self.deliveries();
        let dead: HashSet<u32> = self.letters.iter().map(|letter| letter.serial).collect();
        let is_missing = |entry: &&Entry| {
            let Some(cell) = self.cells.get(entry.cell) else {
                return false;
            };
            let arrived = |side: Side| {
                let notes = deliveries.get(&(side, entry.update.serial));
                first(*cell, side, notes.map(Vec::as_slice).unwrap_or_default()).is_some()
            };
            !dead.contains(&entry.update.serial) && !entry.sides.iter().all(|&side| arrived(side))
        };
        self.entries.iter().filter(is_missing).collect()
    }

    fn deliveries(&self) -> Deliveries {
        let failing = self
            .failing
            .iter()
            .flatten()
            .map(|note| (Side::Failing, note));
        let healthy = self.healthy.iter().map(|note| (Side::Healthy, note));
        let mut deliveries: Deliveries = HashMap::new();
        for (side, note) in failing.chain(healthy) {
            if let Some(serial) = note.serial {
                deliveries.entry((side, serial)).or_default().push(*note);
            }
        }
        deliveries
            .values_mut()
            .for_each(|notes| notes.sort_by_key(|note| note.at));
        deliveries
    }

    fn count_letters(&self, accounts: &mut [Account]) {
        let cell_of: HashMap<u32, usize> = self
            .entries
            .iter()
            .map(|entry| (entry.update.serial, entry.cell))
            .collect();
        let mut counted: HashSet<(u32, Option<Pool>)> = HashSet::new();
        for letter in &self.letters {
            let account = cell_of
                .get(&letter.serial)
                .and_then(|&cell| accounts.get_mut(cell));
            let Some(account) = account.filter(|_| counted.insert((letter.serial, letter.pool)))
            else {
                continue;
            };
            let reason = letter.reason.as_deref().unwrap_or_default();
            if reason.starts_with(UNCONFIRMED) {
                account.unconfirmed += 1
            } else {
                account.dead += 1
            }
            let short: String = reason.chars().take(100).collect();
            *account.reasons.entry(short).or_default() += 1;
        }
    }

    fn count_order(&self, deliveries: &Deliveries, accounts: &mut [Account]) {
        // By conversation and target.
        let mut arrivals: HashMap<_, Vec<(Instant, u32)>> = HashMap::new();
        for entry in self.entries {
            let Some(cell) = self.cells.get(entry.cell) else {
                continue;
            };
            let Update {
                serial,
                person,
                second,
                ..
            } = entry.update;
            for &side in entry.sides {
                let notes = deliveries
                    .get(&(side, serial))
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                if let Some(note) = first(*cell, side, notes) {
                    let own = (entry.cell, second, person, side == Side::Healthy);
                    arrivals.entry(own).or_default().push((note.at, serial));
                }
            }
        }
        for ((cell, ..), mut own) in arrivals {
            own.sort_unstable();
            let mut last = 0;
            for (_, serial) in own {
                if serial < last
                    && let Some(account) = accounts.get_mut(cell)
                {
                    account.out_of_order += 1;
                }
                last = serial.max(last);
            }
        }
    }

    fn measure_recoveries(&self, deliveries: &Deliveries, accounts: &mut [Account]) {
        let asked_from: Vec<Instant> = self
            .failing
            .iter()
            .map(|notes| self.asked_from(notes))
            .collect();
        for entry in self.entries {
            if entry.phase != Phase::Outage || !entry.sides.contains(&Side::Failing) {
                continue;
            }
            let notes = deliveries
                .get(&(Side::Failing, entry.update.serial))
                .map(Vec::as_slice);
            let (Some(cell), Some(account), Some(&from)) = (
                self.cells.get(entry.cell),
                accounts.get_mut(entry.cell),
                asked_from.get(entry.cell),
            ) else {
                continue;
            };
            let Some(note) = first(*cell, Side::Failing, notes.unwrap_or_default()) else {
                continue;
            };
            if note.ended > self.mended {
                let took = note.ended.saturating_duration_since(from);
                account.waited += 1;
                account.recovery = Some(account.recovery.unwrap_or_default().max(took));
            }
        }
    }

    /// When a target that was asked so could be asked again after it was mended.
    fn asked_from(&self, notes: &[Note]) -> Instant {
        let before = notes.iter().filter(|note| note.at < self.mended);
        let free = before.map(|note| match note.ending {
            Ending::Lost if note.ended.duration_since(note.at) > TIMED_OUT => {
                note.ended + NOT_AGAIN
            }
            Ending::Answered(429) => note.ended + self.retry_after,
            _ => note.ended,
        });
        free.max().map_or(self.mended, |free| free.max(self.mended))
    }
}

/// Whether a request brought its update to where it belongs.
fn is_delivery(cell: Cell, side: Side, note: &Note) -> bool {
    // A bot's or an endpoint's word is its answer; what stands in the CRM or at Meta stands there.
    let by_answer = cell.is_at_least_once() || (cell.is_alone() && side == Side::Healthy);
    if by_answer {
        note.is_accepted()
    } else {
        note.is_done
    }
}

fn first(cell: Cell, side: Side, notes: &[Note]) -> Option<&Note> {
    notes.iter().find(|note| is_delivery(cell, side, note))
}

/// Counts deliveries after the first by what became of the ones before.
fn repeats(cell: Cell, side: Side, notes: &[Note], account: &mut Account) {
    let (mut delivered, mut lost) = (false, false);
    for note in notes {
        let is_lost = matches!(note.ending, Ending::Lost | Ending::Open);
        if !is_delivery(cell, side, note) && !is_lost {
            continue;
        }
        match (delivered, lost, cell.kind) {
            // A send is never made again once its answer was lost.
            (true, ..) | (_, true, Kind::Graph) => account.doubled += 1,
            (_, true, Kind::Relay | Kind::Endpoint) => account.doubled_lost_answers += 1,
            _ => {}
        }
        delivered |= is_delivery(cell, side, note);
        lost |= is_lost;
    }
}

#[cfg(test)]
mod tests;
