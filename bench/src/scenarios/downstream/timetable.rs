//! Who writes when: to every cell one message in each phase, to some a stream of them.

use super::super::workers::Update;
use super::cell::Cell;
use super::stage::Side;
use std::time::Duration;

/// Conversations of a cell that gets a stream of messages.
const PEOPLE: u32 = 25;
/// Numbers of people reserved for each cell.
const PEOPLE_OF_A_CELL: u32 = 100;
/// A single message comes so long after its phase began, in each cell a little later than in the one before.
const SINGLE_AFTER: Duration = Duration::from_millis(500);
const SINGLE_EVERY: Duration = Duration::from_millis(20);

/// A part of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Connections are made and caches filled.
    WarmUp,
    Calm,
    Outage,
}

/// How long the phases last, and how much comes in them.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub warm_up: Duration,
    pub calm: Duration,
    pub outage: Duration,
    /// Messages a second of a stream.
    pub per_second: u32,
}

impl Pace {
    /// When a phase begins and how long it lasts.
    pub fn phase(&self, phase: Phase) -> (Duration, Duration) {
        match phase {
            Phase::WarmUp => (Duration::ZERO, self.warm_up),
            Phase::Calm => (self.warm_up, self.calm),
            Phase::Outage => (self.warm_up + self.calm, self.outage),
        }
    }

    /// When the last phase ends.
    pub fn end(&self) -> Duration {
        self.warm_up + self.calm + self.outage
    }
}

/// A message and where it should arrive.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// When it is stored, from the start.
    pub due: Duration,
    pub update: Update,
    pub cell: usize,
    pub phase: Phase,
    /// The targets it is for.
    pub sides: &'static [Side],
}

/// Everything that is sent, by rising time.
pub fn timetable(cells: &[Cell], pace: &Pace) -> Vec<Entry> {
    let mut due: Vec<(Duration, usize, u32, Phase)> = Vec::new();
    for (number, cell) in cells.iter().enumerate() {
        for phase in [Phase::WarmUp, Phase::Calm, Phase::Outage] {
            let (begins, lasts) = pace.phase(phase);
            let nth = u32::try_from(number).unwrap_or(0);
            due.push((begins + SINGLE_AFTER + SINGLE_EVERY * nth, number, 0, phase));
            if cell.is_flooded {
                let count = (lasts * pace.per_second).as_secs();
                let at = |place: u64| begins + Duration::from_secs(place) / pace.per_second.max(1);
                due.extend((0..count).map(|place| {
                    (
                        at(place),
                        number,
                        1 + u32::try_from(place).unwrap_or(0) % PEOPLE,
                        phase,
                    )
                }));
            }
        }
    }
    due.sort_unstable();
    let mut entries = Vec::with_capacity(due.len());
    for (due, cell, person, phase) in due {
        let Some(&own) = cells.get(cell) else {
            continue;
        };
        let person = u32::try_from(cell).unwrap_or(0) * PEOPLE_OF_A_CELL + person;
        let mut add = |second: bool, sides: &'static [Side]| {
            let serial = u32::try_from(entries.len()).unwrap_or(u32::MAX);
            let update = Update {
                serial,
                tenant: cell,
                person,
                is_status: false,
                second,
            };
            entries.push(Entry {
                due,
                update,
                cell,
                phase,
                sides,
            });
        };
        if own.is_apart() {
            add(false, &[Side::Failing]);
            add(true, &[Side::Healthy]);
        } else {
            add(false, &[Side::Failing, Side::Healthy]);
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::super::cell::{Fault, Kind};
    use super::*;

    #[test]
    fn a_cell_gets_one_message_in_each_phase_and_a_number_beside_it_its_own() {
        let second = Duration::from_secs(1);
        let pace = Pace {
            warm_up: second,
            calm: second,
            outage: 2 * second,
            per_second: 50,
        };
        let cell = |kind, is_flooded| Cell {
            kind,
            fault: Fault::Hang,
            is_flooded,
        };
        let entries = timetable(
            &[
                cell(Kind::Relay, false),
                cell(Kind::Graph, false),
                cell(Kind::Crm, true),
            ],
            &pace,
        );
        let of = |cell| {
            entries
                .iter()
                .filter(|entry| entry.cell == cell)
                .collect::<Vec<_>>()
        };
        assert_eq!((of(0).len(), of(1).len(), of(2).len()), (3, 6, 3 + 200));
        assert!(
            of(1)
                .iter()
                .all(|entry| entry.update.second == (entry.sides == [Side::Healthy]))
        );
        assert!(entries.is_sorted_by_key(|entry| entry.due));
        assert!(
            entries
                .iter()
                .zip(0..)
                .all(|(entry, serial)| entry.update.serial == serial)
        );
        assert!(entries.iter().all(|entry| entry.due < pace.end()));
    }
}
